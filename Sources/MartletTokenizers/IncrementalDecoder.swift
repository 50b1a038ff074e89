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
  private let showsControlTokens: Bool
  /// Bytes of an unfinished character: at most three between calls. With room for a token beside them.
  private var pending: [UInt8] = []
  /// The next byte is the text's first, and a space there is the tokenizer's own.
  private var dropsSpace: Bool

  /// - Parameters:
  ///   - continuesText: The tokens go on where other text ended (an answer after its prompt), so that a leading space is kept.
  ///   - showsControlTokens: The names of control tokens are part of the text; else they are left out.
  public init(_ tokenizer: any Tokenizer, continuesText: Bool = false, showsControlTokens: Bool = false) {
    self.tokenizer = tokenizer
    self.showsControlTokens = showsControlTokens
    dropsSpace = tokenizer.dropsLeadingSpace && !continuesText
    pending.reserveCapacity(256)
  }

  /// Takes one token and returns the text that has become certain, possibly none.
  public mutating func append(_ token: Int32) -> String {
    let whole = take(token)
    if whole == 0 { return "" }
    defer { pending.removeFirst(whole) }
    return String(decoding: pending[..<whole], as: UTF8.self)
  }

  /// ``append(_:)`` for a loop: appends the text as UTF-8, and takes no memory but what `bytes` grows by.
  public mutating func append(_ token: Int32, to bytes: inout [UInt8]) {
    let whole = take(token)
    if whole == 0 { return }
    appendRepaired(pending, count: whole, to: &bytes)
    pending.removeFirst(whole)
  }

  /// Ends the stream: an unfinished character becomes U+FFFD.
  public mutating func finish() -> String {
    defer { pending.removeAll(keepingCapacity: true) }
    return String(decoding: pending, as: UTF8.self)
  }

  /// ``finish()``, appended as UTF-8.
  public mutating func finish(to bytes: inout [UInt8]) {
    appendRepaired(pending, count: pending.count, to: &bytes)
    pending.removeAll(keepingCapacity: true)
  }

  /// Adds the token's bytes to what is pending, and says how many of them are whole characters now.
  private mutating func take(_ token: Int32) -> Int {
    tokenizer.appendBytes(of: token, showsControlTokens: showsControlTokens, to: &pending)
    if dropsSpace, let first = pending.first {
      dropsSpace = false
      if first == UInt8(ascii: " ") { pending.removeFirst() }
    }
    return pending.count - unfinishedByteCount(pending)
  }
}

/// Appends the first `count` of `source`, each maximal part that is not UTF-8 replaced by U+FFFD, as `String(decoding:)` does.
private func appendRepaired(_ source: [UInt8], count: Int, to bytes: inout [UInt8]) {
  source.withUnsafeBufferPointer { source in
    var iterator = source[..<count].makeIterator()
    var parser = UTF8.ForwardParser()
    while true {
      switch parser.parseScalar(from: &iterator) {
      case .valid(let scalar): bytes.append(contentsOf: scalar)
      case .error: bytes.append(contentsOf: UTF8.encodedReplacementCharacter)
      case .emptyInput: return
      }
    }
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
