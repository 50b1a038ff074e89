// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Martlet
import MartletFormats
import MartletTestSupport
import MartletTokenizers
import Testing

@Suite("Stop strings")
struct StopMatcherTests {
  /// A token for every byte.
  private static let bytes: any Tokenizer = {
    do { return try ModelFiles.gguf(GGUFCheckpoint(TinyModel(.llama, seed: 1).file())).makeTokenizer() } catch {
      preconditionFailure("\(error)")
    }
  }()

  private func run(_ pieces: [String], _ stops: [String]) -> (text: String, isStopped: Bool, held: String) {
    var matcher = StopMatcher(stops)
    var text = ""
    for piece in pieces {
      let (more, isStopped) = matcher.push(piece)
      text += more
      if isStopped { return (text, true, "") }
    }
    return (text, false, matcher.flush())
  }

  @Test("are found across the borders of pieces")
  func acrossBorders() {
    #expect(run(["Hel", "lo wo", "rld"], ["lo w"]) == ("Hel", true, ""))
    #expect(run(["a", "a", "a", "b"], ["aab"]) == ("a", true, ""))
    #expect(run(["ab", "ab", "ac"], ["abac"]) == ("ab", true, ""))
    #expect(run(["né", "e"], ["ée"]) == ("n", true, ""))
  }

  @Test("hold back only what may be their beginning")
  func holdBack() {
    var matcher = StopMatcher(["###", "END"])
    #expect(matcher.push("text #").text == "text ")
    #expect(matcher.push("# more E").text == "## more ")
    #expect(matcher.push("N").text == "")
    #expect(matcher.flush() == "EN")
  }

  /// Characters of two to four bytes that share their first bytes, and stop strings of them, one of which may begin another: a token is a
  /// byte here, so that every character and every stop string crosses the borders of tokens.
  @Test("are found in text whose characters are several tokens", arguments: 0..<200)
  func severalBytes(seed: Int) throws {
    var generator = SeededGenerator(seed: UInt64(1000 + seed))
    func word(_ length: Int) -> String { String((0..<length).map { _ in "éèé€₭😀😁".randomElement(using: &generator)! }) }
    let text = word(30)
    let long = word(3)
    let stops = [long, String(long.dropFirst()) + word(1), word(2)]
    let letters = Array(text)
    var expected: (String, Bool) = (text, false)
    search: for end in 0...letters.count {
      for start in 0..<end where stops.contains(String(letters[start..<end])) {
        expected = (String(letters[..<start]), true)
        break search
      }
    }
    let tokenizer = Self.bytes
    let tokens = tokenizer.encode(text, parsesSpecialTokens: false)
    #expect(tokens.count == text.utf8.count)
    var decoder = IncrementalDecoder(tokenizer, continuesText: true)
    var pieces = tokens.map { decoder.append($0) }
    pieces.append(decoder.finish())
    let found = run(pieces, stops)
    #expect(found.text + found.held == expected.0 && found.isStopped == expected.1, "\(text) \(stops)")
  }

  /// For random texts of two letters, cut anywhere: what comes out is the text up to where the first stop string becomes complete.
  @Test("give the same text however it is cut into pieces", arguments: 0..<300)
  func anyCut(seed: Int) {
    var generator = SeededGenerator(seed: UInt64(seed))
    func word(_ length: Int) -> String { String((0..<length).map { _ in Bool.random(using: &generator) ? "a" : "b" }) }
    let text = word(40)
    let stops = (0..<2).map { _ in word(Int.random(in: 2...5, using: &generator)) }
    // The piecewise search sees a stop string as soon as its last letter is there; so does this.
    let letters = Array(text)
    var expected: (String, Bool) = (text, false)
    search: for end in 0...letters.count {
      for start in 0..<end where stops.contains(String(letters[start..<end])) {
        expected = (String(letters[..<start]), true)
        break search
      }
    }
    for longest in [1, 3, 12, 40] {
      var pieces: [String] = []
      var rest = letters[...]
      while !rest.isEmpty {
        let count = min(Int.random(in: 1...longest, using: &generator), rest.count)
        pieces.append(String(rest.prefix(count)))
        rest.removeFirst(count)
      }
      let found = run(pieces, stops)
      #expect(found.text + found.held == expected.0 && found.isStopped == expected.1, "\(pieces) \(stops)")
    }
  }

  @Test("stop where the first of them is complete, also within one piece")
  func firstComplete() {
    #expect(run([" Paris"], [" Pari", "a"]) == (" P", true, ""))
    #expect(run(["xabc"], ["c", "abc"]) == ("x", true, ""))
  }
}

/// With strings in place of their UTF-8.
extension StopMatcher {
  fileprivate mutating func push(_ piece: String) -> (text: String, isStopped: Bool) {
    var text: [UInt8] = []
    let isStopped = push(Array(piece.utf8), to: &text)
    return (String(decoding: text, as: UTF8.self), isStopped)
  }

  fileprivate mutating func flush() -> String {
    var text: [UInt8] = []
    flush(to: &text)
    return String(decoding: text, as: UTF8.self)
  }
}
