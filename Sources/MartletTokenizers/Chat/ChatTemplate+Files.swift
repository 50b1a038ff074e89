// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletFormats
import MartletTemplates

extension ChatTemplate {
  /// The template of a GGUF file: `tokenizer.chat_template`, and those that `tokenizer.chat_templates` names.
  ///
  /// - Parameter tokenizer: The file's own, for the texts of its special tokens.
  /// - Throws: ``TokenizerError/Code/noChatTemplate`` if there is none.
  public init(from file: GGUFFile, tokenizer: any Tokenizer) throws(TokenizerError) {
    var sources: [String: String] = [:]
    var tokens: [String: String] = [:]
    do {
      if let source = try file.string(ifPresent: "tokenizer.chat_template") { sources["default"] = source }
      if let names = try file.array(ifPresent: "tokenizer.chat_templates")?.strings() {
        for name in names.prefix(64) {
          if let source = try file.string(ifPresent: "tokenizer.chat_template.\(name)") { sources[name] = source }
        }
      }
      // "seperator" is how the format spells it.
      for (role, variable) in [("unknown", "unk_token"), ("seperator", "sep_token"), ("padding", "pad_token"), ("mask", "mask_token")] {
        guard let id = try file.integer(ifPresent: "tokenizer.ggml.\(role)_token_id"), (0..<tokenizer.vocabularySize).contains(id) else {
          continue
        }
        tokens[variable] = tokenizer.name(of: Int32(id))
      }
    } catch { throw .format(error) }
    guard !sources.isEmpty else { throw .noChatTemplate(known: Self.names) }
    let path = file.path
    try self.init(
      sources: sources, specialTokens: tokens.merging(tokenizer.templateTokens) { $1 },
      files: sources.reduce(into: [:]) { files, source in files[source.key] = path })
  }

  /// The template of a directory as the Hugging Face hub has it: `chat_template.jinja` with `additional_chat_templates/NAME.jinja`, or else
  /// `chat_template` of `tokenizer_config.json`, a program or a list of named ones, or else `chat_template.json`.
  init(directory: String, _ config: JSONField) throws(TokenizerError) {
    func source(_ path: String, _ name: String) throws(TokenizerError) -> String? {
      do { return try textFile(ifPresent: path).map { String(decoding: $0, as: UTF8.self) } } catch { throw .json(error, file: name) }
    }
    var sources = try Self.sources(of: config["chat_template"])
    var files = sources.mapValues { _ in "\(directory)/tokenizer_config.json" }
    if sources.isEmpty {
      let legacy: JSONValue?
      do { legacy = try JSONValue(ifPresent: "\(directory)/chat_template.json") } catch { throw .json(error, file: "chat_template.json") }
      sources = try Self.sources(of: JSONField("chat_template.json:", legacy)["chat_template"])
      files = sources.mapValues { _ in "\(directory)/chat_template.json" }
    }
    let path = "\(directory)/chat_template.jinja"
    if let program = try source(path, "chat_template.jinja") { (sources, files) = (["default": program], ["default": path]) }
    let folder = "additional_chat_templates"
    for file in fileNames(inDirectory: "\(directory)/\(folder)").sorted().prefix(64) where file.hasSuffix(".jinja") {
      let (name, path) = (String(file.dropLast(".jinja".count)), "\(directory)/\(folder)/\(file)")
      sources[name] = try source(path, "\(folder)/\(file)")
      files[name] = path
    }
    guard !sources.isEmpty else { throw .noChatTemplate(known: Self.names) }
    try self.init(sources: sources, specialTokens: try Self.specialTokens(of: config), files: files)
  }

  private static func sources(of field: JSONField) throws(TokenizerError) -> [String: String] {
    guard let value = field.value else { return [:] }
    guard value.kind == .array else { return ["default": try field.string()] }
    var sources: [String: String] = [:]
    for template in try field.fields() { sources[try template["name"].string()] = try template["template"].string() }
    return sources
  }

  /// Every `…_token` of `tokenizer_config.json`, a text or an object with a `content`, and the named ones of `extra_special_tokens`.
  private static func specialTokens(of config: JSONField) throws(TokenizerError) -> [String: String] {
    var tokens: [String: String] = [:]
    func add(_ members: JSONValue.Members) {
      for (key, value) in members {
        guard let name = key.string, let text = value.kind == .object ? value["content"]?.string : value.string else { continue }
        tokens[name] = text
      }
    }
    for key in ["extra_special_tokens", "model_specific_special_tokens"] {
      if let value = config[key].value, value.kind == .object { add(value.members) }
    }
    guard let root = config.value, root.kind == .object else { return tokens }
    for (key, value) in root.members {
      guard let name = key.string, name.hasSuffix("_token") else { continue }
      if let text = value.kind == .object ? value["content"]?.string : value.string { tokens[name] = text }
    }
    return tokens
  }
}

extension Tokenizer {
  /// The text of a token, a control token's name included.
  func name(of token: Int32) -> String { String(decoding: bytes(of: token, showsControlTokens: true), as: UTF8.self) }

  /// `bos_token` and `eos_token`, as far as the model has them: for ``ChatTemplate/specialTokens``.
  public var templateTokens: [String: String] {
    var tokens: [String: String] = [:]
    tokens["bos_token"] = bosToken.map { name(of: $0) }
    tokens["eos_token"] = eosToken.map { name(of: $0) }
    return tokens
  }
}
