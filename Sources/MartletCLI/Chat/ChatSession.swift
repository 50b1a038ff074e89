// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Foundation
import Martlet
import MartletModels
import MartletTokenizers

/// A chat between a person and a model that is loaded: takes turns until it ends.
struct ChatSession {
  let llm: LLM
  var conversation: Conversation
  var settings: ChatSettings
  let turns: Turns
  /// Whether the lines of answers are broken between words, where they go to a terminal.
  let wrapsWords: Bool
  /// Whether Ctrl-C was the last thing that came: once more then ends the chat.
  private var wasInterrupted = false

  init(llm: LLM, conversation: Conversation, settings: ChatSettings, turns: Turns, wrapsWords: Bool) {
    self.llm = llm
    self.conversation = conversation
    self.settings = settings
    self.turns = turns
    self.wrapsWords = wrapsWords
  }

  /// What the model is asked for.
  private enum Wish {
    case question(String)
    case retry
    case more
  }

  mutating func run() async throws {
    if turns.isTerminal { Terminal.note("\(llm.model.name). /help lists the commands, /exit or Ctrl-D ends the chat.") }
    turns.ask()
    for await event in turns.stream {
      switch event {
      case .end:
        if turns.isTerminal && !turns.interruptEndsLine { Terminal.note("") }
        return
      case .interrupt:
        if !turns.interruptEndsLine { Terminal.note("") }
        if wasInterrupted { throw ExitCode(130) }
        wasInterrupted = true
        Terminal.note("Ctrl-C again, Ctrl-D or /exit ends the chat.")
        if turns.interruptEndsLine { turns.ask() } else { turns.promptAgain() }
        continue
      case .unreadable:
        Terminal.note("This line is not UTF-8; it was left out.")
      case .turn(let text):
        wasInterrupted = false
        if try await !take(text) { return }
      }
      turns.ask()
    }
  }

  /// - Returns: whether the chat goes on.
  private mutating func take(_ text: String) async throws -> Bool {
    switch ChatCommand.Line(text) {
    case .nothing: break
    case .question(let question): try await answer(.question(question))
    case .refused(let why): Terminal.note(why)
    case .command(.continue, _):
      if conversation.lastAnswer == nil {
        Terminal.note("There is no answer to go on with.")
      } else if settings.sampling.form != nil {
        // A form begins with the text that is written, so what was written before would not be in it.
        Terminal.note("An answer of a form is not continued; /retry asks for it again.")
      } else {
        try await answer(.more)
      }
    case .command(.retry, _):
      if conversation.openQuestion != nil {
        try await answer(.retry)
      } else if conversation.lastAnswer == nil {
        Terminal.note("There is no answer to replace.")
      } else {
        if settings.sampling.temperature == 0 {
          Terminal.note("The temperature is 0, at which an answer is always the same; /set temperature 0.8 varies it.")
        }
        try await answer(.retry)
      }
    case .command(.set, let text): set(text)
    case .command(.system, let text): change(system: text)
    case .command(.clear, _), .command(.reset, _):
      conversation.clear()
      Terminal.note("The conversation is forgotten.")
    case .command(.save, let file): save(to: file)
    case .command(.load, let file):
      do { try load(file) } catch { Terminal.note("\(words(of: error)); the chat goes on as it was.") }
    case .command(.help, _): Terminal.note(ChatCommand.list)
    case .command(.exit, _): return false
    }
    return true
  }

  // MARK: Commands

  private mutating func set(_ text: String) {
    Terminal.note(settings.set(text, template: try? llm.chatTemplate.get()))
    if let seed = settings.drawSeed() { Terminal.note("Seed \(seed).") }
    let before = conversation
    conversation.options.variables = settings.variables
    guard before != conversation else { return }
    do { try conversation.check(for: llm) } catch {
      Terminal.note("With this the chat template cannot write the conversation: \(words(of: error))")
    }
  }

  private mutating func change(system: String) {
    var changed = conversation
    changed.system = system.isEmpty ? nil : system
    do { try changed.check(for: llm) } catch { return Terminal.note("The system message stays as it was: \(words(of: error))") }
    conversation = changed
    Terminal.note(system.isEmpty ? "The system message is taken away." : "The system message is now: \(system)")
  }

  private func save(to file: String) {
    let messages = conversation.transcript
    if messages.isEmpty { return Terminal.note("Nothing was said yet; \(file) was not written.") }
    do {
      try ConversationFile.write(messages.map(\.json), to: file)
      Terminal.note("\(messages.count) messages are in \(file).")
    } catch {
      Terminal.note("\(words(of: error)); the chat goes on.")
    }
  }

  /// Goes on with the messages of a file in place of what was said; its system message, if it has one, takes the place of the chat's.
  mutating func load(_ file: String) throws {
    let path = NSString(string: file).expandingTildeInPath
    let messages = try ConversationFile.array(path, of: "messages").map { json throws in
      do { return try ChatMessage(json) } catch { throw CommandError("\(file): \(words(of: error))") }
    }
    guard !messages.isEmpty else { throw CommandError("\(file) has no messages") }
    let loaded = Conversation(
      system: conversation.system, tools: conversation.tools, options: conversation.options, messages: messages)
    try loaded.check(for: llm)
    conversation = loaded
    Terminal.note(
      "\(messages.count) messages of \(file) were said before."
        + (conversation.openQuestion == nil ? "" : " The last has no answer yet; /retry asks for one."))
  }

