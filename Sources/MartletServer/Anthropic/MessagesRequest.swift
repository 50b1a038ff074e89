// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import Martlet
package import MartletTemplates
import MartletTokenizers

/// The body of `/v1/messages`.
public struct MessagesRequest: Sendable {
  public var chat: ChatRequest

  static let messages = Field<[JSON]>.array(
    "messages", "The conversation. Where its last message is the assistant's, the answer goes on with it.", of: messageSchema, atLeast: 1)
  static let maxTokens = Field<Int>.integer(
    "max_tokens", "The most tokens of an answer; what does not fit the context is cut.", in: 1...Int.max)
  static let system = Field<JSON>.any(
    "system", "What stands before the conversation: a text, or blocks of text.",
    schema: ["anyOf": [["type": "string"], ["type": "array", "items": textBlock]]])
  static let stopSequences = Field<[String]>.array(
    ofTexts: "stop_sequences", "The answer ends before the first of these texts.", atMost: 64)
  static let tools = Field<[JSON]>.array(
    "tools", "What the model may call. Tools that Anthropic defines, or runs itself, are refused.",
    of: [
      "type": "object", "required": ["name", "input_schema"],
      "properties": [
        "type": ["enum": ["custom", .null]], "name": ["type": "string", "minLength": 1], "description": ["type": ["string", "null"]],
        "input_schema": ["type": "object"],
      ],
    ], atMost: 1024)
  static let toolChoice = Field<JSON.Object>.object(
    "tool_choice", "Of the type auto or none; a call cannot be forced yet.",
    schema: [
      "type": "object", "required": ["type"],
      "properties": ["type": ["enum": ["auto", "none"]], "disable_parallel_tool_use": ["type": ["boolean", "null"]]],
    ])
  static let thinking = Field<JSON.Object>.object(
    "thinking", "Of the type enabled, adaptive or disabled, which the chat template is told as enable_thinking. A budget is ignored.",
    schema: ["type": "object", "required": ["type"], "properties": ["type": ["enum": ["enabled", "adaptive", "disabled"]]]])
  static let metadata = Field<JSON.Object>.object(
    "metadata", "Requests of different user_ids take turns where they wait.",
    schema: ["type": "object", "properties": ["user_id": ["type": ["string", "null"]]]])
  static let refused: [Field<JSON>] = [
    .refused("output_format", "say it as output_config.format"), .refused("container"), .refused("speculative_decoding"),
  ]
  static let mcpServers = Field<Void>(
    name: "mcp_servers", schema: ["type": "array", "maxItems": 0], about: "Only none: this server calls no other."
  ) { value, param in
    guard let servers = value.array else { throw APIError.invalid(param, "\(param) must be an array; it is \(value.shown)") }
    if !servers.isEmpty {
      throw APIError.unsupported(param, "\(param) is not supported: describe the servers' tools as tools, which the client runs")
    }
  }
  static let outputConfig = Field<JSON.Object>.object(
    "output_config",
    "Its effort is handed to the chat template; its format says by which JSON Schema the answer is valid JSON. Held exactly, or refused.",
    schema: [
      "type": "object",
      "properties": [
        "effort": ["type": ["string", "null"]], "format": Schema.nullable(FormFields.schema(nested: nil, types: ["json_schema"])),
      ],
    ])

  /// The fields of `/v1/messages/count_tokens`: those that make the prompt.
  static let countTable: [any AnyField] = [
    ChatCompletionRequest.model, messages, system, tools, toolChoice, thinking, outputConfig, ChatCompletionRequest.templateVariables,
  ]
  package static let table: [any AnyField] =
    countTable + [
      maxTokens, stopSequences, metadata, mcpServers, ChatCompletionRequest.stream, SamplingFields.temperature, SamplingFields.topP,
      SamplingFields.topK,
      SamplingFields.minP, SamplingFields.seed, SamplingFields.repetitionPenalty, SamplingFields.ignoreEOS, SamplingFields.priority,
    ] + refused as [any AnyField]

