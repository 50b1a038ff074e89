// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletAttention
import MartletAttentionTestKit
import MartletCUDA
import MartletCore
import Testing

/// The test kit's own grid and laws, over the emulator: the truth is attention in float64. An emulated GPU takes long for them, so they are run by
/// whoever changes attention's kernels, with `MARTLET_EMULATED_GRID=1`; `AttentionStepTests` and `Scripts/check-cuda-emulator.sh` are always run.
@Suite(
  "Attention on a GPU",
  .enabled("set MARTLET_EMULATED_GRID=1 to run it") { ProcessInfo.processInfo.environment["MARTLET_EMULATED_GRID"] == "1" })
struct AttentionTests {
  static let subjects = ConformanceSubject.builtIn.filter { $0.name != VanillaAttention.name }

  @Test("agrees with float64, every value of every axis with every type of keys")
  func grid() async throws {
    let device = try StandIn.device(), grid = ConformanceGrid(Self.subjects, strength: .kvTypes, seed: 1)
    let target = ConformanceTarget(device: device, workerCount: device.workerCount, hasBF16Dots: false)
    var served = 0
    for result in await grid.run(on: target, concurrency: 1) {
      #expect(!result.verdict.isFailure, "\(result)")
      if !result.verdict.isFailure && !result.verdict.isRefusal { served += 1 }
    }
    #expect(served > grid.cases.count / 2, "\(served) of \(grid.cases.count) cells were served")
  }

  @Test("keeps the laws", arguments: [DataType.bf16, .i8])
  func laws(kvType: DataType) throws {
    let device = try StandIn.device()
    for law in AttentionLaws.all(LawSetting(TrtllmAttention.self, kvType: kvType, devices: [device])) {
      #expect(!law.isBroken && law.refusal == nil, "\(law)")
    }
  }
}
