// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// An answer on its way to a terminal: lines are broken between words and not within, except in blocks of code, which stay as they are so that
/// they can be copied; and nothing in it commands the terminal: control characters are shown, `^[` or `<9B>`, and not sent.
///
/// A word is shown as it comes; when it turns out to be too long for its line it is taken back and shown on the next.
package struct AnswerText: Sendable {
  /// The columns that are written to: the last is left free, where terminals differ in what they do next. nil breaks nothing.
  private let limit: Int?
  private var column = 0
  /// The word that is being written, and its columns.
  private var word = ""
  private var wordColumns = 0
  /// Whether the word is longer than a line, so that the terminal breaks it where it must: it can be copied whole.
  private var isLong = false
  /// Whether the line began with a break of ours, at which spaces are left out.
  private var isBroken = false
  private var isInCode = false
  /// The line as far as it tells whether a block of code begins or ends.
  private var lineStart = ""

  /// - Parameter before: what was shown of the answer earlier, where more of it comes now, on a new line.
  package init(columns: Int?, after before: String = "") {
    limit = columns.map { max($0 - 1, 10) }
    // Whether this is in a block of code is for what was before to say.
    _ = add(before)
    column = 0
    endWord()
  }

  /// What is to be written for the next piece of the answer.
  package mutating func add(_ text: String) -> String {
    var output = ""
    for character in text { add(character, to: &output) }
    return output
  }

  private mutating func add(_ character: Character, to output: inout String) {
    let isFence = lineStart == "```" || lineStart == "~~~"
    if character.isNewline {
      output += "\n"
      if isFence { isInCode.toggle() }
      lineStart = ""
      column = 0
      endWord()
      isBroken = false
      return
    }
    if let shown = character.shownControl {
      for letter in shown { add(letter, to: &output) }
      return
    }
    if lineStart.count < 3, !(lineStart.isEmpty && character.isWhitespace) { lineStart.append(character) }
    guard let limit, !isInCode, !isFence else {
      output.append(character)
      return
    }
    if character.isWhitespace { addSpace(character, limit, to: &output) } else { addLetter(character, limit, to: &output) }
  }

  private mutating func addSpace(_ space: Character, _ limit: Int, to output: inout String) {
    endWord()
    if isBroken && column == 0 { return }
    let columns = space == "\t" ? 8 - column % 8 : space.columns
    if column + columns > limit {
      breakLine(&output)
    } else {
      output.append(space)
      column += columns
    }
  }

  private mutating func addLetter(_ letter: Character, _ limit: Int, to output: inout String) {
    let columns = letter.columns
    // Between wide characters, which are written without spaces, a line may be broken.
    if columns == 2 { endWord() }
    if column + columns > limit && !isLong {
      if wordColumns < column {
        if wordColumns > 0 { output += "\u{1B}[\(wordColumns)D\u{1B}[K" }
        breakLine(&output)
        output += word
        column = wordColumns
      } else {
        isLong = true
      }
    }
    output.append(letter)
    column += columns
    if isLong { column %= limit + 1 }
    word.append(letter)
    wordColumns += columns
    if columns == 2 { endWord() }
  }

  private mutating func breakLine(_ output: inout String) {
    output += "\n"
    column = 0
    isBroken = true
  }

  private mutating func endWord() {
    word = ""
    wordColumns = 0
    isLong = false
  }
}

extension Character {
  /// What is shown of a character that would command a terminal, as `less` does; nil of any other. Line feeds and tabs are no commands.
  fileprivate var shownControl: String? {
    guard self != "\t", let control = unicodeScalars.first(where: { $0.properties.generalCategory == .control }) else { return nil }
    if control.value >= 0x80 { return "<" + String(control.value, radix: 16, uppercase: true) + ">" }
    // ^@ to ^_, and ^? for 127.
    return "^" + String(Unicode.Scalar(UInt8(control.value ^ 0x40)))
  }
}
