// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Foundation
import Martlet
import MartletCore
import MartletModels
import MartletTemplates
import MartletTokenizers

struct Chat: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Talks with a model: answers remember what was said.",
    discussion: """
      Answers stream to standard output and run to their end; one that only repeats itself is stopped. Ctrl-C stops an answer and not the program; at the prompt it clears the line, and \
      twice at an empty one, or Ctrl-D, or /exit, it ends the chat. Where the context is full, the oldest questions and their answers are \
      forgotten, and that is said.

      A question of several lines is pasted, or stands between \"\"\" and \"\"\", or has lines that end in a backslash; Alt-Enter begins a new \
      line too. The arrows move in the line and through earlier ones, Ctrl-R looks for one; they are kept in martlet/chat-history of \
      XDG_STATE_HOME (~/.local/state), which is readable by you alone. Lines may come from a file or a pipe: one line, one turn.

      A model that calls a tool does so in its answer, which is text like any other: calls are not looked for in it.

      \(ChatCommand.list)
      """)

  @OptionGroup(title: "Daily options") var daily: ChatOptionsGroup
  @OptionGroup(title: "Sampling options") var sampling: SamplingOptions
  @OptionGroup(title: "Form options") var form: FormOptions
  @OptionGroup(title: "Chat template options") var template: ChatTemplateOptions
  @OptionGroup(title: "Engine options") var engine: EngineOptions
  @OptionGroup(title: "Cache options") var cache: CacheOptions

  func run() async throws {
    let answerForm = try form.form()
    let tools = try daily.tools.map { try ConversationFile.array($0, of: "tools") }
    let historyFile = daily.hasNoHistory ? nil : HistoryFile(path: Places.state() + "/chat-history")
    let editor = TerminalEditor(historyFile: historyFile, commands: ChatCommand.allCases.map { "/" + $0.rawValue })
    defer { editor?.close() }
    let turns = Turns(editor: editor)
    let loading = Task { [self] in try await load() }
    turns.interrupts { loading.cancel() }
    let llm: LLM
    do { llm = try await loading.value } catch is CancellationError { throw ExitCode(130) }
    // The weights are read in one go; an interrupt meanwhile counts after it.
    if loading.isCancelled { throw ExitCode(130) }
    turns.interrupts(nil)
    var settings = ChatSettings(
      sampling: sampling, form: answerForm, variables: try template.variables(), showsStatistics: daily.showsStatistics)
    let options = ChatOptions(variables: settings.variables)
    let conversation = Conversation(system: daily.system, tools: tools, options: options)
    // What the template refuses is said before anybody writes a question.
    try conversation.check(for: llm)
    if let tools, !tools.isEmpty, try !conversation.showsTools(to: llm) {
      Terminal.note("The chat template writes no tools: the model does not see those of --tools.")
    }
    if let seed = settings.drawSeed() { Terminal.note("Seed \(seed).") }
    var session = ChatSession(llm: llm, conversation: conversation, settings: settings, turns: turns, wrapsWords: !daily.hasNoWrap)
    if let file = daily.load { try session.load(file) }
    try await session.run()
  }

  private func load() async throws -> LLM {
    let path = try await ModelFile.path(of: daily.model)
    let progress = ProgressLine()
    defer { progress.clear() }
    let configuration = try engine.configuration(cache: cache, context: daily.context, chatTemplate: try template.template())
    return try ModelFile.reading(path) {
      try LLM(model: path, configuration: configuration) { progress.show("loading \(daily.model): \(Int($0 * 100)) %") }
    }
  }
}

/// What a chat is begun with.
struct ChatOptionsGroup: ParsableArguments {
  @Option(help: ArgumentHelp("Name or path.", valueName: "model"))
  var model = KnownModel.default.name

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("The system message (default: the template's own, if it has one).", valueName: "text"))
  var system: String?

  @Option(help: ArgumentHelp("Go on with the messages of this file, as /save writes it.", valueName: "file"), completion: .file())
  var load: String?

  @Option(
    parsing: .unconditional, help: ArgumentHelp("The most tokens of the conversation (default: the model's, at most 8192).", valueName: "n")
  )
  var context: Int?

  @Option(
    help: ArgumentHelp("The tools that the model may call: a JSON array as OpenAI's API has it.", valueName: "file"), completion: .file())
  var tools: String?

  @Flag(name: .customLong("stats"), help: "Say after every answer how many tokens it took, and how fast.")
  var showsStatistics = false

  @Flag(name: .customLong("no-wrap"), help: "Do not break the lines of answers between words; only a terminal's are broken.")
  var hasNoWrap = false

  @Flag(name: .customLong("no-history"), help: "Neither read nor write the file of earlier lines.")
  var hasNoHistory = false

  func validate() throws { try validatePositive(context, "--context") }
}
