// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import HTTPTypes
public import Martlet
public import MartletTemplates
public import MartletTokenizers

/// What a conversation is asked for, whichever API it came by.
public struct ChatRequest: Sendable {
  public var model: String?
  public var messages: [ChatMessage]
  /// Functions as OpenAI's API describes them; those that the model may call.
  public var tools: [JSON] = []
  /// Whether the model may call several tools in one answer.
  public var callsInParallel = true
  public var sampling: SamplingParams
  /// How many answers.
  public var count = 1
  public var chatOptions = ChatOptions()
  public var requestOptions: RequestOptions
  public var isStream = false
  /// Whether thoughts are told apart from the answer.
  public var splitsReasoning = true
  /// The field that the form of the answers came by (``SamplingParams/form``), for errors.
  var formParam = "response_format"
}

extension ChatRequest {
  /// Sets the variables of the template: the server's, and over them those of a request.
  mutating func readTemplateVariables(_ fields: Fields, over server: ServerConfiguration, effort: String?) throws {
    chatOptions.variables = try ChatCompletionRequest.readTemplateVariables(fields, over: server)
    if let effort { chatOptions.variables["reasoning_effort"] = .string(effort) }
  }
}

/// The body of `/v1/chat/completions`.
public struct ChatCompletionRequest: Sendable {
  public var chat: ChatRequest
  /// Whether a stream ends with what it took.
  public var includesUsage = false
  /// Whether every event of a stream says what it took so far.
  public var continuousUsage = false
  /// How many alternatives to each token; nil is no log-probabilities.
  public var topLogprobs: Int?

  static let model = Field<String>.string("model", "A name of the model; absent is the one that is served.")
  static let messages = Field<[JSON]>.array(
    "messages", "The conversation.", of: ConversationSchemas.message, atLeast: 1)
  static let maxCompletionTokens = Field<Int>.integer(
    "max_completion_tokens", "The most tokens of an answer; what does not fit the context is cut.", in: 1...Int.max)
  static let maxTokens = Field<Int>.integer("max_tokens", "The older name of max_completion_tokens.", in: 1...Int.max)
  static let stream = Field<Bool>.bool("stream", "Whether the answer comes as it is written, as server-sent events.")
  static let streamOptions = Field<JSON.Object>.object("stream_options", "include_usage and continuous_usage_stats.")
  static let logprobs = Field<Bool>.bool("logprobs", "Whether tokens come with their log-probabilities: the model's, before temperature.")
  static let topLogprobs = Field<Int>.integer("top_logprobs", "How many alternatives to each token.", in: 0...20)
  static let tools = Field<[JSON]>.array(
    "tools", "Functions that the model may call.", of: ConversationSchemas.tool, atMost: 1024)
  static let toolChoice = Field<JSON>.any(
    "tool_choice", "none, auto or allowed_tools; a call cannot be forced yet.",
    schema: ConversationSchemas.toolChoice)
  static let parallelToolCalls = Field<Bool>.bool("parallel_tool_calls", "Whether one answer may hold several calls.")
  static let templateVariables = Field<JSON.Object>(
    name: "chat_template_kwargs",
    schema: ["type": "object", "propertyNames": ["not": ["enum": .array(ChatTemplate.ownVariables.sorted().map { .string($0) })]]],
    about: "Variables of the model's chat template, such as enable_thinking."
  ) { value, param in
    guard let object = value.object else { throw APIError.invalid(param, "\(param) must be an object; it is \(value.shown)") }
    for name in object.members.map(\.key) where ChatTemplate.ownVariables.contains(name) {
      throw APIError.invalid(param, "\(param) has \(name), which is the server's to set")
    }
    return object
  }
  static let reasoningEffort = Field<String>.string("reasoning_effort", "Handed to the chat template.")
  static let addGenerationPrompt = Field<Bool>.bool(
    "add_generation_prompt", "Whether the prompt ends with the mark of the assistant's turn.")
  static let continueFinalMessage = Field<Bool>.bool("continue_final_message", "Whether the model goes on with the last message.")
  static let separateReasoning = Field<Bool>.bool("separate_reasoning", "Whether thoughts come apart, as reasoning_content.")

