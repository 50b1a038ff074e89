// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore

/// What came out of one of TensorRT-LLM's own test scenarios.
public struct ScenarioResult: Sendable, CustomStringConvertible {
  /// The test, with its configuration: "T8 llama3-8b, contexts".
  public var name: String
  public var backend: String
  public var kvType: DataType
  public var verdict: ConformanceResult.Verdict
  /// Relative to the rms of the (row, head) vector.
  public var largestError = 0.0
  public var tolerance: Double
  /// Rows that were compared with float64, and rows that were computed.
  public var rowsCompared = 0
  public var rows = 0

  public var description: String {
    let what = "\(backend) \(kvType.rawValue): \(name)"
    let sample = rowsCompared < rows ? "\(rowsCompared) of \(rows) rows" : "\(rows) rows"
    switch verdict {
    case .passed: return "\(what): passed, \(sample), error \(Comparison.short(largestError))"
    case .refused(let words): return "\(what): refused: \(words.joined(separator: "; "))"
    case .failed(let words): return "\(what): FAILED: \(words.joined(separator: "; "))"
    }
  }
}
