// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// SentencePiece's unigram model: of all ways to write a text as pieces the one with the highest sum of scores (Kudo 2018, Viterbi's algorithm).
///
/// A character that is no piece costs 10 more than the worst piece and becomes its bytes' tokens, or with its neighbours of that kind one unknown
/// token. Of equal sums the one whose last piece is longer wins. Linear in the text, times the longest piece at most.
final class UnigramModel: Sendable {
  private let pieces: PrefixIndex
  /// By token.
  private let scores: [Double]
  private let unknownScore: Double
  private let unknown: Int32
  /// Tokens of the 256 bytes; empty without byte fallback.
  private let byteTokens: [Int32]
  private let sums: Sums

  /// What a sum is kept as: it decides between ways that are equal but for rounding.
  enum Sums: Sendable {
    /// As SentencePiece keeps it.
    case float32
    /// As the `tokenizers` package keeps it.
    case float64
  }

  /// How much worse than the worst piece a character without one is: SentencePiece's `kUnkPenalty`.
  private static let unknownPenalty = 10.0

  /// - Parameters:
  ///   - pieces: The texts that can be used, in ascending order of tokens: of two equal ones the last counts.
  ///   - scores: By token; those of `pieces` are finite.
  ///   - worstScore: Of the normal pieces.
  ///   - unknown: −1 without one: a character that is no piece is left out.
  ///   - byteTokens: The tokens of all bytes, or none.
  init(
    _ pieces: [(text: [UInt8], token: Int32)], scores: [Double], worstScore: Double, unknown: Int32, byteTokens: [Int32], sums: Sums
  ) {
    enforce(byteTokens.isEmpty || byteTokens.count == 256, "\(byteTokens.count) tokens for 256 bytes")
    self.pieces = PrefixIndex(pieces.reversed().map { ($0.text, $0.token) })
    self.scores = scores
    unknownScore = sums == .float64 ? worstScore - Self.unknownPenalty : Double(Float(worstScore) - Float(Self.unknownPenalty))
    self.unknown = unknown
    self.byteTokens = byteTokens
    self.sums = sums
  }

  /// The best way to reach a place in the text.
  private struct Step {
    var score: Double
    /// Where its last piece begins, -1 if the place cannot be reached.
    var start: Int32 = -1
    /// -1 for a character without a piece.
    var token: Int32 = -1
  }

  /// Appends the tokens of `text[range]`; pieces looked at is what it returns, a measure of the work done.
  /// - Precondition: `text[range]` is valid UTF-8.
  @discardableResult
  func encode(_ text: [UInt8], _ range: Range<Int>, to tokens: inout [Int32]) -> Int {
    guard !range.isEmpty else { return 0 }
    var steps = [Step](repeating: Step(score: 0), count: range.count + 1)
    var lookCount = 0
    var position = range.lowerBound
    while position < range.upperBound {
      let here = steps[position - range.lowerBound].score
      let next = position + scalarByteCount(lead: text[position])
      var hasPiece = false
      func offer(_ token: Int32, _ added: Double, _ end: Int) {
        let score = sums == .float64 ? here + added : Double(Float(here) + Float(added))
        let index = end - range.lowerBound
        if steps[index].start < 0 || score > steps[index].score {
          steps[index] = Step(
            score: sums == .float32 ? Double(Float(score)) : score, start: Int32(position - range.lowerBound), token: token)
        }
      }
      pieces.forEachMatch(text, at: position, end: range.upperBound) { token, end in
        lookCount += 1
        if end == next { hasPiece = true }
        offer(token, scores[Int(token)], end)
      }
      if !hasPiece { offer(-1, unknownScore, next) }
      position = next
    }
    append(steps, text, range, to: &tokens)
    return lookCount
  }

  /// Appends the way that ends at the last step.
  private func append(_ steps: [Step], _ text: [UInt8], _ range: Range<Int>, to tokens: inout [Int32]) {
    let first = tokens.count
    var end = range.count
    var followsUnknown = false
    while end > 0 {
      let step = steps[end]
      let start = Int(step.start)
      if step.token >= 0 {
        tokens.append(step.token)
      } else if !byteTokens.isEmpty {
        for index in (start..<end).reversed() { tokens.append(byteTokens[Int(text[range.lowerBound + index])]) }
      } else if !followsUnknown && unknown >= 0 {
        tokens.append(unknown)
      }
      followsUnknown = step.token < 0
      end = start
    }
    tokens[first...].reverse()
  }
}
