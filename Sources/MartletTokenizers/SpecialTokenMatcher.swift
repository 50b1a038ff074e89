// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Finds tokens that are cut out of a text before anything else: at each position the longest.
struct SpecialTokenMatcher: Sendable {
  private let index: PrefixIndex

  /// - Parameter text: The bytes that stand for a token of those bytes in the texts that are searched.
  init(_ vocabulary: Vocabulary, kinds: TokenKinds, text: (ArraySlice<UInt8>) -> [UInt8] = { Array($0) }) {
    let chosen = (0..<Int32(vocabulary.count)).filter { kinds.contains(vocabulary.kinds[Int($0)]) }
    index = PrefixIndex(chosen.map { (text(vocabulary.bytes(of: $0)), $0) })
  }

  /// Cuts `text` into its special tokens and the runs between them, in order.
  func split(_ text: [UInt8], run: (Range<Int>) -> Void, token: (Int32) -> Void) {
    if index.isEmpty {
      if !text.isEmpty { run(0..<text.count) }
      return
    }
    var start = 0
    var position = 0
    while position < text.count {
      guard let (id, end) = index.longestMatch(text, at: position, end: text.count) else {
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
}
