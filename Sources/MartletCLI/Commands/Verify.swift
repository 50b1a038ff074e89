// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Dispatch
import Foundation
import Martlet
import MartletAttention
import MartletAttentionTestKit
import MartletCPU
import MartletCore
import Synchronization

struct Verify: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Checks the attention backends on this machine against float64.",
    discussion: """
      Runs every backend through the conformance grid, a covering array over key/value types, heads, dims, page sizes, phases, masks, rotary \
      positions and FP8, and through the laws: a request's numbers have the same bits in any company, chunking, page size and number of \
      threads. No model is needed. What fails is printed with everything that is needed to run it again, and the exit status is 1. A failed \
      precondition ends one cell, not the command: cells are run in a process of their own, and after it in another one.
      """)

  @OptionGroup var choice: DeviceChoiceOptions

  @Option(name: .customLong("backend"), help: ArgumentHelp("An attention backend; may be given again (default: all).", valueName: "name"))
  var backends: [String] = []

  @OptionGroup var processor: ProcessorOptions

  @Option(parsing: .unconditional, help: ArgumentHelp("The seed of everything that is drawn.", valueName: "n"))
  var seed: UInt64 = 1

  @Flag(help: "Cover every triple of the grid's axes, and run TensorRT-LLM's own test scenarios at their original size; takes minutes.")
  var full = false

  @Flag(help: "Print one JSON object with every cell.")
  var json = false

  /// Of the process that runs the cells; the one that a person starts only starts it.
  @Option(help: .hidden) var journal: String?
  /// Whether the starting process writes to a terminal.
  @Flag(name: .customLong("journal-at-terminal"), help: .hidden) var isAtTerminal = false

  func validate() throws {
    do {
      for name in backends { _ = try AttentionBackendRegistry.builtIn.backend(named: name) }
    } catch {
      throw ValidationError("\(error)")
    }
  }

  func run() async throws {
    guard let journal else {
      // Told by this process, once: the other would be started again.
      try choice.validateThere()
      return try supervise()
    }
    let report = try await interruptible { [self] in
      let threads = processor.threadCount
      var hasBF16Dots = false
      let device = try choice.makeDevice {
        let device = try processor.makeDevice()
        hasBF16Dots = device.instructionSet.name.contains("bf16")
        return device
      }
      // The laws of the processor hold for any number of threads; a GPU has none to choose.
      let lawDevices: [any Device] =
        if choice.device == .cpu { try [1, max(2, threads)].map { try processor.makeDevice(threads: $0) } } else { [device] }
      let chosen = AttentionBackendRegistry.builtIn.backends.filter { backend in
        // What computes in Swift cannot reach a GPU's memory, and says so.
        if backends.isEmpty { return choice.device == .cpu || backend.name != VanillaAttention.name }
        return backends.contains { $0.uppercased() == backend.name.uppercased() }
      }
      var verification = Verification(
        ConformanceSubject.subjects(of: AttentionBackendRegistry(chosen)),
        on: ConformanceTarget(device: device, workerCount: device.workerCount, hasBF16Dots: hasBF16Dots), lawDevices: lawDevices,
        concurrency: threads)
      verification.seed = seed
      verification.strength = full ? .triples : .pairs
      verification.runsScenarios = full
      let progress = ProgressLine(isTerminal: isAtTerminal)
      var laws = 0
      var scenarios = 0
      let report = try await verification.run(journal: VerificationJournal(path: journal)) { step in
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

  /// Runs this command again in a process that writes down what it does, until it gets to its end.
  private func supervise() throws {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("martlet-verify-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let path = folder.appendingPathComponent("journal").path
    var arguments = Array(CommandLine.arguments.dropFirst()) + ["--journal", path]
    if isatty(2) == 1 { arguments.append("--journal-at-terminal") }
    // Whoever asks this process to end means that one.
    let child = Mutex<Int32>(0)
    signal(SIGTERM, SIG_IGN)
    let source = DispatchSource.makeSignalSource(signal: SIGTERM, queue: .global())
    source.setEventHandler {
      let process = child.withLock { $0 }
      if process > 0 { kill(process, SIGTERM) }
    }
    source.resume()
    defer { source.cancel() }
    let status = try VerificationJournal.supervise(arguments, journal: path) { process in child.withLock { $0 = process } }
    if status != 0 { throw ExitCode(status) }
  }
}
