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

  /// The byte that `<0xAB>` names; nil for any other text.
  static func byteValue(_ name: ArraySlice<UInt8>) -> UInt8? {
    let text = String(decoding: name, as: UTF8.self)
    guard text.utf8.count == 6, text.hasPrefix("<0x"), text.hasSuffix(">") else { return nil }
    return UInt8(text.dropFirst(3).dropLast(), radix: 16)
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
    let text = vocabulary.bytes(of: token)
    switch vocabulary.kinds[Int(token)] {
    case .control, .unknown, .unused:
      if showsControlTokens { bytes += text }
    case .byte:
      // The two digits are at 3 and 4.
      func digit(_ index: Int) -> UInt8 {
        let character = text[text.startIndex + index]
        return character > UInt8(ascii: "9") ? (character | 0x20) - UInt8(ascii: "a") + 10 : character - UInt8(ascii: "0")
      }
      bytes.append(digit(3) << 4 | digit(4))
    case .undefined, .normal, .userDefined:
      bytes += writingSpaces(text)
    }
  }
}
