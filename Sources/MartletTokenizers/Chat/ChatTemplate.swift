// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletTemplates

/// How a model wants a conversation written as one text: the Jinja program of its file, run as the transformers package runs it.
///
/// A file may have several programs by name: "tool_use" is taken where there are tools, "default" otherwise. The programs see the messages, the
/// tools, the documents, the model's special tokens by their names, and whatever else is handed in as a variable; what they raise is an error, and
/// never half a prompt.
///
/// Encode the result as the ``MarkedText`` that it is: marks that the program wrote become tokens, the same letters in a message stay text.
///
/// Source: transformers 5.24, `apply_chat_template`.
public struct ChatTemplate: Sendable, Hashable {
  /// The programs by name; one alone is "default".
  public let programs: [String: Template]
  /// Special tokens by the names under which programs know them, such as `bos_token`. One that is missing is undefined to the program.
  public var specialTokens: [String: String]
  /// Which files the programs are from, by their names: for errors.
  private let files: [String: String]
  /// What the programs can render, found by rendering.
  private let abilities: [String: Abilities]

  /// A template of one Jinja program.
  /// - Parameter file: What errors call the program.
  /// - Throws: ``TokenizerError/Code/invalidChatTemplate`` where it is no Jinja.
  public init(source: String, specialTokens: [String: String] = [:], file: String? = nil) throws(TokenizerError) {
    try self.init(sources: ["default": source], specialTokens: specialTokens, files: file.map { ["default": $0] } ?? [:])
  }

  /// A template of several programs by name.
  /// - Parameter files: What errors call the programs, by the same names.
  public init(
    sources: [String: String], specialTokens: [String: String] = [:], files: [String: String] = [:]
  ) throws(TokenizerError) {
    var programs: [String: Template] = [:]
    for (name, source) in sources {
      do { programs[name] = try Template(source) } catch {
        var error = error
        error.file = files[name]
        throw .invalidChatTemplate(name: name, error)
      }
    }
    self.programs = programs
    self.specialTokens = specialTokens
    self.files = files
    abilities = programs.mapValues { Abilities(of: $0, specialTokens) }
  }

  /// A copy whose programs know other special tokens.
  public func with(specialTokens: [String: String]) -> ChatTemplate {
    var copy = self
    copy.specialTokens = specialTokens
    return copy
  }

  /// The conversation as one text.
  ///
  /// Arguments of tool calls are handed over in the form that the program renders (an object or a string), and parts of a content joined where it
  /// renders only text. A template that begins with the beginning-of-text token writes it here: put none before it again.
  ///
  /// - Parameters:
  ///   - messages: at least one.
  ///   - tools: functions as OpenAI's API describes them; nil is none, which templates tell from an empty list.
  ///   - documents: objects, for templates that take them.
  ///   - options: `options.now` nil is 1 January 1970 here: this module keeps no clock.
  /// - Throws: ``TokenizerError/Code/unwritableConversation`` with the template's own message where it raises an error.
  public func render(
    _ messages: [ChatMessage], tools: [JSON]? = nil, documents: [JSON]? = nil, options: ChatOptions = ChatOptions()
  ) throws(TokenizerError) -> MarkedText {
    let (name, program) = try program(hasTools: tools != nil)
    let abilities = abilities[name] ?? Abilities()
    return try render(program, named: name, messages.map { abilities.adapt($0).json }, tools, documents, options)
  }

  /// The same of messages as OpenAI's API has them, handed over as they stand.
  public func render(
    json messages: [JSON], tools: [JSON]? = nil, documents: [JSON]? = nil, options: ChatOptions = ChatOptions()
  ) throws(TokenizerError) -> MarkedText {
    let (name, program) = try program(hasTools: tools != nil)
    return try render(program, named: name, messages, tools, documents, options)
  }

  private func program(hasTools: Bool) throws(TokenizerError) -> (name: String, program: Template) {
    for name in hasTools ? ["tool_use", "default"] : ["default"] { if let program = programs[name] { return (name, program) } }
    throw .noDefaultChatTemplate(names: programs.keys.sorted())
  }

  private func render(
    _ program: Template, named name: String, _ messages: [JSON], _ tools: [JSON]?, _ documents: [JSON]?, _ options: ChatOptions
  ) throws(TokenizerError) -> MarkedText {
    guard !messages.isEmpty else { throw .unwritableConversation(TemplateError(.value, "a conversation has at least one message")) }
    guard !(options.continuesFinalMessage && options.addsGenerationPrompt) else {
      throw .unwritableConversation(
        TemplateError(.value, "a last message cannot be continued where an answer is begun: choose one of the two"))
    }
    var objects: [JSON.Object] = []
    for message in messages {
      guard let object = message.object else { throw .malformedMessage("a message is no object") }
      objects.append(Self.normalized(object))
    }
    for document in documents ?? [] where document.object == nil { throw .malformedMessage("a document is no object") }
    for tool in tools ?? [] where tool.object == nil { throw .malformedMessage("a tool is no object") }
    let continued = options.continuesFinalMessage ? try ContinuedMessage(of: &objects, program) : nil
    var variables: [String: Template.Variable] = [:]
    for (name, token) in specialTokens { variables[name] = .mark(token) }
    for (name, value) in options.variables.members {
      guard !Self.ownVariables.contains(name) else {
        throw .unwritableConversation(
          TemplateError(.value, "the variable \"\(name)\" is set from the conversation, and not by the options"))
      }
      variables[name] = .content(value)
    }
    variables["messages"] = .content(.array(objects.map { .object($0) }))
    variables["tools"] = .content(tools.map { .array($0) } ?? .null)
    variables["documents"] = .content(documents.map { .array($0) } ?? .null)
    variables["add_generation_prompt"] = .content(.bool(options.addsGenerationPrompt))
    let output: TemplateOutput
    do { output = try program.render(variables, now: options.now ?? .epoch) } catch {
      var error = error
      error.file = files[name]
      throw .unwritableConversation(error)
    }
    let text = MarkedText(output.text, contents: output.contents)
    return try continued?.cut(text) ?? text
  }

