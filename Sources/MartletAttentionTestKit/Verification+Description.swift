// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

extension Verification.Report: CustomStringConvertible {
  /// Everything that stands against ``isPassed``, each in a line: cells, laws, scenarios, and what was never run.
  public var failures: [String] {
    failedCells.map(\.description) + brokenLaws.map(\.description) + failedScenarios.map(\.description) + unserved.map { "not run: \($0)" }
  }

  /// The failures that ``description`` shows.
  private static let shownFailures = 5

  /// Whether it passed, how much was run, and the first of ``failures``.
  public var description: String {
    func some(_ count: Int, _ what: String) -> String { "\(count) \(what)\(count == 1 ? "" : "s")" }
    var parts = [some(cells.count, "cell") + " (\(refusedCells.count) refused)", some(laws.count, "law")]
    if !scenarios.isEmpty { parts.append(some(scenarios.count, "scenario")) }
    let failures = failures
    var lines = ["\(isPassed ? "passed" : "FAILED"): \(parts.joined(separator: ", "))"]
    if !failures.isEmpty { lines[0] += ", " + some(failures.count, "failure") }
    lines += failures.prefix(Self.shownFailures).map { "  " + $0 }
    if failures.count > Self.shownFailures { lines.append("  and \(failures.count - Self.shownFailures) more") }
    return lines.joined(separator: "\n")
  }
}
