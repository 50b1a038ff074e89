// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Every backend through the conformance grid.

import MartletAttention
import MartletAttentionTestKit
import MartletCPU
import MartletCore
import Testing

@Suite("The conformance grid")
struct GridTests {
  private func target(_ instructionSet: String? = nil) throws -> ConformanceTarget {
    let device = try CPUDevice(instructionSet: instructionSet, threads: 2)
    return ConformanceTarget(device: device, workerCount: 2, hasBF16Dots: device.instructionSet.name.contains("bf16"))
  }

  @Test("holds for every built-in backend on the best instruction set")
  func builtIn() async throws {
    let grid = ConformanceGrid(ConformanceSubject.builtIn)
    let results = await grid.run(on: try target(), concurrency: HostLimits().processorCount)
    for result in results where result.verdict.isFailure { Issue.record("\(result)") }
    print("conformance grid: \(results.count) cells, \(grid.unreachable.count) unreachable combinations")
  }
}
