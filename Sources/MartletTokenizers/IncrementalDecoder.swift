// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Text out of a stream of tokens, as soon as it is certain: a character whose bytes are split over tokens waits for its last byte.
///
/// The pieces joined are `decode` of all the tokens, bytes that are not UTF-8 included (each maximal wrong part becomes one U+FFFD).
///
/// ```swift
/// var decoder = IncrementalDecoder(tokenizer, continuesText: true)
/// for token in answer { print(decoder.append(token), terminator: "") }
/// print(decoder.finish())
/// ```
public struct IncrementalDecoder: Sendable {
  private let tokenizer: any Tokenizer
  /// Bytes of an unfinished character: at most three between calls.
  private var pending: [UInt8] = []
  /// The next byte is the text's first, and a space there is the tokenizer's own.
  private var dropsSpace: Bool

  /// - Parameter continuesText: The tokens go on where other text ended (an answer after its prompt), so that a leading space is kept.
  public init(_ tokenizer: any Tokenizer, continuesText: Bool = false) {
    self.tokenizer = tokenizer
    dropsSpace = tokenizer.dropsLeadingSpace && !continuesText
  }

  /// Takes one token and returns the text that has become certain, possibly none.
  public mutating func append(_ token: Int32) -> String {
    tokenizer.appendBytes(of: token, showsControlTokens: false, to: &pending)
    if dropsSpace, let first = pending.first {
      dropsSpace = false
      if first == UInt8(ascii: " ") { pending.removeFirst() }
    }
    let whole = pending.count - unfinishedByteCount(pending)
    guard whole > 0 else { return "" }
    defer { pending.removeFirst(whole) }
    return String(decoding: pending[..<whole], as: UTF8.self)
  }

  /// Ends the stream: an unfinished character becomes U+FFFD.
  public mutating func finish() -> String {
    defer { pending.removeAll() }
    return String(decoding: pending, as: UTF8.self)
  }
}

/// How many bytes at the end begin a character that more bytes could complete: 0 to 3.
///
/// The second byte has the narrower ranges of the Unicode standard's table 3-7 (no overlong forms, surrogates or values past U+10FFFF), because
/// a sequence that can no longer become valid is replaced at once.
private func unfinishedByteCount(_ bytes: [UInt8]) -> Int {
  for length in 1...3 where length <= bytes.count {
    let lead = bytes[bytes.count - length]
    if lead & 0xC0 == 0x80 { continue }  // a continuation: look further back for its lead
    let needed =
      switch lead {
      case 0xC2...0xDF: 2
      case 0xE0...0xEF: 3
      case 0xF0...0xF4: 4
      default: 1
      }
    guard needed > length else { return 0 }
    if length > 1 {
      let second = bytes[bytes.count - length + 1]
      let isPossible =
        switch lead {
        case 0xE0: second >= 0xA0
        case 0xED: second <= 0x9F
        case 0xF0: second >= 0x90
        case 0xF4: second <= 0x8F
        default: true
        }
      guard isPossible else { return 0 }
    }
    return length
  }
  return 0
}
