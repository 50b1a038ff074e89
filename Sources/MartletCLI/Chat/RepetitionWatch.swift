// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Sees an answer go round in circles: small models repeat a phrase or a paragraph to the end of the context, word for word.
///
/// A circle is the same tokens four times over and at least 192 tokens long: less may be meant, as rows of a table are.
package struct RepetitionWatch: Sendable {
  private static let longestPeriod = 256
  private static let repeats = 4
  private static let fewestTokens = 192

  /// The last tokens, as many as the longest period.
  private var tokens: [Int] = []
  /// For each period, how many tokens up to the last are those of one period before.
  private var matches = [Int](repeating: 0, count: longestPeriod + 1)

  package init() {}

  /// - Returns: whether the answer with these tokens too goes round in circles.
  package mutating func add(_ new: [Int]) -> Bool {
    var isCircle = false
    for token in new {
      for period in 1...Self.longestPeriod {
        guard period <= tokens.count, tokens[tokens.count - period] == token else {
          matches[period] = 0
          continue
        }
        matches[period] += 1
        // The first time round matches nothing.
        if matches[period] + period >= max(Self.repeats * period, Self.fewestTokens) { isCircle = true }
      }
      tokens.append(token)
      if tokens.count > 2 * Self.longestPeriod { tokens.removeFirst(Self.longestPeriod) }
    }
    return isCircle
  }
}
