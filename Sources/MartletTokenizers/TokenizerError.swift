// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletFormats
public import MartletTemplates

/// Why a file's tokenizer or chat template cannot be used.
///
/// A program looks at ``code``, a person reads ``description``. More codes may come, so a `switch` over them has a `default`.
/// Two errors are equal if they say the same with the same code.
public struct TokenizerError: Error, Sendable, CustomStringConvertible {
  /// Which failure it is.
  public struct Code: RawRepresentable, Sendable, Hashable, Codable {
    public let rawValue: String
    public init(rawValue: String) { self.rawValue = rawValue }

    /// The file lacks something, or has it in another type: ``TokenizerError/underlying`` is a `GGUFError`.
    public static let format = Code(rawValue: "format")
    /// A JSON file beside the model cannot be read: ``TokenizerError/underlying`` is a `JSONError`.
    public static let json = Code(rawValue: "json")
    /// A directory without `tokenizer.json`.
    public static let noTokenizerFile = Code(rawValue: "noTokenizerFile")
    /// A part of a `tokenizer.json` that this build does not have, and that would change token ids or text.
    public static let unsupportedPart = Code(rawValue: "unsupportedPart")
    /// A kind of tokenizer that this build does not have.
    public static let unsupportedModel = Code(rawValue: "unsupportedModel")
    /// A way to cut text into words that this build does not have, or none in the file.
    public static let unsupportedPreTokenizer = Code(rawValue: "unsupportedPreTokenizer")
    /// A field of the vocabulary has a value that no valid file has.
    public static let malformed = Code(rawValue: "malformed")
    /// The file has no chat template.
    public static let noChatTemplate = Code(rawValue: "noChatTemplate")
    /// The file has chat templates by name, and none for every conversation.
    public static let noDefaultChatTemplate = Code(rawValue: "noDefaultChatTemplate")
    /// The chat template is no Jinja program: ``TokenizerError/underlying`` is a `TemplateError`.
    public static let invalidChatTemplate = Code(rawValue: "invalidChatTemplate")
    /// No chat template has this name.
    public static let unknownChatTemplate = Code(rawValue: "unknownChatTemplate")
    /// The conversation has what the template refuses, or cannot compute with: roles out of order, or a system message without a place.
    /// ``TokenizerError/underlying`` is a `TemplateError`, with the template's own message where it raised one.
    public static let unwritableConversation = Code(rawValue: "unwritableConversation")
    /// A message, a tool or a document is not what a conversation is made of.
    public static let malformedMessage = Code(rawValue: "malformedMessage")
  }

  public let code: Code
  /// A sentence that names the thing and the way out.
  public let description: String
  /// The error of a floor below that this one tells of, in ``description`` too; nil where there is none.
  public let underlying: (any Error)?

  public init(_ code: Code, _ description: String, underlying: (any Error)? = nil) {
    self.code = code
    self.description = description
    self.underlying = underlying
  }
}

extension TokenizerError: Hashable {
  public static func == (a: TokenizerError, b: TokenizerError) -> Bool { a.code == b.code && a.description == b.description }

  public func hash(into hasher: inout Hasher) {
    hasher.combine(code)
    hasher.combine(description)
  }
}

extension TokenizerError {
  /// ``Code/format``.
  public static func format(_ error: GGUFError) -> TokenizerError {
    TokenizerError(.format, error.description, underlying: error)
  }

  /// ``Code/json``, with the file's name.
  public static func json(_ error: JSONError, file: String) -> TokenizerError {
    TokenizerError(.json, "tokenizer: \(file): \(error.description)", underlying: error)
  }

  /// ``Code/noTokenizerFile``.
  public static func noTokenizerFile(directory: String) -> TokenizerError {
    TokenizerError(
      .noTokenizerFile,
      "tokenizer: \"\(directory)\" has no tokenizer.json (a tokenizer.model or vocab.json is not read); save_pretrained of the transformers "
        + "package's tokenizer writes one")
  }

  /// ``Code/unsupportedPart``; `found` is what the file has.
  public static func unsupportedPart(field: String, found: String, supported: [String]) -> TokenizerError {
    TokenizerError(
      .unsupportedPart,
      "tokenizer: \(field) is \"\(found)\", which this build does not have"
        + (supported.isEmpty ? "" : " (has: \(supported.joined(separator: ", ")))") + "; convert the model to GGUF, or report the file")
  }

  /// ``Code/unsupportedModel``.
  public static func unsupportedModel(_ model: String, supported: [String]) -> TokenizerError {
    TokenizerError(
      .unsupportedModel,
      "tokenizer: the file's tokenizer.ggml.model is \"\(model)\", which this build cannot read (reads: \(supported.joined(separator: ", ")))"
    )
  }

  /// ``Code/unsupportedPreTokenizer``; nil if the file does not say.
  public static func unsupportedPreTokenizer(_ name: String?, supported: [String]) -> TokenizerError {
    let supported = supported.joined(separator: ", ")
    return TokenizerError(
      .unsupportedPreTokenizer,
      name.map { "tokenizer: the file's tokenizer.ggml.pre is \"\($0)\", which this build does not have (has: \(supported))" }
        ?? "tokenizer: the file does not say in tokenizer.ggml.pre how to cut text into words; convert the model again with a current converter "
        + "(this build has: \(supported))")
  }

  /// ``Code/malformed``.
  public static func malformed(field: String, problem: String) -> TokenizerError {
    TokenizerError(
      .malformed, "tokenizer: \(field) \(problem): the file is damaged or was written wrongly; fetch or convert it again")
  }

  /// ``Code/noChatTemplate``; `known` are the built-in ones.
  public static func noChatTemplate(known: [String]) -> TokenizerError {
    TokenizerError(
      .noChatTemplate,
      "tokenizer: the file has no chat template; name one (chatTemplate: \(known.joined(separator: "|"))) or use a model tuned for chat")
  }

  /// ``Code/noDefaultChatTemplate``; `names` are the file's.
  public static func noDefaultChatTemplate(names: [String]) -> TokenizerError {
    TokenizerError(
      .noDefaultChatTemplate,
      "tokenizer: the file's chat templates are \(names.joined(separator: ", ")), and none is called \"default\"; name one of Martlet's own "
        + "(chatTemplate)")
  }

  /// ``Code/invalidChatTemplate``, with the template's name.
  public static func invalidChatTemplate(name: String, _ error: TemplateError) -> TokenizerError {
    TokenizerError(
      .invalidChatTemplate, "tokenizer: the chat template \"\(name)\" is no program that Jinja runs: \(error)", underlying: error)
  }

  /// ``Code/unknownChatTemplate``, with the names that there are.
  public static func unknownChatTemplate(_ name: String, known: [String]) -> TokenizerError {
    TokenizerError(
      .unknownChatTemplate, "tokenizer: there is no chat template \"\(name)\" (there is: \(known.joined(separator: ", ")))")
  }

  /// ``Code/unwritableConversation``.
  public static func unwritableConversation(_ error: TemplateError) -> TokenizerError {
    TokenizerError(.unwritableConversation, "the chat template cannot write this conversation: \(error)", underlying: error)
  }

  /// ``Code/malformedMessage``.
  public static func malformedMessage(_ problem: String) -> TokenizerError {
    TokenizerError(.malformedMessage, "\(problem); messages, tools and documents are objects as OpenAI's API has them")
  }
}
