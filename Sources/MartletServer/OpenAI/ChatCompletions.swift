// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import HTTPTypes
import Hummingbird
import Martlet
import MartletAnswers
import MartletTemplates

// POST /v1/chat/completions

extension ModelServer {
  func chatCompletions(_ request: Request, _ context: any RequestContext, _ exchange: Exchange) async throws -> Response {
    let id = "chatcmpl-" + RandomName.make()
    let asked = try await read(request) { [configuration] in try ChatCompletionRequest($0, id: id, server: configuration) }
    let answers = try await ChatAnswers.begin(asked.chat, server: self)
    let head = CompletionHead(id: id, created: UnixTime.now, model: modelName(answers.llm), seed: asked.chat.sampling.seed)
    exchange.note { $0.promptTokens = answers.promptTokens }
    if asked.chat.isStream {
      return stream(exchange) { [configuration] events in
        try await ChatCompletionStream(asked, answers, head).write(to: &events, exchange, silence: configuration.keepAliveInterval)
      }
    }
    return Response(json: try await wholeChat(asked, answers, head, exchange))
  }

  private func wholeChat(
    _ asked: ChatCompletionRequest, _ answers: ChatAnswers, _ head: CompletionHead, _ exchange: Exchange
  ) async throws -> JSON {
    var readers = answers.generations.indices.map(answers.reader(of:))
    var usage = Usage(promptTokens: answers.promptTokens)
    var logprobs = answers.generations.map { _ in [TokenLogprob]() }
    try await exchange.read(answers.generations, silence: .seconds(3600)) { event in
      guard case .chunk(let index, let chunk) = event else { return }
      _ = readers[index].read(chunk)
      if readers[index].isSatisfied { answers.generations[index].cancel() }
      usage.add(chunk)
      logprobs[index] += chunk.logprobs
    }
    usage.reasoningTokens = readers.contains { !$0.reasoning.isEmpty } ? readers.reduce(0) { $0 + $1.reasoningTokens } : nil
    let choices = readers.enumerated().map { index, reader -> JSON in
      [
        "index": .integer(index), "message": reader.message,
        "logprobs": asked.topLogprobs == nil ? .null : ChatLogprobs(answers.llm.tokenizer).json(logprobs[index]),
        "finish_reason": .string(reader.finishReason), "stop_reason": (reader.finish ?? .length).stopReason,
      ]
    }
    var reply = head.object("chat.completion")
    reply["choices"] = .array(choices)
    reply["usage"] = usage.json
    reply["seed"] = head.seedJSON
    return .object(reply)
  }

  /// An answer of events. What is booked is booked before the mark of the end.
  func stream(_ exchange: Exchange, _ write: @escaping @Sendable (inout EventStream) async throws -> Void) -> Response {
    exchange.note { $0.isStream = true }
    return Response(
      status: .ok, headers: EventStream.headers,
      body: ResponseBody { writer in
        var events = EventStream(writer)
        do {
          try await write(&events)
        } catch {
          // Mostly a client who has gone.
          exchange.note { $0.finish = $0.finish ?? "disconnected" }
          exchange.end(status: 200)
          throw error
        }
        exchange.end(status: 200)
        try await events.finish()
      })
  }
}

/// What all parts of one reply have in common.
struct CompletionHead: Sendable {
  let id: String
  let created: Int
  let model: String
  let seed: UInt64

  func object(_ kind: String) -> JSON.Object {
    ["id": .string(id), "object": .string(kind), "created": .integer(created), "model": .string(model), "system_fingerprint": .null]
  }

  var seedJSON: JSON { seed.seedJSON }
}

extension UInt64 {
  /// A seed as a request would have to have it.
  var seedJSON: JSON { .integer(Int(Int64(bitPattern: self))) }
}

extension Usage {
  mutating func add(_ chunk: GenerationChunk) {
    completionTokens += chunk.tokenIDs.count
    // Samples of one prompt share it; the first knows what was cached.
    if let cached = chunk.cachedPromptTokens { cachedTokens = max(cachedTokens, cached) }
  }
}

/// The events of one streamed reply.
private struct ChatCompletionStream {
  let asked: ChatCompletionRequest
  let answers: ChatAnswers
  let head: CompletionHead
  var usage: Usage

  init(_ asked: ChatCompletionRequest, _ answers: ChatAnswers, _ head: CompletionHead) {
    self.asked = asked
    self.answers = answers
    self.head = head
    usage = Usage(promptTokens: answers.promptTokens)
  }

  func write(to events: inout EventStream, _ exchange: Exchange, silence: Duration) async throws {
    var copy = self
    do {
      try await copy.writeAnswers(to: &events, exchange, silence)
    } catch let error as LLMError {
      // The status is out already; the clients raise what an error event says.
      events.add(APIError(error).json)
      exchange.note { $0.finish = "error" }
    }
    exchange.end(status: 200)
    events.addDone()
    try await events.flush()
  }

