// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCPU
import Testing

@Suite("Ceilings")
struct CeilingTests {
  @Test("are found for what an instruction set has, and for nothing else", arguments: CPUDevice.instructionSets.filter(\.isSupported))
  func operations(set: InstructionSet) throws {
    let ceilings = try CPUCeilings(CPUDevice(instructionSet: set.name, threads: 2), clock: ContinuousClock())
    let rate = { ceilings.operationsPerSecond($0, tries: 2, seconds: 0.002) }
    // The slowest machine that anybody uses makes a hundred million.
    #expect(try #require(rate(.f32)) > 1e8)
    // The variants with dot products of bf16 have those of integers.
    for operation in [CPUCeilings.Operation.bf16, .i16, .i8] {
      #expect((rate(operation) != nil) == ["avx512amx", "avx512bf16"].contains(set.name), "\(operation)")
    }
    #expect((rate(.bf16Tiles) ?? 0 > 1e8) == (set.name == "avx512amx"))
    // What has no register tile of six rows is measured by float32.
    #if arch(arm64)
    let hasSixRows = true
    #else
    let hasSixRows = !["portable", "bf16-model"].contains(set.name)
    #endif
    for operation in [CPUCeilings.Operation.widenedE4M3(rows: 1), .widenedE4M3(rows: 6), .widenedI8(rows: 4)] {
      let speed = rate(operation)
      #expect((speed != nil) == hasSixRows, "\(operation)")
      if let speed { #expect(speed > 1e8 && speed < 1e14, "\(operation)") }
    }
  }

  @Test("of memory are found whatever the size", arguments: [1, 4096, 3 << 20])
  func reading(byteCount: Int) throws {
    let reader = try CPUCeilings(CPUDevice(threads: 2), clock: ContinuousClock()).makeReader(byteCount: byteCount)
    #expect(reader.bytesPerSecond() > 1e7)
  }
}
