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

  init(_ field: JSONField, highestID: Int) throws(TokenizerError) {
    let id = try field["id"].integer()
    guard id >= 0, id <= highestID else { throw field["id"].malformed("is \(id), which is not in 0...\(highestID)") }
    self.id = Int32(id)
    content = try field["content"].bytes()
    guard !content.isEmpty else { throw field["content"].malformed("is empty") }
    // Looked for at every place of a text.
    guard content.count <= 1024 else { throw field["content"].malformed("has \(content.count) bytes, and 1024 are the most") }
    isSpecial = try field["special"].bool(or: false)
    isNormalized = try field["normalized"].bool(or: !isSpecial)
    takesLeft = try field["lstrip"].bool(or: false)
    takesRight = try field["rstrip"].bool(or: false)
    if try field["single_word"].bool(or: false) { throw field["single_word"].unsupported("true", supported: ["false"]) }
  }
}

/// Cuts added tokens out of a text: leftmost, the longest first, as the `tokenizers` package does.
struct AddedTokenMatcher: Sendable {
  private let index: PrefixIndex
  private let tokens: [AddedToken]

  /// - Parameter text: What is looked for.
  init(_ tokens: [AddedToken], text: (AddedToken) -> [UInt8]) {
    self.tokens = tokens
    index = PrefixIndex(tokens.enumerated().map { (text($1), Int32($0)) })
  }

  /// Cuts `text`. A special token that does not count stays text, and so does what it is made of.
  func split(_ text: [UInt8], countsSpecial: Bool, run: (Range<Int>) -> Void, token: (Int32) -> Void) {
    var (start, position) = (0, 0)
    while position < text.count && !index.isEmpty {
      guard let (value, end) = index.longestMatch(text, at: position, end: text.count) else {
        position += 1
        continue
      }
      let found = tokens[Int(value)]
      if found.isSpecial && !countsSpecial {
        position = end
        continue
      }
      let left = found.takesLeft ? beginningOfSpaces(text, before: position, after: start) : position
      if start < left { run(start..<left) }
      token(found.id)
      start = found.takesRight ? endOfSpaces(text, after: end) : end
      position = start
    }
    if start < text.count { run(start..<text.count) }
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
