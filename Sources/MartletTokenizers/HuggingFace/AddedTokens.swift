// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletFormats

/// One of `added_tokens`: found in a text before the model sees it.
struct AddedToken: Sendable {
  var id: Int32
  var content: [UInt8]
  /// A control token: found only if asked for.
  var isSpecial: Bool
  /// Looked for in the normalised text, itself normalised.
  var isNormalized: Bool
  /// Takes the white space before it, after it, along.
  var takesLeft: Bool, takesRight: Bool
  /// Found only where no part of a word is next to it.
  var isSingleWord: Bool

  /// One of `added_tokens` in `tokenizer.json`.
  init(_ field: JSONField, highestID: Int) throws(TokenizerError) {
    let id = try field["id"].integer()
    guard id >= 0, id <= highestID else { throw field["id"].malformed("is \(id), which is not in 0...\(highestID)") }
    try self.init(field, id: Int32(id))
  }

  /// A control token without flags of its own.
  init(id: Int32, special content: [UInt8]) {
    self.id = id
    self.content = content
    (isSpecial, isNormalized, takesLeft, takesRight, isSingleWord) = (true, false, false, false, false)
  }

  init(_ field: JSONField, id: Int32) throws(TokenizerError) {
    self.id = id
    content = try field["content"].bytes()
    guard !content.isEmpty else { throw field["content"].malformed("is empty") }
    // Looked for at every place of a text.
    guard content.count <= 1024 else { throw field["content"].malformed("has \(content.count) bytes, and 1024 are the most") }
    isSpecial = try field["special"].bool(or: false)
    isNormalized = try field["normalized"].bool(or: !isSpecial)
    takesLeft = try field["lstrip"].bool(or: false)
    takesRight = try field["rstrip"].bool(or: false)
    isSingleWord = try field["single_word"].bool(or: false)
  }
}

/// Cuts added tokens out of a text: leftmost, the longest first, as the `tokenizers` package does.
///
/// Special ones count where no byte of their name is contents, the others everywhere.
struct AddedTokenMatcher: Sendable {
  private let index: PrefixIndex
  private let tokens: [AddedToken]
  /// Tokens that end an answer.
  private let ends: Set<Int32>
  /// Whether it matters what in a text is contents.
  let asksForContents: Bool

  /// - Parameters:
  ///   - ends: Tokens that end an answer.
  ///   - text: What is looked for.
  init(_ tokens: [AddedToken], ends: Set<Int32>, text: (AddedToken) -> [UInt8]) {
    self.tokens = tokens
    self.ends = ends
    index = PrefixIndex(tokens.enumerated().map { (text($1), Int32($0)) })
    asksForContents = tokens.contains { $0.isSpecial || ends.contains($0.id) }
  }

  /// Cuts `text`. A token that does not count stays text, and so does what it is made of.
  func split(_ text: MarkedBytes, run: (Range<Int>) -> Void, token: (Int32) -> Void) {
    let bytes = text.bytes
    var cursor = ContentCursor(text)
    var (start, position) = (0, 0)
    while position < bytes.count && !index.isEmpty {
      guard let longest = index.longestMatch(bytes, at: position, end: bytes.count) else {
        position += 1
        continue
      }
      var match = (token: tokens[Int(longest.value)], end: longest.end)
      if !countsInContents(match.token, text) {
        switch cursor.overlap(with: position..<match.end) {
        case .none: break
        case .whole:
          // Nothing that begins in it could count.
          position = match.end
          continue
        case .partial:
          // A shorter one may end before the contents; else one may begin a byte later.
          guard let shorter = longestThatCounts(text, at: position, &cursor) else {
            position += 1
            continue
          }
          match = shorter
        }
      }
      if match.token.isSingleWord && !isWord(bytes, position..<match.end) {
        position = match.end
        continue
      }
      let left = match.token.takesLeft ? beginningOfSpaces(bytes, before: position, after: start) : position
      if start < left { run(start..<left) }
      token(match.token.id)
      // The package goes on where the name ends: a token of white space there is found though it was taken along, and what it ends before counts
      // again.
      start = match.token.takesRight ? endOfSpaces(bytes, after: match.end) : match.end
      position = match.end
    }
    if start < bytes.count { run(start..<bytes.count) }
  }

  private func countsInContents(_ token: AddedToken, _ text: MarkedBytes) -> Bool {
    !token.isSpecial && !(text.withholdsEnds && ends.contains(token.id))
  }

  private func longestThatCounts(
    _ text: MarkedBytes, at position: Int, _ cursor: inout ContentCursor
  ) -> (token: AddedToken, end: Int)? {
    var best: (token: AddedToken, end: Int)?
    index.forEachMatch(text.bytes, at: position, end: text.bytes.count) { value, end in
      let found = tokens[Int(value)]
      if countsInContents(found, text) || cursor.overlap(with: position..<end) == .none { best = (found, end) }
    }
    return best
  }

  /// Whether no character that words are made of comes before or after.
  private func isWord(_ text: [UInt8], _ range: Range<Int>) -> Bool {
    if range.lowerBound > 0 {
      var before = range.lowerBound - 1
      while before > 0, text[before] & 0xC0 == 0x80 { before -= 1 }
      if ScannedCharacter(text, at: before).isWordCharacter { return false }
    }
    return range.upperBound == text.count || !ScannedCharacter(text, at: range.upperBound).isWordCharacter
  }

  private func beginningOfSpaces(_ text: [UInt8], before position: Int, after limit: Int) -> Int {
    var position = position
    while position > limit {
      var start = position - 1
      while start > limit, text[start] & 0xC0 == 0x80 { start -= 1 }
      guard text[start] & 0xC0 != 0x80, ScannedCharacter(text, at: start).properties.contains(.space) else { break }
      position = start
    }
    return position
  }

  private func endOfSpaces(_ text: [UInt8], after position: Int) -> Int {
    var position = position
    while position < text.count {
      let character = ScannedCharacter(text, at: position)
      guard character.properties.contains(.space) else { break }
      position = character.end
    }
    return position
  }
}
