// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Foundation
import Martlet
import MartletCore
import MartletTokenizers

struct Generate: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Continues a prompt, or answers a message (--chat).",
    discussion: """
      The text streams to standard output. Without --model the default model is used, and fetched on first use. A prompt is plain \
      text: special tokens written in it are not interpreted. Without one, or with -, it is read from standard input, without the line \
      feed at its end. Before one that begins with a dash put --.
      """)

  @Argument(help: "The text to continue; - reads it from standard input.")
  var prompt: String?

  @OptionGroup(title: "Daily options") var daily: GenerateOptions
  @OptionGroup(title: "Sampling options") var sampling: SamplingOptions
  @OptionGroup(title: "Form options") var form: FormOptions
  @OptionGroup(title: "Chat template options") var template: ChatTemplateOptions
  @OptionGroup(title: "Engine options") var engine: EngineOptions
  @OptionGroup(title: "Cache options") var cache: CacheOptions

  /// Of an answer, where nobody says otherwise: enough to read, and no wait that cannot be seen to end.
  private static let defaultMaxTokens = 256

  func validate() throws {
    let sources = [(prompt, "a PROMPT"), (daily.promptFile, "--prompt-file"), (daily.promptsFile, "--prompts-file")].filter { $0.0 != nil }
      .map(\.1)
    if sources.count > 1 { throw ValidationError("give either \(sources.joined(separator: " or ")), and not both") }
    if sources.isEmpty && !TextInput.comesByItself { throw Self.noPrompt("") }
    if template.name != nil && !daily.chat { throw ValidationError("--chat-template is of use with --chat only") }
    if !template.settings.isEmpty && !daily.chat { throw ValidationError("--set is of use with --chat only") }
    if daily.system != nil && !daily.chat { throw ValidationError("--system is of use with --chat only") }
    try validatePositive(daily.context, "--context")
    try validatePositive(daily.count, "--n")
    for (value, option) in [(daily.logprobs, "--logprobs"), (daily.promptLogprobs, "--prompt-logprobs")] {
      guard let value else { continue }
      if !daily.json { throw ValidationError("\(option) is printed with --json only") }
      if value < 0 { throw ValidationError("\(option) is \(value); it must not be negative") }
    }
  }

  private static func noPrompt(_ why: String) -> ValidationError {
    ValidationError(why + "give a PROMPT, --prompt-file or --prompts-file; before a prompt that begins with a dash put --")
  }

  func run() async throws {
    try await interruptible { [self] in try await generate() }
  }

  private func generate() async throws {
    let answerForm = try form.form()
    let prompts = try prompts()
    let texts = prompts.map(\.text)
    let path = try await ModelFile.path(of: daily.model)
    let started = ContinuousClock.now
    let progress = ProgressLine()
    let configuration = try engine.configuration(cache: cache, context: daily.context, chatTemplate: try template.template())
    let llm = try ModelFile.reading(path) {
      try LLM(model: path, configuration: configuration) { share in
        progress.show("loading \(daily.model): \(Int(share * 100)) %")
      }
    }
    progress.clear()
    var stopwatch = Stopwatch(loadTime: started.duration(to: .now))

    let seed = sampling.seed ?? (sampling.temperature > 0 ? UInt64.random(in: 0...UInt64(UInt32.max)) : 0)
    var params = sampling.params(seed: seed, maxTokens: Self.defaultMaxTokens)
    params.form = answerForm
    params.logprobs = daily.logprobs
    params.promptLogprobs = daily.promptLogprobs
    let options = ChatOptions(variables: try template.variables())
    let requests: [Prompt] = texts.map { text in
      guard daily.chat else { return .text(text) }
      return Conversation(system: daily.system, options: options, messages: [ChatMessage(role: "user", content: text)]).prompt
    }
    let generations = try llm.generate(requests, sampling: params, count: daily.count)
    if daily.count > 1 && sampling.temperature == 0 {
      Terminal.note("--n \(daily.count) at --temperature 0: all answers to a prompt are alike; --temperature 0.8 varies them.")
    }
    stopwatch.start(promptTokens: generations.map(\.promptTokenIDs.count))

    // All run together; each is followed by a task of its own, and printed in the order of the prompts.
    let (events, sink) = AsyncThrowingStream.makeStream(of: (index: Int, chunk: GenerationChunk).self)
    let followers = generations.enumerated().map { index, generation in
      Task {
        do {
          for try await chunk in generation { sink.yield((index, chunk)) }
          return true
        } catch {
          sink.finish(throwing: error)
          return false
        }
      }
    }
    let closer = Task {
      for follower in followers { _ = await follower.value }
      sink.finish()
    }
    defer {
      for follower in followers { follower.cancel() }
      closer.cancel()
    }

    var outputs = generations.enumerated().map { place, generation in
      Output(
        line: prompts[place / daily.count].line, index: generation.index, promptTokenIDs: generation.promptTokenIDs,
        logprobs: daily.logprobs.map { _ in [] }, promptLogprobs: daily.promptLogprobs.map { _ in [] })
    }
    var printer = Printer(
      prompts: generations.indices.map { texts[$0 / daily.count] + (daily.count > 1 ? " – answer \(generations[$0].index + 1)" : "") },
      isSilent: daily.json)
    let reading = ProgressLine()
    for try await (index, chunk) in events {
      if stopwatch.note(index: index, tokens: chunk.tokenIDs.count) { reading.clear() }
      outputs[index].tokenIDs += chunk.tokenIDs
      outputs[index].text += chunk.text
      outputs[index].cachedPromptTokens = chunk.cachedPromptTokens ?? outputs[index].cachedPromptTokens
      outputs[index].pauses = chunk.pauses
      outputs[index].logprobs? += chunk.logprobs.map(Logprob.init)
      outputs[index].promptLogprobs? += chunk.promptLogprobs.map(Logprob.init)
      outputs[index].finishReason = chunk.finishReason ?? outputs[index].finishReason
      try printer.add(chunk.text, to: index, isLast: chunk.finishReason != nil)
      if daily.json { reading.show("\(outputs.reduce(0) { $0 + $1.tokenIDs.count }) tokens generated") }
    }
    reading.clear()
    if Task.isCancelled {
      if try printer.stop() || daily.json { Terminal.note("Stopped after \(outputs.reduce(0) { $0 + $1.tokenIDs.count }) tokens.") }
      throw CancellationError()
    }
    let timings = stopwatch.timings()

    if daily.json {
      try Terminal.writeJSON(
        Report(
          model: daily.model, attentionBackend: engine.attentionBackend.uppercased(), device: configuration.device?.summary,
          activations: configuration.activations.rawValue, seed: sampling.temperature > 0 ? seed : nil, outputs: outputs, timings: timings))
    } else {
      tellCuts(outputs)
      Terminal.note(
        timings.sentence(prompt: stopwatch.promptTokens, written: stopwatch.written)
          + (sampling.temperature > 0 && sampling.seed == nil ? " Seed \(seed)." : ""))
    }
  }

  /// Says how many answers did not end by themselves, and why.
  private func tellCuts(_ outputs: [Output]) {
    func tell(_ reason: FinishReason, _ why: (_ output: Output) -> String) {
      let cut = outputs.filter { $0.finishReason == reason }
      guard let first = cut.first else { return }
      Terminal.note((outputs.count == 1 ? "The answer was cut" : "\(cut.count) of \(outputs.count) answers were cut") + ": " + why(first))
    }
    let most = sampling.maxTokens ?? Self.defaultMaxTokens
    tell(.length) {
      $0.tokenIDs.count >= most
        ? "--max-tokens \(most) was reached; give more for the rest." : "the context is full (--context)."
    }
    tell(.deadline) { _ in "the time of --timeout is over." }
  }

  /// The prompt, or the lines of the file with their numbers, from 1 on; empty lines are left out.
  private func prompts() throws -> [(line: Int?, text: String)] {
    if let prompt, prompt != TextInput.standard { return [(nil, prompt)] }
    guard let promptsFile = daily.promptsFile else {
      let text = TextInput.withoutFinalNewline(try TextInput.text(of: daily.promptFile ?? TextInput.standard, what: "prompt file"))
      if text.isEmpty && daily.promptFile == nil { throw Self.noPrompt("nothing came on standard input; ") }
      return [(nil, text)]
    }
    let text = try TextInput.text(of: promptsFile, what: "prompts file")
    // At line feeds only: what else Unicode calls a line separator may stand in a prompt.
    let pieces = text.utf8.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
    let lines = pieces.enumerated().map { index, piece in
      let endsInReturn = index < pieces.count - 1 && piece.last == UInt8(ascii: "\r")
      return (line: Optional(index + 1), text: String(Substring(endsInReturn ? piece.dropLast() : piece)))
    }.filter { !$0.text.isEmpty }
    if lines.isEmpty { throw CommandError("the prompts file \"\(promptsFile)\" has no prompts; write one on each line") }
    return lines
  }

  /// What `--json` prints.
  struct Report: Encodable {
    var model: String
    var attentionBackend: String
    var device: String?
    /// How products rounded rows.
    var activations: String
    /// Only where something was drawn.
    var seed: UInt64?
    var outputs: [Output]
    var timings: Timings

    enum CodingKeys: String, CodingKey {
      case model, device, activations, seed, outputs, timings
      case attentionBackend = "attention_backend"
    }
  }

  /// One answer.
  struct Output: Encodable {
    /// The prompt's line in the prompts file, from 1 on; absent without one.
    var line: Int?
    /// Which of the answers to its prompt.
    var index: Int
    var promptTokenIDs: [Int]
    /// Prompt tokens whose keys and values an earlier prompt had left in the cache.
    var cachedPromptTokens = 0
    /// How often it paused to make room for others.
    var pauses = 0
    /// The end token included.
    var tokenIDs: [Int] = []
    var text = ""
    var finishReason = FinishReason.cancelled
    /// As asked for; nil where they were not.
    var logprobs: [Logprob]?
    var promptLogprobs: [Logprob]?

    enum CodingKeys: String, CodingKey {
      case line, index, text, pauses, logprobs
      case promptLogprobs = "prompt_logprobs"
      case promptTokenIDs = "prompt_token_ids"
      case cachedPromptTokens = "cached_prompt_tokens"
      case tokenIDs = "token_ids"
      case finishReason = "finish_reason"
    }
  }

  /// A token, in nats, and those that were most probable at its place.
  struct Logprob: Encodable {
    struct Alternative: Encodable {
      var tokenID: Int
      var logprob: Float

      enum CodingKeys: String, CodingKey {
        case logprob
        case tokenID = "token_id"
      }
    }

    var tokenID: Int
    var logprob: Float
    var top: [Alternative]

    init(_ value: TokenLogprob) {
      tokenID = value.tokenID
      logprob = value.logprob
      top = value.top.map { Alternative(tokenID: $0.tokenID, logprob: $0.logprob) }
    }

    enum CodingKeys: String, CodingKey {
      case logprob, top
      case tokenID = "token_id"
    }
  }
}

