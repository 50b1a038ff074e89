// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

package import MartletGrammar

/// Keeps one answer to its form: forbids what may not come next, and follows what came.
///
/// It goes on by one token for each that is generated, and by nothing else: a request that pauses and is computed again finds it where it was.
package struct FormKeeper {
  private var matcher: GrammarMatcher
  /// Tokens without a text that end the answer by the request's word: they may come where the form may end, as the model's end tokens may.
  private let stopTokens: [Int]

  package init(_ constraint: GrammarConstraint, stopTokens: [Int] = []) {
    matcher = constraint.makeMatcher()
    self.stopTokens = stopTokens
  }

  /// Makes the logits of all tokens that may not come −∞, and leaves the others as they are.
  /// - Parameter mask: scratch memory of any vocabulary, which is kept.
  mutating func forbid(in row: inout MutableSpan<Float>, mask: inout TokenMask) throws(GrammarError) {
    let count = matcher.constraint.vocabulary.numTokens
    enforce(row.count == count, "a row of \(row.count) logits for a form of \(count) tokens")
    if mask.numTokens != count { mask = TokenMask(numTokens: count) }
    try matcher.fill(&mask)
    var kept: [Float] = []
    if !stopTokens.isEmpty, try matcher.isAccepting {
      for token in stopTokens { kept.append(row[token]) }
    }
    for (index, word) in mask.words.enumerated() where word != .max {
      let tokens = index * 64..<min(index * 64 + 64, count)
      if word == 0 {
        for token in tokens { row[token] = -.infinity }
      } else {
        for token in tokens where word >> UInt64(token & 63) & 1 == 0 { row[token] = -.infinity }
      }
    }
    for (token, logit) in zip(stopTokens, kept) { row[token] = logit }
  }

  /// Goes on by the token that was chosen.
  mutating func follow(_ token: Int) throws(GrammarError) {
    if stopTokens.contains(token) { return }  // the answer ends with it
    guard try matcher.advance(token) else {
      throw GrammarError(.unsupported, "token \(token) was chosen, which it does not allow there")
    }
  }
}
