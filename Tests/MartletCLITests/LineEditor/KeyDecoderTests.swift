// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCLI
import Testing

/// What terminals send, as keys.
@Suite struct KeyDecoderTests {
  private static func keys(_ text: String) -> [Key] {
    var decoder = KeyDecoder()
    return decoder.decode(Array(text.utf8)) + decoder.flush()
  }

  @Test(arguments: [
    ("\u{1B}[A", Key.up), ("\u{1B}OA", .up), ("\u{1B}[B", .down), ("\u{1B}[C", .right), ("\u{1B}[D", .left), ("\u{1B}OC", .right),
    ("\u{1B}[H", .home), ("\u{1B}[1~", .home), ("\u{1B}[7~", .home), ("\u{1B}OF", .end), ("\u{1B}[4~", .end), ("\u{1B}[8~", .end),
    ("\u{1B}[3~", .delete), ("\u{1B}[3;5~", .killWordRight), ("\u{1B}[1;5C", .wordRight), ("\u{1B}[1;3D", .wordLeft),
    ("\u{1B}[1;2C", .right), ("\u{1B}b", .wordLeft), ("\u{1B}f", .wordRight), ("\u{1B}d", .killWordRight), ("\u{1B}\u{7F}", .killWordLeft),
    ("\u{1B}\r", .newline), ("\r", .enter), ("\n", .enter), ("\u{1B}", .escape), ("\u{7F}", .backspace), ("\u{8}", .backspace),
    ("\u{1}", .home), ("\u{5}", .end), ("\u{3}", .interrupt), ("\u{4}", .endOfInput), ("\u{1A}", .suspend), ("\u{12}", .search),
    ("\u{15}", .killToStart), ("\u{B}", .killToEnd), ("\u{19}", .yank), ("\t", .tab), ("\u{C}", .clearScreen), ("\u{14}", .transpose),
  ])
  func `a key is known by each of its spellings`(bytes: String, key: Key) {
    #expect(Self.keys(bytes) == [key])
  }

  @Test func `what is no key of ours is passed over, and what comes after it is read`() {
    for sequence in ["\u{1B}[5~", "\u{1B}[15~", "\u{1B}OP", "\u{1B}[<0;1;1M", "\u{1B}x", "\u{1B}[?1;2c", "\u{0}", "\u{1B}[I"] {
      #expect(Self.keys(sequence + "ab") == [.text("ab")], "\(sequence.debugDescription)")
    }
    // A sequence that never ends takes no more than itself.
    #expect(Self.keys("\u{1B}[" + String(repeating: "1", count: 40) + "a").last == .text(String(repeating: "1", count: 10) + "a"))
    #expect(Self.keys("\u{1B}[\r") == [.enter])
  }

  @Test func `bytes may come in any pieces`() {
    let text = "a\u{1B}[Aé日🇫🇷\u{1B}[200~x\ny\u{1B}[201~\u{1B}[3~z\u{1B}OH"
    let expected: [Key] = [.text("a"), .up, .text("é日🇫🇷"), .paste("x\ny"), .delete, .text("z"), .home]
    let bytes = Array(text.utf8)
    #expect(Self.keys(text) == expected)
    for size in 1...7 {
      var decoder = KeyDecoder()
      var keys: [Key] = []
      for start in stride(from: 0, to: bytes.count, by: size) { keys += decoder.decode(bytes[start..<min(start + size, bytes.count)]) }
      var joined: [Key] = []
      for key in keys {
        if case .text(let text) = key, case .text(let before)? = joined.last {
          joined[joined.count - 1] = .text(before + text)
        } else {
          joined.append(key)
        }
      }
      #expect(joined == expected && !decoder.isIncomplete, "\(size)")
    }
  }

  @Test func `an escape waits for what may follow, and is itself where nothing does`() {
    var decoder = KeyDecoder()
    #expect(decoder.decode([0x1B]) == [] && decoder.isIncomplete)
    #expect(decoder.flush() == [.escape] && !decoder.isIncomplete)
    #expect(decoder.decode([0x1B]) == [] && decoder.decode(Array("[A".utf8)) == [.up])
  }

  @Test func `a paste is one piece, with line feeds, and commands no terminal`() {
    #expect(Self.keys("\u{1B}[200~one\r\ntwo\rthree\n\n\tfour\u{1B}[31m\u{7}\u{1B}[201~") == [.paste("one\ntwo\nthree\n\n\tfour[31m")])
    // Control keys in it are text that is left out, not keys.
    #expect(Self.keys("\u{1B}[200~a\u{3}b\u{1B}[201~c") == [.paste("ab"), .text("c")])
    #expect(Self.keys("\u{1B}[200~\u{1B}[201~") == [.paste("")])
  }

  @Test func `a paste that never ends is taken where nothing more comes`() {
    var decoder = KeyDecoder()
    #expect(decoder.decode(Array("\u{1B}[200~one\r\ntwo\u{1B}[20".utf8)) == [] && decoder.isInPaste && decoder.isIncomplete)
    #expect(decoder.flush() == [.paste("one\ntwo")] && !decoder.isInPaste && !decoder.isIncomplete)
    #expect(decoder.decode(Array("a\r".utf8)) == [.text("a"), .enter])
    #expect(decoder.decode(Array("\u{1B}[200~".utf8)) == [] && decoder.isInPaste)
    #expect(decoder.flush() == [.paste("")] && decoder.decode([0x3]) == [.interrupt])
  }

  @Test func `bytes that are no UTF-8 are left out`() {
    var decoder = KeyDecoder()
    #expect(decoder.decode([0xFF, 0x61, 0x80, 0xC3, 0x62]) == [.text("ab")])
    #expect(decoder.decode([0xE6, 0x97]) == [] && decoder.decode([0xA5]) == [.text("日")])
  }
}
