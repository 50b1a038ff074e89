// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Cuts text into the words that byte-level BPE merges within.
///
/// The published patterns are regular expressions; here they are scanners that look at each character a bounded number of times.
/// Letters are Unicode's category L, numbers N, white space the property White_Space; everything else is a mark.
package struct PreTokenizer: Sendable {
  /// The shape of a word.
  enum Pattern: Sendable {
    /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`.
    /// With single digits every `\p{N}` is first cut out, and the pattern works on the runs between.
    case gpt2(singleDigits: Bool)
    /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`.
    case llama3(digits: Int)
  }

  let pattern: Pattern
  /// A word that is a token is that token, whatever the merges say.
  var prefersWholeWords = false
  /// What a file that does not say whether it wants BOS means.
  var addsBOS = false

  /// By the names of `tokenizer.ggml.pre`. "default" is what converters wrote for GPT-2's own pattern.
  package static let named: [String: PreTokenizer] = [
    "gpt-2": PreTokenizer(pattern: .gpt2(singleDigits: false)),
    "gpt2": PreTokenizer(pattern: .gpt2(singleDigits: false)),
    "default": PreTokenizer(pattern: .gpt2(singleDigits: false)),
    "smollm": PreTokenizer(pattern: .gpt2(singleDigits: true)),
    "starcoder": PreTokenizer(pattern: .gpt2(singleDigits: true)),
    "llama-bpe": PreTokenizer(pattern: .llama3(digits: 3), prefersWholeWords: true, addsBOS: true),
    "qwen2": PreTokenizer(pattern: .llama3(digits: 1)),
  ]

  /// Calls `body` with every word of `text[range]`, in order. Together they cover it; what lies outside does not count.
  /// - Precondition: `text[range]` is valid UTF-8.
  package func forEachWord(in text: [UInt8], _ range: Range<Int>, _ body: (Range<Int>) -> Void) {
    switch pattern {
    case .gpt2(singleDigits: false):
      var scanner = WordScanner(text, range)
      while let word = scanner.nextGPT2Word() { body(word) }
    case .gpt2(singleDigits: true):
      var position = range.lowerBound
      var start = position
      while position < range.upperBound {
        let (kind, end) = characterKind(text, at: position)
        if kind == .number {
          var scanner = WordScanner(text, start..<position)
          while let word = scanner.nextGPT2Word() { body(word) }
          body(position..<end)
          start = end
        }
        position = end
      }
      var scanner = WordScanner(text, start..<range.upperBound)
      while let word = scanner.nextGPT2Word() { body(word) }
    case .llama3(let digits):
      var scanner = WordScanner(text, range)
      while let word = scanner.nextLlama3Word(digits: digits) { body(word) }
    }
  }
}

private enum CharacterKind { case letter, number, space, mark }

/// The kind of the character at `position`, and where it ends.
private func characterKind(_ text: [UInt8], at position: Int) -> (CharacterKind, end: Int) {
  let lead = text[position]
  if lead < 0x80 {
    switch lead {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"): return (.letter, position + 1)
    case UInt8(ascii: "0")...UInt8(ascii: "9"): return (.number, position + 1)
    case 0x09...0x0D, 0x20: return (.space, position + 1)
    default: return (.mark, position + 1)
    }
  }
  let length = scalarByteCount(lead: lead)
  var value = UInt32(lead) & (0x7F >> UInt32(length))
  for index in 1..<length { value = value << 6 | UInt32(text[position + index] & 0x3F) }
  let properties = Unicode.Scalar(value)!.properties
  let kind: CharacterKind =
    switch properties.generalCategory {
    case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter: .letter
    case .decimalNumber, .letterNumber, .otherNumber: .number
    default: properties.isWhitespace ? .space : .mark
    }
  return (kind, position + length)
}

/// Reads words from the front of a part of a text; the part's end counts as the text's.
private struct WordScanner {
  private let text: [UInt8]
  private var position: Int
  private let end: Int

  init(_ text: [UInt8], _ range: Range<Int>) {
    self.text = text
    position = range.lowerBound
    end = range.upperBound
  }

