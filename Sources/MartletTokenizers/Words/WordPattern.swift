// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// A regular expression that finds words, of the shapes that tokenizers are published with, matched in time linear in the text.
///
/// The expression is a list of alternatives; at each place the first that matches counts. An alternative is one of
///
/// - a literal (`'s`), or one of the groups of English contractions;
/// - `P?A{m,n}B*`: an optional character, a run of one class, and possibly a run of another;
/// - `P?A*B+`: two runs that may share characters (`\s*[\r\n]+`, capitals before small letters), with a contraction after it or not;
/// - `\s+(?!\S)`: white space, less its last character if something follows; also of a counted length (`\s{8}(?!\S)`);
/// - `\s+$`: white space up to the last end of a line in it;
/// - `\d{1,3}(?=(?:\d{3})*\b)`, `\d{1,3}(?=(?:\d{3})*(?!\d))`: digits in threes, counted from where a number ends;
/// - `P?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+`: words with single spaces between.
///
/// Whatever else an expression has is an error that shows the alternative. Of these shapes only `A*B+` may look far ahead in vain; it
/// remembers how far, so that no text takes more than a bounded number of looks at each character.
struct WordPattern: Sendable, Hashable {
  /// One run: at least `minimum`, at most `maximum` characters of `characters`.
  struct Run: Sendable, Hashable {
    var characters: CharacterClass
    var minimum: Int
    var maximum: Int
  }

  /// `'s`, `'t`, `'re`, `'ve`, `'m`, `'ll`, `'d`.
  enum Contraction: Sendable, Hashable {
    case asWritten
    /// Also `'S`, `'LL` …: capitals of ASCII.
    case anyCase
    /// `(?i:…)`: Unicode's folding adds "ſ", which is an "s".
    case anyUnicodeCase
  }

  enum Alternative: Sendable, Hashable {
    case literal([UInt8])
    case contraction(Contraction)
    /// `memory` is where a matcher remembers of `A*B+` what it looked at in vain.
    case runs(prefix: CharacterClass?, Run, Run?, Contraction?, memory: Int?)
    /// `\s{m,n}(?!\S)`.
    case spacesBeforeSpace(Run)
    /// `\s+$`.
    case spacesBeforeLineEnd
    /// `A{1,3}(?=(?:A{3})*\b)` for a class of digits, or `A{1,3}(?=(?:A{3})*(?!A))`, where a word may go on behind them.
    case digitsInThrees(CharacterClass, atWordEnd: Bool)
    /// `P?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+`.
    case spacedLetters(prefix: CharacterClass?)
  }

  /// As many alternatives of the shape `A*B+` as a matcher remembers.
  static let mostMemories = 4

  let alternatives: [Alternative]

  /// Calls `body` with the matches in `text[range]` and with the runs between that match nothing, in order; together they cover it. What lies
  /// outside does not count, as if the text ended there.
  /// - Precondition: `text[range]` is valid UTF-8.
  func forEachPart(in text: [UInt8], _ range: Range<Int>, _ body: (Range<Int>, _ isMatch: Bool) -> Void) {
    var matcher = Matcher(text, end: range.upperBound)
    var position = range.lowerBound
    var start = position
    while position < range.upperBound {
      guard let end = matcher.match(alternatives, at: position) else {
        position = ScannedCharacter(text, at: position).end
        continue
      }
      if start < position { body(start..<position, false) }
      body(position..<end, true)
      position = end
      start = end
    }
    if start < position { body(start..<position, false) }
  }
}

/// Matches alternatives in one part of a text.
private struct Matcher {
  let text: [UInt8]
  let end: Int
  /// For each alternative `A*B+`: a run of A that begins here has no B.
  private var hopeless = InlineArray<4, Range<Int>>(repeating: 0..<0)
  /// White space in which no line ends.
  private var lineless = 0..<0
  /// Digits looked through, and how many are left; none is left where a word goes on behind them.
  private var digits = (range: 0..<0, count: 0)

  init(_ text: [UInt8], end: Int) {
    self.text = text
    self.end = end
  }

  /// Where the first alternative that matches at `position` ends.
  mutating func match(_ alternatives: [WordPattern.Alternative], at position: Int) -> Int? {
    let first = ScannedCharacter(text, at: position)
    for alternative in alternatives {
      let match: Int? =
        switch alternative {
        case .literal(let bytes): endOfLiteral(bytes, at: position)
        case .contraction(let kind): endOfContraction(kind, at: position)
        case .runs(let prefix, let head, let tail, let contraction, let memory):
          endOfRuns(prefix, head, tail, contraction, from: position, first, memory)
        case .spacesBeforeSpace(let run): endOfSpacesBeforeSpace(run, from: position)
        case .spacesBeforeLineEnd: endOfSpacesBeforeLineEnd(from: position)
        case .digitsInThrees(let digit, let atWordEnd): endOfDigitsInThrees(digit, atWordEnd: atWordEnd, from: position)
        case .spacedLetters(let prefix): endOfSpacedLetters(prefix, from: position, first)
        }
      if let match { return match }
    }
    return nil
  }

  private func endOfLiteral(_ bytes: [UInt8], at position: Int) -> Int? {
    guard position + bytes.count <= end else { return nil }
    for index in bytes.indices where text[position + index] != bytes[index] { return nil }
    return position + bytes.count
  }