  // MARK: Answers

  private mutating func answer(_ wish: Wish) async throws {
    let sampling = settings.nextSampling()
    let reply: Conversation.Reply?
    let before: String
    if case .more = wish { before = conversation.lastAnswer?.text ?? "" } else { before = "" }
    do {
      switch wish {
      case .question(let question): reply = try conversation.ask(question, of: llm, sampling: sampling)
      case .retry: reply = try conversation.retry(of: llm, sampling: sampling)
      case .more: reply = try conversation.continueAnswer(of: llm, sampling: sampling)
      }
    } catch  where error is LLMError || error is TokenizerError {
      // The question alone is too long, or the template cannot write it; the chat goes on without it.
      Terminal.note(words(of: error))
      return
    }
    guard let reply else {
      // `take` has seen that there is an answer.
      if case .more = wish {
        Terminal.note("The last answer has no text to go on with; /retry asks for another.")
      } else {
        Terminal.note("The answer stays: the question before it is not known, so it cannot be asked again.")
      }
      return
    }
    if !reply.forgotten.isEmpty {
      Terminal.note("The context (\(llm.maxSequenceLength) tokens) is full: the oldest \(reply.forgotten.count) messages were forgotten.")
    }
    let generation = reply.generation
    turns.interrupts { generation.cancel() }
    defer { turns.interrupts(nil) }
    let isTerminal = isatty(1) == 1
    var shown = AnswerText(columns: isTerminal && wrapsWords ? TerminalModes.size(of: 1)?.columns : nil, after: before)
    var figures = AnswerFigures(promptTokens: generation.promptTokenIDs.count, context: llm.maxSequenceLength)
    var text = ""
    // Where the person set a limit, the answer is theirs up to it.
    var watch = sampling.maxTokens == nil ? RepetitionWatch() : nil
    var isCircle = false
    for try await chunk in generation {
      figures.note(chunk)
      // What comes until the engine hears of it is left out.
      if isCircle { continue }
      if watch?.add(chunk.tokenIDs) == true {
        isCircle = true
        generation.cancel()
      }
      text += chunk.text
      if !chunk.text.isEmpty { try Terminal.write(isTerminal ? shown.add(chunk.text) : chunk.text) }
    }
    turns.interrupts(nil)
    try Terminal.write("\n")
    conversation.note(answer: text)
    wasInterrupted = figures.reason == .cancelled && !isCircle
    if isCircle {
      Terminal.note(
        "The answer went round in circles and was stopped. /set temperature 0.7 and /retry may give a better one\(sampling.form == nil ? "; /continue goes on with it" : "")."
      )
      if settings.showsStatistics { Terminal.note(figures.sentence) }
    } else {
      tell(figures, sampling, hasText: !text.isEmpty)
    }
  }

  private func tell(_ figures: AnswerFigures, _ sampling: SamplingParams, hasText: Bool) {
    let goesOn = sampling.form == nil ? " /continue goes on with it." : ""
    switch figures.reason {
    case .cancelled:
      Terminal.note(
        "The answer was stopped.\(hasText ? goesOn : "") Ctrl-C again, Ctrl-D or /exit ends the chat.")
    case .length:
      if let most = sampling.maxTokens, figures.tokens >= most {
        Terminal.note("The answer was cut at its limit of \(most) tokens (max-tokens).\(goesOn)")
      } else {
        Terminal.note(
          "The answer was cut: the context of \(llm.maxSequenceLength) tokens is full (--context)."
            + (goesOn.isEmpty ? "" : " /continue forgets the oldest messages and goes on, if there are any."))
      }
    case .deadline: Terminal.note("The answer was cut: its time is over (timeout).\(goesOn)")
    case .endToken, .stopString: if !hasText { Terminal.note("The answer is empty, and the question does not count.") }
    }
    if settings.showsStatistics { Terminal.note(figures.sentence) }
  }
}

/// What an answer cost.
struct AnswerFigures {
  private let promptTokens: Int
  private let context: Int
  private let begin = ContinuousClock.now
  private var first: ContinuousClock.Instant?
  private var last = ContinuousClock.now
  private var cached = 0
  private(set) var tokens = 0
  private(set) var reason = FinishReason.cancelled

  init(promptTokens: Int, context: Int) {
    self.promptTokens = promptTokens
    self.context = context
  }

  mutating func note(_ chunk: GenerationChunk) {
    cached = chunk.cachedPromptTokens ?? cached
    reason = chunk.finishReason ?? reason
    guard !chunk.tokenIDs.isEmpty else { return }
    last = .now
    first = first ?? last
    tokens += chunk.tokenIDs.count
  }

  var sentence: String {
    let reading = first.map { begin.duration(to: $0).seconds }
    let writing = first.map { $0.duration(to: last).seconds } ?? 0
    let prompt = Rates.reading(tokens: promptTokens - cached, seconds: reading ?? 0)
    let speed = Rates.writing(tokens: tokens - 1, seconds: writing)
    return "[\(tokens) tokens" + (speed.map { String(format: " at %.1f tokens/s", $0) } ?? "")
      + "; prompt \(promptTokens) tokens, \(cached) of them known already"
      + (prompt.map { String(format: ", read at %.0f tokens/s", $0) } ?? "")
      + (reading.map { String(format: "; first token after %.2f s", $0) } ?? "") + "; context \(promptTokens + tokens) of \(context)]"
  }
}
