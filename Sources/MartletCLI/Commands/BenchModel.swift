// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Foundation
import Martlet
import MartletCore
import MartletModels

/// `martlet bench model`: how fast whole models read and write, beside what the machine can do, and where the time goes.
struct BenchModel: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "model",
    abstract: "Times whole models beside the machine's ceilings, and shows where a step's time goes.",
    discussion: """
      Three kinds of workload, each on an engine that does nothing else: a prompt, from its submission to its first token; generation behind so many \
      tokens (--depths); and several requests at once (--concurrency), of which the generating part begins when all have their first token, and \
      "whole" is everything. 8x128+64 means 8 requests of 128 tokens with answers of 64. Prompts are random tokens from --seed, and are in no cache. \
      Times are medians of --repeats runs after one that is not counted, all workloads in turn with the machine's ceilings: the peaks of \
      float32, bf16 (of vectors and, where there are, of tiles), int16 and int8, and reading as many bytes as the model's file has. Loading and the first prompt are measured once, before everything else.

      Operations are those of products and attention, bytes those of weights and cached tokens that must be read, counted call by call as the model \
      runs once more on an engine whose kernels are watched. That run gives the table of a step by kind of kernel, and the trace; watching \
      takes time, so its total is a little more than what was measured before. "busy" is what threads spent in tasks, of their time in \
      a kernel's calls.
      """)

  @Option(name: .customLong("model"), help: ArgumentHelp("Name or path; may be given again.", valueName: "model"))
  var models: [String] = [KnownModel.default.name]

  @Option(parsing: .unconditional, help: ArgumentHelp("Tokens of prompts, with commas; none leaves them out.", valueName: "n,…"))
  var prompts = TokenCounts([128, 512, 2048])

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("Tokens before the generated ones, with commas; none leaves generation out.", valueName: "n,…"))
  var depths = TokenCounts([0, 1024, 4096])

  @Option(parsing: .unconditional, help: ArgumentHelp("Requests at one time, with commas; none leaves them out.", valueName: "n,…"))
  var concurrency = TokenCounts([1, 4, 8, 16, 32])

  @Option(parsing: .unconditional, help: ArgumentHelp("Tokens that are generated at each depth.", valueName: "n"))
  var generated = 64

  @Option(
    name: .customLong("tokens-at-once"), parsing: .unconditional,
    help: ArgumentHelp("Tokens of each prompt and of each answer of several requests.", valueName: "n"))
  var tokensAtOnce = 128

  @Option(parsing: .unconditional, help: ArgumentHelp("Runs of each workload after one that is not counted.", valueName: "n"))
  var repeats = 5

  @Option(
    name: .customLong("step-tokens"), parsing: .unconditional,
    help: ArgumentHelp("The most tokens in one step (or the most requests, where they are more).", valueName: "n"))
  var stepTokens = 512

  @Option(parsing: .unconditional, help: ArgumentHelp("The same seed gives the same prompts.", valueName: "n"))
  var seed: UInt64 = 1

  @OptionGroup var products: ActivationsOptions
  @OptionGroup var latents: LatentPromptsOptions
  @OptionGroup var device: ProcessorOptions
  @OptionGroup(title: "Cache options") var cache: CacheFormatOptions

  @Option(
    help: ArgumentHelp(
      "Write the last steps of each workload to this file, as trace events that Perfetto and chrome://tracing open.", valueName: "file"))
  var trace: String?

  @Option(help: ArgumentHelp("Draw tokens a second as columns to this SVG file.", valueName: "file"))
  var plot: String?

  @Flag(
    help: ArgumentHelp(
      "Load one model and run what standard input asks for, a JSON object a line: {\"run\": \"8x128+64\"} is answered by a line with its times."
    ))
  var turns = false

  @Flag(help: "Print one JSON object instead of tables.")
  var json = false

  func validate() throws {
    try validatePositive(generated, "--generated")
    try validatePositive(tokensAtOnce, "--tokens-at-once")
    try validatePositive(repeats, "--repeats")
    try validatePositive(stepTokens, "--step-tokens")
    for (counts, option, least) in [(prompts, "--prompts", 1), (depths, "--depths", 0), (concurrency, "--concurrency", 1)] {
      for count in counts.counts where count < least || count > 1 << 20 {
        throw ValidationError("\(option): \(count) must be between \(least) and \(1 << 20)")
      }
    }
    for (count, option) in [(generated, "--generated"), (tokensAtOnce, "--tokens-at-once"), (stepTokens, "--step-tokens")]
    where count > 1 << 20 {
      throw ValidationError("\(option) is \(count); it must be at most \(1 << 20)")
    }
    if turns {
      if models.count != 1 { throw ValidationError("--turns takes one --model") }
      if trace != nil { throw ValidationError("--turns writes no trace") }
      if plot != nil { throw ValidationError("--turns draws no plot") }
    } else if plan.entries.isEmpty {
      throw ValidationError("nothing is left to measure: give --prompts, --depths or --concurrency")
    }
  }

  private var plan: ModelBenchPlan {
    ModelBenchPlan(
      prompts: prompts.counts, depths: depths.counts, concurrencies: concurrency.counts, depthTokens: generated,
      concurrentTokens: tokensAtOnce, firstPrompt: 512, repeats: repeats, stepTokens: stepTokens, cache: cache.kvCache,
      quantConfig: cache.quantConfig, activations: products.activations, latentPrompts: latents.latentPrompts, seed: seed)
  }

  func run() async throws {
    if turns {
      try await interruptible { [self] in
        let path = try await ModelFile.path(of: models[0])
        try await ModelBenchTurns(plan: plan(for: models[0], path: path), device: device).run(path: path)
      }
      return
    }
    let (report, trace) = try await interruptible { [self] in try await measure() }
    // Whatever becomes of the plot and the trace, what was measured is told.
    if json { try Terminal.writeJSON(report) } else { try Terminal.write(report.text) }
    if let plot { try SVG.write(ColumnPlot(report).svg, to: plot) }
    guard let file = self.trace, let trace else { return }
    do {
      try JSONEncoder().encode(trace).write(to: URL(fileURLWithPath: file))
    } catch {
      throw CommandError("the trace \"\(file)\" cannot be written: \(CommandError.reason(error))")
    }
  }

  /// What fits the model's context.
  private func plan(for model: String, path: String) throws -> ModelBenchPlan {
    let contextLength = try ModelFile.reading(path) {
      try ModelConfiguration(ModelFiles(path: path).source(for: .builtIn), layersDiffer: true).contextLength
    }
    return plan.fitting(contextLength: contextLength) { Terminal.note("\(model): \($0).") }
  }

  private func measure() async throws -> (ModelBenchReport, StepTrace?) {
    var trace = trace == nil ? nil : StepTrace()
    var report = ModelBenchReport(
      device: try device.makeDevice().summary, activations: products.activations.rawValue, latentPrompts: latents.latentPrompts.description,
      seed: seed,
      models: [])
    for model in models {
      let path = try await ModelFile.path(of: model)
      let bench = ModelBenchRun(plan: try plan(for: model, path: path), device: device)
      report.models.append(try await bench.measure(model, path: path, trace: &trace))
    }
    return (report, trace)
  }
}

/// `128,512`, or `none`.
struct TokenCounts: ExpressibleByArgument, Sendable {
  var counts: [Int]

  init(_ counts: [Int]) { self.counts = counts }

  init?(argument: String) {
    if argument == "none" {
      counts = []
      return
    }
    let numbers = argument.split(separator: ",", omittingEmptySubsequences: false).map { Int($0) }
    if numbers.contains(nil) { return nil }
    counts = numbers.compactMap(\.self)
  }

  var defaultValueDescription: String { counts.map(String.init).joined(separator: ",") }
}
