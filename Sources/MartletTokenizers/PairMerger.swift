// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// A piece of a text that is being merged.
package struct Symbol {
  /// Its bytes in the text.
  package var start: Int32, end: Int32
  /// Its token, or -1 if there is none for it.
  package var token: Int32
  /// Its neighbours, -1 at the ends.
  fileprivate var previous: Int32 = -1, next: Int32 = -1

  package init(start: Int, end: Int, token: Int32) {
    self.start = Int32(start)
    self.end = Int32(end)
    self.token = token
  }

  package var range: Range<Int> { Int(start)..<Int(end) }
}

/// Byte-pair encoding: of all neighbours that may merge, the pair with the lowest priority value merges first, among equals the leftmost, until none may.
///
/// The symbols form a linked list and the candidate pairs a heap; a pair whose symbols have changed meanwhile is dropped when it comes up.
/// n symbols make at most 3n candidates: O(n log n) for any text. One value is reused for many runs, so that its memory is.
package struct PairMerger {
  private var symbols: [Symbol] = []
  private var heap: [Candidate] = []
  /// Pairs looked up since it was made: a measure of the work done.
  package private(set) var lookupCount = 0

  package init() {}

  private struct Candidate {
    /// Priority, then the left symbol: what the heap orders by.
    var key: UInt64
    /// Where the right symbol ended when the candidate was made.
    var end: Int32
    var token: Int32
  }

  /// Removes all symbols.
  package mutating func reset() {
    symbols.removeAll(keepingCapacity: true)
    heap.removeAll(keepingCapacity: true)
  }

  /// Appends a symbol that follows the last one.
  package mutating func append(_ symbol: Symbol) {
    var symbol = symbol
    symbol.previous = Int32(symbols.count) - 1
    if !symbols.isEmpty { symbols[symbols.count - 1].next = Int32(symbols.count) }
    symbols.append(symbol)
  }

  /// Merges until nothing merges, then calls `output` with the symbols that are left, in order.
  ///
  /// - Parameter rule: The priority (lower first) and token of two neighbours' merge; nil if they do not merge.
  package mutating func run(rule: (Symbol, Symbol) -> (priority: UInt32, token: Int32)?, output: (Symbol) -> Void) {
    guard !symbols.isEmpty else { return }
    for left in 0..<Int32(symbols.count) - 1 { offer(left, rule) }
    while let candidate = pop() {
      let left = Int(candidate.key & 0xFFFF_FFFF)
      // A dead symbol has no next; a symbol that grew, or whose neighbour did, has a neighbour that ends elsewhere.
      let right = Int(symbols[left].next)
      guard right >= 0, symbols[right].end == candidate.end else { continue }
      symbols[left].end = symbols[right].end
      symbols[left].token = candidate.token
      symbols[left].next = symbols[right].next
      if symbols[right].next >= 0 { symbols[Int(symbols[right].next)].previous = Int32(left) }
      symbols[right].next = -1
      symbols[right].previous = -1
      if symbols[left].previous >= 0 { offer(symbols[left].previous, rule) }
      offer(Int32(left), rule)
    }
    var index: Int32 = 0
    while index >= 0 {
      output(symbols[Int(index)])
      index = symbols[Int(index)].next
    }
  }

  /// Puts the pair that begins at `left` into the heap, if there is one and it may merge.
  private mutating func offer(_ left: Int32, _ rule: (Symbol, Symbol) -> (priority: UInt32, token: Int32)?) {
    let right = symbols[Int(left)].next
    guard right >= 0 else { return }
    lookupCount += 1
    guard let merge = rule(symbols[Int(left)], symbols[Int(right)]) else { return }
    push(Candidate(key: UInt64(merge.priority) << 32 | UInt64(left), end: symbols[Int(right)].end, token: merge.token))
  }

  private mutating func push(_ candidate: Candidate) {
    heap.append(candidate)
    var child = heap.count - 1
    while child > 0 {
      let parent = (child - 1) / 2
      guard candidate.key < heap[parent].key else { break }
      heap[child] = heap[parent]
      child = parent
    }
    heap[child] = candidate
  }

  private mutating func pop() -> Candidate? {
    guard let top = heap.first else { return nil }
    let last = heap.removeLast()
    guard !heap.isEmpty else { return top }
    var parent = 0
    while true {
      var child = 2 * parent + 1
      guard child < heap.count else { break }
      if child + 1 < heap.count && heap[child + 1].key < heap[child].key { child += 1 }
      guard heap[child].key < last.key else { break }
      heap[parent] = heap[child]
      parent = child
    }
    heap[parent] = last
    return top
  }
}
