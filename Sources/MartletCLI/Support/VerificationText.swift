// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletAttentionTestKit
import MartletCore

/// What `martlet verify` found: a value that is printed as text or as JSON.
struct VerificationText: Encodable, Sendable {
  struct Cell: Encodable {
    /// Of the cell, in words.
    var axes: [String: String]
    var seed: UInt64
    /// "passed", "refused" or "failed".
    var verdict: String
    /// Why it was refused, or what is wrong.
    var words: [String]
    /// Absent where it is not a number.
    var error: Double?
    var logSumExpError: Double?
    /// In units of what is allowed.
    var storedError: Double?
    var differingCodes: Int
    var codes: Int
    var tolerance: Double

    enum CodingKeys: String, CodingKey {
      case axes, seed, verdict, words, error, codes, tolerance
      case logSumExpError = "log_sum_exp_error"
      case storedError = "stored_error"
      case differingCodes = "differing_codes"
    }
  }

  struct Law: Encodable {
    var backend: String
    var kv: String
    var law: String
    /// "holds", "refused" or "broken".
    var verdict: String
    var words: [String]
    var comparisons: Int
  }

  struct Scenario: Encodable {
    var backend: String
    var kv: String
    var name: String
    var verdict: String
    var words: [String]
    var error: Double?
    var tolerance: Double
    var rows: Int
    var rowsCompared: Int

    enum CodingKeys: String, CodingKey {
      case backend, kv, name, verdict, words, error, tolerance, rows
      case rowsCompared = "rows_compared"
    }
  }

  var device: String
  var seed: UInt64
  var isPassed: Bool
  var cells: [Cell]
  var laws: [Law]
  var scenarios: [Scenario]
  /// What was refused altogether, and so has not passed.
  var unserved: [String]

  enum CodingKeys: String, CodingKey {
    case device, seed, cells, laws, scenarios, unserved
    case isPassed = "passed"
  }

  init(_ report: Verification.Report, device: String, seed: UInt64) {
    func finite(_ value: Double) -> Double? { value.isFinite ? value : nil }
    self.device = device
    self.seed = seed
    isPassed = report.isPassed
    unserved = report.unserved
    cells = report.cells.map { result in
      let (verdict, words) = Self.verdict(result.verdict)
      return Cell(
        axes: Dictionary(uniqueKeysWithValues: result.example.axes.map { ($0.name, $0.value) }), seed: result.example.seed,
        verdict: verdict, words: words, error: finite(result.largestError), logSumExpError: finite(result.largestLogSumExpError),
        storedError: finite(result.largestStoredError), differingCodes: result.differingCodes, codes: result.codes,
        tolerance: result.tolerance)
    }
    laws = report.laws.map { law in
      Law(
        backend: law.backend, kv: law.kvType.rawValue, law: law.law,
        verdict: law.isBroken ? "broken" : law.refusal == nil ? "holds" : "refused", words: law.problems + (law.refusal.map { [$0] } ?? []),
        comparisons: law.comparisons)
    }
    scenarios = report.scenarios.map { result in
      let (verdict, words) = Self.verdict(result.verdict)
      return Scenario(
        backend: result.backend, kv: result.kvType.rawValue, name: result.name, verdict: verdict, words: words,
        error: finite(result.largestError), tolerance: result.tolerance, rows: result.rows, rowsCompared: result.rowsCompared)
    }
  }

  private static func verdict(_ verdict: ConformanceResult.Verdict) -> (String, [String]) {
    switch verdict {
    case .passed: ("passed", [])
    case .refused(let words): ("refused", words)
    case .failed(let words): ("failed", words)
    }
  }
}

// MARK: - As text

