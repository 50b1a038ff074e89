// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import MartletCPU

/// The processor as a device: with which kernels, on how many threads.
struct ProcessorOptions: ParsableArguments {
  @Option(
    name: .customLong("instruction-set"),
    help: ArgumentHelp(
      "Kernels to use: avx512amx, avx512bf16, avx512, avx2, neon or portable (default: the best that the processor has).",
      valueName: "name"))
  var instructionSet: String?

  @Option(parsing: .unconditional, help: ArgumentHelp("Worker threads (default: the processors this process may use).", valueName: "n"))
  var threads: Int?

  @Option(
    help: ArgumentHelp(
      "Where threads run. automatic: near the memory that they read, where the machine has several nodes; free: as the system likes.",
      valueName: "where"))
  var placement = PlacementArgument.automatic

  func validate() throws { try validatePositive(threads, "--threads") }

  var threadCount: Int { threads ?? CPULimits().processorCount }

  /// - Parameters:
  ///   - threads: as many as ``threadCount`` when nil.
  ///   - observer: of its worker pool.
  func makeDevice(threads: Int? = nil, observer: (any WorkerPoolObserver)? = nil) throws -> CPUDevice {
    let device = try CPUDevice(
      instructionSet: instructionSet, threads: threads ?? threadCount, placement: placement.placement, observer: observer)
    let processors = CPULimits().processorCount
    // Said once, and not again of a device that is only watched.
    if let wish = self.threads, threads == nil, observer == nil, wish > processors {
      Terminal.note("--threads \(wish) are more than the \(processors) processors that this process may use: they wait for each other.")
    }
    return device
  }
}

/// `automatic`, `free`.
enum PlacementArgument: String, CaseIterable, ExpressibleByArgument {
  case automatic, free

  var placement: WorkerPlacement {
    switch self {
    case .automatic: .automatic
    case .free: .free
    }
  }
}
