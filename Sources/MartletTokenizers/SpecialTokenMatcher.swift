// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Finds tokens that are cut out of a text before anything else: at each position the longest.
///
/// The tokens lie sorted by their bytes, so that those that share a prefix are neighbours: reading one more byte narrows a range by binary
/// search. Sorted neighbours are a trie that takes no memory of its own.
struct SpecialTokenMatcher: Sendable {
  private let tokens: [Int32]
  private let texts: [[UInt8]]
  /// For each first byte the range of its tokens.
  private let ranges: [Range<Int>]

  /// - Parameter text: The bytes that stand for a token of those bytes in the texts that are searched.
  init(_ vocabulary: Vocabulary, kinds: TokenKinds, text: (ArraySlice<UInt8>) -> [UInt8] = { Array($0) }) {
    let chosen = (0..<Int32(vocabulary.count)).filter { kinds.contains(vocabulary.kinds[Int($0)]) && !vocabulary.bytes(of: $0).isEmpty }
    let sorted = chosen.map { (token: $0, text: text(vocabulary.bytes(of: $0))) }
      // Of two tokens with one text the first wins: it comes last, where the longest match ends.
      .sorted { $0.text == $1.text ? $0.token > $1.token : $0.text.lexicographicallyPrecedes($1.text) }
    tokens = sorted.map(\.token)
    texts = sorted.map(\.text)
    var ranges = [Range<Int>](repeating: 0..<0, count: 256)
    for (index, text) in texts.enumerated() {
      let first = Int(text[0])
      ranges[first] = (ranges[first].isEmpty ? index : ranges[first].lowerBound)..<index + 1
    }
    self.ranges = ranges
  }

  /// The longest token at `position`, and where it ends.
  func match(_ text: [UInt8], at position: Int) -> (token: Int32, end: Int)? {
    var range = ranges[Int(text[position])]
    var best: (token: Int32, end: Int)?
    var depth = 1
    while !range.isEmpty {
      // Those that end here come first: they are prefixes of the others.
      while let first = range.first, texts[first].count == depth {
        best = (tokens[first], position + depth)
        range = first + 1..<range.upperBound
      }
      guard position + depth < text.count else { break }
      let byte = text[position + depth]
      let lower = firstIndex(in: range) { texts[$0][depth] >= byte }
      range = lower..<firstIndex(in: lower..<range.upperBound) { texts[$0][depth] > byte }
      depth += 1
    }
    return best
  }

  /// Cuts `text` into its special tokens and the runs between them, in order.
  func split(_ text: [UInt8], run: (Range<Int>) -> Void, token: (Int32) -> Void) {
    var start = 0
    var position = 0
    while position < text.count {
      guard let (id, end) = match(text, at: position) else {
        position += 1
        continue
      }
      if start < position { run(start..<position) }
      token(id)
      start = end
      position = end
    }
    if start < text.count { run(start..<text.count) }
  }

  /// The first index where `isPast` holds, which it does from there on.
  private func firstIndex(in range: Range<Int>, where isPast: (Int) -> Bool) -> Int {
    var (low, high) = (range.lowerBound, range.upperBound)
    while low < high {
      let middle = (low + high) / 2
      if isPast(middle) { high = middle } else { low = middle + 1 }
    }
    return low
  }
}