  /// The variables that are made of the conversation.
  public static let ownVariables: Set<String> = ["messages", "tools", "documents", "add_generation_prompt"]

  // MARK: Messages

  /// The names under which templates look for what a model thought, the first first.
  static let reasoningKeys = ["reasoning_content", "thinking", "reasoning"]

  /// Without keys whose value is null, and with the reasoning under the names that templates know: `thinking` comes to the front.
  private static func normalized(_ message: JSON.Object) -> JSON.Object {
    let kept = JSON.Object(message.members.filter { !$0.value.isNull })
    guard let reasoning = reasoningKeys.lazy.compactMap({ kept[$0] }).first else { return kept }
    var result = JSON.Object()
    result["thinking"] = kept["thinking"] ?? reasoning
    for (key, value) in kept.members where key != "thinking" { result[key] = value }
    result["reasoning_content"] = reasoning
    return result
  }
}

extension ChatTemplate {
  public static func == (left: ChatTemplate, right: ChatTemplate) -> Bool {
    left.programs == right.programs && left.specialTokens == right.specialTokens
  }

  public func hash(into hasher: inout Hasher) { hasher.combine(programs) }
}

// MARK: - Going on with the last message

/// A conversation whose last message ends with a tag, which tells where the rendered text is to be cut.
private struct ContinuedMessage {
  private static let tag = "CONTINUE_FINAL_MESSAGE_TAG"
  /// What the message says, without white space at its ends.
  private let final: String

  /// Puts the tag behind the last message's content.
  init(of messages: inout [JSON.Object], _ program: Template) throws(TokenizerError) {
    guard var last = messages.last, let content = last["content"] else { throw Self.problem("the last message has no content to continue") }
    guard program.source.contains("content") else { throw Self.problem("the template writes no \"content\" that could be continued") }
    switch content {
    case .string(let text):
      last["content"] = .string(text + Self.tag + " ")
      final = text.trimmingPythonSpace
    case .array(var parts):
      guard let place = parts.lastIndex(where: { $0["text"] != nil }), var part = parts[place].object, let text = part["text"]?.string
      else {
        throw Self.problem("the last message has no text to continue")
      }
      part["text"] = .string(text + Self.tag + " ")
      parts[place] = .object(part)
      last["content"] = .array(parts)
      final = text.trimmingPythonSpace
    default: throw Self.problem("the last message's content is no text")
    }
    messages[messages.count - 1] = last
  }

  private static func problem(_ text: String) -> TokenizerError { .unwritableConversation(TemplateError(.value, text)) }

  /// The text up to the tag. Where the template took the space behind the tag, it takes white space from messages, and would have taken it before
  /// the tag.
  func cut(_ rendered: MarkedText) throws(TokenizerError) -> MarkedText {
    let bytes = Array(rendered.text.utf8)
    let tag = Array(Self.tag.utf8)
    var place = bytes.count - tag.count
    while place >= 0, !bytes[place...].starts(with: tag) { place -= 1 }
    guard place >= 0, final.isEmpty || bytes.firstRange(of: Array(final.utf8)) != nil else {
      throw Self.problem("the last message does not appear in what the template writes, so that it cannot be continued")
    }
    let end = place + tag.count
    let keepsSpace = end < bytes.count && bytes[end] == UInt8(ascii: " ")
    let whole = String(decoding: bytes[..<place], as: UTF8.self)
    let text = keepsSpace ? whole : whole.trimmingTrailingPythonSpace
    let count = text.utf8.count
    return MarkedText(
      text,
      contents: rendered.contents.compactMap { range in
        let clipped = range.clamped(to: 0..<count)
        return clipped.isEmpty ? nil : clipped
      })
  }
}

extension String {
  fileprivate var trimmingTrailingPythonSpace: String {
    var scalars = unicodeScalars[...]
    while let last = scalars.last, last.properties.isWhitespace || (0x1C...0x1F).contains(last.value) { scalars.removeLast() }
    return String(scalars)
  }

  fileprivate var trimmingPythonSpace: String {
    let rest = unicodeScalars.drop { $0.properties.isWhitespace || (0x1C...0x1F).contains($0.value) }
    return String(rest).trimmingTrailingPythonSpace
  }
}
