// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import Martlet
package import MartletTemplates
import MartletTokenizers

/// The body of `/v1/responses`. The server keeps no answers, so everything that was said before comes with the request.
public struct ResponseRequest: Sendable {
  public var chat: ChatRequest
  /// What the request says of itself, which the answer says back.
  package var echo = JSON.Object()
  /// The types of offered tools that the model does not see.
  package var leftOut: [String] = []

  static let input = Field<JSON>.any(
    "input", "The conversation: a text, or items.",
    schema: ["anyOf": [["type": "string"], ["type": "array", "minItems": 1, "items": ConversationSchemas.item]]])
  static let instructions = Field<String>.string("instructions", "A system message that stands before the conversation.")
  static let maxOutputTokens = Field<Int>.integer(
    "max_output_tokens", "The most tokens of an answer, thoughts included; what does not fit the context is cut.", in: 1...Int.max)
  static let tools = Field<[JSON]>.array(
    "tools",
    "Functions that the model may call. Tools of other types are refused, but those that Codex offers in every request beside its functions (\(standing.joined(separator: ", "))), which are left out: the header Martlet-Left-Out-Tools names them, and they are not in the answer's list.",
    of: ConversationSchemas.flatTool, atMost: 1024, further: ConversationSchemas.standingRule)
  /// What Codex offers in every request whether or not a server has it, and works without: servers that refused it were of no use to it. Where nothing
  /// else is offered somebody wants just that.
  static let standing = ["web_search", "web_search_preview", "image_generation", "custom", "local_shell"]
  static let text = Field<AskedForm?>(
    name: "text", schema: ["type": "object", "properties": ["format": Schema.nullable(FormFields.schema(nested: nil))]],
    about:
      "Its format says what the answer's text must be: anything, a JSON object, or JSON that is valid by a JSON Schema. Held exactly, or refused."
  ) { value, param in
    guard value.object != nil else { throw APIError.invalid(param, "\(param) must be an object; it is \(value.shown)") }
    return try value.given("format").flatMap { try FormFields.format($0, param + ".format", nested: nil) }
  }
  static let reasoning = Field<JSON.Object>.object(
    "reasoning", "Its effort is handed to the chat template.",
    schema: ["type": "object", "properties": ["effort": ["type": ["string", "null"]]]])
  static let metadata = Field<JSON.Object>.object(
    "metadata", "Texts that the answer says back.", schema: ["type": "object", "additionalProperties": ["type": "string"]])
  static let store = Field<Bool>.bool("store", "Ignored: nothing is kept.")
  static let background = Field<JSON>.any(
    "background", "Only false: an answer is given while the client waits.", schema: ["const": false])
  static let truncation = Field<String>.string(
    "truncation", "Ignored: a conversation that is too long is an error.", in: ["auto", "disabled"])
  package static let includedLogprobs = "message.output_text.logprobs"
  static let include = Field<[String]>.strings(
    "include",
    "\(includedLogprobs): the log-probabilities of the text's tokens, the model's, before temperature. All else is ignored.",
    atMost: 64)
  static let topLogprobs = Field<Int>.integer(
    "top_logprobs", "How many alternatives to each token; for those who include log-probabilities.", in: 0...20)

  static let refused: [Field<JSON>] = [
    .refused("previous_response_id", "nothing is kept here: send the whole conversation as input"),
    .refused("conversation", "nothing is kept here: send the whole conversation as input"),
    .refused("prompt", "no prompts are kept here: send their text"),
  ]

  package static let table: [any AnyField] =
    [
      ChatCompletionRequest.model, input, instructions, maxOutputTokens, ChatCompletionRequest.stream, tools,
      ChatCompletionRequest.toolChoice,
      ChatCompletionRequest.parallelToolCalls, text, reasoning, metadata, store, background, truncation, include, topLogprobs,
      ChatCompletionRequest.templateVariables,
    ] + refused as [any AnyField] + SamplingFields.common

  /// The fields of `/v1/responses/input_tokens`.
  static let countTable: [any AnyField] =
    [
      ChatCompletionRequest.model, input, instructions, tools, ChatCompletionRequest.toolChoice, ChatCompletionRequest.parallelToolCalls,
      text,
      reasoning, ChatCompletionRequest.templateVariables,
    ] + refused

