// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletAttention
public import MartletCore

/// Everything that the kit knows to ask of backends, and what came out: for `martlet verify`, and for tests of backends from outside.
public struct Verification {
  /// What came out.
  public struct Report: Sendable {
    public var cells: [ConformanceResult] = []
    public var laws: [LawResult] = []
    public var scenarios: [ScenarioResult] = []
    /// Combinations of axes for which a backend has no cell.
    public var unreachable: [String] = []

    public init() {}

    public var failedCells: [ConformanceResult] { cells.filter(\.verdict.isFailure) }
    public var brokenLaws: [LawResult] { laws.filter(\.isBroken) }
    public var failedScenarios: [ScenarioResult] { scenarios.filter(\.verdict.isFailure) }
    /// Whether nothing failed.
    public var isPassed: Bool { failedCells.isEmpty && brokenLaws.isEmpty && failedScenarios.isEmpty }
  }

  /// What goes on.
  public enum Progress: Sendable {
    case cell(ConformanceResult, done: Int, of: Int)
    case law(LawResult)
    case scenario(ScenarioResult)
  }

  public var subjects: [ConformanceSubject]
  public var target: ConformanceTarget
  /// For the laws: devices that differ from each other in their threads alone.
  public var lawDevices: [any Device]
  public var strength = ConformanceGrid.Strength.pairs
  public var seed: UInt64 = 1
  /// How many truths are computed at a time.
  public var concurrency: Int
  /// Whether TensorRT-LLM's own scenarios are run at their original size.
  public var runsScenarios = false

  public init(_ subjects: [ConformanceSubject], on target: ConformanceTarget, lawDevices: [any Device], concurrency: Int) {
    self.subjects = subjects
    self.target = target
    self.lawDevices = lawDevices
    self.concurrency = concurrency
  }

  /// Runs the grid, then the laws, then the scenarios. A cancelled task ends between two of them with what there is.
  public func run(progress: (Progress) -> Void = { _ in }) async -> Report {
    var report = Report()
    let grid = ConformanceGrid(subjects, strength: strength, seed: seed)
    report.unreachable = grid.unreachable
    report.cells = await grid.run(on: target, concurrency: concurrency) { progress(.cell($0, done: $1, of: grid.cases.count)) }
    for subject in subjects {
      for kvType in ConformanceCase.kvTypes where !Task.isCancelled {
        for var law in AttentionLaws.all(LawSetting(subject.backend, kvType: kvType, devices: lawDevices)) {
          // A backend of the house serves what the laws ask; if it refuses, the table is wrong.
          if let refusal = law.refusal, subject.obstacles != nil { law.problems.append("refused unexpectedly: \(refusal)") }
          report.laws.append(law)
          progress(.law(law))
        }
      }
    }
    if runsScenarios && !Task.isCancelled {
      report.scenarios = await AttentionScenarios.run(subjects, on: target, concurrency: concurrency) { progress(.scenario($0)) }
    }
    return report
  }
}