  mutating func nextGPT2Word() -> Range<Int>? {
    guard position < end else { return nil }
    let start = position
    if let length = contractionLength(foldsCase: false) {
      position += length
    } else {
      var (kind, next) = characterKind(text, at: position)
      // " ?": one space goes with what follows it, unless that is white space.
      if text[position] == UInt8(ascii: " "), next < end {
        let (following, after) = characterKind(text, at: next)
        if following != .space { (kind, next) = (following, after) }
      }
      position = kind == .space ? endOfSpaces() : endOfRun(of: kind, from: next)
    }
    return start..<position
  }

  mutating func nextLlama3Word(digits: Int) -> Range<Int>? {
    guard position < end else { return nil }
    let start = position
    if let length = contractionLength(foldsCase: true) {
      position += length
      return start..<position
    }
    let (kind, next) = characterKind(text, at: position)
    let following = next < end ? characterKind(text, at: next) : nil
    switch kind {
    case .letter:
      position = endOfRun(of: .letter, from: next)
    case .number:
      position = next
      for _ in 1..<digits where position < end {
        let (kind, next) = characterKind(text, at: position)
        guard kind == .number else { break }
        position = next
      }
    case .space, .mark:
      if let following, following.0 == .letter, !isNewline(text[position]) {
        position = endOfRun(of: .letter, from: following.end)
      } else if kind == .mark {
        position = endOfNewlines(from: endOfRun(of: .mark, from: next))
      } else if text[position] == UInt8(ascii: " "), let following, following.0 == .mark {
        position = endOfNewlines(from: endOfRun(of: .mark, from: following.end))
      } else {
        position = endOfLastNewlineInSpaces() ?? endOfSpaces()
      }
    }
    return start..<position
  }

  /// Bytes of `'s`, `'t`, `'re`, `'ve`, `'m`, `'ll` or `'d` here; nil without one.
  private func contractionLength(foldsCase: Bool) -> Int? {
    func letter(_ offset: Int) -> UInt8 {
      guard position + offset < end else { return 0 }
      let byte = text[position + offset]
      return foldsCase && byte >= UInt8(ascii: "A") && byte <= UInt8(ascii: "Z") ? byte | 0x20 : byte
    }
    guard letter(0) == UInt8(ascii: "'") else { return nil }
    switch (letter(1), letter(2)) {
    case (UInt8(ascii: "s"), _), (UInt8(ascii: "t"), _), (UInt8(ascii: "m"), _), (UInt8(ascii: "d"), _): return 2
    case (UInt8(ascii: "r"), UInt8(ascii: "e")), (UInt8(ascii: "v"), UInt8(ascii: "e")), (UInt8(ascii: "l"), UInt8(ascii: "l")): return 3
    default: return nil
    }
  }

  private func endOfRun(of kind: CharacterKind, from start: Int) -> Int {
    var position = start
    while position < end {
      let (next, after) = characterKind(text, at: position)
      guard next == kind else { break }
      position = after
    }
    return position
  }

  /// `\s+(?!\S)|\s+`: the white space here, less its last character if something follows it and that is not all there is.
  private func endOfSpaces() -> Int {
    var last = position
    var next = position
    while next < end {
      let (kind, after) = characterKind(text, at: next)
      guard kind == .space else { break }
      last = next
      next = after
    }
    return next < end && last > position ? last : next
  }

  /// `\s*[\r\n]+`: up to the last newline of the white space here; nil if it has none.
  private func endOfLastNewlineInSpaces() -> Int? {
    var result: Int?
    var position = position
    while position < end {
      let (kind, after) = characterKind(text, at: position)
      guard kind == .space else { break }
      if isNewline(text[position]) { result = after }
      position = after
    }
    return result
  }

  private func endOfNewlines(from start: Int) -> Int {
    var position = start
    while position < end, isNewline(text[position]) { position += 1 }
    return position
  }

  private func isNewline(_ byte: UInt8) -> Bool { byte == UInt8(ascii: "\n") || byte == UInt8(ascii: "\r") }
}
