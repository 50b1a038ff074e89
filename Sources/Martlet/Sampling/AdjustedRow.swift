// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// A copy of a row of logits that may be changed: the row itself still gives the model's own log-probabilities.
///
/// The memory is made when the first row is copied, and kept.
struct AdjustedRow {
  private var values: [Float] = []

  /// Copies `row`, lets `adjust` change the copy, and gives what `body` makes of it.
  mutating func with<R, Failure: Error>(
    _ row: Span<Float>, adjusting adjust: (inout MutableSpan<Float>) throws(Failure) -> Void, _ body: (Span<Float>) -> R
  ) throws(Failure) -> R {
    if values.count != row.count { values = Array(repeating: 0, count: row.count) }
    var copy = values.mutableSpan
    for index in row.indices { copy[index] = row[index] }
    try adjust(&copy)
    return body(copy.span)
  }
}