  package init(_ json: JSON, id: String, server: ServerConfiguration) throws {
    let fields = try Fields(json)
    try fields.check(Self.table)
    if let value = try fields(Self.background), value != false {
      throw APIError.unsupported(
        "background", "background is not supported: nothing is kept here, so the client has to wait for its answer")
    }
    let instructions = try fields(Self.instructions)
    chat = ChatRequest(
      model: try fields(ChatCompletionRequest.model),
      messages: try ResponseItems.messages(try fields.require(Self.input), instructions: instructions),
      sampling: try SamplingFields.read(fields, over: server.sampling), requestOptions: try SamplingFields.options(fields, id: id))
    let most = try fields(Self.maxOutputTokens)
    if let most { chat.sampling.maxTokens = most }
    chat.sampling.timeout = server.requestTimeout
    chat.isStream = try fields(ChatCompletionRequest.stream) ?? false
    let top = try fields(Self.topLogprobs) ?? 0
    if try fields(Self.include)?.contains(Self.includedLogprobs) ?? false {
      chat.sampling.logprobs = top
    } else if top > 0 {
      throw APIError.invalid("top_logprobs", "top_logprobs needs include to have \(Self.includedLogprobs)")
    }
    let effort = try fields(Self.reasoning)?["effort"] ?? .null
    if !effort.isNull, effort.string == nil {
      throw APIError.invalid("reasoning.effort", "reasoning.effort must be a string; it is \(effort.shown)")
    }
    try chat.readTemplateVariables(fields, over: server, effort: effort.string)

    let tools = try readFunctions(try fields(Self.tools) ?? [])
    let choice = try fields(ChatCompletionRequest.toolChoice)
    chat.tools = try choice.map { try ChatCompletionRequest.offered(tools, $0) } ?? tools
    chat.callsInParallel = try fields(ChatCompletionRequest.parallelToolCalls) ?? true

    try chat.take(try fields(Self.text) ?? nil)

    let metadata = try fields(Self.metadata) ?? [:]
    for (key, value) in metadata.members where value.string == nil {
      throw APIError.invalid("metadata", "metadata's \(JSON.string(key).shown) must be a string; it is \(value.shown)")
    }
    echo = [
      "background": false, "instructions": instructions.map { .string($0) } ?? .null,
      "max_output_tokens": most.map { .integer($0) } ?? .null,
      "max_tool_calls": .null, "metadata": .object(metadata), "parallel_tool_calls": .bool(chat.callsInParallel),
      "previous_response_id": .null, "reasoning": ["effort": effort, "summary": .null], "service_tier": "default", "store": false,
      "temperature": chat.sampling.temperature.shortestJSON, "text": ["format": fields.object["text"]?.given("format") ?? ["type": "text"]],
      "tool_choice": choice ?? "auto",
      "tools": .array(tools.map(Self.flat)), "top_logprobs": .integer(top), "top_p": chat.sampling.topP.shortestJSON,
      "truncation": "disabled",
      "user": try fields(SamplingFields.user).map { .string($0) } ?? .null, "seed": chat.sampling.seed.seedJSON,
    ]
  }

  /// The functions among tools, in the form that chat templates read.
  private mutating func readFunctions(_ tools: [JSON]) throws -> [JSON] {
    let offersFunctions = tools.contains { $0["type"] == "function" }
    var leftOut: [String] = []
    defer { self.leftOut = leftOut }
    return try tools.enumerated().compactMap { index, tool in
      guard let type = tool["type"]?.string else {
        throw APIError.invalid("tools[\(index)]", "tools[\(index)] must be {\"type\": \"function\", \"name\": …, \"parameters\": …}")
      }
      if type != "function" {
        guard offersFunctions, Self.standing.contains(type) else {
          throw APIError.unsupported(
            "tools[\(index)]",
            "tools[\(index)] is of the type \(JSON.string(type).shown), which this server cannot run: take it out, or offer a function that the client runs"
          )
        }
        if !leftOut.contains(type) { leftOut.append(type) }
        return nil
      }
      // Chat's form, which some send here too.
      if let function = tool["function"] {
        try ChatCompletionRequest.check(function: function, "tools[\(index)].function")
        return ["type": "function", "function": function]
      }
      try ChatCompletionRequest.check(function: tool, "tools[\(index)]")
      let name = tool["name"]?.string ?? ""
      var function: JSON.Object = ["name": .string(name)]
      for key in ["description", "parameters", "strict"] {
        if let value = tool[key], !value.isNull { function[key] = value }
      }
      return ["type": "function", "function": .object(function)]
    }
  }

  private static func flat(_ tool: JSON) -> JSON {
    let function = tool["function"]
    var flat: JSON.Object = [
      "type": "function", "name": function?["name"] ?? "", "parameters": function?["parameters"] ?? .null,
      "strict": function?["strict"] ?? false,
    ]
    if let description = function?["description"] { flat["description"] = description }
    return .object(flat)
  }
}

