// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletFormats

/// The tokenizer and the chat template of a directory as the Hugging Face hub has it.
///
/// Read are `tokenizer.json`, and where they exist `tokenizer_config.json` (further tokens, which of them begin and end a text, the chat template),
/// `added_tokens.json` and `special_tokens_map.json` (the same in older directories), `generation_config.json` or `config.json` (which tokens end
/// an answer) and `chat_template.jinja`.
public struct TokenizerFiles: Sendable {
  public let tokenizer: any Tokenizer
  /// An error if the directory has no template that this build renders.
  public let chatTemplate: Result<ChatTemplate, TokenizerError>

  /// - Throws: an error that names the file and the field.
  public init(directory: String) throws(TokenizerError) {
    func file(_ name: String) throws(TokenizerError) -> JSONValue? {
      do { return try JSONValue(ifPresent: "\(directory)/\(name)") } catch { throw .json(error, file: name) }
    }
    guard let main = try file("tokenizer.json") else { throw .noTokenizerFile(directory: directory) }
    let companions = Companions(
      tokenizerConfig: JSONField("tokenizer_config.json:", try file("tokenizer_config.json")),
      addedTokensFile: JSONField("added_tokens.json", try file("added_tokens.json")),
      specialTokensMap: JSONField("special_tokens_map.json:", try file("special_tokens_map.json")),
      generationConfig: JSONField("generation_config.json:", try file("generation_config.json")),
      config: JSONField("config.json:", try file("config.json")))
    tokenizer = try HuggingFaceTokenizer(main, companions)
    chatTemplate = Result { () throws(TokenizerError) in
      try ChatTemplate(directory: directory, companions.tokenizerConfig)
    }
  }
}

/// The tokenizer of a directory as the Hugging Face hub has it; ``TokenizerFiles`` gives its chat template too.
public func makeTokenizer(directory: String) throws(TokenizerError) -> any Tokenizer { try TokenizerFiles(directory: directory).tokenizer }

/// The tokenizer of the text of a `tokenizer.json` alone, whose `post_processor` then says which token begins a text. The bytes are not needed
/// afterwards, and nothing outside them is read.
public func makeTokenizer(tokenizerJSON text: RawSpan) throws(TokenizerError) -> any Tokenizer {
  let value: JSONValue
  do { value = try JSONValue(parsing: text) } catch { throw .json(error, file: "tokenizer.json") }
  return try HuggingFaceTokenizer(value, Companions())
}

/// The same for a buffer of exactly the text's size: what a fuzzer calls.
package func parseTokenizerJSON(_ bytes: UnsafeRawBufferPointer) throws(TokenizerError) -> any Tokenizer {
  try makeTokenizer(tokenizerJSON: bytes.bytes)
}

/// What the files beside a `tokenizer.json` say.
struct Companions {
  var tokenizerConfig = JSONField("tokenizer_config.json:", nil)
  var addedTokensFile = JSONField("added_tokens.json", nil)
  var specialTokensMap = JSONField("special_tokens_map.json:", nil)
  var generationConfig = JSONField("generation_config.json:", nil)
  var config = JSONField("config.json:", nil)

  /// - Parameter field: `post_processor`.
  func specialTokens(_ field: JSONField, _ tokens: TokenList) throws(TokenizerError) -> SpecialTokens {
    let leading = try leadingToken(field, tokens)
    let named = try token("bos_token", tokens)
    // The template is what the package does; the flag counts only where there is none.
    let adds = Self.hasTemplate(field) ? nil : try tokenizerConfig["add_bos_token"].boolIfPresent()
    let bos = leading ?? named
    if adds == true && bos == nil { throw tokenizerConfig["add_bos_token"].malformed("is true, but there is no bos_token") }
    let eos = try token("eos_token", tokens)
    let ends = try ends(tokens)
    let addsBOS = adds ?? (leading != nil)
    var frame = try Self.frame(field, tokens)
    if adds != nil {
      frame = TextFrame(
        before: addsBOS ? bos.map { [$0] } ?? [] : [],
        after: try tokenizerConfig["add_eos_token"].boolIfPresent() == true ? eos.map { [$0] } ?? [] : [])
    }
    return SpecialTokens(
      bos: bos, eos: eos ?? ends.first, unknown: nil, ends: ends, addsBOS: addsBOS, frame: frame, tokens.vocabulary)
  }

