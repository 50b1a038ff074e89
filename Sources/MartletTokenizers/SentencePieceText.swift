// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// How SentencePiece writes text in a vocabulary: "▁" (U+2581) for a space, `<0xAB>` for a byte.
enum SentencePieceText {
  static let space = [UInt8]("\u{2581}".utf8)

  /// The text with every "▁" as a space.
  static func writingSpaces(_ text: ArraySlice<UInt8>) -> [UInt8] {
    var result: [UInt8] = []
    result.reserveCapacity(text.count)
    var index = text.startIndex
    while index < text.endIndex {
      if text[index] == space[0], text[index...].starts(with: space) {
        result.append(UInt8(ascii: " "))
        index += space.count
      } else {
        result.append(text[index])
        index += 1
      }
    }
    return result
  }

  /// The same for a whole text.
  static func writingSpaces(_ text: MarkedBytes) -> MarkedBytes {
    var rewriting = MarkedRewriting(text)
    TextSplitter.Pattern.text(space).forEachPart(in: text.bytes, 0..<text.bytes.count) { part, isMatch in
      if isMatch { rewriting.replace(part, with: CollectionOfOne(UInt8(ascii: " "))) } else { rewriting.copy(part) }
    }
    return rewriting.result
  }

  /// The byte that `<0xAB>` names; nil for any other text.
  static func byteValue(_ name: ArraySlice<UInt8>) -> UInt8? {
    guard name.count == 6, name.starts(with: "<0x".utf8), name.last == UInt8(ascii: ">") else { return nil }
    // By hand: the standard library's parser takes a sign for a digit's place.
    func digit(_ character: UInt8) -> UInt8? {
      switch character {
      case UInt8(ascii: "0")...UInt8(ascii: "9"): character - UInt8(ascii: "0")
      case UInt8(ascii: "A")...UInt8(ascii: "F"): character - UInt8(ascii: "A") + 10
      case UInt8(ascii: "a")...UInt8(ascii: "f"): character - UInt8(ascii: "a") + 10
      default: nil
      }
    }
    guard let high = digit(name[name.startIndex + 3]), let low = digit(name[name.startIndex + 4]) else { return nil }
    return high << 4 | low
  }

  /// The tokens of the 256 bytes; `unknown` where there is none.
  /// - Parameter field: What the errors call the list of tokens.
  static func byteTokens(_ vocabulary: Vocabulary, unknown: Int32, field: String) throws(TokenizerError) -> [Int32] {
    var tokens = [Int32](repeating: unknown, count: 256)
    for id in 0..<Int32(vocabulary.count) where vocabulary.kinds[Int(id)] == .byte {
      let name = vocabulary.bytes(of: id)
      guard let value = byteValue(name) else {
        throw .malformed(
          field: "\(field)[\(id)]", problem: "is a byte token named \"\(String(decoding: name, as: UTF8.self))\", not \"<0xAB>\"")
      }
      tokens[Int(value)] = id
    }
    return tokens
  }

  /// - Precondition: The names of byte tokens were checked by ``byteTokens(_:unknown:field:)``.
  static func appendBytes(of token: Int32, in vocabulary: Vocabulary, showsControlTokens: Bool, to bytes: inout [UInt8]) {
    guard vocabulary.contains(token) else { return }
    let text = vocabulary.bytes(of: token)
    switch vocabulary.kinds[Int(token)] {
    case .control, .unknown, .unused:
      if showsControlTokens { bytes += text }
    case .byte:
      if let value = byteValue(text) { bytes.append(value) } else { bytes += text }
    case .undefined, .normal, .userDefined:
      bytes += writingSpaces(text)
    }
  }
}
