// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Foundation
import Martlet
import MartletCore
import MartletModels
import MartletTokenizers

struct Chat: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Talks with a model: every line is a question, and answers remember what was said.",
    discussion: """
      Answers stream to standard output. Ctrl-C stops an answer and not the program; once more, or Ctrl-D, or /exit, ends it. /reset \
      forgets the conversation. Where the context is full, the oldest questions and their answers are forgotten, and that is said. Lines \
      may come from a file or a pipe: one line, one turn.
      """)

  @Option(help: ArgumentHelp("Name or path.", valueName: "model"))
  var model = KnownModel.default.name

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("The system message (default: the template's own, if it has one).", valueName: "text"))
  var system: String?

  @Option(name: .customLong("chat-template"), help: ChatTemplate.help)
  var chatTemplate: String?

  @Option(
    parsing: .unconditional, help: ArgumentHelp("The most tokens of the conversation (default: the model's, at most 8192).", valueName: "n")
  )
  var context: Int?

  @OptionGroup(title: "Engine options") var engine: EngineOptions
  @OptionGroup(title: "Cache options") var cache: CacheOptions
  @OptionGroup(title: "Sampling options") var sampling: SamplingOptions

  func validate() throws { try validatePositive(context, "--context") }

  func run() async throws {
    let turns = Turns()
    let loading = Task { [self] in try await load() }
    turns.interrupts { loading.cancel() }
    let llm: LLM
    do { llm = try await loading.value } catch is CancellationError { throw ExitCode(130) }
    // The weights are read in one go; an interrupt meanwhile counts after it.
    if loading.isCancelled { throw ExitCode(130) }
    turns.interrupts(nil)
    var conversation = Conversation(llm: llm, system: system, sampling: sampling)
    // What the template refuses is said before anybody writes a question.
    try conversation.check()
    try await talk(&conversation, turns)
  }

  private func load() async throws -> LLM {
    let path = try await ModelFile.path(of: model)
    let progress = ProgressLine()
    defer { progress.clear() }
    let configuration = try engine.configuration(
      cache: cache, context: context, chatTemplate: try chatTemplate.map { try ChatTemplate(nameOrPath: $0) })
    return try LLM(model: path, configuration: configuration) { progress.show("loading \(model): \(Int($0 * 100)) %") }
  }

  private func talk(_ conversation: inout Conversation, _ turns: Turns) async throws {
    let isTerminal = isatty(0) == 1
    if isTerminal { Terminal.note("\(conversation.llm.model.name). /reset forgets the conversation, /exit or Ctrl-D ends it.") }
    func ask() {
      if isTerminal { Terminal.prompt("> ") }
      turns.readLine()
    }
    var wasInterrupted = false
    ask()
    for await event in turns.stream {
      switch event {
      case .end:
        if isTerminal { Terminal.note("") }
        return
      case .interrupt:
        if wasInterrupted {
          Terminal.note("")
          throw ExitCode(130)
        }
        wasInterrupted = true
        Terminal.note("\nCtrl-C again, Ctrl-D or /exit ends the chat.")
        if isTerminal { Terminal.prompt("> ") }
        continue
      case .unreadable:
        Terminal.note("This line is not UTF-8; it was left out.")
      case .line(let line):
        wasInterrupted = false
        switch line.trimmingCharacters(in: .whitespaces) {
        case "": break
        case "/exit": return
        case "/reset":
          conversation.reset()
          Terminal.note("The conversation is forgotten.")
        default: wasInterrupted = try await answer(line, in: &conversation, turns)
        }
      }
      ask()
    }
  }

  /// - Returns: whether the answer was stopped by Ctrl-C: once more then ends the chat.
  private func answer(_ question: String, in conversation: inout Conversation, _ turns: Turns) async throws -> Bool {
    let generation: Generation
    do {
      generation = try conversation.ask(question)
    } catch let error as LLMError {
      // The question alone is too long; the chat goes on without it.
      Terminal.note("\(error)")
      return false
    }
    turns.interrupts { generation.cancel() }
    defer { turns.interrupts(nil) }
    var text = ""
    var reason = FinishReason.cancelled
    for try await chunk in generation {
      text += chunk.text
      if !chunk.text.isEmpty { try Terminal.write(chunk.text) }
      reason = chunk.finishReason ?? reason
    }
    turns.interrupts(nil)
    try Terminal.write("\n")
    conversation.note(answer: text)
    switch reason {
    case .cancelled: Terminal.note("The answer was stopped. Ctrl-C again, Ctrl-D or /exit ends the chat.")
    case .length:
      let context = conversation.llm.maxSequenceLength
      Terminal.note("The answer reached its limit (--max-tokens \(sampling.maxTokens), --context \(context)).")
    case .endToken, .stopString, .deadline: break
    }
    return reason == .cancelled
  }
}

