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
      text: special tokens written in it are not interpreted. Before one that begins with a dash put --.
      """)

  @Argument(help: "The text to continue.")
  var prompt: String?

  @Option(
    name: .customLong("prompts-file"),
    help: ArgumentHelp("Run every line of this file that is not empty as a prompt, all in one batch.", valueName: "file"))
  var promptsFile: String?

  @Option(help: ArgumentHelp("Name or path.", valueName: "model"))
  var model = KnownModel.default.name

  @Flag(help: "Render the prompt as a user's message with the model's own chat template.")
  var chat = false

  @Option(name: .customLong("chat-template"), help: ChatTemplate.help)
  var chatTemplate: String?

  @Option(name: .customLong("set"), parsing: .unconditionalSingleValue, help: ChatVariables.help)
  var settings: [String] = []

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("The most tokens of one request, prompt and answer (default: the model's, at most 8192).", valueName: "n"))
  var context: Int?

  @OptionGroup(title: "Engine options") var engine: EngineOptions
  @OptionGroup(title: "Cache options") var cache: CacheOptions
  @OptionGroup(title: "Sampling options") var sampling: SamplingOptions

  @Option(name: .customLong("n"), parsing: .unconditional, help: ArgumentHelp("Draw this many answers to each prompt.", valueName: "n"))
  var count = 1

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("With --json: log-probabilities of the answer's tokens and of the n most probable.", valueName: "n"))
  var logprobs: Int?

  @Option(
    name: .customLong("prompt-logprobs"), parsing: .unconditional,
    help: ArgumentHelp("With --json: the same of the prompt's tokens from the second on.", valueName: "n"))
  var promptLogprobs: Int?

  @Flag(help: "Print one JSON object at the end instead of streaming text.")
  var json = false

  func validate() throws {
    if prompt != nil && promptsFile != nil { throw ValidationError("give either a PROMPT or --prompts-file, and not both") }
    if prompt == nil && promptsFile == nil {
      throw ValidationError("give a PROMPT or --prompts-file; before a prompt that begins with a dash put --")
    }
    if chatTemplate != nil && !chat { throw ValidationError("--chat-template is of use with --chat only") }
    if !settings.isEmpty && !chat { throw ValidationError("--set is of use with --chat only") }
    _ = try ConversationFile.variables(settings)
    try validatePositive(context, "--context")
    try validatePositive(count, "--n")
    for (value, option) in [(logprobs, "--logprobs"), (promptLogprobs, "--prompt-logprobs")] {
      guard let value else { continue }
      if !json { throw ValidationError("\(option) is printed with --json only") }
      if value < 0 { throw ValidationError("\(option) is \(value); it must not be negative") }
    }
  }

  func run() async throws {
    try await interruptible { [self] in try await generate() }
  }

  private func generate() async throws {
    let prompts = try prompts()
    let texts = prompts.map(\.text)
    let path = try await ModelFile.path(of: model)
    let started = ContinuousClock.now
    let progress = ProgressLine()
    let configuration = try engine.configuration(
      cache: cache, context: context, chatTemplate: try chatTemplate.map { try ChatTemplate(nameOrPath: $0) })
    let llm = try LLM(model: path, configuration: configuration) { share in
      progress.show("loading \(model): \(Int(share * 100)) %")
    }
    progress.clear()
    var stopwatch = Stopwatch(loadTime: started.duration(to: .now))

    let seed = sampling.seed ?? (sampling.temperature > 0 ? UInt64.random(in: 0...UInt64(UInt32.max)) : 0)
    var params = sampling.params(seed: seed)
    params.logprobs = logprobs
    params.promptLogprobs = promptLogprobs
    let options = ChatOptions(variables: try ConversationFile.variables(settings))
    let generations = try llm.generate(
      texts.map { chat ? .chat([ChatMessage(role: "user", content: $0)], options: options) : .text($0) }, sampling: params, count: count)
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
        line: prompts[place / count].line, index: generation.index, promptTokenIDs: generation.promptTokenIDs,
        logprobs: logprobs.map { _ in [] }, promptLogprobs: promptLogprobs.map { _ in [] })
    }
    var printer = Printer(
      prompts: generations.indices.map { texts[$0 / count] + (count > 1 ? " – answer \(generations[$0].index + 1)" : "") }, isSilent: json)
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
      if json { reading.show("\(outputs.reduce(0) { $0 + $1.tokenIDs.count }) tokens generated") }
    }
    try Task.checkCancellation()
    reading.clear()
    let timings = stopwatch.timings()

    if json {
      try Terminal.writeJSON(
        Report(
          model: model, attentionBackend: engine.attentionBackend.uppercased(), device: configuration.device?.summary,
          seed: sampling.temperature > 0 ? seed : nil, outputs: outputs, timings: timings))
    } else {
      Terminal.note(timings.sentence + (sampling.temperature > 0 && sampling.seed == nil ? " Seed \(seed)." : ""))
    }
  }

  /// The prompt, or the lines of the file with their numbers, from 1 on; empty lines are left out.
  private func prompts() throws -> [(line: Int?, text: String)] {
    if let prompt { return [(nil, prompt)] }
    guard let promptsFile, let data = FileManager.default.contents(atPath: promptsFile) else {
      throw CommandError("the prompts file \"\(promptsFile ?? "")\" cannot be read")
    }
    guard let text = String(validating: data, as: UTF8.self) else {
      throw CommandError("the prompts file \"\(promptsFile)\" is not UTF-8")
    }
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
    /// Only where something was drawn.
    var seed: UInt64?
    var outputs: [Output]
    var timings: Timings

    enum CodingKeys: String, CodingKey {
      case model, device, seed, outputs, timings
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