extension VerificationText {
  /// A table of backends and types, the laws, and whatever failed.
  var text: String {
    var text = "\(device), seed \(seed)\n\n"
    text += Self.row(["backend", "kv", "cells", "refused", "failed", "error", "tolerance", ""])
    for group in groups(cells, by: { ($0.axes["backend"] ?? "", $0.axes["kv"] ?? "") }) {
      text += Self.row(
        [
          group.key.0, group.key.1, "\(group.members.count)", Self.count(group.members, "refused"), Self.count(group.members, "failed"),
          Self.largest(group.members.filter { $0.verdict == "passed" }.map(\.error)), Self.short(group.members[0].tolerance),
          group.members.contains { $0.verdict == "failed" } ? "FAILED" : "passed",
        ])
    }
    text += "\n" + Self.row(["backend", "kv", "laws", "refused", "broken", "", "", ""])
    for group in groups(laws, by: { ($0.backend, $0.kv) }) {
      let broken = group.members.filter { $0.verdict == "broken" }.count
      text += Self.row(
        [
          group.key.0, group.key.1, "\(group.members.count)", "\(group.members.filter { $0.verdict == "refused" }.count)", "\(broken)", "",
          "",
          broken > 0 ? "BROKEN" : "hold",
        ])
    }
    if !scenarios.isEmpty { text += "\n" + scenarioText }
    for cell in cells where cell.verdict == "failed" {
      let axes = cell.axes.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: " ")
      text += "\nFAILED \(axes) seed=\(cell.seed)\n  " + cell.words.joined(separator: "\n  ")
    }
    for law in laws where law.verdict == "broken" {
      text += "\nBROKEN \(law.backend) \(law.kv): \(law.law)\n  " + law.words.joined(separator: "\n  ")
    }
    for scenario in scenarios where scenario.verdict == "failed" {
      text += "\nFAILED \(scenario.backend) \(scenario.kv): \(scenario.name)\n  " + scenario.words.joined(separator: "\n  ")
    }
    for words in unserved { text += "\nFAILED \(words)" }
    let failures =
      cells.count { $0.verdict == "failed" } + laws.count { $0.verdict == "broken" } + scenarios.count { $0.verdict == "failed" }
      + unserved.count
    text += failures == 0 ? "\neverything holds: " : "\n\n\(failures) failed: "
    text +=
      "refused \(Self.count(cells, "refused")) of \(cells.count) cells and \(laws.count { $0.verdict == "refused" }) of \(laws.count) laws"
    if !scenarios.isEmpty { text += " and \(scenarios.count { $0.verdict == "refused" }) of \(scenarios.count) scenarios" }
    return text + "\n"
  }

  private var scenarioText: String {
    var text = Self.row(["backend", "kv", "scenarios", "refused", "failed", "error", "tolerance", "", "rows compared"])
    for group in groups(scenarios, by: { ($0.backend, $0.kv) }) {
      let compared = group.members.reduce(0) { $0 + $1.rowsCompared }
      text += Self.row(
        [
          group.key.0, group.key.1, "\(group.members.count)", "\(group.members.filter { $0.verdict == "refused" }.count)",
          "\(group.members.filter { $0.verdict == "failed" }.count)",
          Self.largest(group.members.filter { $0.verdict == "passed" }.map(\.error)), Self.short(group.members[0].tolerance),
          group.members.contains { $0.verdict == "failed" } ? "FAILED" : "passed",
          "\(compared) of \(group.members.reduce(0) { $0 + $1.rows })",
        ])
    }
    return text
  }

  /// Groups of members with one key, in the order in which keys come first.
  private func groups<Member>(_ members: [Member], by key: (Member) -> (String, String)) -> [(key: (String, String), members: [Member])] {
    var groups: [(key: (String, String), members: [Member])] = []
    for member in members {
      if let index = groups.firstIndex(where: { $0.key == key(member) }) {
        groups[index].members.append(member)
      } else {
        groups.append((key(member), [member]))
      }
    }
    // By backend in the order of coming, by type in the order of the axis.
    let types = ConformanceCase.kvTypes.map(\.rawValue)
    let backends = groups.map(\.key.0)
    return groups.sorted {
      let (a, b) = (backends.firstIndex(of: $0.key.0) ?? 0, backends.firstIndex(of: $1.key.0) ?? 0)
      return a != b ? a < b : types.firstIndex(of: $0.key.1) ?? 0 < types.firstIndex(of: $1.key.1) ?? 0
    }
  }

  private static func row(_ fields: [String]) -> String {
    let widths = [12, 8, 11, 9, 8, 10, 11, 8, 0]
    let line = zip(fields, widths).map { $0 + String(repeating: " ", count: max(0, $1 - $0.count)) }.joined()
    return String(line.reversed().drop { $0 == " " }.reversed()) + "\n"
  }

  private static func count(_ cells: [Cell], _ verdict: String) -> String { "\(cells.count { $0.verdict == verdict })" }
  private static func largest(_ errors: [Double?]) -> String { errors.compactMap(\.self).max().map(short) ?? "-" }

  /// Two digits: 1.3e-06.
  private static func short(_ value: Double) -> String {
    guard value > 0 else { return "0" }
    var (digits, exponent) = (value, 0)
    while digits >= 9.95 { (digits, exponent) = (digits / 10, exponent + 1) }
    while digits < 0.995 { (digits, exponent) = (digits * 10, exponent - 1) }
    let tenths = Int((digits * 10).rounded())
    return "\(tenths / 10).\(tenths % 10)e\(exponent)"
  }
}
