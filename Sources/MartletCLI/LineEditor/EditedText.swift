// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Text with a cursor in it, in characters as a person sees them: a letter with its accents is one, and so is a flag.
package struct EditedText: Sendable, Hashable {
  package private(set) var characters: [Character] = []
  /// The cursor stands before the character of this index.
  package private(set) var cursor = 0

  package init(_ text: String = "") { replaceAll(with: text) }

  package var text: String { String(characters) }
  package var isEmpty: Bool { characters.isEmpty }
  package var isAtEnd: Bool { cursor == characters.count }

  /// Where the line of a place begins: behind a line feed.
  package func lineStart(at place: Int) -> Int { (characters[..<place].lastIndex(of: "\n") ?? -1) + 1 }
  /// Where it ends: before a line feed.
  package func lineEnd(at place: Int) -> Int { characters[place...].firstIndex(of: "\n") ?? characters.count }

  package mutating func replaceAll(with text: String) {
    characters = Array(text)
    cursor = characters.count
  }

  package mutating func move(to place: Int) { cursor = min(max(place, 0), characters.count) }

  /// Puts text before the cursor. What is put in may join the characters beside it, as an accent does.
  package mutating func insert(_ text: String) {
    let before = String(characters[..<cursor]) + text
    let whole = Array(before + String(characters[cursor...]))
    let end = before.unicodeScalars.count
    var count = 0
    cursor =
      whole.firstIndex { character in
        defer { count += character.unicodeScalars.count }
        return count >= end
      } ?? whole.count
    characters = whole
  }

  /// Takes characters out and returns them; the cursor stands where they were.
  @discardableResult
  package mutating func remove(_ range: Range<Int>) -> String {
    let range = range.clamped(to: 0..<characters.count)
    let removed = String(characters[range])
    let before = String(characters[..<range.lowerBound])
    // What was apart may be one character now.
    let rest = String(characters[range.upperBound...])
    replaceAll(with: before)
    let place = characters.count
    replaceAll(with: before + rest)
    cursor = min(place, characters.count)
    return removed
  }

  /// Where the word to the left begins: letters, digits and underscores.
  package var wordLeft: Int {
    var place = cursor
    while place > 0, !characters[place - 1].isWordCharacter { place -= 1 }
    while place > 0, characters[place - 1].isWordCharacter { place -= 1 }
    return place
  }

  /// Where the word to the right ends.
  package var wordRight: Int {
    var place = cursor
    while place < characters.count, !characters[place].isWordCharacter { place += 1 }
    while place < characters.count, characters[place].isWordCharacter { place += 1 }
    return place
  }

  /// Exchanges the characters on both sides of the cursor, or the last two at the end of a line.
  package mutating func transpose() {
    let end = lineEnd(at: cursor)
    let place = cursor == end ? cursor - 1 : cursor
    guard place > lineStart(at: cursor), place < end else { return }
    let (first, second) = (String(characters[place - 1]), String(characters[place]))
    remove(place - 1..<place + 1)
    insert(second + first)
  }
}

extension Character {
  fileprivate var isWordCharacter: Bool { isLetter || isNumber || self == "_" }
}
