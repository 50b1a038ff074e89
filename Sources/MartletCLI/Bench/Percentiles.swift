// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Of all samples, exactly: a percentile is the least sample that so many of a hundred do not exceed (nearest rank).
package struct Percentiles: Encodable, Sendable, Hashable {
  package var p50: Double
  package var p90: Double
  package var p99: Double
  package var max: Double

  /// nil without samples.
  package init?(_ samples: [Double]) {
    guard !samples.isEmpty else { return nil }
    let sorted = samples.sorted()
    func rank(_ percent: Int) -> Double { sorted[(sorted.count * percent + 99) / 100 - 1] }
    p50 = rank(50)
    p90 = rank(90)
    p99 = rank(99)
    max = sorted[sorted.count - 1]
  }
}
