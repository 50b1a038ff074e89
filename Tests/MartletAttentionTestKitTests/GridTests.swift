// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Every built-in backend through the conformance grid and the laws, on every instruction set of this machine.

import MartletAttention
import MartletAttentionTestKit
import MartletCPU
import MartletCore
import Testing

@Suite("Every built-in backend", .serialized)
struct GridTests {
  private func target(_ instructionSet: String? = nil) throws -> ConformanceTarget {
    let device = try CPUDevice(instructionSet: instructionSet, threads: 2)
    return ConformanceTarget(device: device, workerCount: 2, hasBF16Dots: device.instructionSet.name.contains("bf16"))
  }

  private func expectPassed(_ grid: ConformanceGrid, on target: ConformanceTarget) async {
    let results = await grid.run(on: target, concurrency: CPULimits().processorCount)
    #expect(results.count == grid.cases.count)
    for result in results where result.verdict.isFailure { Issue.record("\(result)") }
    print("conformance grid on \(target.device.summary): \(results.count) cells")
  }

  @Test("agrees with float64 in every pair of axes, on the best instruction set")
  func pairs() async throws {
    await expectPassed(ConformanceGrid(ConformanceSubject.builtIn), on: try target())
  }

  /// The golden backend has no instruction sets.
  @Test(
    "agrees with float64 in every axis and key/value type, on every other instruction set",
    arguments: CPUDevice.instructionSets.filter(\.isSupported).map(\.name).dropFirst())
  func kvTypes(instructionSet: String) async throws {
    let subjects = ConformanceSubject.builtIn.filter { $0.name != VanillaAttention.name }
    await expectPassed(ConformanceGrid(subjects, strength: .kvTypes, seed: 2), on: try target(instructionSet))
  }

  @Test("keeps the laws", arguments: ConformanceSubject.builtIn.map(\.name), ConformanceCase.kvTypes)
  func laws(backend: String, kvType: DataType) throws {
    let subject = try #require(ConformanceSubject.builtIn.first { $0.name == backend })
    let devices = try [1, 2].map { try CPUDevice(threads: $0) }
    for law in AttentionLaws.all(LawSetting(subject.backend, kvType: kvType, devices: devices)) {
      #expect(!law.isBroken && law.refusal == nil, "\(law)")
    }
  }
}
