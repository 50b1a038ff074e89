// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// A conversation is a value: what was said, and how much of it the model is still told. It holds no model and does nothing by itself; whoever
// asks hands the model in, reads the answer as any other generation, and notes it.

import MartletCore
public import MartletTemplates
public import MartletTokenizers

/// What was said between a person and a model, and how much of it the model is still told.
///
/// ```swift
/// var conversation = Conversation(system: "You are brief.")
/// let reply = try conversation.ask("What is a swift?", of: llm, sampling: SamplingParams(maxTokens: 200))
/// let output = try await reply.generation.output()  // or iterate over the generation
/// conversation.note(answer: output.text)
/// if output.finishReason == .length {
///   let rest = try conversation.continueAnswer(of: llm)
///   …
/// }
/// ```
///
/// Where the context is full the oldest turns are forgotten: the model is not told them any more, while ``transcript`` keeps them. The system
/// message is never forgotten. A turn is a message of the role "user" and all that follows it up to the next; calls of tools and their results go
/// with the turn that they belong to.
///
/// A call that throws leaves the conversation as it was. Keep one in each session of a server: it is `Sendable` and `Codable`, and two copies go
/// their own ways from where they part. Requests that begin alike share keys and values, so that the next question costs only what is new.
public struct Conversation: Sendable, Hashable, Codable {
  /// The system message; nil is none, which leaves the template to its own, if it has one.
  public var system: String?
  /// Functions that the model may call, as OpenAI's API describes them; nil is none.
  public var tools: [JSON]?
  /// Variables of the template, and how marks in messages are read. How a prompt ends is set by what is asked.
  public var options: ChatOptions
  /// Tokens that a prompt leaves free for the answer by forgetting turns; nil leaves a quarter of the context, or the answer's own limit where
  /// that is less. Never more than half of the context.
  public var roomForAnswer: Int?
  /// Everything that was said, without the system message, and with what is forgotten.
  public private(set) var messages: [ChatMessage]
  /// How many of ``messages``, from the first on, the model is not told any more.
  public private(set) var forgottenCount = 0
  /// What awaits its answer.
  private var pending: Pending?
  /// The ``Reply`` that it awaits.
  private var awaited: UInt64?
  /// What ``forgottenCount`` was before that was asked.
  private var forgottenBefore: Int?

  private enum Pending: Sendable, Hashable, Codable {
    /// The last messages, so many.
    case question(count: Int)
    /// The question whose answer this was.
    case retry(ChatMessage)
    /// More of the last message.
    case continuation
  }

  /// What was asked for.
  public struct Reply: Sendable {
    /// The answer on its way.
    public let generation: Generation
    /// The messages that were forgotten for this request, and not before; empty where there was room for all.
    public let forgotten: [ChatMessage]
    /// Drawn, so that no two are alike, of copies of a conversation neither; an integer that JSON has.
    fileprivate let number: UInt64
  }

  /// - Parameters:
  ///   - system: the system message; nil is none.
  ///   - tools: functions as OpenAI's API describes them; nil is none.
  ///   - options: `addsGenerationPrompt` and `continuesFinalMessage` are set anew by every request.
  ///   - messages: what was said before, such as a ``transcript``. System messages at its beginning take the place of `system`.
  public init(system: String? = nil, tools: [JSON]? = nil, options: ChatOptions = ChatOptions(), messages: [ChatMessage] = []) {
    let first = messages.prefix { $0.role == "system" }
    self.system = first.isEmpty ? system : first.map(\.text).joined(separator: "\n")
    self.tools = tools
    self.options = options
    self.messages = Array(messages.dropFirst(first.count))
  }

  /// What was said, the system message first, and what is forgotten included.
  public var transcript: [ChatMessage] { systemMessages + messages }

  /// The last answer; nil where there is none, where it is forgotten, or where a question awaits one.
  public var lastAnswer: ChatMessage? {
    guard pending == nil, messages.count > forgottenCount, let last = messages.last, last.role == "assistant" else { return nil }
    return last
  }

  /// The last message, where it is one that awaits an answer and none was asked for: of messages from elsewhere, which end with a question.
  /// ``retry(of:sampling:requestOptions:)`` asks it.
  public var openQuestion: ChatMessage? {
    guard pending == nil, messages.count > forgottenCount, let last = messages.last, last.role != "assistant" else { return nil }
    return last
  }

  /// What a request for an answer is made of: the system message and what is not forgotten.
  public var prompt: Prompt { prompt(options, continuing: false) }

  /// Forgets what was said, and its transcript too; the system message, the tools and the options stay.
  public mutating func clear() { self = Conversation(system: system, tools: tools, options: options, roomForAnswer: roomForAnswer) }

