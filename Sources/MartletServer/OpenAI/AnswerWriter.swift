// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
package import Martlet
package import MartletAnswers
package import MartletTemplates
import MartletTokenizers

/// Writes one answer as a sequence of named events, in the manner of one API. A reply that does not stream is written by the same events, of which
/// only ``reply`` is sent: so the two cannot differ.
///
/// It knows neither engine nor connection. An event's name is its member `type`.
package protocol AnswerWriter: Sendable {
  /// What is said before anything is known of the answer.
  mutating func begin() -> [JSON]
  /// - Parameter logprobs: of the tokens of the text in these parts, as chat has them; none where nobody asked, and in APIs without them.
  mutating func add(_ parts: [AnswerPart], logprobs: [JSON]) -> [JSON]
  mutating func end(_ end: AnswerEnd) -> [JSON]
  /// The answer breaks off. Nothing comes after it.
  mutating func fail(_ error: APIError) -> [JSON]
  /// The whole answer, as far as it has come.
  var reply: JSON { get }
  /// The name of the event that says that there is nothing to say; nil is a comment.
  static var silence: String? { get }
}

extension AnswerWriter {
  package mutating func add(_ parts: [AnswerPart]) -> [JSON] { add(parts, logprobs: []) }
}

/// How an answer ended, and what it took.
package struct AnswerEnd: Sendable {
  package var finish: FinishReason
  /// Which of the stop strings it was.
  package var stop: String?
  package var usage: Usage

  package init(finish: FinishReason, stop: String? = nil, usage: Usage) {
    self.finish = finish
    self.stop = stop
    self.usage = usage
  }
}

extension ChatAnswers {
  /// Reads the first of the answers, part by part, to its end.
  private func read(
    _ exchange: Exchange, silence: Duration, _ body: (_ parts: [AnswerPart]?, _ logprobs: [JSON]) async throws -> Void
  ) async throws -> AnswerEnd {
    var reader = reader()
    let (tokenizer, shows) = (llm.tokenizer, request.sampling.showsControlTokens)
    let logprobs = ChatLogprobs(tokenizer)
    var contents = ContentLogprobs { tokenizer.bytes(of: Int32($0), showsControlTokens: shows).count }
    var usage = Usage(promptTokens: promptTokens)
    var (tokens, textCount) = ([Int32](), 0)
    try await exchange.read(generations, silence: silence) { event in
      guard case .chunk(_, let chunk) = event else { return try await body(nil, []) }
      let wasSatisfied = reader.isSatisfied
      usage.add(chunk)
      if !request.sampling.stop.isEmpty {
        tokens += chunk.tokenIDs.map(Int32.init)
        textCount += chunk.text.utf8.count
      }
      let parts = reader.read(chunk)
      if reader.isSatisfied && !wasSatisfied { generations[0].cancel() }
      let found = request.sampling.logprobs == nil ? [] : contents.read(chunk, at: reader.contentRanges).map { logprobs.json($0) }
      if !parts.isEmpty { try await body(parts, found) }
    }
    if !reader.reasoning.isEmpty { usage.reasoningTokens = reader.reasoningTokens }
    let finish = reader.finish ?? .length
    var stop: String?
    if finish == .stopString {
      // The engine says that it was one of them. The tokens know which, since the text ends where it began.
      let rest = llm.tokenizer.decode(tokens).utf8.dropFirst(textCount)
      stop = request.sampling.stop.first { rest.starts(with: $0.utf8) } ?? request.sampling.stop.first
    }
    return AnswerEnd(finish: finish, stop: stop, usage: usage)
  }

  /// The whole answer as `writer` writes it.
  func reply(_ writer: some AnswerWriter, _ exchange: Exchange) async throws -> JSON {
    var writer = writer
    _ = writer.begin()
    let end = try await read(exchange, silence: .seconds(3600)) { parts, logprobs in
      if let parts { _ = writer.add(parts, logprobs: logprobs) }
    }
    _ = writer.end(end)
    return writer.reply
  }

  /// Writes the answer's events while it comes.
  func write<Writer: AnswerWriter>(
    _ writer: Writer, to events: inout EventStream, _ exchange: Exchange, silence: Duration
  ) async throws {
    var writer = writer
    do {
      events.add(writer.begin())
      try await events.flush()
      let end = try await read(exchange, silence: silence) { parts, logprobs in
        if let parts {
          events.add(writer.add(parts, logprobs: logprobs))
          try await events.flush()
        } else if ContinuousClock.now - events.lastWrite >= silence {
          try await events.keepAlive(named: Writer.silence)
        }
      }
      events.add(writer.end(end))
    } catch let error as LLMError {
      // The status is out already.
      events.add(writer.fail(APIError(error)))
      exchange.note { $0.finish = "error" }
    }
    exchange.end(status: 200)
    try await events.flush()
  }
}

extension EventStream {
  /// Adds events that are named by their type.
  mutating func add(_ events: [JSON]) {
    for event in events { add(event, named: event["type"]?.string) }
  }
}

extension ModelServer {
  /// How many tokens the prompt of a conversation has.
  func promptTokens(of chat: ChatRequest) async throws -> Int {
    let llm = try writer(named: chat.model)
    return try await Exchange.offload { [self] in
      try checkTools(chat.tools, llm)
      return try prepare(llm, param: "messages") { try chat.prompt(for: llm, mostBytes: $0) }.tokenIDs.count
    }
  }
}
#endif
