// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Watches an answer's text for stop strings, also across the borders of tokens.
///
/// Text that may be the beginning of a stop string is held back until it is known. Stop strings are compared byte by byte as UTF-8.
package struct StopMatcher {
  private let stops: [[UInt8]]
  private var held: [UInt8] = []

  package init(_ stops: [String]) { self.stops = stops.map { Array($0.utf8) } }

  /// Takes the next piece and gives the text that is certain now.
  /// - Returns: `isStopped` once a stop string is complete; `text` then ends before it.
  package mutating func push(_ piece: String) -> (text: String, isStopped: Bool) {
    if stops.isEmpty { return (piece, false) }
    held += piece.utf8
    for start in held.indices where stops.contains(where: { held[start...].starts(with: $0) }) {
      let text = String(decoding: held[..<start], as: UTF8.self)
      held.removeAll()
      return (text, true)
    }
    // What is held from here on is the beginning of a stop string.
    let start = held.indices.first { start in stops.contains { $0.starts(with: held[start...]) } } ?? held.endIndex
    let text = String(decoding: held[..<start], as: UTF8.self)
    held.removeSubrange(..<start)
    return (text, false)
  }

  /// The text still held back, when no more comes.
  package mutating func flush() -> String {
    defer { held.removeAll() }
    return String(decoding: held, as: UTF8.self)
  }
}
