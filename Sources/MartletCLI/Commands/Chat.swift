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
      Answers stream to standard output. Ctrl-C stops an answer and not the program; once more, or Ctrl-D, or /exit, ends it. Where the \
      context is full, the oldest questions and their answers are forgotten, and that is said. Lines may come from a file or a pipe: one \
      line, one turn. A model that calls a tool does so in its answer, which is text like any other: calls are not looked for in it.

      \(Command.list)
      """)

  @Option(help: ArgumentHelp("Name or path.", valueName: "model"))
  var model = KnownModel.default.name

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("The system message (default: the template's own, if it has one).", valueName: "text"))
  var system: String?

  @Option(help: ArgumentHelp("The tools that the model may call: a JSON array as OpenAI's API has it.", valueName: "file"))
  var tools: String?

  @Option(name: .customLong("set"), parsing: .unconditionalSingleValue, help: ChatVariables.help)
  var settings: [String] = []

  @Option(name: .customLong("chat-template"), help: ChatTemplate.help)
  var chatTemplate: String?

  @Option(
    parsing: .unconditional, help: ArgumentHelp("The most tokens of the conversation (default: the model's, at most 8192).", valueName: "n")
  )
  var context: Int?

  @OptionGroup(title: "Engine options") var engine: EngineOptions
  @OptionGroup(title: "Cache options") var cache: CacheOptions
  @OptionGroup(title: "Sampling options") var sampling: SamplingOptions

  func validate() throws {
    try validatePositive(context, "--context")
    _ = try ConversationFile.variables(settings)
  }

  func run() async throws {
    let tools = try tools.map { try ConversationFile.array($0, of: "tools") }
    let options = ChatOptions(variables: try ConversationFile.variables(settings))
    let turns = Turns()
    let loading = Task { [self] in try await load() }
    turns.interrupts { loading.cancel() }
    let llm: LLM
    do { llm = try await loading.value } catch is CancellationError { throw ExitCode(130) }
    // The weights are read in one go; an interrupt meanwhile counts after it.
    if loading.isCancelled { throw ExitCode(130) }
    turns.interrupts(nil)
    var conversation = Conversation(llm: llm, system: system, tools: tools, options: options, sampling: sampling)
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
    if isTerminal { Terminal.note("\(conversation.llm.model.name). /help lists the commands, /exit or Ctrl-D ends the chat.") }
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
        switch Command.Line(line) {
        case .nothing: break
        case .question: wasInterrupted = try await answer(line, in: &conversation, turns)
        case .refused(let why): Terminal.note(why)
        case .command(.exit, _): return
        case .command(.help, _): Terminal.note(Command.list)
        case .command(.clear, _), .command(.reset, _):
          conversation.clear()
          Terminal.note("The conversation is forgotten.")
        case .command(.system, let text): change(system: text, of: &conversation)
        case .command(.save, let file): save(conversation, to: file)
        }
      }
      ask()
    }
  }

  private func change(system: String, of conversation: inout Conversation) {
    do {
      try conversation.set(system: system.isEmpty ? nil : system)
      Terminal.note(system.isEmpty ? "The system message is taken away." : "The system message is now: \(system)")
    } catch {
      Terminal.note("The system message stays as it was: \(error)")
    }
  }

  private func save(_ conversation: Conversation, to file: String) {
    let messages = conversation.transcript
    if messages.isEmpty { return Terminal.note("Nothing was said yet; \(file) was not written.") }
    do {
      try ConversationFile.write(messages.map(\.json), to: file)
      Terminal.note("\(messages.count) messages are in \(file).")
    } catch {
      Terminal.note("\(error); the chat goes on.")
    }
  }

  /// - Returns: whether the answer was stopped by Ctrl-C: once more then ends the chat.
  private func answer(_ question: String, in conversation: inout Conversation, _ turns: Turns) async throws -> Bool {
    let generation: Generation
    do {
      generation = try conversation.ask(question)
    } catch  where error is LLMError || error is TokenizerError {
      // The question alone is too long, or the template cannot write it; the chat goes on without it.
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

extension Chat {
  /// What a line beginning with a slash asks of the program, not of the model.
  enum Command: String, CaseIterable {
    case clear, reset, system, save, help, exit

    private var usage: (command: String, effect: String, text: Text) {
      switch self {
      case .clear: ("/clear", "forgets the conversation, but for the system message", .none)
      case .reset: ("/reset", "the same", .none)
      case .system: ("/system TEXT", "sets the system message; with no text there is none", .optional)
      case .save: ("/save FILE", "writes the messages to a file, as a JSON array", .needed)
      case .help: ("/help", "lists the commands", .none)
      case .exit: ("/exit", "ends the chat", .none)
      }
    }

    private enum Text { case none, optional, needed }

    static var list: String {
      "Commands:\n" + allCases.map { "  \($0.usage.command)  \($0.usage.effect)." }.joined(separator: "\n")
    }

    /// A line of a person's.
    enum Line {
      case nothing
      case question
      case command(Command, text: String)
      case refused(String)

      /// A slash and letters alone are a command, right or wrong; `/etc/passwd` and `// a comment` begin questions.
      init(_ line: String) {
        let line = line.trimmingCharacters(in: .whitespaces)
        let word = line.prefix { !$0.isWhitespace }
        let name = word.dropFirst()
        guard line.first == "/", !name.isEmpty, name.allSatisfy({ $0.isLetter || $0 == "-" || $0 == "_" }) else {
          self = line.isEmpty ? .nothing : .question
          return
        }
        guard let command = Command(rawValue: String(name)) else {
          self = .refused("There is no command \(word), and it was not taken as a question.\n\(Command.list)")
          return
        }
        let text = line.dropFirst(word.count).trimmingCharacters(in: .whitespaces)
        let usage = command.usage
        switch (usage.text, text.isEmpty) {
        case (.none, false): self = .refused("\(word) takes no text: \(usage.command) \(usage.effect).")
        case (.needed, true): self = .refused("\(word) needs more: \(usage.command) \(usage.effect).")
        default: self = .command(command, text: text)
        }
      }
    }
  }
}