/// The items of a conversation in the form of `/v1/responses`, as the messages that templates read.
enum ResponseItems {
  /// What one turn of the assistant said, thought and called comes as several items, and is one message.
  static func messages(_ input: JSON, instructions: String?) throws -> [ChatMessage] {
    var builder = Builder()
    if let instructions, !instructions.isEmpty { builder.opening.append(instructions) }
    if let text = input.string {
      builder.messages.append(ChatMessage(role: "user", content: text))
      return builder.conversation
    }
    guard let items = input.array else {
      throw APIError.invalid("input", "input must be a text or an array of items; it is \(input.shown)")
    }
    if items.isEmpty { throw APIError.invalid("input", "input is empty; there is nothing to answer") }
    for (index, item) in items.enumerated() { try add(item, "input[\(index)]", to: &builder) }
    return builder.conversation
  }

  /// A conversation while it is read. What it takes grows with the items, however many there are.
  private struct Builder {
    /// What the system says at the start. Many templates take one system message, there: instructions and what the developer says are both of that kind.
    var opening: [String] = []
    var messages: [ChatMessage] = []
    /// The tools that were called, by the calls' ids.
    var calledNames: [String: String] = [:]

    var conversation: [ChatMessage] {
      (opening.isEmpty ? [] : [ChatMessage(role: "system", content: opening.joined(separator: "\n\n"))]) + messages
    }
  }

  private static func add(_ item: JSON, _ name: String, to builder: inout Builder) throws {
    guard item.object != nil else { throw APIError.invalid(name, "\(name) must be an object; it is \(item.kindName)") }
    func string(_ key: String) throws -> String {
      guard let text = item[key]?.string else { throw APIError.invalid("\(name).\(key)", "\(name).\(key) must be a string") }
      return text
    }
    switch item.given("type") ?? "message" {
    case "message":
      var role = try string("role")
      if role == "developer" { role = "system" }
      guard ["system", "user", "assistant"].contains(role) else {
        throw APIError.invalid(
          "\(name).role", "\(name).role must be system, developer, user or assistant; it is \(JSON.string(role).shown)")
      }
      let text = try content(item["content"], name + ".content")
      if role == "system", builder.messages.isEmpty {
        builder.opening.append(text)
      } else if role == "assistant", let last = builder.messages.last, last.role == role, last.content == nil, last.toolCalls.isEmpty {
        builder.messages[builder.messages.count - 1].content = .text(text)
      } else {
        builder.messages.append(ChatMessage(role: role, content: text))
      }
    case "reasoning":
      let parts = (item["content"]?.array ?? []) + (item["content"]?.array?.isEmpty ?? true ? item["summary"]?.array ?? [] : [])
      let thought = parts.compactMap { $0["text"]?.string }.joined(separator: "\n")
      // Thoughts that came encrypted are of another server.
      if !thought.isEmpty { builder.messages.append(ChatMessage(role: "assistant", reasoning: thought)) }
    case "function_call":
      let call = ToolCall(id: try string("call_id"), name: try string("name"), arguments: .string(try string("arguments")))
      builder.calledNames[call.id ?? ""] = call.name
      if builder.messages.last?.role == "assistant" {
        builder.messages[builder.messages.count - 1].toolCalls.append(call)
      } else {
        builder.messages.append(ChatMessage(role: "assistant", toolCalls: [call]))
      }
    case "function_call_output":
      let id = try string("call_id")
      builder.messages.append(
        ChatMessage(
          role: "tool", content: .text(try content(item["output"], name + ".output")), name: builder.calledNames[id], toolCallID: id))
    case "item_reference":
      throw APIError.unsupported(name, "\(name) is a reference, and nothing is kept here: send the item itself")
    case let type:
      throw APIError.unsupported(
        name, "\(name) is of the type \(type.shown), which is not supported; message, reasoning, function_call and function_call_output are"
      )
    }
  }

  private static func content(_ json: JSON?, _ name: String) throws -> String {
    switch json {
    case .some(.string(let text)): return text
    case .some(.array(let parts)): return try ChatCompletionRequest.text(of: parts, name)
    default: throw APIError.invalid(name, "\(name) must be a text or an array of parts")
    }
  }
}

extension Float {
  /// The number as it was written, and not its neighbour in binary.
  var shortestJSON: JSON { .number(Double("\(self)") ?? Double(self)) }
}
#endif
