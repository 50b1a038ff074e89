// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletTemplates

/// One turn of a conversation, as OpenAI's API and the chat templates of published models have it.
///
/// ```swift
/// let question = ChatMessage(role: "user", content: "What is the weather in Paris?")
/// let call = ChatMessage(
///   role: "assistant", toolCalls: [ToolCall(id: "call_1", name: "weather", arguments: ["city": "Paris"])])
/// let result = ChatMessage(role: "tool", content: "12 °C, rain", toolCallID: "call_1", name: "weather")
/// ```
public struct ChatMessage: Sendable, Hashable {
  /// What a message says.
  public enum Content: Sendable, Hashable, ExpressibleByStringInterpolation {
    case text(String)
    /// Parts such as `{"type": "text", "text": "…"}`, as they stand.
    case parts([JSON])

    public init(stringLiteral value: String) { self = .text(value) }
  }

  /// "system", "user", "assistant" or "tool"; a template may know more.
  public var role: String
  /// nil where the message has none, such as a call of a tool.
  public var content: Content?
  /// Of who speaks, or of the tool that answers.
  public var name: String?
  public var toolCalls: [ToolCall]
  /// Which call a tool's message answers.
  public var toolCallID: String?
  /// What the model thought before it answered.
  public var reasoning: String?
  /// Anything else that a template reads, such as "weight" or "prefix".
  public var further: JSON.Object

  public init(
    role: String, content: Content? = nil, name: String? = nil, toolCalls: [ToolCall] = [], toolCallID: String? = nil,
    reasoning: String? = nil,
    further: JSON.Object = JSON.Object()
  ) {
    self.role = role
    self.content = content
    self.name = name
    self.toolCalls = toolCalls
    self.toolCallID = toolCallID
    self.reasoning = reasoning
    self.further = further
  }

  /// A message of plain text.
  public init(role: String, content: String) { self.init(role: role, content: .text(content)) }

  /// The text that the message says; parts that are texts joined by newlines.
  public var text: String {
    switch content {
    case nil: ""
    case .text(let text): text
    case .parts(let parts): parts.compactMap { $0["text"]?.string }.joined(separator: "\n")
    }
  }
}

/// A tool that the model wants called.
public struct ToolCall: Sendable, Hashable {
  public var id: String?
  /// Of the function.
  public var name: String
  /// An object; or a string that holds one, as OpenAI's API sends it.
  public var arguments: JSON

  public init(id: String? = nil, name: String, arguments: JSON) {
    self.id = id
    self.name = name
    self.arguments = arguments
  }
}

// MARK: - JSON

extension ChatMessage {
  /// The message as OpenAI's API writes it, which is what templates read.
  public var json: JSON {
    var object = JSON.Object()
    object["role"] = .string(role)
    switch content {
    case nil: break
    case .text(let text): object["content"] = .string(text)
    case .parts(let parts): object["content"] = .array(parts)
    }
    if let reasoning { object["reasoning_content"] = .string(reasoning) }
    if !toolCalls.isEmpty { object["tool_calls"] = .array(toolCalls.map(\.json)) }
    if let name { object["name"] = .string(name) }
    if let toolCallID { object["tool_call_id"] = .string(toolCallID) }
    for (key, value) in further.members { object[key] = value }
    return .object(object)
  }

  /// A message of OpenAI's API. What has no property of its own is in ``further``.
  /// - Throws: ``TokenizerError/Code/malformedMessage`` with the name of what is wrong.
  public init(_ json: JSON) throws(TokenizerError) {
    guard let object = json.object else { throw .malformedMessage("a message is no object") }
    func string(_ key: String) throws(TokenizerError) -> String? {
      switch object[key] {
      case nil, .some(.null): return nil
      case .some(.string(let text)): return text
      case .some: throw .malformedMessage("a message's \"\(key)\" is no string")
      }
    }
    guard let role = try string("role") else { throw .malformedMessage("a message has no \"role\"") }
    self.init(role: role)
    switch object["content"] {
    case nil, .some(.null): break
    case .some(.string(let text)): content = .text(text)
    case .some(.array(let parts)): content = .parts(parts)
    case .some: throw .malformedMessage("a message's \"content\" is neither a string nor an array")
    }
    name = try string("name")
    toolCallID = try string("tool_call_id")
    // The first that is there, as templates find them.
    for key in ChatTemplate.reasoningKeys where reasoning == nil { reasoning = object[key]?.string }
    switch object["tool_calls"] {
    case nil, .some(.null): break
    case .some(.array(let calls)):
      for call in calls { toolCalls.append(try ToolCall(call)) }
    case .some: throw .malformedMessage("a message's \"tool_calls\" is no array")
    }
    let known: Set<String> = ["role", "content", "name", "tool_call_id", "tool_calls"]
    further = JSON.Object(
      object.members.filter { key, value in
        !known.contains(key) && !(ChatTemplate.reasoningKeys.contains(key) && (value.string != nil || value.isNull))
      })
  }
}

extension ToolCall {
  public var json: JSON {
    var call = JSON.Object()
    if let id { call["id"] = .string(id) }
    call["type"] = "function"
    call["function"] = .object(JSON.Object([(key: "name", value: .string(name)), (key: "arguments", value: arguments)]))
    return .object(call)
  }

  /// A call of OpenAI's API; the function's object may stand alone.
  public init(_ json: JSON) throws(TokenizerError) {
    let function = json["function"] ?? json
    guard let name = function["name"]?.string else { throw .malformedMessage("a tool call has no function's name") }
    self.init(id: json["id"]?.string, name: name, arguments: function["arguments"] ?? .object(JSON.Object()))
  }
}

extension ChatMessage: Codable {
  public init(from decoder: any Decoder) throws { try self.init(try JSON(from: decoder)) }
  public func encode(to encoder: any Encoder) throws { try json.encode(to: encoder) }
}

extension ToolCall: Codable {
  public init(from decoder: any Decoder) throws { try self.init(try JSON(from: decoder)) }
  public func encode(to encoder: any Encoder) throws { try json.encode(to: encoder) }
}