/// What is asked, of which model, and how the answer is given.
struct GenerateOptions: ParsableArguments {
  @Option(help: ArgumentHelp("Name or path.", valueName: "model"), completion: .list(KnownModel.all.map(\.name)))
  var model = KnownModel.default.name

  @Flag(help: "Render the prompt as a user's message with the model's own chat template.")
  var chat = false

  @Option(parsing: .unconditional, help: ArgumentHelp("With --chat: the system message.", valueName: "text"))
  var system: String?

  @Option(
    name: .customLong("prompt-file"),
    help: ArgumentHelp("The prompt is the text of this file, without the line feed at its end.", valueName: "file"), completion: .file())
  var promptFile: String?

  @Option(
    name: .customLong("prompts-file"),
    help: ArgumentHelp("Run every line of this file that is not empty as a prompt, all in one batch.", valueName: "file"),
    completion: .file())
  var promptsFile: String?

  @Option(name: .customLong("n"), parsing: .unconditional, help: ArgumentHelp("Draw this many answers to each prompt.", valueName: "n"))
  var count = 1

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("The most tokens of one request, prompt and answer (default: the model's, at most 8192).", valueName: "n"))
  var context: Int?

  @Flag(help: "Print one JSON object at the end instead of streaming text.")
  var json = false

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("With --json: log-probabilities of the answer's tokens and of the n most probable.", valueName: "n"))
  var logprobs: Int?

  @Option(
    name: .customLong("prompt-logprobs"), parsing: .unconditional,
    help: ArgumentHelp("With --json: the same of the prompt's tokens from the second on.", valueName: "n"))
  var promptLogprobs: Int?
}
