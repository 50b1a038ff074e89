// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// How a text lies on a terminal of some width: in rows, with the place of every character.
///
/// The terminal is never left to wrap by itself: every row ends where the layout says, so that what is on the screen is known.
package struct ScreenLayout: Sendable, Hashable {
  package struct Place: Sendable, Hashable, Comparable {
    package var row: Int
    package var column: Int

    package init(row: Int, column: Int) {
      self.row = row
      self.column = column
    }

    package static func < (left: Place, right: Place) -> Bool { (left.row, left.column) < (right.row, right.column) }
  }

  /// What is printed, prompts included.
  package private(set) var rows: [String] = []
  /// Of every character, and behind the last.
  package private(set) var places: [Place] = []

  /// - Parameters:
  ///   - prompt: before the first line.
  ///   - continuation: before each further line, not before rows of the same line.
  package init(_ characters: [Character], prompt: String, continuation: String, width: Int) {
    let width = max(width, 4)
    var row = ""
    var column = 0
    func finish() {
      rows.append(row)
      row = ""
      column = 0
    }
    func add(_ character: Character) {
      let columns = character.columns
      if column + columns > width { finish() }
      row += character == "\t" ? "    " : String(character)
      column += columns
    }
    for character in prompt { add(character) }
    for character in characters {
      if character == "\n" {
        if column == width { finish() }
        places.append(Place(row: rows.count, column: column))
        finish()
        for character in continuation { add(character) }
        continue
      }
      if column + max(character.columns, 1) > width { finish() }
      places.append(Place(row: rows.count, column: column))
      add(character)
    }
    // Behind a full row the cursor stands on the next.
    if column == width { finish() }
    places.append(Place(row: rows.count, column: column))
    rows.append(row)
  }

  /// The character before which a cursor at `place` stands: the nearest in its row.
  package func index(at place: Place) -> Int {
    let inRow = places.indices.filter { places[$0].row == place.row }
    return inRow.last { places[$0].column <= place.column } ?? inRow.first ?? places.count - 1
  }
}
