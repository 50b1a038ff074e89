// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// What somebody meant who misspelt a name.
enum NameGuess {
  /// The one name that begins so, or the nearest with few letters wrong; nil where none is near, or several are as near.
  ///
  /// Few are a quarter of what was written, at least one. Capital letters are as small ones.
  static func guess(_ written: String, among names: [String]) -> String? {
    let written = written.lowercased()
    guard !written.isEmpty else { return nil }
    let longer = names.filter { $0.lowercased().hasPrefix(written) }
    if longer.count == 1 { return longer[0] }
    let near = names.map { (name: $0, distance: distance(Array(written.utf8), Array($0.lowercased().utf8))) }
      .filter { $0.distance <= max(1, written.utf8.count / 4) }
    guard let least = near.map(\.distance).min() else { return nil }
    let nearest = near.filter { $0.distance == least }
    return nearest.count == 1 ? nearest[0].name : nil
  }

  /// Bytes to insert, leave out or replace, until one is the other (Levenshtein).
  private static func distance(_ a: [UInt8], _ b: [UInt8]) -> Int {
    // Of the prefix of `a` so far and each prefix of `b`.
    var row = Array(0...b.count)
    for (i, letter) in a.enumerated() {
      var diagonal = row[0]
      row[0] = i + 1
      for (j, other) in b.enumerated() {
        let replaced = diagonal + (letter == other ? 0 : 1)
        diagonal = row[j + 1]
        row[j + 1] = min(replaced, row[j] + 1, row[j + 1] + 1)
      }
    }
    return row[b.count]
  }
}