  private init(system: String?, tools: [JSON]?, options: ChatOptions, roomForAnswer: Int?) {
    self.init(system: system, tools: tools, options: options)
    self.roomForAnswer = roomForAnswer
  }

  private var systemMessages: [ChatMessage] { system.map { [ChatMessage(role: "system", content: $0)] } ?? [] }

  private func prompt(_ options: ChatOptions, continuing: Bool) -> Prompt {
    var options = options
    options.continuesFinalMessage = continuing
    options.addsGenerationPrompt = !continuing
    return .chat(systemMessages + messages[forgottenCount...], tools: tools, options: options)
  }
}

// MARK: - Asking

extension Conversation {
  /// Asks a question after all that was said, or as much of it as leaves ``roomForAnswer``.
  ///
  /// - Returns: the answer on its way, which ``note(answer:)-(String)`` takes in once it is read.
  /// - Throws: ``LLMError`` where the question does not fit even alone, `TokenizerError` where the template cannot write it.
  public mutating func ask(
    _ question: String, of llm: LLM, sampling: SamplingParams = SamplingParams(), requestOptions: RequestOptions = RequestOptions()
  ) throws -> Reply {
    try ask([ChatMessage(role: "user", content: question)], of: llm, sampling: sampling, requestOptions: requestOptions)
  }

  /// The same with messages of any kind, such as the results of tools. A question that still awaits its answer is taken back first.
  public mutating func ask(
    _ question: [ChatMessage], of llm: LLM, sampling: SamplingParams = SamplingParams(), requestOptions: RequestOptions = RequestOptions()
  ) throws -> Reply {
    var asked = self
    asked.takeBack()
    asked.messages += question
    asked.pending = .question(count: question.count)
    asked.forgottenBefore = asked.forgottenCount
    let reply = try asked.request(of: llm, sampling, requestOptions, continuing: false)
    self = asked
    return reply
  }

  /// Drops the last answer and asks for another, or asks the ``openQuestion``. With temperature 0, or the seed that the first was drawn with, it is
  /// the same again.
  ///
  /// - Returns: nil where there is neither, or where the answer is all that there is.
  /// - Throws: as ``ask(_:of:sampling:requestOptions:)-(String,_,_,_)``.
  public mutating func retry(of llm: LLM, sampling: SamplingParams = SamplingParams(), requestOptions: RequestOptions = RequestOptions())
    throws -> Reply?
  {
    var asked = self
    if openQuestion != nil {
      // Without an answer the question stays, as it was there before.
      asked.pending = .question(count: 0)
    } else {
      guard let dropped = lastAnswer, messages.count > forgottenCount + 1 else { return nil }
      asked.messages.removeLast()
      asked.pending = .retry(dropped)
    }
    asked.forgottenBefore = asked.forgottenCount
    let reply = try asked.request(of: llm, sampling, requestOptions, continuing: false)
    self = asked
    return reply
  }

  /// Asks for more of the last answer, from where it was cut; what comes is appended to it by ``note(answer:)-(String)``. A form
  /// (``SamplingParams/form``) is of what comes alone.
  ///
  /// - Returns: nil where there is no ``lastAnswer``, or where it has no text.
  /// - Throws: as ``ask(_:of:sampling:requestOptions:)-(String,_,_,_)``; also where the template does not write an answer as it is.
  public mutating func continueAnswer(
    of llm: LLM, sampling: SamplingParams = SamplingParams(), requestOptions: RequestOptions = RequestOptions()
  ) throws -> Reply? {
    guard let answer = lastAnswer, !answer.text.isEmpty else { return nil }
    var asked = self
    asked.pending = .continuation
    asked.forgottenBefore = asked.forgottenCount
    let reply = try asked.request(of: llm, sampling, requestOptions, continuing: true)
    self = asked
    return reply
  }

  /// Takes in the answer to what was asked, whole or stopped: the text of a generation.
  ///
  /// With an empty one it is as if nothing had been asked: the question goes, a dropped answer comes back.
  /// - Precondition: something was asked and not noted yet.
  public mutating func note(answer text: String) {
    enforce(pending != nil, "an answer was noted in a conversation where nothing was asked")
    if text.isEmpty { return takeBack() }
    if pending == .continuation, var last = messages.popLast() {
      last.append(text)
      messages.append(last)
    } else {
      messages.append(ChatMessage(role: "assistant", content: text))
    }
    pending = nil
    awaited = nil
    forgottenBefore = nil
  }

