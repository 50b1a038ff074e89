// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// WordPiece (BERT): a word is cut from its beginning, each time by the longest piece; pieces within a word are listed under a prefix, "##".
///
/// A word with a place where no piece fits, or with too many characters, is one unknown token. A class, as a word must not copy the tables.
final class WordPieceModel: Sendable {
  private let vocabulary: Vocabulary
  private let prefix: [UInt8]
  private let unknown: Int32
  private let mostCharacters: Int

  init(vocabulary: Vocabulary, prefix: [UInt8], unknown: Int32, mostCharacters: Int) {
    self.vocabulary = vocabulary
    self.prefix = prefix
    self.unknown = unknown
    self.mostCharacters = mostCharacters
  }

  /// Appends the tokens of `text[range]`.
  func encode(_ text: [UInt8], _ range: Range<Int>, to tokens: inout [Int32]) {
    let characters = text[range].reduce(0) { $1 & 0xC0 == 0x80 ? $0 : $0 + 1 }
    guard characters <= mostCharacters else { return tokens.append(unknown) }
    let count = tokens.count
    // The prefix is written over what lies before a piece, which is cut off already.
    var word = [UInt8](repeating: 0, count: prefix.count) + text[range]
    var start = prefix.count
    while start < word.count {
      var first = start
      if start > prefix.count {
        first -= prefix.count
        for (index, byte) in prefix.enumerated() { word[first + index] = byte }
      }
      var end = min(word.count, first + vocabulary.longestLookup)
      while end < word.count, end > start, word[end] & 0xC0 == 0x80 { end -= 1 }
      var piece: Int32?
      while end > start {
        piece = vocabulary.token(word.span.extracting(first..<end))
        if piece != nil { break }
        end -= 1
        while end > start, word[end] & 0xC0 == 0x80 { end -= 1 }
      }
      guard let piece else {
        tokens.removeSubrange(count...)
        return tokens.append(unknown)
      }
      tokens.append(piece)
      start = end
    }
  }
}

/// What BERT's tokenizers ask about a character. The `tokenizers` package has the tables of Unicode 8 for it, with a few characters that later versions
/// class otherwise.
enum BertCharacters {
  /// A nonspacing mark: an accent, without which a letter is written.
  static func isAccent(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.value {
    case 0x1734, 0x1171E: true
    case 0x1885...0x1886, 0xA9BD, 0x111C9: false
    default: scalar.properties.generalCategory == .nonspacingMark && isOld(scalar)
    }
  }

  /// Punctuation, or any other printable character of ASCII that is no letter and no digit.
  static func isPunctuation(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.value {
    case 0x21...0x2F, 0x3A...0x40, 0x5B...0x60, 0x7B...0x7E, 0x166D, 0x111C9: true
    case ..<0x80: false
    default: CharacterProperties(scalar).contains(.punctuation) && isOld(scalar)
    }
  }

  /// What is left out of a text: control and format characters, those of private use, and the sign of a character that could not be read.
  static func isLeftOut(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.value {
    case 0x09, 0x0A, 0x0D: return false
    case 0x20..<0x7F: return false
    case 0xFFFD: return true
    default: break
    }
    switch scalar.properties.generalCategory {
    case .privateUse: return true
    case .control, .format: return isOld(scalar)
    default: return false
    }
  }

  /// Characters that are words by themselves, whatever stands beside them. The gap from U+2B820 on is the package's.
  static func isIdeograph(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.value {
    case 0x3400...0x4DBF, 0x4E00...0x9FFF, 0xF900...0xFAFF, 0x20000...0x2A6DF, 0x2A700...0x2B81F, 0x2B920...0x2CEAF, 0x2F800...0x2FA1F: true
    default: false
    }
  }

  private static func isOld(_ scalar: Unicode.Scalar) -> Bool { scalar.properties.age.map { $0.major <= 8 } ?? false }
}
