// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Watches an answer's text for stop strings, also across the borders of tokens.
///
/// Text that may be the beginning of a stop string is held back until it is known. Stop strings are compared byte by byte as UTF-8.
package struct StopMatcher {
  private let stops: [[UInt8]]
  private var held: [UInt8] = []

  package init(_ stops: [String]) {
    self.stops = stops.map { Array($0.utf8) }
    if !stops.isEmpty { held.reserveCapacity(256) }
  }

  /// Takes the next piece and appends the text that is certain now, both UTF-8.
  /// - Returns: whether a stop string is complete; the text then ends before it.
  package mutating func push(_ piece: [UInt8], to text: inout [UInt8]) -> Bool {
    if stops.isEmpty {
      text += piece
      return false
    }
    held += piece
    // The one that is complete first, and of those that end there the longest: what a piece of one byte at a time would find.
    var found: Range<Int>?
    for start in held.indices {
      for stop in stops where held[start...].starts(with: stop) {
        let end = start + stop.count
        if found.map({ end < $0.upperBound }) ?? true { found = start..<end }
      }
    }
    if let found {
      text += held[..<found.lowerBound]
      held.removeAll(keepingCapacity: true)
      return true
    }
    // What is held from here on is the beginning of a stop string.
    let start = held.indices.first { start in stops.contains { $0.starts(with: held[start...]) } } ?? held.endIndex
    text += held[..<start]
    held.removeSubrange(..<start)
    return false
  }

  /// Appends the text still held back, when no more comes.
  package mutating func flush(to text: inout [UInt8]) {
    text += held
    held.removeAll(keepingCapacity: true)
  }
}
