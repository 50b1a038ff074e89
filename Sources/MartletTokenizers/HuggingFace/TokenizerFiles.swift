// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletFormats

/// The tokenizer and the chat template of a directory as the Hugging Face hub has it.
///
/// Read are `tokenizer.json`, and where they exist `tokenizer_config.json` (which tokens begin and end a text, the chat template),
/// `generation_config.json` or `config.json` (which tokens end an answer) and `chat_template.jinja`.
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
  var generationConfig = JSONField("generation_config.json:", nil)
  var config = JSONField("config.json:", nil)

  /// - Parameter field: `post_processor`.
  func specialTokens(_ field: JSONField, _ tokens: TokenList) throws(TokenizerError) -> SpecialTokens {
    let leading = try leadingToken(field, tokens)
    let named = try token("bos_token", tokens)
    let adds = try tokenizerConfig["add_bos_token"].boolIfPresent()
    // The template is what the package does; the flag, where there is one, is what the model's authors want of it.
    let bos = leading ?? named
    if adds == true && bos == nil { throw tokenizerConfig["add_bos_token"].malformed("is true, but there is no bos_token") }
    let eos = try token("eos_token", tokens)
    let ends = try ends(tokens)
    return SpecialTokens(
      bos: bos, eos: eos ?? ends.first, unknown: nil, ends: ends, addsBOS: adds ?? (leading != nil),
      tokens.vocabulary)
  }

  /// A token that `tokenizer_config.json` names, as a text or as an object with a `content`.
  private func token(_ key: String, _ tokens: TokenList) throws(TokenizerError) -> Int32? {
    var field = tokenizerConfig[key]
    guard let value = field.value else { return nil }
    if value.kind == .object { field = field["content"] }
    let text = try field.string()
    guard !text.isEmpty else { return nil }
    guard let token = tokens.token(text) else { throw field.malformed("is \"\(text)\", which tokenizer.json does not have") }
    return token
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

  private static let supported = ["TemplateProcessing", "ByteLevel", "Sequence"]

  /// The token that the template puts before a text. What it puts behind one is for training, and left out.
  private func leadingToken(_ field: JSONField, _ tokens: TokenList) throws(TokenizerError) -> Int32? {
    var leading: Int32?
    for part in try field.sequence("processors") {
      let type = try part["type"].string()
      if type == "ByteLevel" { continue }
      guard type == "TemplateProcessing" else { throw part["type"].unsupported(type, supported: Self.supported) }
      for step in try part["single"].fields() {
        if step["Sequence"].value != nil { break }
        let id = try step["SpecialToken"]["id"].string()
        guard leading == nil else { throw step.unsupported(id, supported: ["one token before a text"]) }
        let ids = part["special_tokens"][id]["ids"]
        if ids.value != nil {
          let list = try ids.fields()
          guard list.count == 1, let first = list.first else { throw ids.unsupported("\(list.count) tokens", supported: ["one"]) }
          let id = try first.integer()
          guard id >= 0, id < tokens.vocabulary.count else { throw first.malformed("is \(id) of \(tokens.vocabulary.count) tokens") }
          leading = Int32(id)
        } else {
          leading = tokens.token(id)
          if leading == nil { throw step["SpecialToken"]["id"].malformed("is \"\(id)\", which is no token") }
        }
      }
    }
    return leading
  }
}
