// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Martlet
import MartletAttention
import MartletCPU
import MartletCore
import MartletKVCache

/// `martlet bench latents`: the two forms in which latent attention can read prompts, beside each other.
struct BenchLatents: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "latents",
    abstract: "Times prompts of latent attention (MLA), absorbed and expanded.",
    discussion: """
      A workload is one as `martlet bench attention` takes it: 128,mla,512+64:2048@0 is 128 heads, latents of 512 dims and 64 of positions, and a prompt \
      of 2048 tokens; 128,mla,512+64:512@8192 the last 512 of a prompt of 8704. --heads says what latents are expanded to: dims of a key without position, \
      and of a value. What is timed is all of a layer between its queries and the values of its heads: the products that absorb or expand with random \
      matrices in bf16, append and attention. In the expanded form every request with several new tokens is expanded, however few they are; "from" is \
      the length from which an engine does so unless it is told another. Times are medians of runs in turn, after one that is not counted. No model is needed.
      """)

  @Argument(
    help: ArgumentHelp("What to time (default: prompts and chunks of DeepSeek V3's sizes).", valueName: "workload"), transform: workload)
  var workloads: [AttentionWorkload] = []

  @Option(help: ArgumentHelp("Dims of a key without position, and of a value.", valueName: "n+n"))
  var heads = HeadDims(nope: 128, value: 128)

  @Option(
    name: .customLong("kv-cache-dtype"),
    help: ArgumentHelp("A type of cached latents: f32, f16, bf16, fp8 or int8; may be given again.", valueName: "type"))
  var types: [CacheDataType] = [.bf16]

  @Option(name: .customLong("backend"), help: ArgumentHelp("An attention backend; may be given again.", valueName: "name"))
  var backends: [String] = ["TRTLLM"]

  @OptionGroup var products: ActivationsOptions
  @OptionGroup var device: ProcessorOptions

  @Option(parsing: .unconditional, help: ArgumentHelp("Runs of each workload after one that is not counted.", valueName: "n"))
  var repeats = 5

  @Flag(help: "Print one JSON object.")
  var json = false

  func validate() throws {
    try validatePositive(repeats, "--repeats")
    do {
      for name in backends { _ = try AttentionBackendRegistry.builtIn.backend(named: name) }
    } catch {
      throw ValidationError("\(error)")
    }
  }

  func run() async throws {
    let report = try await interruptible { [self] in try measure() }
    if json { try Terminal.writeJSON(report) } else { try Terminal.write(report.table) }
  }

  private func measure() throws -> LatentBenchReport {
    let device = try device.makeDevice(), progress = ProgressLine()
    var report = LatentBenchReport(
      machine: device.summary, activations: products.activations.rawValue, heads: "\(heads.nope)+\(heads.value)", results: [])
    for workload in workloads.isEmpty ? Self.standard : workloads {
      for name in backends {
        for type in types {
          progress.show("\(workload) \(name) \(type.rawValue)")
          try Task.checkCancellation()
          report.results.append(try measure(workload, AttentionBackendRegistry.builtIn.backend(named: name), type, on: device))
        }
      }
    }
    progress.clear()
    return report
  }

  private func measure(
    _ workload: AttentionWorkload, _ backend: any AttentionBackend.Type, _ type: CacheDataType, on device: CPUDevice
  ) throws -> LatentBenchReport.Result {
    let timers = try [LatentPrompts.absorbed, .expanded(leastTokens: 2)].map { form in
      var options = AttentionTimer.Options(clock: ContinuousClock())
      options.dataType = type.dataType
      options.workerCount = self.device.threadCount
      options.heads = AttentionTimer.Heads(
        nopeDim: heads.nope, valueDim: heads.value, latentPrompts: form, activations: products.activations)
      return try AttentionTimer(backend, workload, options, on: device)
    }
    var samples = timers.map { _ in [Double]() }
    for round in 0...repeats {
      for (index, timer) in timers.enumerated() {
        let seconds = try timer.run().forward
        if round > 0 { samples[index].append(seconds) }
      }
    }
    let medians = samples.map { $0.sorted()[$0.count / 2] }
    let mla = MLAParams(
      kvLoraRank: workload.latentDim ?? 1, qkNopeHeadDim: heads.nope, qkRopeHeadDim: workload.headDim - (workload.latentDim ?? 1),
      vHeadDim: heads.value)
    return LatentBenchReport.Result(
      engine: backend.name, workload: "\(workload)", dtype: type.rawValue, absorbedSeconds: medians[0], expandedSeconds: medians[1],
      leastExpandedTokens: mla.leastExpandedTokens, absorbedSamples: samples[0], expandedSamples: samples[1])
  }

  private static func workload(_ text: String) throws -> AttentionWorkload {
    guard let workload = AttentionWorkload(text), workload.latentDim != nil else {
      throw ValidationError("\"\(text)\" is no workload of latent attention; one looks like 128,mla,512+64:2048@0")
    }
    return workload
  }

  private static let standard = ["512@0", "2048@0", "128@4096", "256@4096", "512@4096"].compactMap {
    AttentionWorkload("128,mla,512+64:\($0)")
  }
}

/// `128+128`.
struct HeadDims: ExpressibleByArgument, Sendable {
  var nope: Int
  var value: Int

  init(nope: Int, value: Int) {
    self.nope = nope
    self.value = value
  }

  init?(argument: String) {
    let dims = argument.split(separator: "+", omittingEmptySubsequences: false).map { Int($0) ?? 0 }
    guard dims.count == 2, dims.allSatisfy({ (1...1 << 16).contains($0) }) else { return nil }
    self.init(nope: dims[0], value: dims[1])
  }

  var defaultValueDescription: String { "\(nope)+\(value)" }
}