  /// - Parameter onlyCounts: whether the body is that of `/v1/messages/count_tokens`, which has no `max_tokens`.
  package init(_ json: JSON, id: String, server: ServerConfiguration, onlyCounts: Bool = false) throws {
    let fields = try Fields(json)
    try fields.check(onlyCounts ? Self.countTable : Self.table)
    chat = ChatRequest(
      model: try fields(ChatCompletionRequest.model),
      messages: try MessageBlocks.messages(try fields.require(Self.messages), system: try fields(Self.system)),
      sampling: try SamplingFields.read(fields, over: server.sampling), requestOptions: try SamplingFields.options(fields, id: id))
    chat.sampling.maxTokens = onlyCounts ? 1 : try fields.require(Self.maxTokens)
    chat.sampling.stop = try fields(Self.stopSequences) ?? []
    chat.sampling.timeout = server.requestTimeout
    chat.isStream = try fields(ChatCompletionRequest.stream) ?? false
    if let user = try fields(Self.metadata)?["user_id"], !user.isNull {
      guard let name = user.string else {
        throw APIError.invalid("metadata.user_id", "metadata.user_id must be a string; it is \(user.shown)")
      }
      chat.requestOptions.fairnessKey = name
    }
    let output = try fields(Self.outputConfig)
    let effort = output?["effort"] ?? .null
    if !effort.isNull, effort.string == nil {
      throw APIError.invalid("output_config.effort", "output_config.effort must be a string; it is \(effort.shown)")
    }
    try chat.readTemplateVariables(fields, over: server, effort: effort.string)
    if let thinking = try fields(Self.thinking) {
      guard let type = thinking["type"]?.string, ["enabled", "adaptive", "disabled"].contains(type) else {
        throw APIError.invalid(
          "thinking.type", "thinking.type must be enabled, adaptive or disabled; it is \(thinking["type"]?.shown ?? "missing")")
      }
      chat.chatOptions.variables["enable_thinking"] = .bool(type != "disabled")
    }
    // A last message of the assistant is the beginning of the answer.
    if let last = chat.messages.last, last.role == "assistant", last.toolCalls.isEmpty, !last.text.isEmpty {
      chat.chatOptions.continuesFinalMessage = true
    }
    try readTools(fields)
    if let format = output?["format"], !format.isNull {
      try chat.take(try FormFields.format(format, "output_config.format", nested: nil, types: ["json_schema"]))
    }
  }

  private mutating func readTools(_ fields: Fields) throws {
    chat.tools = try (try fields(Self.tools) ?? []).enumerated().compactMap { index, tool in
      guard tool.object != nil else {
        throw APIError.invalid("tools[\(index)]", "tools[\(index)] must be an object; it is \(tool.shown)")
      }
      if let type = tool["type"], !type.isNull, type != "custom" {
        guard type.string != nil else {
          throw APIError.invalid("tools[\(index)].type", "tools[\(index)].type must be a string; it is \(type.shown)")
        }
        throw APIError.unsupported(
          "tools[\(index)]",
          "tools[\(index)] is of the type \(type.shown), which this model does not know and this server cannot run: take it out, or describe a tool that the client runs, with name and input_schema"
        )
      }
      guard let name = tool["name"]?.string, !name.isEmpty else {
        throw APIError.invalid("tools[\(index)].name", "tools[\(index)] must be {\"name\": …, \"description\": …, \"input_schema\": …}")
      }
      guard let schema = tool["input_schema"], schema.object != nil else {
        throw APIError.invalid("tools[\(index)].input_schema", "tools[\(index)].input_schema must be an object")
      }
      var function: JSON.Object = ["name": .string(name)]
      if let about = tool["description"], !about.isNull { function["description"] = about }
      function["parameters"] = schema
      try ChatCompletionRequest.check(function: .object(function), "tools[\(index)]")
      return ["type": "function", "function": .object(function)]
    }
    guard let choice = try fields(Self.toolChoice) else { return }
    switch choice["type"] {
    case "auto": break
    case "none": chat.tools = []
    case "any", "tool":
      throw APIError.unsupported(
        "tool_choice", "tool_choice \(choice["type"]?.shown ?? "") is not supported yet, since a call cannot be forced: use auto or none")
    default: throw APIError.invalid("tool_choice.type", "tool_choice.type must be auto, any, tool or none")
    }
    if let only = choice["disable_parallel_tool_use"], !only.isNull {
      guard let flag = only.flag else {
        throw APIError.invalid(
          "tool_choice.disable_parallel_tool_use", "tool_choice.disable_parallel_tool_use must be true or false; it is \(only.shown)")
      }
      chat.callsInParallel = !flag
    }
  }
}

/// Messages in the form of `/v1/messages`, as templates read them: results of tools are messages of their own there.
enum MessageBlocks {
  static func messages(_ elements: [JSON], system: JSON?) throws -> [ChatMessage] {
    var messages: [ChatMessage] = []
    if let system {
      let text = withoutAttribution(try texts(system, "system"))
      if !text.isEmpty { messages.append(ChatMessage(role: "system", content: text)) }
    }
    var calledNames: [String: String] = [:]
    for (index, element) in elements.enumerated() { try add(element, "messages[\(index)]", to: &messages, calledNames: &calledNames) }
    return messages
  }

  /// Claude Code begins its system message with a line for Anthropic's accounts, with a number that is another one in every request. Left in the
  /// prompt, no request would find the beginning of the one before in the cache.
  private static func withoutAttribution(_ text: String) -> String {
    guard text.hasPrefix("x-anthropic-billing-header:") else { return text }
    return text.firstIndex(where: \.isNewline).map { String(text[text.index(after: $0)...]) } ?? ""
  }

