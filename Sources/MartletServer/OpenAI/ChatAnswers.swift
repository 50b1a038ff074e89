// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import HTTPTypes
import Martlet
import MartletAnswers
import MartletTemplates
import MartletTokenizers

/// The answers to a conversation while they are written, taken apart into thoughts, text and calls. The APIs for chat share it.
struct ChatAnswers: Sendable {
  let llm: LLM
  let request: ChatRequest
  let generations: [Generation]

  /// Submits a request, on a thread that may take its time for it.
  static func begin(_ request: ChatRequest, server: ModelServer) async throws -> ChatAnswers {
    let llm = try server.writer(named: request.model)
    return try await Exchange.offload {
      var request = request
      try server.checkTools(request.tools, llm)
      try server.check(request.sampling.form, named: request.formParam, llm)
      let asked = request
      let prompt = try server.prepare(llm, param: "messages") { try asked.prompt(for: llm, mostBytes: $0) }
      try server.fit(&request.sampling, promptTokens: prompt.tokenIDs.count, llm, param: "messages")
      if llm.answersNeedControlTokens { request.sampling.showsControlTokens = true }
      return ChatAnswers(
        llm: llm, request: request,
        generations: try llm.generate([prompt], sampling: request.sampling, count: request.count, options: request.requestOptions))
    }
  }

  var promptTokens: Int { generations[0].promptTokenIDs.count }

  /// What reads one of the answers.
  func reader(of index: Int = 0) -> AnswerReader {
    let generation = generations[index]
    // An answer of a form is all text: it has neither thoughts nor calls, whatever the template has opened.
    if request.sampling.form != nil {
      return AnswerReader(
        parser: AnswerParser(format: AnswerFormat()), callsInParallel: request.callsInParallel,
        remember: { generation.remember($0, tokenIDs: $1, finishReason: $2) })
    }
    // The end of the prompt tells whether the template has opened the model's thoughts already.
    let bytes = generation.promptTokenIDs.suffix(32).flatMap { llm.tokenizer.bytes(of: Int32($0), showsControlTokens: true) }
    return AnswerReader(
      parser: AnswerParser(
        format: llm.answerFormat, tools: request.tools, promptEnd: String(decoding: bytes, as: UTF8.self),
        parsesReasoning: request.splitsReasoning), callsInParallel: request.callsInParallel,
      remember: { generation.remember($0, tokenIDs: $1, finishReason: $2) })
  }
}

extension ChatRequest {
  /// The prompt that its template makes of the conversation.
  ///
  /// - Parameter mostBytes: a longer text has no room however its tokens fall, and is not taken apart into them.
  func prompt(for llm: LLM, mostBytes: Int) throws -> PreparedPrompt {
    // A message that only calls tools has `"content": null` in these APIs. Some templates ask for that null, and others join what they find to texts.
    let hasBareCalls = messages.contains { $0.content == nil && !$0.toolCalls.isEmpty }
    func prompt(bare content: JSON) throws -> PreparedPrompt {
      let messages = messages.map { message in
        var message = message
        if message.content == nil, !message.toolCalls.isEmpty { message.further["content"] = content }
        return message
      }
      return try llm.prepare(.chat(messages, tools: tools.isEmpty ? nil : tools, options: chatOptions), mostTextBytes: mostBytes)
    }
    do {
      return try prompt(bare: .null)
    } catch let error as TokenizerError where hasBareCalls && error.code == .unwritableConversation {
      return try prompt(bare: "")
    }
  }
}

/// Reads one answer.
struct AnswerReader: Sendable {
  private var parser: AnswerParser
  private let callsInParallel: Bool
  private let remember: @Sendable (ChatMessage, _ tokenIDs: [Int], FinishReason) -> Void
  private var tokenIDs: [Int] = []
  private(set) var calls: [ToolCallText] = []
  private(set) var content = ""
  private(set) var reasoning = ""
  private(set) var reasoningTokens = 0
  private(set) var finish: FinishReason?

