// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
package import MartletTemplates
package import NIOCore

/// Events that differ by nothing but a text: what stands around it is made once, since to make it for every token takes more time than
/// everything else that the server does for one.
package struct TextEvents {
  private let before: [UInt8]
  private let after: [UInt8]

  /// - Parameter event: makes an event of a text, the same but for the text whatever it is.
  package init(_ event: (String) -> JSON) {
    // A text that stands in no event by itself.
    let mark = RandomName.make()
    let text = EventStream.line(event(mark))
    let quoted = JSON.string(mark).text
    let parts = text.split(separator: quoted, maxSplits: 1, omittingEmptySubsequences: false)
    before = Array(parts[0].utf8)
    after = Array((parts.count > 1 ? parts[1] : "").utf8)
  }

  package func write(_ text: String, to buffer: inout ByteBuffer) {
    buffer.writeBytes(before)
    buffer.writeJSON(text)
    buffer.writeBytes(after)
  }
}

extension ByteBuffer {
  /// A string as ``JSON/oneLine`` has it.
  fileprivate mutating func writeJSON(_ text: String) {
    var text = text
    let isPlain = text.withUTF8 { bytes in
      // The two bytes begin the characters at which some readers end a line, besides others.
      bytes.allSatisfy { $0 >= 0x20 && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\\") && $0 != 0x7F && $0 != 0xC2 && $0 != 0xE2 }
    }
    if isPlain {
      writeInteger(UInt8(ascii: "\""))
      writeString(text)
      writeInteger(UInt8(ascii: "\""))
    } else {
      writeString(JSON.string(text).oneLine)
    }
  }
}
#endif