  static let modalities = Field<JSON>.any("modalities", "Only text.", schema: ["enum": ["text", ["text"]]])
  static let refused: [Field<JSON>] = ["functions", "function_call", "audio"].map { .refused($0) }

  package static let table: [any AnyField] =
    [
      model, messages, maxCompletionTokens, maxTokens, stream, streamOptions, logprobs, topLogprobs, tools, toolChoice, parallelToolCalls,
      templateVariables, reasoningEffort, addGenerationPrompt, continueFinalMessage, separateReasoning, modalities,
    ] + refused as [any AnyField] + FormFields.table + SamplingFields.table

  /// The fields of `/v1/chat/completions/input_tokens`: those that make the prompt.
  static let countTable: [any AnyField] = [
    model, messages, tools, toolChoice, parallelToolCalls, FormFields.responseFormat, templateVariables, reasoningEffort,
    addGenerationPrompt, continueFinalMessage,
  ]

  package init(_ json: JSON, id: String, server: ServerConfiguration) throws {
    let fields = try Fields(json)
    try fields.check(Self.table)
    chat = ChatRequest(
      model: try fields(Self.model), messages: try Self.messages(try fields.require(Self.messages)),
      sampling: try SamplingFields.read(fields, over: server.sampling), requestOptions: try SamplingFields.options(fields, id: id))
    chat.count = try fields(SamplingFields.n) ?? 1
    if chat.count > server.maxSamples {
      throw APIError.invalid("n", "n is \(chat.count); at most \(server.maxSamples) answers are given")
    }
    if let most = try fields(Self.maxCompletionTokens) ?? fields(Self.maxTokens) { chat.sampling.maxTokens = most }
    chat.sampling.timeout = server.requestTimeout
    chat.isStream = try fields(Self.stream) ?? false
    if let options = try fields(Self.streamOptions) {
      if !chat.isStream { throw APIError.invalid("stream_options", "stream_options is for streams; set stream to true") }
      includesUsage = options["include_usage"]?.flag ?? false
      continuousUsage = options["continuous_usage_stats"]?.flag ?? false
    }
    let top = try fields(Self.topLogprobs)
    if try fields(Self.logprobs) ?? false {
      topLogprobs = top ?? 0
    } else if let top, top > 0 {
      throw APIError.invalid("top_logprobs", "top_logprobs needs logprobs to be true")
    }
    chat.sampling.logprobs = topLogprobs
    try Self.readTools(fields, into: &chat)
    try chat.take(try FormFields.read(fields))
    if let modalities = try fields(Self.modalities), modalities != ["text"], modalities != "text" {
      throw APIError.unsupported("modalities", "only text can be answered")
    }
    try chat.readTemplateVariables(fields, over: server, effort: try fields(Self.reasoningEffort))
    if let adds = try fields(Self.addGenerationPrompt) { chat.chatOptions.addsGenerationPrompt = adds }
    if let continues = try fields(Self.continueFinalMessage) { chat.chatOptions.continuesFinalMessage = continues }
    if let splits = try fields(Self.separateReasoning) { chat.splitsReasoning = splits }
  }

  static func readTemplateVariables(_ fields: Fields, over server: ServerConfiguration) throws -> JSON.Object {
    var variables = server.templateVariables
    for (name, value) in try fields(templateVariables)?.members ?? [] { variables[name] = value }
    return variables
  }

