// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Finds which of many texts begin at a place of another text.
///
/// The texts lie sorted by their bytes, so that those that share a prefix are neighbours: reading one more byte narrows a range by binary
/// search. Sorted neighbours are a trie that takes no memory of its own. A look-up costs the bytes of the longest match, whatever follows.
struct PrefixIndex: Sendable {
  /// The texts in order, one after the other.
  private var arena: [UInt8] = []
  /// Text i is `arena[ends[i - 1]..<ends[i]]`.
  private var ends: [Int] = []
  private var values: [Int32] = []
  /// For each first byte the range of its texts.
  private var ranges = [Range<Int>](repeating: 0..<0, count: 256)
  private(set) var longest = 0

  var isEmpty: Bool { values.isEmpty }

  /// An index from texts to values. Empty texts are left out; of two equal texts the first counts.
  init(_ entries: [(text: [UInt8], value: Int32)]) {
    let order = entries.indices.sorted { left, right in
      let (a, b) = (entries[left].text, entries[right].text)
      return a == b ? left < right : a.lexicographicallyPrecedes(b)
    }
    var previous: Int?
    for index in order where !entries[index].text.isEmpty {
      let text = entries[index].text
      if let previous, entries[previous].text == text { continue }
      previous = index
      let first = Int(text[0])
      ranges[first] = (ranges[first].isEmpty ? values.count : ranges[first].lowerBound)..<values.count + 1
      arena += text
      ends.append(arena.count)
      values.append(entries[index].value)
      longest = max(longest, text.count)
    }
  }

  private func start(_ index: Int) -> Int { index == 0 ? 0 : ends[index - 1] }

  /// Calls `body` with every text that begins at `position` and ends by `end`, the shorter first.
  func forEachMatch(_ text: [UInt8], at position: Int, end: Int, _ body: (_ value: Int32, _ end: Int) -> Void) {
    guard position < end else { return }
    var range = ranges[Int(text[position])]
    var depth = 1
    while !range.isEmpty {
      // One that ends here comes first: it is a prefix of the others.
      if ends[range.lowerBound] - start(range.lowerBound) == depth {
        body(values[range.lowerBound], position + depth)
        range = range.lowerBound + 1..<range.upperBound
      }
      guard position + depth < end else { return }
      let byte = text[position + depth]
      let lower = firstIndex(in: range) { arena[start($0) + depth] >= byte }
      range = lower..<firstIndex(in: lower..<range.upperBound) { arena[start($0) + depth] > byte }
      depth += 1
    }
  }

  /// The longest text at `position`, and where it ends.
  func longestMatch(_ text: [UInt8], at position: Int, end: Int) -> (value: Int32, end: Int)? {
    var best: (value: Int32, end: Int)?
    forEachMatch(text, at: position, end: end) { best = ($0, $1) }
    return best
  }

  /// The first index where `isPast` holds, which it does from there on.
  private func firstIndex(in range: Range<Int>, where isPast: (Int) -> Bool) -> Int {
    var (low, high) = (range.lowerBound, range.upperBound)
    while low < high {
      let middle = (low + high) / 2
      if isPast(middle) { high = middle } else { low = middle + 1 }
    }
    return low
  }
}