  /// - Parameter calledNames: the tools that were called, by the calls' ids.
  private static func add(
    _ element: JSON, _ name: String, to messages: inout [ChatMessage], calledNames: inout [String: String]
  ) throws {
    guard element.object != nil else { throw APIError.invalid(name, "\(name) must be an object; it is \(element.kindName)") }
    guard let role = element["role"]?.string, ["user", "assistant", "system"].contains(role) else {
      throw APIError.invalid("\(name).role", "\(name).role must be user or assistant")
    }
    let content = element["content"]
    if let text = content?.string { return messages.append(ChatMessage(role: role, content: text)) }
    guard let blocks = content?.array else {
      throw APIError.invalid("\(name).content", "\(name).content must be a text or an array of blocks")
    }
    var texts: [String] = []
    var message = ChatMessage(role: role)
    for (index, block) in blocks.enumerated() {
      let name = "\(name).content[\(index)]"
      guard let type = block["type"]?.string else { throw APIError.invalid("\(name).type", "\(name) has no type") }
      func string(_ key: String) throws -> String {
        guard let text = block[key]?.string else { throw APIError.invalid("\(name).\(key)", "\(name).\(key) must be a string") }
        return text
      }
      switch (type, role) {
      case ("text", _): texts.append(try string("text"))
      case ("thinking", "assistant"):
        let thought = try string("thinking")
        if !thought.isEmpty { message.reasoning = message.reasoning.map { $0 + "\n" + thought } ?? thought }
      case ("tool_use", "assistant"):
        let input = block["input"] ?? .object([:])
        guard input.object != nil else {
          throw APIError.invalid("\(name).input", "\(name).input must be an object; it is \(input.shown)")
        }
        let call = ToolCall(id: try string("id"), name: try string("name"), arguments: input)
        calledNames[call.id ?? ""] = call.name
        message.toolCalls.append(call)
      case ("tool_result", "user"):
        let id = try string("tool_use_id")
        let text = try block.given("content").map { try self.texts($0, name + ".content") } ?? ""
        messages.append(ChatMessage(role: "tool", content: .text(text), name: calledNames[id], toolCallID: id))
      case ("thinking", _), ("tool_use", _), ("tool_result", _):
        throw APIError.invalid(name, "\(name) is of the type \(type), which no message of the role \(role) has")
      default:
        // A block that brings nothing to read changes nothing.
        if let key = ["text", "thinking", "source", "content", "input"].first(where: { block[$0].map { !$0.isNull } ?? false }) {
          throw APIError.unsupported(
            name,
            "\(name) is of the type \(JSON.string(type).shown), whose \(key) this model cannot read in a message of the role \(role)")
        }
      }
    }
    if !texts.isEmpty { message.content = .text(texts.joined(separator: "\n")) }
    // A message of tools' results alone is said already.
    if message.content != nil || !message.toolCalls.isEmpty || message.reasoning != nil { return messages.append(message) }
    let saysResults = blocks.contains { $0["type"] == "tool_result" }
    if !saysResults { messages.append(ChatMessage(role: role, content: "")) }
  }

  /// A text, or blocks of text.
  private static func texts(_ json: JSON, _ name: String) throws -> String {
    if let text = json.string { return text }
    guard let blocks = json.array else {
      throw APIError.invalid(name, "\(name) must be a text or an array of blocks; it is \(json.shown)")
    }
    return try blocks.enumerated().map { index, block in
      guard block["type"] == "text", let text = block["text"]?.string else {
        throw APIError.unsupported(
          "\(name)[\(index)]", "\(name)[\(index)] is of the type \(block["type"]?.shown ?? "null"); this model reads blocks of text only")
      }
      return text
    }.joined(separator: "\n")
  }
}

extension MessagesRequest {
  private static let textBlock: JSON = [
    "type": "object", "required": ["type", "text"], "properties": ["type": ["const": "text"], "text": ["type": "string"]],
  ]
  private static let texts: JSON = Schema.any(Schema.text, Schema.array(textBlock))
  /// A block of a kind that is not known, and that brings nothing to read.
  private static let emptyBlock: JSON = Schema.object(
    ["type": ["type": "string", "not": ["enum": ["text", "thinking", "tool_use", "tool_result"]]]],
    optional: [
      "text": Schema.null, "thinking": Schema.null, "source": Schema.null, "content": Schema.null, "input": Schema.null,
    ])

  private static func message(_ role: String, _ blocks: JSON...) -> JSON {
    Schema.object([
      "role": Schema.const(role),
      "content": Schema.any(Schema.text, Schema.array(["anyOf": .array([textBlock, emptyBlock] + blocks)])),
    ])
  }

  private static let messageSchema: JSON = Schema.any(
    message("system"),
    message(
      "user",
      Schema.object(["type": Schema.const("tool_result"), "tool_use_id": Schema.text], optional: ["content": Schema.nullable(texts)])),
    message(
      "assistant", Schema.object(["type": Schema.const("thinking"), "thinking": Schema.text]),
      Schema.object(
        ["type": Schema.const("tool_use"), "id": Schema.text, "name": Schema.text], optional: ["input": Schema.anyObject])))
}
#endif
