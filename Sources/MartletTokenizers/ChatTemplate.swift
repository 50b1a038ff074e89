// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletFormats

/// One turn of a conversation.
public struct ChatMessage: Sendable, Hashable {
  /// "system", "user" or "assistant"; a template may know more.
  public var role: String
  public var content: String

  public init(role: String, content: String) {
    self.role = role
    self.content = content
  }
}

/// How a model wants a conversation written as one text.
///
/// A model file has its template as a Jinja program. This build does not run Jinja: it recognises the format by its turn marks and takes the
/// default system message from the program's text. Encode the result with `parsesSpecialTokens: true`.
public struct ChatTemplate: Sendable, Hashable {
  /// The format: one of ``names``.
  public let name: String
  /// The system message that the template writes when the conversation does not begin with one.
  public let defaultSystemMessage: String?

  /// The formats that this build renders.
  public static let names = ["chatml"]

  /// The format of that name, without a default system message.
  public init(named name: String) throws(TokenizerError) {
    guard Self.names.contains(name) else { throw .unknownChatTemplate(name, known: Self.names) }
    self.name = name
    defaultSystemMessage = nil
  }

  /// The template of a model file: `tokenizer.chat_template`.
  public init(from file: GGUFFile) throws(TokenizerError) {
    let source: String?
    do { source = try file.string(ifPresent: "tokenizer.chat_template") } catch { throw .format(error) }
    guard let source else { throw .noChatTemplate(known: Self.names) }
    try self.init(source: source)
  }

  /// The format that the Jinja program `source` writes.
  public init(source: String) throws(TokenizerError) {
    guard source.contains("<|im_start|>"), source.contains("<|im_end|>") else { throw .unrecognisedChatTemplate(known: Self.names) }
    name = "chatml"
    defaultSystemMessage = Self.defaultSystemMessage(inChatML: source)
  }

  /// The conversation as one text.
  ///
  /// - Parameter addsGenerationPrompt: Whether to end with the mark that begins the assistant's turn.
  public func render(_ messages: [ChatMessage], addsGenerationPrompt: Bool = true) -> String {
    var text = ""
    func append(_ role: String, _ content: String) { text += "<|im_start|>\(role)\n\(content)<|im_end|>\n" }
    if let defaultSystemMessage, let first = messages.first, first.role != "system" { append("system", defaultSystemMessage) }
    for message in messages { append(message.role, message.content) }
    if addsGenerationPrompt { text += "<|im_start|>assistant\n" }
    return text
  }

  /// The system message that a ChatML template holds whole: the text between `<|im_start|>system⏎` and `<|im_end|>` within one string literal
  /// of the program, or within the plain text around its tags.
  private static func defaultSystemMessage(inChatML source: String) -> String? {
    let opening = "<|im_start|>system\n"
    for text in literals(in: source) {
      guard let start = text.firstRange(of: opening)?.upperBound, let end = text[start...].firstRange(of: "<|im_end|>")?.lowerBound,
        start < end
      else { continue }
      return String(text[start..<end])
    }
    return nil
  }

  /// The texts of a Jinja program: string literals inside its tags, their escapes resolved, and the plain text outside.
  private static func literals(in source: String) -> [String] {
    var result: [String] = []
    var plain: [Unicode.Scalar] = []
    var rest = Array(source.unicodeScalars)[...]
    while let scalar = rest.popFirst() {
      guard scalar == "{", let next = rest.first, next == "{" || next == "%" || next == "#" else {
        plain.append(scalar)
        continue
      }
      result.append(string(plain))
      plain = []
      let close: Unicode.Scalar = next == "{" ? "}" : next
      rest.removeFirst()
      while let scalar = rest.popFirst() {
        if scalar == close, rest.first == "}" {
          rest.removeFirst()
          break
        }
        if next != "#", scalar == "'" || scalar == "\"" { result.append(string(popLiteral(&rest, quote: scalar))) }
      }
    }
    result.append(string(plain))
    return result
  }

  private static func popLiteral(_ rest: inout ArraySlice<Unicode.Scalar>, quote: Unicode.Scalar) -> [Unicode.Scalar] {
    var literal: [Unicode.Scalar] = []
    while let scalar = rest.popFirst(), scalar != quote {
      guard scalar == "\\", let escaped = rest.popFirst() else {
        literal.append(scalar)
        continue
      }
      switch escaped {
      case "n": literal.append("\n")
      case "t": literal.append("\t")
      case "r": literal.append("\r")
      default: literal.append(escaped)
      }
    }
    return literal
  }

  private static func string(_ scalars: [Unicode.Scalar]) -> String {
    var string = ""
    string.unicodeScalars.append(contentsOf: scalars)
    return string
  }
}
