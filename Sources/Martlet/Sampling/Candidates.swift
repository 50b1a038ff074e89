// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Tokens with their logits, of which only the best are kept in order: best first, of equals the lowest id first.
///
/// The array is a heap with the worst at its root while it is filled, so that a long row passes with one comparison per sixteen values;
/// then it is sorted where it lies. Once it has grown, it allocates nothing.
package struct Candidates {
  package struct Candidate {
    package var logit: Float
    package var id: Int32

    @inline(__always)
    func isWorse(than other: Candidate) -> Bool { logit < other.logit || (logit == other.logit && id > other.id) }
  }

  package private(set) var elements: [Candidate] = []

  package init() {}

  /// The `count` best of a row.
  package mutating func select(_ count: Int, of row: Span<Float>) {
    elements.removeAll(keepingCapacity: true)
    guard count > 0 else { return }
    let bytes = row.bytes
    var index = 0
    while index < row.count {
      // Later ids lose ties, so a block without a greater logit than the worst of the chosen changes nothing.
      if elements.count == count && index + 16 <= row.count {
        let values = bytes.unsafeLoadUnaligned(fromByteOffset: index * 4, as: LogitRow.Lanes.self)
        if !any(values .> LogitRow.Lanes(repeating: elements[0].logit)) {
          index += 16
          continue
        }
      }
      let end = min(index + 16, row.count)
      while index < end {
        offer(Candidate(logit: row[index], id: Int32(index)), limit: count)
        index += 1
      }
    }
    sort()
  }

  /// All of a row with at least this logit.
  package mutating func select(atLeast threshold: Float, of row: Span<Float>) {
    elements.removeAll(keepingCapacity: true)
    let bytes = row.bytes
    let lowest = LogitRow.Lanes(repeating: threshold)
    var index = 0
    while index < row.count {
      if index + 16 <= row.count,
        !any(bytes.unsafeLoadUnaligned(fromByteOffset: index * 4, as: LogitRow.Lanes.self) .>= lowest)
      {
        index += 16
        continue
      }
      let end = min(index + 16, row.count)
      while index < end {
        if row[index] >= threshold { offer(Candidate(logit: row[index], id: Int32(index)), limit: .max) }
        index += 1
      }
    }
    sort()
  }

  private mutating func offer(_ candidate: Candidate, limit: Int) {
    if candidate.logit.isNaN { return }
    if elements.count < limit {
      elements.append(candidate)
      var child = elements.count - 1
      while child > 0 {
        let parent = (child - 1) / 2
        if !elements[child].isWorse(than: elements[parent]) { break }
        elements.swapAt(child, parent)
        child = parent
      }
    } else if elements[0].isWorse(than: candidate) {
      elements[0] = candidate
      sink(end: elements.count)
    }
  }

  /// Restores the heap `0..<end` below its root.
  private mutating func sink(end: Int) {
    var parent = 0
    while true {
      var child = 2 * parent + 1
      if child >= end { return }
      if child + 1 < end && elements[child + 1].isWorse(than: elements[child]) { child += 1 }
      if !elements[child].isWorse(than: elements[parent]) { return }
      elements.swapAt(child, parent)
      parent = child
    }
  }

  /// The worst goes to the end, again and again.
  private mutating func sort() {
    var end = elements.count
    while end > 1 {
      end -= 1
      elements.swapAt(0, end)
      sink(end: end)
    }
  }
}