/// What was said so far, and the model that it is said to.
private struct Conversation {
  let llm: LLM
  private let system: [ChatMessage]
  private let sampling: SamplingOptions
  private let seed: UInt64
  /// Questions and answers in turn; a question waits for its answer at the end.
  private var messages: [ChatMessage] = []
  private var questionCount: UInt64 = 0

  init(llm: LLM, system: String?, sampling: SamplingOptions) {
    self.llm = llm
    self.system = system.map { [ChatMessage(role: "system", content: $0)] } ?? []
    self.sampling = sampling
    seed = sampling.seed ?? (sampling.temperature > 0 ? UInt64.random(in: 0...UInt64(UInt32.max)) : 0)
    if sampling.temperature > 0 && sampling.seed == nil { Terminal.note("Seed \(seed).") }
  }

  /// Whether the model's template can write such a conversation at all.
  func check() throws {
    let length = try llm.tokenIDs(of: .chat(system + [ChatMessage(role: "user", content: "?")])).count
    if length >= llm.maxSequenceLength { throw LLMError.promptTooLong(tokens: length, maxSequenceLength: llm.maxSequenceLength) }
  }

  mutating func reset() { messages = [] }

  /// Submits a question after all that was said, or as much of it as leaves room for an answer.
  ///
  /// - Throws: `LLMError` where the question does not fit even alone; the conversation is then as it was, less what was forgotten for it.
  mutating func ask(_ question: String) throws -> Generation {
    messages.append(ChatMessage(role: "user", content: question))
    // A long limit on answers must not empty a short context: half of it stays for what was said.
    let room = min(sampling.maxTokens, llm.maxSequenceLength / 2)
    var forgotten = 0
    defer {
      if forgotten > 0 {
        Terminal.note("The context (\(llm.maxSequenceLength) tokens) is full: the oldest \(forgotten) messages were forgotten.")
      }
    }
    while true {
      do {
        let prompt = Prompt.chat(system + messages)
        let length = try llm.tokenIDs(of: prompt).count
        if length + room > llm.maxSequenceLength && messages.count > 2 {
          throw LLMError.promptTooLong(tokens: length, maxSequenceLength: llm.maxSequenceLength)
        }
        // Every answer draws from a seed of its own.
        let generation = try llm.generate(prompt, sampling: sampling.params(seed: seed &+ questionCount))
        questionCount += 1
        return generation
      } catch let error as LLMError {
        guard messages.count > 2, error.isAboutLength else {
          messages.removeLast()
          throw error
        }
        messages.removeFirst(2)
        forgotten += 2
      }
    }
  }

  /// The answer that was written, whole or stopped; without one the question does not count either.
  mutating func note(answer: String) {
    if answer.isEmpty { messages.removeLast() } else { messages.append(ChatMessage(role: "assistant", content: answer)) }
  }
}

extension LLMError {
  /// Whether a shorter conversation would do.
  fileprivate var isAboutLength: Bool {
    switch self {
    case .promptTooLong, .cacheTooSmall: true
    default: false
    }
  }
}