  private func endOfContraction(_ kind: WordPattern.Contraction, at position: Int) -> Int? {
    guard text[position] == UInt8(ascii: "'") else { return nil }
    func letter(_ offset: Int) -> UInt8 {
      guard position + offset < end else { return 0 }
      let byte = text[position + offset]
      return kind != .asWritten && byte >= UInt8(ascii: "A") && byte <= UInt8(ascii: "Z") ? byte | 0x20 : byte
    }
    switch (letter(1), letter(2)) {
    case (UInt8(ascii: "s"), _), (UInt8(ascii: "t"), _), (UInt8(ascii: "m"), _), (UInt8(ascii: "d"), _): return position + 2
    case (UInt8(ascii: "r"), UInt8(ascii: "e")), (UInt8(ascii: "v"), UInt8(ascii: "e")), (UInt8(ascii: "l"), UInt8(ascii: "l")):
      return position + 3
    case (0xC5, 0xBF) where kind == .anyUnicodeCase: return position + 3  // ſ
    default: return nil
    }
  }

  /// With the optional prefix, else without it.
  private mutating func endOfRuns(
    _ prefix: CharacterClass?, _ head: WordPattern.Run, _ tail: WordPattern.Run?, _ contraction: WordPattern.Contraction?,
    from position: Int, _ first: ScannedCharacter, _ memory: Int?
  ) -> Int? {
    var match: Int?
    if let prefix, prefix.contains(first), first.end < end {
      match = endOfRuns(head, tail, from: first.end, ScannedCharacter(text, at: first.end), memory)
    }
    if match == nil { match = endOfRuns(head, tail, from: position, first, memory) }
    guard let match else { return nil }
    if let contraction, match < end, let longer = endOfContraction(contraction, at: match) { return longer }
    return match
  }

  private mutating func endOfRuns(
    _ head: WordPattern.Run, _ tail: WordPattern.Run?, from start: Int, _ first: ScannedCharacter, _ memory: Int?
  ) -> Int? {
    let mustEndInTail = tail.map { $0.minimum > 0 } ?? false
    if let memory, hopeless[memory].contains(start) { return nil }
    var position = start
    var count = 0
    // Where the last character of the head that could be the tail's ends: what giving characters back would come to.
    var shared: Int?
    while position < end, count < head.maximum {
      let character = position == start ? first : ScannedCharacter(text, at: position)
      guard head.characters.contains(character) else { break }
      if mustEndInTail, count >= head.minimum, tail!.characters.contains(character) { shared = character.end }
      position = character.end
      count += 1
    }
    guard count >= head.minimum else { return nil }
    guard let tail else { return position }
    let afterTail = endOfRun(tail, from: position)
    if afterTail > position || !mustEndInTail { return afterTail }
    if let memory, shared == nil { hopeless[memory] = start..<position }
    return shared
  }

  private func endOfRun(_ run: WordPattern.Run, from start: Int) -> Int {
    var position = start
    var count = 0
    while position < end, count < run.maximum {
      let character = ScannedCharacter(text, at: position)
      guard run.characters.contains(character) else { break }
      position = character.end
      count += 1
    }
    return position
  }

  private func endOfSpacesBeforeSpace(_ run: WordPattern.Run, from start: Int) -> Int? {
    var (last, next, count) = (start, start, 0)
    while next < end, count < run.maximum {
      let character = ScannedCharacter(text, at: next)
      guard run.characters.contains(character) else { break }
      (last, next) = (next, character.end)
      count += 1
    }
    // What follows is white space as well, or nothing; else the last character is what follows.
    if next < end, !run.characters.contains(ScannedCharacter(text, at: next)) { (next, count) = (last, count - 1) }
    return count >= run.minimum ? next : nil
  }

  private func endOfSpacedLetters(_ prefix: CharacterClass?, from start: Int, _ first: ScannedCharacter) -> Int? {
    func isLetter(_ character: ScannedCharacter) -> Bool { !character.properties.isDisjoint(with: .letter) }
    func letter(at position: Int) -> ScannedCharacter? {
      guard position < end else { return nil }
      let character = ScannedCharacter(text, at: position)
      return isLetter(character) ? character : nil
    }
    var position: Int
    if let prefix, prefix.contains(first), let letter = letter(at: first.end) {
      position = letter.end
    } else if isLetter(first) {
      position = first.end
    } else {
      return nil
    }
    while position < end {
      let character = ScannedCharacter(text, at: position)
      if isLetter(character) || character.properties.contains(.mark) {
        position = character.end
      } else if text[position] == UInt8(ascii: " "), let letter = letter(at: position + 1) {
        position = letter.end
      } else {
        break
      }
    }
    return position
  }

  /// A line ends before each newline, as in the regular expressions of `tokenizer.json`, and where the text does.
  private mutating func endOfSpacesBeforeLineEnd(from start: Int) -> Int? {
    guard !lineless.contains(start) else { return nil }
    var match: Int?
    var position = start
    while position < end {
      let character = ScannedCharacter(text, at: position)
      guard character.properties.contains(.space) else { break }
      if text[position] == UInt8(ascii: "\n"), position > start { match = position }
      position = character.end
    }
    if position == end && position > start { return position }
    lineless = (match ?? start)..<position
    return match
  }

  private mutating func endOfDigitsInThrees(_ digit: CharacterClass, atWordEnd: Bool, from start: Int) -> Int? {
    // What it has matched itself is counted already, and the digits of a word that goes on stay none.
    if !digits.range.contains(start) || digits.count > 0 && start > digits.range.lowerBound {
      var (position, count) = (start, 0)
      var next: ScannedCharacter?
      while position < end {
        let character = ScannedCharacter(text, at: position)
        guard digit.contains(character) else {
          next = character
          break
        }
        position = character.end
        count += 1
      }
      digits = (start..<position, atWordEnd && next?.isExpressionWordCharacter == true ? 0 : count)
    }
    guard digits.count > 0 else { return nil }
    let length = (digits.count - 1) % 3 + 1
    var position = start
    for _ in 0..<length { position = ScannedCharacter(text, at: position).end }
    digits = (position..<digits.range.upperBound, digits.count - length)
    return position
  }
}
