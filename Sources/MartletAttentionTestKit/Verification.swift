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

    /// What was never run because the backend refused all of it, in words: a phase of the grid, or the laws. A backend that refuses everything has
    /// not passed.
    public var unserved: [String] = []

    public init() {}

    public var refusedCells: [ConformanceResult] { cells.filter(\.verdict.isRefusal) }
    public var failedCells: [ConformanceResult] { cells.filter(\.verdict.isFailure) }
    public var brokenLaws: [LawResult] { laws.filter(\.isBroken) }
    public var failedScenarios: [ScenarioResult] { scenarios.filter(\.verdict.isFailure) }
    /// Whether nothing failed, and something was run of everything.
    public var isPassed: Bool { failedCells.isEmpty && brokenLaws.isEmpty && failedScenarios.isEmpty && unserved.isEmpty }
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
  ///
  /// A failed precondition of a backend ends the process. ``run(journal:progress:)`` survives it.
  public func run(progress: (Progress) -> Void = { _ in }) async -> Report {
    // Without a journal nothing can fail.
    (try? await run(with: nil, progress: progress)) ?? Report()
  }

  /// The same with a journal: what it has is not run again and no progress, and what ended an earlier process has failed.
  ///
  /// One process alone gains nothing by it; ``VerificationJournal/supervise(_:of:journal:started:)`` runs as many as it takes.
  /// - Throws: ``VerificationError`` where the journal cannot be written, or is of another verification.
  public func run(journal: VerificationJournal, progress: (Progress) -> Void = { _ in }) async throws(VerificationError) -> Report {
    let names = subjects.map(\.name).joined(separator: ", ")
    try journal.begin("\(names) on \(target.device.summary), \(strength), seed \(seed)" + (runsScenarios ? ", scenarios" : ""))
    return try await run(with: journal, progress: progress)
  }

  private func run(with journal: VerificationJournal?, progress: (Progress) -> Void) async throws(VerificationError) -> Report {
    var report = Report()
    // Where a layer cannot even be made, the cell is run and says why.
    let grid = ConformanceGrid(subjects, strength: strength, seed: seed) { (try? $0.refusal(of: $1, on: target).isEmpty) ?? true }
    report.unreachable = grid.unreachable
    report.cells = try await grid.run(on: target, concurrency: concurrency, journal: journal) {
      progress(.cell($0, done: $1, of: grid.cases.count))
    }
    for subject in subjects {
      for kvType in ConformanceCase.kvTypes where !Task.isCancelled {
        let setting = LawSetting(subject.backend, kvType: kvType, devices: lawDevices)
        for (name, ask) in AttentionLaws.table {
          let isKnown = journal?.knows(part(name, setting)) == true
          guard var law = try result(name, setting, journal, ask) else { continue }
          // A backend of the house serves what the laws ask; if it refuses, the table is wrong.
          if let refusal = law.refusal, subject.obstacles != nil { law.problems.append("refused unexpectedly: \(refusal)") }
          report.laws.append(law)
          if !isKnown { progress(.law(law)) }
        }
      }
    }
    if runsScenarios && !Task.isCancelled {
      report.scenarios = try await AttentionScenarios.run(subjects, on: target, concurrency: concurrency, journal: journal) {
        progress(.scenario($0))
      }
    }
    if !Task.isCancelled { report.unserved = unserved(in: report) }
    return report
  }

  private func part(_ law: String, _ setting: LawSetting) -> String {
    "law \(setting.backend.name) \(setting.kvType.rawValue): \(law)"
  }

  private func result(
    _ name: String, _ setting: LawSetting, _ journal: VerificationJournal?, _ ask: (LawSetting) -> LawResult?
  ) throws(VerificationError) -> LawResult? {
    guard let journal else { return ask(setting) }
    return try journal.result(
      of: part(name, setting),
      read: { entry -> LawResult?? in entry.kind == "none" ? .some(nil) : LawResult(setting, entry).map { .some($0) } },
      broke: { words -> LawResult? in
        var law = LawResult(name, setting)
        law.problems = [words]
        return law
      }, entry: { $0?.entry ?? JournalEntry(kind: "none") }, run: { ask(setting) })
  }

  /// Of every backend the phases and the laws of which nothing was run.
  private func unserved(in report: Report) -> [String] {
    subjects.flatMap { subject in
      let cells = report.cells.filter { $0.example.backend == subject.name }
      var words = ConformanceCase.Phase.allCases.filter { !subject.refusedPhases.contains($0) }.compactMap { phase -> String? in
        let asked = cells.filter { $0.example.phase == phase }
        guard !asked.isEmpty, asked.allSatisfy(\.verdict.isRefusal) else { return nil }
        return "\(subject.name) phase=\(phase.rawValue): refused in every one of \(asked.count) cells"
      }
      let laws = report.laws.filter { $0.backend == subject.name }
      if !laws.isEmpty && laws.allSatisfy({ $0.refusal != nil }) { words.append("\(subject.name): no law could be asked of it") }
      return words
    }
  }
}