  private mutating func writeAnswers(to events: inout EventStream, _ exchange: Exchange, _ silence: Duration) async throws {
    var readers = answers.generations.indices.map(answers.reader(of:))
    // Every choice in its order, before anything else: OpenAI's helper finds choices by their places.
    for index in readers.indices {
      var first = chunk(index, ["role": "assistant", "content": ""])
      if index == 0 { first["seed"] = head.seedJSON }
      events.add(.object(first))
    }
    try await events.flush()
    let textEvents = readers.indices.map { index in TextEvents { .object(chunk(index, ["content": .string($0)])) } }
    let tokenLogprobs = asked.topLogprobs.map { _ in ChatLogprobs(answers.llm.tokenizer) }
    try await exchange.read(answers.generations, silence: silence) { event in
      switch event {
      case .silence:
        if ContinuousClock.now - events.lastWrite >= silence { try await events.keepAlive() }
      case .chunk(let index, let chunk):
        let wasSatisfied = readers[index].isSatisfied
        usage.add(chunk)
        let parts = readers[index].read(chunk)
        if readers[index].isSatisfied && !wasSatisfied { answers.generations[index].cancel() }
        var logprobs = tokenLogprobs.flatMap { chunk.logprobs.isEmpty ? nil : $0.json(chunk.logprobs) }
        for part in parts {
          if case .content(let text) = part, logprobs == nil, !asked.continuousUsage {
            events.add(text, as: textEvents[index])
            continue
          }
          guard let delta = delta(part, readers[index]) else { continue }
          events.add(.object(self.chunk(index, delta, logprobs: logprobs)))
          logprobs = nil
        }
        // Text may lag behind its tokens.
        if let logprobs { events.add(.object(self.chunk(index, ["content": ""], logprobs: logprobs))) }
        if let reason = chunk.finishReason {
          var last = self.chunk(index, [:], finish: readers[index].finishReason)
          if !reason.stopReason.isNull { last["stop_reason"] = reason.stopReason }
          events.add(.object(last))
        }
        try await events.flush()
      }
    }
    if asked.includesUsage {
      if readers.contains(where: { !$0.reasoning.isEmpty }) { usage.reasoningTokens = readers.reduce(0) { $0 + $1.reasoningTokens } }
      var last = head.object("chat.completion.chunk")
      last["choices"] = []
      last["usage"] = usage.json
      events.add(.object(last))
    }
  }

  /// The accumulators of clients add and join what stands in a delta, so a call's name and id come once, and its arguments in pieces.
  private func delta(_ part: AnswerPart, _ reader: AnswerReader) -> JSON? {
    switch part {
    case .content(let text): return ["content": .string(text)]
    case .reasoning(let text): return ["reasoning_content": .string(text)]
    case .callBegan(let index, let name):
      return [
        "tool_calls": [
          [
            "index": .integer(index), "id": .string(reader.calls[index].id), "type": "function",
            "function": ["name": .string(name), "arguments": ""],
          ]
        ]
      ]
    case .callArguments(let index, let text):
      return ["tool_calls": [["index": .integer(index), "function": ["arguments": .string(text)]]]]
    case .callEnded, .callBroke: return nil
    }
  }

  private func chunk(_ index: Int, _ delta: JSON, logprobs: JSON? = nil, finish: String? = nil) -> JSON.Object {
    var object = head.object("chat.completion.chunk")
    object["choices"] = [
      [
        "index": .integer(index), "delta": delta, "logprobs": logprobs ?? .null, "finish_reason": finish.map { .string($0) } ?? .null,
      ]
    ]
    if asked.continuousUsage { object["usage"] = usage.json }
    return object
  }
}

/// Log-probabilities as chat has them.
struct ChatLogprobs {
  private let tokenizer: any Tokenizer

  init(_ tokenizer: any Tokenizer) { self.tokenizer = tokenizer }

  func json(_ tokens: [TokenLogprob]) -> JSON { ["content": .array(tokens.map { json($0) }), "refusal": .null] }

  func json(_ token: TokenLogprob) -> JSON {
    var entry = self.entry(token.tokenID, token.logprob)
    entry["top_logprobs"] = .array(token.top.map { .object(self.entry($0.tokenID, $0.logprob)) })
    return .object(entry)
  }

  /// The bytes are the token's own, also where they are half a character; the text then has U+FFFD.
  private func entry(_ token: Int, _ logprob: Float) -> JSON.Object {
    let bytes = tokenizer.bytes(of: Int32(token), showsControlTokens: true)
    return [
      "token": .string(String(decoding: bytes, as: UTF8.self)), "logprob": logprob.logprobJSON,
      "bytes": .array(bytes.map { .integer(Int($0)) }),
    ]
  }
}
#endif