  /// Takes in an answer that is more than text, such as calls of tools that were found in it. It takes the place of the whole answer, also of one
  /// that was continued.
  /// - Precondition: as ``note(answer:)-(String)``.
  public mutating func note(answer: ChatMessage) {
    enforce(pending != nil, "an answer was noted in a conversation where nothing was asked")
    if pending == .continuation { messages.removeLast() }
    messages.append(answer)
    pending = nil
    awaited = nil
    forgottenBefore = nil
  }

  /// Takes in an answer with the tokens that it was: the next question's prompt then has them again, and costs what is new only
  /// (``Generation/remember(_:tokenIDs:finishReason:)``).
  ///
  /// A conversation awaits one answer at a time: a question takes back the one before that has none yet, whose answer is then nobody's.
  ///
  /// - Parameters:
  ///   - output: of the reply's generation.
  ///   - reply: what asking gave.
  ///   - message: what was found in the answer, such as calls of tools; nil is its text, with which ``note(answer:)-(String)`` says what happens.
  /// - Returns: false where the conversation does not await this reply, because something else was asked since or it is noted already; nothing
  ///   changes then.
  @discardableResult
  public mutating func note(_ output: GenerationOutput, of reply: Reply, as message: ChatMessage? = nil) -> Bool {
    guard pending != nil, awaited == reply.number else { return false }
    if let message { note(answer: message) } else { note(answer: output.text) }
    if message != nil || !output.text.isEmpty {
      reply.generation.remember(
        message ?? ChatMessage(role: "assistant", content: output.text), tokenIDs: output.tokenIDs, finishReason: output.finishReason)
    }
    return true
  }

  /// Makes it as if what awaits an answer had not been asked.
  private mutating func takeBack() {
    switch pending {
    case nil, .continuation: break
    case .question(let count): messages.removeLast(count)
    case .retry(let answer): messages.append(answer)
    }
    pending = nil
    awaited = nil
    forgottenCount = max(0, min(forgottenBefore ?? forgottenCount, messages.count))
    forgottenBefore = nil
  }

  /// Submits what is told, forgetting the oldest turns where they do not fit.
  private mutating func request(
    of llm: LLM, _ sampling: SamplingParams, _ requestOptions: RequestOptions, continuing: Bool
  ) throws -> Reply {
    try sampling.validate()
    let context = llm.maxSequenceLength
    let room = max(0, min(roomForAnswer ?? min(sampling.maxTokens ?? context / 4, context / 4), context / 2))
    let before = forgottenCount
    // Without an older turn that could go, the request itself says whether it fits.
    if !laterTurns.isEmpty, try length(of: prompt(options, continuing: continuing), for: llm) > context - room {
      // Every forgotten turn changes how the prompt begins, and all of it is read again: so that this does not happen with every question, a
      // quarter of the context more is made free.
      try forget(for: llm, continuing: continuing, most: context - room - context / 4)
    }
    while true {
      do {
        let generation = try llm.generate(prompt(options, continuing: continuing), sampling: sampling, options: requestOptions)
        let reply = Reply(
          generation: generation, forgotten: Array(messages[before..<forgottenCount]), number: UInt64.random(in: 0..<1 << 53))
        awaited = reply.number
        return reply
      } catch let error as LLMError where error.code == .promptTooLong || error.code == .cacheTooSmall {
        // The cache may be smaller than the context. Half of what is left goes, so that this ends soon.
        let turns = laterTurns
        guard !turns.isEmpty else { throw error }
        forgottenCount = turns[turns.count / 2]
      }
    }
  }

  /// Forgets as few of the oldest turns as bring the prompt to `most` tokens, or all but the last. A prompt is rendered and counted for
  /// every halving of the turns, and not for each of them.
  private mutating func forget(for llm: LLM, continuing: Bool, most: Int) throws {
    let turns = laterTurns
    var (first, end) = (0, turns.count - 1)
    while first < end {
      let middle = (first + end) / 2
      forgottenCount = turns[middle]
      if try length(of: prompt(options, continuing: continuing), for: llm) <= most { end = middle } else { first = middle + 1 }
    }
    forgottenCount = turns[first]
  }

  /// Where the turns begin that come after the first of those that are told.
  private var laterTurns: [Int] { messages.indices.dropFirst(forgottenCount + 1).filter { messages[$0].role == "user" } }

  /// Of a prompt, in tokens.
  private func length(of prompt: Prompt, for llm: LLM) throws -> Int { try llm.tokenIDs(of: prompt).count }
}

extension ChatMessage {
  /// Puts more text behind what the message says.
  fileprivate mutating func append(_ text: String) {
    guard case .parts(var parts) = content, let place = parts.lastIndex(where: { $0["text"]?.string != nil }),
      var part = parts[place].object
    else {
      content = .text(self.text + text)
      return
    }
    part["text"] = .string((part["text"]?.string ?? "") + text)
    parts[place] = .object(part)
    content = .parts(parts)
  }
}

