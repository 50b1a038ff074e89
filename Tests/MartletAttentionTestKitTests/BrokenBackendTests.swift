// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// A kit that finds nothing is worth nothing: each faulty backend fails a cell that the golden one passes.

import MartletAttention
import MartletAttentionTestKit
import MartletCPU
import MartletCore
import Testing

@Suite("The kit finds")
struct BrokenBackendTests {
  private func target() throws -> ConformanceTarget { ConformanceTarget(device: try CPUDevice(threads: 1), hasBF16Dots: false) }

  private func words<Kind: Fault>(_ kind: Kind.Type, _ change: (inout ConformanceCase) -> Void) throws -> String {
    var example = ConformanceCase(backend: "", kvType: .bf16, phase: .mixed, rope: .neoX, seed: 21)
    change(&example)
    let target = try target()
    example.backend = NoFault.name
    let sound = ConformanceSubject(FaultyAttention<NoFault>.self, obstacles: []).run(example, on: target)
    #expect(sound.verdict == .passed, "\(sound)")
    example.backend = Kind.name
    let result = ConformanceSubject(FaultyAttention<Kind>.self, obstacles: []).run(example, on: target)
    guard case .failed(let words) = result.verdict else {
      Issue.record("\(Kind.name) passed: \(result)")
      return ""
    }
    return words.joined(separator: "; ")
  }

