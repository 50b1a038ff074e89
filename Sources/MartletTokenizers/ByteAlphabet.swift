// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// GPT-2's table that writes each byte as a printable character: the printable bytes of Latin-1 as themselves, the others as U+0100 upwards.
struct ByteAlphabet {
  /// From a scalar below 0x180 to its byte; nil if it stands for none.
  private var byteOfScalar = [UInt8?](repeating: nil, count: 0x180)

  init() {
    var next = 0x100
    for byte in 0..<256 {
      switch byte {
      case 0x21...0x7E, 0xA1...0xAC, 0xAE...0xFF: byteOfScalar[byte] = UInt8(byte)
      default:
        byteOfScalar[next] = UInt8(byte)
        next += 1
      }
    }
  }

  /// Appends the bytes that `text` stands for; false, with nothing appended, if it has a character that stands for none.
  func appendBytes(_ text: Span<UInt8>, to bytes: inout [UInt8]) -> Bool {
    let start = bytes.count
    var index = 0
    while index < text.count {
      let lead = text[index]
      var scalar = Int(lead)
      if lead >= 0x80 {
        // All characters of the table take one or two bytes.
        guard lead & 0xE0 == 0xC0, index + 1 < text.count else { break }
        scalar = Int(lead & 0x1F) << 6 | Int(text[index + 1] & 0x3F)
      }
      guard scalar < byteOfScalar.count, let byte = byteOfScalar[scalar] else { break }
      bytes.append(byte)
      index += lead < 0x80 ? 1 : 2
    }
    if index == text.count { return true }
    bytes.removeLast(bytes.count - start)
    return false
  }
}