  /// A token that `tokenizer_config.json` or `special_tokens_map.json` names.
  private func token(_ key: String, _ tokens: TokenList) throws(TokenizerError) -> Int32? {
    let field = named(key)
    guard let text = try Self.content(field), !text.isEmpty else { return nil }
    guard let token = tokens.token(text) else { throw field.malformed("is \"\(text)\", which tokenizer.json does not have") }
    return token
  }

  /// Where a token has its name. The map counts in directories from before `added_tokens_decoder`, there before the config.
  private func named(_ key: String) -> JSONField {
    let mapped = specialTokensMap[key]
    return tokenizerConfig["added_tokens_decoder"].value == nil && mapped.value != nil ? mapped : tokenizerConfig[key]
  }

  /// A token's text: a string, or an object with a `content`.
  private static func content(_ field: JSONField) throws(TokenizerError) -> String? {
    guard let value = field.value else { return nil }
    return value.kind == .object ? try field["content"].string() : try field.string()
  }

  /// The names of all control tokens that have a part to play.
  func namedTokens() throws(TokenizerError) -> Set<[UInt8]> {
    var names: Set<[UInt8]> = []
    for role in ["bos", "eos", "unk", "sep", "pad", "cls", "mask"] {
      if let text = try Self.content(named("\(role)_token")), !text.isEmpty { names.insert(Array(text.utf8)) }
    }
    for key in ["additional_special_tokens", "extra_special_tokens"] {
      let field = named(key)
      // Newer files may have an object of a model's own roles instead.
      guard field.value?.kind == .array else { continue }
      for one in try field.fields() {
        if let text = try Self.content(one), !text.isEmpty { names.insert(Array(text.utf8)) }
      }
    }
    return names
  }

  /// The tokens of `added_tokens_decoder`, or in older directories of `added_tokens.json`, in the order of their ids there.
  func addedTokens() throws(TokenizerError) -> [AddedToken] {
    var tokens: [AddedToken] = []
    let decoder = tokenizerConfig["added_tokens_decoder"]
    if decoder.value != nil {
      for (key, value) in try decoder.object() {
        let field = JSONField("\(decoder.name)[\(JSONField.shown(key))]", value)
        guard let id = key.string.flatMap({ Int32($0) }), id >= 0 else { throw field.malformed("has no id for its key") }
        tokens.append(try AddedToken(field, id: id))
      }
    } else if addedTokensFile.value != nil {
      let named = try namedTokens()
      for (key, value) in try addedTokensFile.object() {
        let name = "\(addedTokensFile.name)[\(JSONField.shown(key))]"
        guard let id = value.integer.flatMap({ Int32(exactly: $0) }), id >= 0, let content = key.withStringBytes({ Array($0) }),
          !content.isEmpty, content.count <= 1024
        else { throw .malformed(field: name, problem: "is \(JSONField.shown(value)), not the id of a token") }
        var token = AddedToken(id: id, special: content)
        token.isSpecial = named.contains(content)
        token.isNormalized = !token.isSpecial
        tokens.append(token)
      }
    }
    return tokens.sorted { $0.id < $1.id }
  }

  /// `eos_token_id` of `generation_config.json`, or else of `config.json`: one, or a list.
  private func ends(_ tokens: TokenList) throws(TokenizerError) -> [Int32] {
    let generation = generationConfig["eos_token_id"]
    let field = generation.value == nil ? config["eos_token_id"] : generation
    guard let value = field.value else { return [] }
    var ends: [Int32] = []
    for one in value.kind == .array ? try field.fields() : [field] {
      let id = try one.integer()
      guard id >= 0, id <= Int32.max else { throw one.malformed("is \(id), which is no token") }
      // A model may have more rows than its tokenizer has tokens.
      if id < tokens.vocabulary.count { ends.append(Int32(id)) }
    }
    return ends
  }

