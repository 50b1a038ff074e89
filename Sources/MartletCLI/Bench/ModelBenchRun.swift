// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Martlet
import MartletAttention
import MartletCPU
import MartletCore
import MartletKVCache

/// What to measure of a model, and how.
package struct ModelBenchPlan: Sendable {
  /// Prompts of one request, in tokens.
  var prompts: [Int]
  /// Tokens before the generated ones.
  var depths: [Int]
  /// Requests at one time.
  var concurrencies: [Int]
  /// Tokens generated at a depth.
  var depthTokens: Int
  /// Tokens of each prompt, and of each answer, of several requests at one time.
  var concurrentTokens: Int
  /// Of the first prompt after loading.
  var firstPrompt: Int
  var repeats: Int
  /// The most tokens in a step.
  var stepTokens: Int
  var cache: KVCacheConfig
  var quantConfig: QuantConfig
  var activations: Activations
  var latentPrompts: LatentPrompts
  var seed: UInt64

  /// What is measured of a workload: the time to its first token, or what comes after every request has its first.
  package enum Part: String, Sendable, Encodable { case prompt, generation, concurrency }

  package struct Entry: Sendable {
    package var part: Part
    package var workload: ModelWorkload

    package init(part: Part, workload: ModelWorkload) {
      self.part = part
      self.workload = workload
    }

    /// Whether each run has prompts of its own; else all have the same, which then are in the cache.
    var hasFreshPrompts: Bool { part != .generation }
  }

  /// The same of a model with a context of so many tokens, which longer workloads do not fit.
  /// - Parameter note: takes a line about each that is left out.
  func fitting(contextLength: Int, note: (String) -> Void) -> ModelBenchPlan {
    var plan = self
    plan.firstPrompt = min(firstPrompt, contextLength - 1)
    func fits(_ workload: ModelWorkload) -> Bool {
      if workload.length <= contextLength { return true }
      note("\(workload) is left out: the model's context has \(contextLength) tokens")
      return false
    }
    plan.prompts.removeAll { !fits(promptWorkload($0)) }
    plan.depths.removeAll { !fits(depthWorkload($0)) }
    plan.concurrencies.removeAll { !fits(concurrentWorkload($0)) }
    return plan
  }

  private func promptWorkload(_ tokens: Int) -> ModelWorkload { ModelWorkload(requests: 1, promptTokens: tokens, generatedTokens: 1) }
  private func depthWorkload(_ depth: Int) -> ModelWorkload {
    ModelWorkload(requests: 1, promptTokens: max(depth, 1), generatedTokens: depthTokens + 1)
  }
  private func concurrentWorkload(_ requests: Int) -> ModelWorkload {
    ModelWorkload(requests: requests, promptTokens: concurrentTokens, generatedTokens: concurrentTokens)
  }

  var entries: [Entry] {
    prompts.map { Entry(part: .prompt, workload: promptWorkload($0)) }
      + depths.map { Entry(part: .generation, workload: depthWorkload($0)) }
      + concurrencies.map { Entry(part: .concurrency, workload: concurrentWorkload($0)) }
  }

  /// What an engine must have for all of it.
  func configuration(device: any Device) -> EngineConfiguration {
    let requests = max(concurrencies.max() ?? 1, 1)
    return EngineConfiguration(
      device: device, kvCache: cache, quantConfig: quantConfig, activations: activations, latentPrompts: latentPrompts,
      maxSequenceLength: max(entries.map(\.workload.length).max() ?? 2, firstPrompt + 1),
      maxBatchSize: requests, maxNumTokens: max(stepTokens, requests),
      // What a step holds does not depend on the clock: the same work in every run.
      targetStepTime: nil)
  }
}

/// Runs workloads on an engine, and takes their times as readers see them.
struct ModelRunTimer: Sendable {
  let llm: LLM
  let seed: UInt64

  /// - Parameter series: other prompts for each.
  func run(_ workload: ModelWorkload, series: Int) async throws -> ModelSample {
    let prompts = workload.prompts(vocabularySize: llm.model.vocabularySize, seed: seed, series: series).map { Prompt.tokenIDs($0) }
    let began = ContinuousClock.now
    // Nothing depends on what is written: the most probable tokens, end tokens among them.
    let generations = try llm.generate(
      prompts, sampling: SamplingParams(maxTokens: workload.generatedTokens, ignoresEndTokens: true))
    let arrivals = try await withThrowingTaskGroup(of: [(seconds: Double, count: Int)].self) { group in
      for generation in generations {
        group.addTask {
          var own: [(seconds: Double, count: Int)] = []
          for try await chunk in generation where !chunk.tokenIDs.isEmpty {
            own.append(((ContinuousClock.now - began).seconds, chunk.tokenIDs.count))
          }
          return own
        }
      }
      return try await group.reduce(into: []) { $0.append($1) }
    }
    try Task.checkCancellation()
    return ModelSample(arrivals)
  }
}

/// Measures one model: loading and the first prompt once, then all workloads in turn with the machine's ceilings, then where their time goes.
struct ModelBenchRun {
  let plan: ModelBenchPlan
  let device: ProcessorOptions
  let progress = ProgressLine()
  /// Steps of each workload that a trace keeps: the last ones.
  static let tracedSteps = 16

  func measure(_ name: String, path: String, trace: inout StepTrace?) async throws -> ModelBenchReport.Model {
    var model = try await timed(name, path: path)
    let breakdowns = try await watched(name, path: path, trace: &trace)
    for (index, breakdown) in breakdowns.enumerated() { model.results[index].add(breakdown) }
    return model
  }