  /// Messages as templates take them: texts in parts are joined, and what is no text is refused by its name.
  static func messages(_ elements: [JSON]) throws -> [ChatMessage] {
    try elements.enumerated().map { index, element in
      let name = "messages[\(index)]"
      var message: ChatMessage
      do { message = try ChatMessage(element) } catch { throw APIError.invalid(name, "\(name): \(error)") }
      if message.role == "developer" { message.role = "system" }
      guard ["system", "user", "assistant", "tool", "function"].contains(message.role) else {
        throw APIError.invalid(
          "\(name).role", "\(name).role must be system, developer, user, assistant or tool; it is \(JSON.string(message.role).shown)")
      }
      if message.role == "function" { message.role = "tool" }
      if case .parts(let parts) = message.content { message.content = .text(try text(of: parts, name + ".content")) }
      if message.content == nil, message.toolCalls.isEmpty {
        if message.role != "assistant" { throw APIError.invalid("\(name).content", "\(name).content is missing") }
        message.content = ""
      }
      // What OpenAI's answers carry besides, and no template reads.
      for key in ["refusal", "annotations", "audio", "function_call"] { message.further[key] = nil }
      return message
    }
  }

  static func text(of parts: [JSON], _ name: String) throws -> String {
    try parts.enumerated().map { index, part in
      guard let type = part["type"] == nil ? "text" : part["type"]?.string else {
        throw APIError.invalid("\(name)[\(index)].type", "\(name)[\(index)].type must be a string")
      }
      guard ["text", "input_text", "output_text", "refusal"].contains(type) else {
        throw APIError.unsupported(
          "\(name)[\(index)]", "\(name)[\(index)] is of the type \(JSON.string(type).shown); this model reads text only")
      }
      guard let text = (part["text"] ?? part["refusal"])?.string else {
        throw APIError.invalid("\(name)[\(index)]", "\(name)[\(index)] has no text")
      }
      return text
    }.joined(separator: "\n")
  }

  private static func readTools(_ fields: Fields, into chat: inout ChatRequest) throws {
    var tools = try fields(Self.tools) ?? []
    for (index, tool) in tools.enumerated() { try check(function: tool["function"], "tools[\(index)].function") }
    chat.callsInParallel = try fields(Self.parallelToolCalls) ?? true
    if let choice = try fields(Self.toolChoice) { tools = try Self.offered(tools, choice) }
    chat.tools = tools
  }

  /// What a template reads of a function must be of its type.
  static func check(function: JSON?, _ name: String) throws {
    guard let text = function?["name"]?.string, !text.isEmpty else {
      throw APIError.invalid("\(name).name", "\(name) has no name; it must be {\"name\": …, \"description\": …, \"parameters\": …}")
    }
    if let about = function?["description"], !about.isNull, about.string == nil {
      throw APIError.invalid("\(name).description", "\(name).description must be a string; it is \(about.shown)")
    }
    if let schema = function?["parameters"], !schema.isNull, schema.object == nil {
      throw APIError.invalid("\(name).parameters", "\(name).parameters must be an object; it is \(schema.shown)")
    }
  }

  /// Those of the tools that a `tool_choice` leaves.
  static func offered(_ tools: [JSON], _ choice: JSON) throws -> [JSON] {
    func cannot(_ what: String) -> APIError {
      .unsupported("tool_choice", "tool_choice \(what) is not supported yet, since a call cannot be forced: use auto or none")
    }
    switch choice {
    case "none": return []
    case "auto": return tools
    case "required": throw cannot("required")
    default:
      switch choice["type"]?.string {
      case "function": throw cannot("with a named function")
      case "allowed_tools":
        let allowed = choice["allowed_tools"] ?? choice
        if let mode = allowed["mode"], mode != "auto", mode != "required" {
          throw APIError.invalid("tool_choice", "tool_choice's mode must be auto or required; it is \(mode.shown)")
        }
        if allowed["mode"] == "required" { throw cannot("allowed_tools with the mode required") }
        guard let names = allowed["tools"]?.array?.compactMap({ ($0["function"]?["name"] ?? $0["name"])?.string }) else {
          throw APIError.invalid("tool_choice", "tool_choice's allowed_tools must list functions")
        }
        return tools.filter { names.contains($0["function"]?["name"]?.string ?? "") }
      default:
        throw APIError.invalid(
          "tool_choice", "tool_choice must be none, auto, required, a function or allowed_tools; it is \(choice.shown)")
      }
    }
  }
}
#endif