  /// A call as it goes over the wire: its arguments are a text.
  struct ToolCallText: Sendable {
    let id = "call_" + RandomName.make()
    var name: String
    var arguments = ""

    var json: JSON {
      ["id": .string(id), "type": "function", "function": ["name": .string(name), "arguments": .string(arguments)]]
    }
  }

  /// - Parameter remember: told the whole answer and its tokens at its end, so that they are known when the message comes back.
  init(
    parser: AnswerParser, callsInParallel: Bool,
    remember: @escaping @Sendable (ChatMessage, _ tokenIDs: [Int], FinishReason) -> Void = { _, _, _ in }
  ) {
    self.parser = parser
    self.callsInParallel = callsInParallel
    self.remember = remember
  }

  /// What a chunk adds. Where one call is all that is wanted, the parts end with it.
  mutating func read(_ chunk: GenerationChunk) -> [AnswerPart] {
    var parts = parser.append(chunk.text)
    contentRanges = parser.contentRanges
    if let reason = chunk.finishReason {
      parts += parser.finish()
      contentRanges += parser.contentRanges
      finish = reason
    }
    var kept: [AnswerPart] = []
    for part in parts {
      switch part {
      case .content(let text):
        if isSatisfied { continue }
        content += text
      case .reasoning(let text): reasoning += text
      case .callBegan(let index, let name):
        if index > 0, !callsInParallel { continue }
        calls.append(ToolCallText(name: name))
      case .callArguments(let index, let text):
        guard index < calls.count else { continue }
        calls[index].arguments += text
      case .callEnded(let index):
        guard index < calls.count else { continue }
        if !callsInParallel { isSatisfied = true }
      case .callBroke: isBroken = true
      }
      kept.append(part)
    }
    if calls.isEmpty && content.isEmpty && !reasoning.isEmpty { reasoningTokens += chunk.tokenIDs.count }
    tokenIDs += chunk.tokenIDs
    if let finish, !isBroken, !isSatisfied { remember(chatMessage, tokenIDs, finish) }
    return kept
  }

  /// As a client sends it back.
  private var chatMessage: ChatMessage {
    ChatMessage(
      role: "assistant", content: content.isEmpty ? nil : .text(content),
      toolCalls: calls.map { ToolCall(id: $0.id, name: $0.name, arguments: .string($0.arguments)) },
      reasoning: reasoning.isEmpty ? nil : reasoning)
  }

  /// Where the content that the last chunk made certain stands in the text.
  private(set) var contentRanges: [Range<Int>] = []

  /// Whether the one call that was wanted is there, so that nothing more is.
  private(set) var isSatisfied = false

  /// Whether a call ended in the middle, or is no JSON.
  private var isBroken = false

  /// OpenAI's word for how it ended.
  var finishReason: String {
    let end = (finish ?? .length).openAI
    return calls.isEmpty || isBroken && end == "length" ? end : "tool_calls"
  }

  /// The message as a reply has it.
  var message: JSON {
    var message: JSON.Object = [
      "role": "assistant", "content": content.isEmpty && !calls.isEmpty ? .null : .string(content), "refusal": .null,
    ]
    if !reasoning.isEmpty { message["reasoning_content"] = .string(reasoning) }
    if !calls.isEmpty { message["tool_calls"] = .array(calls.map(\.json)) }
    return .object(message)
  }
}

extension ModelServer {
  /// Holds an answer to what context and cache have room for, as vLLM does: clients ask for 32 000 tokens and mean "as many as there are".
  /// - Throws: ``APIError`` where there is no room for one.
  func fit(_ sampling: inout SamplingParams, promptTokens: Int, _ llm: LLM, param: String) throws {
    let most = min(llm.maxSequenceLength, llm.cacheCapacity + 1) - promptTokens
    if most < 1 {
      throw APIError.contextExceeded(promptTokens: promptTokens, context: min(llm.maxSequenceLength, llm.cacheCapacity + 1), param: param)
    }
    if let wish = sampling.maxTokens { sampling.maxTokens = min(wish, most) }
  }
}
#endif