  // MARK: Times

  private func timed(_ name: String, path: String) async throws -> ModelBenchReport.Model {
    let device = try device.makeDevice()
    ProcessMemory.resetPeak()
    progress.show("\(name): loading")
    let began = ContinuousClock.now
    let llm = try await LLM.load(model: path, configuration: plan.configuration(device: device))
    let loadSeconds = (ContinuousClock.now - began).seconds
    let timer = ModelRunTimer(llm: llm, seed: plan.seed)
    let firstPrompt = ModelWorkload(requests: 1, promptTokens: plan.firstPrompt, generatedTokens: 1)
    let first = try await timer.run(firstPrompt, series: 0)
    let peakAfterFirst = ProcessMemory.peakResidentByteCount()
    let entries = plan.entries
    var series = 1
    func run(_ index: Int) async throws -> ModelSample {
      // Runs with the same prompts have a series of their own, which no other reaches.
      let own = entries[index].hasFreshPrompts ? series : -1 - index
      series += 1
      return try await timer.run(entries[index].workload, series: own)
    }
    for index in entries.indices {
      progress.show("\(name) \(entries[index].workload): a run that is not counted")
      _ = try await run(index)
    }
    let peak = ProcessMemory.peakResidentByteCount()

    let fileBytes = try ModelFiles(path: path).byteCount
    let ceilings = try CPUCeilings(device, clock: ContinuousClock())
    // As many bytes as a step reads of the model: what fits the processor's caches of the one fits them of the other.
    let reader = try ceilings.makeReader(byteCount: fileBytes)
    var samples = entries.map { _ in [ModelSample]() }
    var peaks: [(f32: Double?, bf16: Double?, bf16Tiles: Double?, i16: Double?, i8: Double?, read: Double)] = []
    // In turn, so that all see the same minutes of the machine.
    for round in 1...plan.repeats {
      for index in entries.indices {
        progress.show("\(name) \(entries[index].workload): run \(round) of \(plan.repeats)")
        samples[index].append(try await run(index))
        peaks.append(
          (
            ceilings.operationsPerSecond(.f32, tries: 1), ceilings.operationsPerSecond(.bf16, tries: 1),
            ceilings.operationsPerSecond(.bf16Tiles, tries: 1),
            ceilings.operationsPerSecond(.i16, tries: 1), ceilings.operationsPerSecond(.i8, tries: 1), reader.bytesPerSecond()
          ))
      }
    }
    progress.clear()
    let model = llm.model
    await llm.shutdown()
    return ModelBenchReport.Model(
      model: name, architecture: model.architecture, cache: llm.cacheSummary, fileBytes: fileBytes, loadSeconds: loadSeconds,
      firstPrompt: .init(tokens: plan.firstPrompt, seconds: first.firstToken), peakResidentBytes: peakAfterFirst,
      peakResidentBytesOfAll: peak,
      ceilings: .init(
        f32: peaks.median(\.f32) ?? 0, bf16: peaks.median(\.bf16), bf16Tiles: peaks.median(\.bf16Tiles), i16: peaks.median(\.i16),
        i8: peaks.median(\.i8),
        readGigabytesPerSecond: peaks.median(\.read) ?? 0),
      results: zip(entries, samples).map { ModelBenchReport.Result($0, samples: $1) })
  }

  // MARK: Where the time goes

  /// Runs each workload once more, on an engine that is watched. To watch takes time: these are no measurements of the whole.
  private func watched(_ name: String, path: String, trace: inout StepTrace?) async throws -> [StepBreakdown] {
    let threads = device.threadCount
    let recorder = StepRecorder(workerCount: threads)
    let observed = ObservedDevice(try device.makeDevice(observer: recorder), observer: recorder)
    var configuration = plan.configuration(device: observed)
    configuration.stepObserver = recorder
    progress.show("\(name): loading once more, to watch its kernels")
    let llm = try await LLM.load(model: path, configuration: configuration)
    let timer = ModelRunTimer(llm: llm, seed: plan.seed)
    var all: [StepBreakdown] = []
    for (index, entry) in plan.entries.enumerated() {
      progress.show("\(name) \(entry.workload): watching")
      // The first run of a shape touches memory and wakes threads.
      let warmUp = ModelWorkload(requests: entry.workload.requests, promptTokens: entry.workload.promptTokens, generatedTokens: 2)
      _ = try await timer.run(warmUp, series: 2 * index)
      recorder.start()
      _ = try await timer.run(entry.workload, series: entry.hasFreshPrompts ? 2 * index + 1 : 2 * index)
      let steps = Self.counted(recorder.stop(), of: entry.part)
      let weights = observed.weights
      all.append(StepBreakdown(steps, weights: weights, threads: threads))
      trace?.add(steps.suffix(Self.tracedSteps), named: "\(name) \(entry.workload)", weights: weights, threads: threads)
    }
    progress.clear()
    await llm.shutdown()
    return all
  }

  /// Of a prompt all steps; of generation those after every prompt was read.
  static func counted(_ steps: [StepRecorder.Step], of part: ModelBenchPlan.Part) -> [StepRecorder.Step] {
    switch part {
    case .prompt: steps
    case .generation, .concurrency: Array(steps[((steps.lastIndex { $0.contexts > 0 } ?? -1) + 1)...])
    }
  }
}

extension Array {
  /// The middle one of what is there of each, in billions; nil of nothing.
  fileprivate func median(_ value: (Element) -> Double?) -> Double? {
    let values = compactMap(value).sorted()
    return values.isEmpty ? nil : values[values.count / 2] * 1e-9
  }
}
