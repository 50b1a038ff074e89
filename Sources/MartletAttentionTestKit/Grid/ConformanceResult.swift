// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// What came out of one cell.
public struct ConformanceResult: Sendable {
  /// How it ended.
  public enum Verdict: Sendable, Hashable {
    case passed
    /// The backend refused the layer, as the table expects, or as a backend from outside may.
    case refused([String])
    /// What is wrong, the first of each kind.
    case failed([String])

    public var isFailure: Bool {
      if case .failed = self { return true }
      return false
    }

    public var isRefusal: Bool {
      if case .refused = self { return true }
      return false
    }
  }

  public var example: ConformanceCase
  public var verdict: Verdict
  /// Relative to the rms of the (row, head) vector; NaN where an output is.
  public var largestError = 0.0
  /// Relative to its size, or absolute below 1.
  public var largestLogSumExpError = 0.0
  /// In units of what is allowed of a stored element; 0 = exactly what float64 stores.
  public var largestStoredError = 0.0
  /// e4m3 outputs that are not the truth's code, and all of them.
  public var differingCodes = 0
  public var codes = 0
  /// What the errors are compared with.
  public var tolerance: Double

  init(_ example: ConformanceCase, _ verdict: Verdict, tolerance: Double) {
    self.example = example
    self.verdict = verdict
    self.tolerance = tolerance
  }
}

extension ConformanceResult: CustomStringConvertible {
  public var description: String {
    switch verdict {
    case .passed: "passed: \(example): error \(Comparison.short(largestError))"
    case .refused(let words): "refused: \(example): \(words.joined(separator: "; "))"
    case .failed(let words): "FAILED: \(example): \(words.joined(separator: "; "))"
    }
  }
}
