// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Finds tokens that are cut out of a text before anything else: at each position the longest.
///
/// Control tokens count where no byte of their name is contents, user-defined ones everywhere.
struct SpecialTokenMatcher: Sendable {
  /// All, and those that count in contents.
  private let all, anywhere: PrefixIndex
  private let userDefined: Set<Int32>
  /// User-defined tokens that end an answer.
  private let userDefinedEnds: Set<Int32>

  /// - Parameters:
  ///   - ends: Tokens that end an answer.
  ///   - text: The bytes that stand for a token of those bytes in the texts that are searched.
  init(
    _ vocabulary: Vocabulary, kinds: TokenKinds = [.userDefined, .structural], ends: Set<Int32>,
    text: (ArraySlice<UInt8>) -> [UInt8] = { Array($0) }
  ) {
    func tokens(_ kinds: TokenKinds) -> [Int32] {
      (0..<Int32(vocabulary.count)).filter { kinds.contains(vocabulary.kinds[Int($0)]) }
    }
    func index(_ tokens: [Int32]) -> PrefixIndex { PrefixIndex(tokens.map { (text(vocabulary.bytes(of: $0)), $0) }) }
    all = index(tokens(kinds))
    let userDefined = tokens(kinds.intersection(.userDefined))
    anywhere = index(userDefined)
    self.userDefined = Set(userDefined)
    userDefinedEnds = self.userDefined.intersection(ends)
  }

  /// Cuts `text` into its special tokens and the runs between them, in order.
  func split(_ text: MarkedBytes, run: (Range<Int>) -> Void, token: (Int32) -> Void) {
    let bytes = text.bytes
    var cursor = ContentCursor(text)
    var start = 0
    var position = 0
    while position < bytes.count && !all.isEmpty {
      guard let (id, end) = match(bytes, at: position, withholdsEnds: text.withholdsEnds, &cursor) else {
        position += 1
        continue
      }
      if start < position { run(start..<position) }
      token(id)
      start = end
      position = end
    }
    if start < bytes.count { run(start..<bytes.count) }
  }

  /// The longest that counts: one that reaches into contents leaves its place to a shorter one that does not.
  private func match(
    _ text: [UInt8], at position: Int, withholdsEnds: Bool, _ cursor: inout ContentCursor
  ) -> (Int32, Int)? {
    var best: (Int32, Int)?
    let index = cursor.contains(position) ? anywhere : all
    index.forEachMatch(text, at: position, end: text.count) { token, end in
      let countsInContents = userDefined.contains(token) && !(withholdsEnds && userDefinedEnds.contains(token))
      if countsInContents || cursor.overlap(with: position..<end) == .none { best = (token, end) }
    }
    return best
  }
}
