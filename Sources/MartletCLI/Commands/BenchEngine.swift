// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Martlet
import MartletCore
import MartletModels

/// `martlet bench engine`: many requests as they would come to a server, and how long each waits.
struct BenchEngine: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "engine",
    abstract: "Runs a trace of requests through the engine and measures throughput and latencies.",
    discussion: """
      The trace is drawn from --seed: random tokens, Poisson arrivals. Every answer has the length that was drawn, past end tokens. Latencies \
      are those of the readers, tasks of this process: from the arrival in the trace, to and between the chunks that they get. A chunk of \
      several tokens counts as so many equal times between tokens. Percentiles are exact.
      """)

  @Option(help: ArgumentHelp("Name or path.", valueName: "model"))
  var model = KnownModel.default.name

  @Option(parsing: .unconditional, help: ArgumentHelp("How many requests.", valueName: "n"))
  var requests = 32

  @Option(parsing: .unconditional, help: ArgumentHelp("Requests a second on average; inf is all at once.", valueName: "r"))
  var rate = Double.infinity

  @Option(
    name: .customLong("prompt-tokens"), parsing: .unconditional,
    help: ArgumentHelp("Tokens of a prompt: 128, 64..512 (uniform) or lognormal:200:0.8 (median, sigma).", valueName: "lengths"))
  var promptTokens = LengthDistribution.uniform(64...256)

  @Option(
    name: .customLong("output-tokens"), parsing: .unconditional, help: ArgumentHelp("Tokens of an answer, likewise.", valueName: "lengths"))
  var outputTokens = LengthDistribution.uniform(16...64)

  @Option(
    name: .customLong("shared-prefix-tokens"), parsing: .unconditional,
    help: ArgumentHelp("Tokens of one prefix that comes before some of the prompts.", valueName: "n"))
  var sharedPrefixTokens = 0

  @Option(
    name: .customLong("shared-prefix-share"), parsing: .unconditional,
    help: ArgumentHelp("The share of prompts with that prefix, 0 to 1.", valueName: "f"))
  var sharedPrefixShare = 1.0

  @Option(parsing: .unconditional, help: ArgumentHelp("0 always takes the most probable token.", valueName: "t"))
  var temperature: Float = 0

  @Option(parsing: .unconditional, help: ArgumentHelp("The most tokens of one request (default: what the trace may need).", valueName: "n"))
  var context: Int?

  @Option(parsing: .unconditional, help: ArgumentHelp("The same seed gives the same trace.", valueName: "n"))
  var seed: UInt64 = 1

  @OptionGroup(title: "Engine options") var engine: EngineOptions
  @OptionGroup(title: "Cache options") var cache: CacheOptions

  @Flag(help: "Print one JSON object instead of a table.")
  var json = false

  func validate() throws {
    try validatePositive(requests, "--requests")
    try validatePositive(context, "--context")
    if !(rate > 0) { throw ValidationError("--rate is \(rate); it must be above 0, or inf") }
    if requests > 1_000_000 { throw ValidationError("--requests is \(requests); it must be at most 1000000") }
    if !(0...1 << 31).contains(sharedPrefixTokens) {
      throw ValidationError("--shared-prefix-tokens is \(sharedPrefixTokens); it must be between 0 and \(1 << 31)")
    }
    if !(sharedPrefixShare >= 0 && sharedPrefixShare <= 1) {
      throw ValidationError("--shared-prefix-share is \(sharedPrefixShare); it must be between 0 and 1")
    }
    if !(temperature >= 0 && temperature.isFinite) { throw ValidationError("--temperature is \(temperature); it must be 0 or positive") }
  }

  func run() async throws {
    let report = try await interruptible { [self] in try await measure() }
    if json { try Terminal.writeJSON(report) } else { try Terminal.write(report.text) }
  }

  private func workload(vocabularySize: Int) -> RequestTrace.Workload {
    RequestTrace.Workload(
      requests: requests, rate: rate.isFinite ? rate : nil, promptTokens: promptTokens, outputTokens: outputTokens,
      sharedPrefixTokens: sharedPrefixTokens, sharedPrefixShare: sharedPrefixShare, vocabularySize: vocabularySize, seed: seed)
  }

  private func measure() async throws -> EngineBenchReport {
    let path = try await ModelFile.path(of: model)
    let progress = ProgressLine()
    let configuration = try engine.configuration(cache: cache, context: context ?? workload(vocabularySize: 1).maximumLength)
    let llm = try LLM(model: path, configuration: configuration) { share in progress.show("loading \(model): \(Int(share * 100)) %") }
    let trace = RequestTrace(workload(vocabularySize: llm.model.vocabularySize))
    // Memory is touched and threads are awake before anything counts. One token, in no prompt's place: nothing of it is reused.
    _ = try await llm.generate(.tokenIDs([0]), sampling: SamplingParams(maxTokens: 8, ignoresEndTokens: true)).output()
    let before = llm.statistics

    let began = ContinuousClock.now
    var samples: [EngineBenchReport.Sample] = []
    try await withThrowingTaskGroup(of: EngineBenchReport.Sample.self) { group in
      for (index, request) in trace.requests.enumerated() {
        group.addTask { try await follow(request, index: index, on: llm, began: began) }
      }
      for try await sample in group {
        samples.append(sample)
        progress.show(
          "\(samples.count) of \(requests) requests, \(llm.statistics.generatedTokens - before.generatedTokens) tokens generated")
      }
    }
    progress.clear()
    try Task.checkCancellation()
    await llm.shutdown()
    return EngineBenchReport(
      model: model, attentionBackend: engine.attentionBackend.uppercased(), device: configuration.device?.summary ?? "",
      activations: configuration.activations, seed: seed, trace: trace, samples: samples, before: before, after: llm.statistics)
  }

  /// Submits a request when its time has come, and reads its answer.
  private func follow(
    _ request: RequestTrace.Request, index: Int, on llm: LLM, began: ContinuousClock.Instant
  ) async throws -> EngineBenchReport.Sample {
    let arrival = began + request.arrival
    if request.arrival > .zero { try await Task.sleep(until: arrival, tolerance: .zero, clock: .continuous) }
    var sample = EngineBenchReport.Sample(arrival: request.arrival)
    var last: ContinuousClock.Instant?
    let generation = try llm.generate(
      .tokenIDs(request.prompt),
      sampling: SamplingParams(
        temperature: temperature, seed: seed &+ UInt64(index), maxTokens: request.outputTokens, ignoresEndTokens: true))
    for try await chunk in generation where !chunk.tokenIDs.isEmpty {
      let now = ContinuousClock.now
      let count = chunk.tokenIDs.count
      if let last {
        sample.betweenTokens += Array(repeating: (now - last).seconds / Double(count), count: count)
      } else {
        sample.timeToFirstToken = (now - arrival).seconds
        // What came with the first token came at once, as the reader sees it.
        sample.betweenTokens += Array(repeating: 0, count: count - 1)
      }
      last = now
      sample.tokens += count
      sample.pauses = chunk.pauses
    }
    try Task.checkCancellation()
    sample.latency = ((last ?? .now) - arrival).seconds
    return sample
  }
}