// MARK: - Before anybody asks

extension Conversation {
  /// Finds out whether the model's template can write this system message and these tools at all, and whether they leave room for a question.
  ///
  /// - Throws: `TokenizerError` with the template's own words; ``LLMError`` where the context is too short.
  public func check(for llm: LLM) throws {
    let count = try llm.tokenIDs(of: probe).count
    if count >= llm.maxSequenceLength { throw LLMError.promptTooLong(tokens: count, maxSequenceLength: llm.maxSequenceLength) }
  }

  /// Whether the model is told of ``tools``. Many templates know none, and pass over them without a word.
  ///
  /// - Throws: as ``check(for:)``.
  public func showsTools(to llm: LLM) throws -> Bool {
    guard let tools, !tools.isEmpty else { return false }
    var without = self
    without.tools = nil
    return try llm.tokenIDs(of: probe) != llm.tokenIDs(of: without.probe)
  }

  /// The shortest conversation under this system message.
  private var probe: Prompt {
    Conversation(system: system, tools: tools, options: options, messages: [ChatMessage(role: "user", content: "?")]).prompt
  }
}

// MARK: - Coding

extension Conversation {
  private enum CodingKeys: String, CodingKey {
    case system, tools, messages, pending, awaited, variables, now
    case forgottenCount = "forgotten"
    case forgottenBefore = "forgotten_before"
    case roomForAnswer = "room_for_answer"
    case parsesSpecialTokens = "parses_special_tokens"
  }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    system = try container.decodeIfPresent(String.self, forKey: .system)
    tools = try container.decodeIfPresent([JSON].self, forKey: .tools)
    messages = try container.decode([ChatMessage].self, forKey: .messages)
    roomForAnswer = try container.decodeIfPresent(Int.self, forKey: .roomForAnswer)
    options = ChatOptions()
    if let variables = try container.decodeIfPresent(JSON.self, forKey: .variables) {
      guard let object = variables.object else {
        throw DecodingError.dataCorruptedError(forKey: .variables, in: container, debugDescription: "the variables are no object")
      }
      options.variables = object
    }
    if let text = try container.decodeIfPresent(String.self, forKey: .now) {
      guard let now = LocalTime(text) else {
        throw DecodingError.dataCorruptedError(forKey: .now, in: container, debugDescription: "\"\(text)\" is no time")
      }
      options.now = now
    }
    if try container.decodeIfPresent(Bool.self, forKey: .parsesSpecialTokens) ?? false { options.specialTokensInContent = .parsed }
    forgottenCount = try container.decodeIfPresent(Int.self, forKey: .forgottenCount) ?? 0
    pending = try container.decodeIfPresent(Pending.self, forKey: .pending)
    awaited = try container.decodeIfPresent(UInt64.self, forKey: .awaited)
    forgottenBefore = try container.decodeIfPresent(Int.self, forKey: .forgottenBefore)
    let isConsistent =
      switch pending {
      case .question(let count): (0...messages.count).contains(count)
      case .continuation: !messages.isEmpty
      case nil, .retry: true
      }
    guard (0...messages.count).contains(forgottenCount), isConsistent else {
      throw DecodingError.dataCorruptedError(
        forKey: .messages, in: container, debugDescription: "\(messages.count) messages are fewer than are forgotten or await an answer")
    }
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encodeIfPresent(system, forKey: .system)
    try container.encodeIfPresent(tools, forKey: .tools)
    try container.encode(messages, forKey: .messages)
    try container.encodeIfPresent(roomForAnswer, forKey: .roomForAnswer)
    if !options.variables.isEmpty { try container.encode(JSON.object(options.variables), forKey: .variables) }
    try container.encodeIfPresent(options.now?.text, forKey: .now)
    if options.specialTokensInContent == .parsed { try container.encode(true, forKey: .parsesSpecialTokens) }
    if forgottenCount > 0 { try container.encode(forgottenCount, forKey: .forgottenCount) }
    try container.encodeIfPresent(pending, forKey: .pending)
    try container.encodeIfPresent(awaited, forKey: .awaited)
    try container.encodeIfPresent(forgottenBefore, forKey: .forgottenBefore)
  }
}

extension LocalTime {
  /// As `init(_:)` reads it.
  fileprivate var text: String {
    func digits(_ value: Int, _ count: Int) -> String { String(repeating: "0", count: max(0, count - "\(value)".count)) + "\(value)" }
    return "\(digits(year, 4))-\(digits(month, 2))-\(digits(day, 2))T\(digits(hour, 2)):\(digits(minute, 2)):\(digits(second, 2))"
  }
}
