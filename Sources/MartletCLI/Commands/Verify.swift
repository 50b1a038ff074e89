// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Martlet
import MartletAttention
import MartletAttentionTestKit
import MartletCPU

struct Verify: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Checks the attention backends on this machine against float64.",
    discussion: """
      Runs every backend through the conformance grid, a covering array over key/value types, heads, dims, page sizes, phases, masks, rotary \
      positions and FP8, and through the laws: a request's numbers have the same bits in any company, chunking, page size and number of \
      threads. No model is needed. What fails is printed with everything that is needed to run it again, and the exit status is 1.
      """)

  @Option(help: ArgumentHelp("The device: cpu.", valueName: "name"))
  var device = "cpu"

  @Option(name: .customLong("backend"), help: ArgumentHelp("An attention backend; may be given again (default: all).", valueName: "name"))
  var backends: [String] = []

  @OptionGroup var processor: DeviceOptions

  @Option(parsing: .unconditional, help: ArgumentHelp("The seed of everything that is drawn.", valueName: "n"))
  var seed: UInt64 = 1

  @Flag(help: "Cover every triple of the grid's axes, and run TensorRT-LLM's own test scenarios at their original size; takes minutes.")
  var full = false

  @Flag(help: "Print one JSON object with every cell.")
  var json = false

  func validate() throws {
    if device != "cpu" { throw ValidationError("--device is \"\(device)\"; this build has: cpu") }
    do {
      for name in backends { _ = try AttentionBackendRegistry.builtIn.backend(named: name) }
    } catch {
      throw ValidationError("\(error)")
    }
  }

  func run() async throws {
    let report = try await interruptible { [self] in
      let threads = processor.threadCount
      let device = try processor.makeDevice()
      let chosen = AttentionBackendRegistry.builtIn.backends.filter { backend in
        backends.isEmpty || backends.contains { $0.uppercased() == backend.name.uppercased() }
      }
      var verification = Verification(
        ConformanceSubject.subjects(of: AttentionBackendRegistry(chosen)),
        on: ConformanceTarget(
          device: device, workerCount: threads, hasBF16Dots: device.instructionSet.name.contains("bf16")),
        lawDevices: try [1, max(2, threads)].map { try processor.makeDevice(threads: $0) }, concurrency: threads)
      verification.seed = seed
      verification.strength = full ? .triples : .pairs
      verification.runsScenarios = full
      let progress = ProgressLine()
      var laws = 0
      var scenarios = 0
      let report = await verification.run { step in
        switch step {
        case .cell(let result, let done, let all):
          if result.verdict.isFailure {
            progress.clear()
            Terminal.note("\(result)")
          }
          progress.show("cell \(done) of \(all)")
        case .law(let law):
          laws += 1
          if law.isBroken {
            progress.clear()
            Terminal.note("\(law)")
          }
          progress.show("law \(laws)")
        case .scenario(let result):
          scenarios += 1
          if result.verdict.isFailure {
            progress.clear()
            Terminal.note("\(result)")
          }
          progress.show("scenario \(scenarios): \(result.name)")
        }
      }
      progress.clear()
      try Task.checkCancellation()
      return VerificationText(report, device: device.summary, seed: seed)
    }
    if json { try Terminal.writeJSON(report) } else { try Terminal.write(report.text) }
    if !report.isPassed { throw ExitCode(1) }
  }
}