  private static func hasTemplate(_ field: JSONField) -> Bool {
    let parts = (try? field.sequence("processors")) ?? []
    return parts.contains { field in templates.contains { $0 == field["type"].value?.string } }
  }

  /// Processors that say what is put around a text: by a template, or by a pair of tokens.
  private static let templates = ["TemplateProcessing", "BertProcessing", "RobertaProcessing"]
  private static let supported = templates + ["ByteLevel", "Sequence"]

  /// What the template puts around a text.
  private static func frame(_ field: JSONField, _ tokens: TokenList) throws(TokenizerError) -> TextFrame {
    var frame = TextFrame()
    for part in try field.sequence("processors") {
      let type = try part["type"].string()
      if type == "ByteLevel" { continue }
      guard type == "TemplateProcessing" else {
        frame.before.insert(try pairToken(part["cls"], tokens), at: 0)
        frame.after.append(try pairToken(part["sep"], tokens))
        continue
      }
      // Templates that follow each other put theirs around what the ones before them have put.
      var (before, after, isAfter): ([Int32], [Int32], Bool) = ([], [], false)
      for step in try part["single"].fields() {
        if step["Sequence"].value != nil {
          guard !isAfter else { throw step.unsupported("a text twice", supported: ["one text"]) }
          isAfter = true
          continue
        }
        let ids = try templateTokens(step, part, tokens)
        if isAfter { after += ids } else { before += ids }
      }
      guard isAfter else { throw part["single"].malformed("has no text") }
      frame = TextFrame(before: before + frame.before, after: frame.after + after)
    }
    return frame
  }

  /// `["[CLS]", 101]`
  private static func pairToken(_ field: JSONField, _ tokens: TokenList) throws(TokenizerError) -> Int32 {
    let parts = try field.fields()
    guard parts.count == 2, let last = parts.last else { throw field.malformed("is no token and its id") }
    let id = try last.integer()
    guard id >= 0, id < tokens.vocabulary.count else { throw last.malformed("is \(id) of \(tokens.vocabulary.count) tokens") }
    return Int32(id)
  }

  /// The tokens that a step of a template names.
  private static func templateTokens(_ step: JSONField, _ part: JSONField, _ tokens: TokenList) throws(TokenizerError) -> [Int32] {
    let id = try step["SpecialToken"]["id"].string()
    let ids = part["special_tokens"][id]["ids"]
    guard ids.value != nil else {
      guard let token = tokens.token(id) else { throw step["SpecialToken"]["id"].malformed("is \"\(id)\", which is no token") }
      return [token]
    }
    var result: [Int32] = []
    for one in try ids.fields() {
      let id = try one.integer()
      guard id >= 0, id < tokens.vocabulary.count else { throw one.malformed("is \(id) of \(tokens.vocabulary.count) tokens") }
      result.append(Int32(id))
    }
    return result
  }

  /// The token that the template puts before a text. What it puts behind one is for texts that are not continued (``frame``), and left out of prompts.
  private func leadingToken(_ field: JSONField, _ tokens: TokenList) throws(TokenizerError) -> Int32? {
    var leading: Int32?
    for part in try field.sequence("processors") {
      let type = try part["type"].string()
      if type == "ByteLevel" { continue }
      guard Self.templates.contains(type) else { throw part["type"].unsupported(type, supported: Self.supported) }
      if type != "TemplateProcessing" {
        leading = try Self.pairToken(part["cls"], tokens)
        continue
      }
      for step in try part["single"].fields() {
        if step["Sequence"].value != nil { break }
        let id = try step["SpecialToken"]["id"].string()
        guard leading == nil else { throw step.unsupported(id, supported: ["one token before a text"]) }
        let ids = try Self.templateTokens(step, part, tokens)
        guard ids.count == 1, let first = ids.first else {
          throw part["special_tokens"][id]["ids"].unsupported("\(ids.count) tokens", supported: ["one"])
        }
        leading = first
      }
    }
    return leading
  }
}