  @Test("a window that is one key off, dropped sinks and caps, a wrong scale, the wrong mask")
  func features() throws {
    #expect(try words(ShiftedWindow.self) { $0.mask = .window }.contains("output of request"))
    #expect(try words(DroppedSink.self) { $0.mask = .sinks }.contains("log-sum-exp"))
    #expect(try words(DroppedSoftCap.self) { $0.mask = .softCap }.contains("output of request"))
    #expect(try words(WrongScale.self) { $0.kvType = .f32 }.contains("output of request"))
    #expect(
      try words(CausalAlways.self) {
        $0.mask = .full; $0.phase = .context
      }.contains("output of request"))
    #expect(try words(NaturalLogarithm.self) { $0.kvType = .f32 }.contains("log-sum-exp"))
  }

  @Test("forgotten scales of e4m3, keys that are read unrounded, and pages that are read unwritten")
  func cache() throws {
    #expect(try words(ForgottenScale.self) { $0.kvType = .f8e4m3 }.contains("stored value"))
    #expect(
      try words(UnroundedKeys.self) {
        $0.kvType = .f8e4m3; $0.phase = .context; $0.rope = .none
      }.contains("output of request"))
    #expect(try words(NoAppend.self) { $0.kvType = .f16 }.contains("nan"))
  }

  @Test("obstacles that the table does not name, and obstacles that are not there")
  func obstacles() throws {
    let target = try target()
    let example = ConformanceCase(backend: UnexpectedObstacle.name, headDim: 96)
    let house = ConformanceSubject(FaultyAttention<UnexpectedObstacle>.self, obstacles: []).run(example, on: target)
    #expect(house.verdict == .failed(["refused unexpectedly: it cannot do heads of 96; choose another"]))
    let outside = ConformanceSubject(FaultyAttention<UnexpectedObstacle>.self).run(example, on: target)
    #expect(outside.verdict == .refused(["it cannot do heads of 96; choose another"]))
    let named = [ExpectedObstacle("heads of 96") { $0.headDim == 96 }]
    #expect(
      ConformanceSubject(FaultyAttention<UnexpectedObstacle>.self, obstacles: named).run(example, on: target).verdict == outside.verdict)
    let other = [ExpectedObstacle("heads of 95") { $0.headDim == 96 }]
    #expect(ConformanceSubject(FaultyAttention<UnexpectedObstacle>.self, obstacles: other).run(example, on: target).verdict.isFailure)
    #expect(ConformanceSubject(FaultyAttention<NoFault>.self, obstacles: named).run(example, on: target).verdict.isFailure)
  }

  @Test("nothing to blame where a metadata refuses masks that its setup names")
  func masks() throws {
    let target = try target()
    let subject = ConformanceSubject(CausalAttention.self)
    for mask in ConformanceCase.Mask.allCases where mask == .custom || mask == .full {
      let result = subject.run(ConformanceCase(backend: subject.name, phase: .context, mask: mask), on: target)
      #expect(result.verdict == .refused(["it has causal masks alone; choose another attention backend"]), "\(result)")
    }
    // What it takes, it must compute.
    let result = subject.run(ConformanceCase(backend: subject.name, phase: .context), on: target)
    #expect(result.verdict.isFailure)
  }

  @Test("results that depend on the place in the batch or on the page size by one bit")
  func laws() throws {
    let devices: [any Device] = [try CPUDevice(threads: 1)]
    let sound = AttentionLaws.independence(LawSetting(FaultyAttention<NoFault>.self, kvType: .bf16, devices: devices))
    #expect(!sound.isBroken && sound.refusal == nil && sound.comparisons > 100, "\(sound)")
    #expect(AttentionLaws.independence(LawSetting(FaultyAttention<BatchOrder>.self, kvType: .bf16, devices: devices)).isBroken)
    #expect(AttentionLaws.splitConsistency(LawSetting(FaultyAttention<BatchOrder>.self, kvType: .bf16, devices: devices)).isBroken)
    let pages = AttentionLaws.independence(LawSetting(FaultyAttention<PageSize>.self, kvType: .f32, devices: devices))
    #expect(pages.problems.first?.contains("pages of 64") == true, "\(pages)")
    #expect(AttentionLaws.saturation(LawSetting(FaultyAttention<ForgottenScale>.self, kvType: .f8e4m3, devices: devices)).isBroken)
  }

  @Test("and the report of a verification says so")
  func report() async throws {
    let target = try target()
    var verification = Verification(
      [ConformanceSubject(FaultyAttention<DroppedSink>.self)], on: target, lawDevices: [target.device], concurrency: 2)
    verification.strength = .kvTypes
    let report = await verification.run()
    #expect(!report.isPassed && report.brokenLaws.isEmpty)
    #expect(!report.failedCells.isEmpty && report.failedCells.allSatisfy { $0.example.mask == .sinks || $0.example.mask == .all })
    #expect(report.cells.contains { $0.verdict == .passed })
    #expect(report.unserved.isEmpty)
  }

  @Test("and a backend that refuses everything has not passed")
  func refusal() async throws {
    let target = try target()
    func report(_ refused: Set<ConformanceCase.Phase> = []) async -> Verification.Report {
      var verification = Verification(
        [ConformanceSubject(FaultyAttention<AllRefused>.self, refusedPhases: refused)], on: target, lawDevices: [target.device],
        concurrency: 2)
      verification.strength = .kvTypes
      return await verification.run()
    }
    let all = await report()
    #expect(!all.isPassed && all.failedCells.isEmpty && all.brokenLaws.isEmpty)
    #expect(all.refusedCells.count == all.cells.count)
    #expect(all.unserved.count == ConformanceCase.Phase.allCases.count + 1)
    #expect(all.unserved.contains { $0.hasPrefix("AllRefused phase=cross: refused in every one of ") })
    // Few lines, and what they leave out is counted.
    let lines = all.description.split(separator: "\n")
    #expect(lines[0].hasPrefix("FAILED: \(all.cells.count) cells (\(all.cells.count) refused)"), "\(all)")
    #expect(
      lines.count == 7 && lines[1].contains("not run: AllRefused") && lines[6].contains("and \(all.failures.count - 5) more"), "\(all)")
    #expect(all.failures.count == all.unserved.count)
    // What the backend says that it refuses is its own affair; that no law was asked remains.
    #expect(await report(Set(ConformanceCase.Phase.allCases)).unserved == ["AllRefused: no law could be asked of it"])
  }
}
