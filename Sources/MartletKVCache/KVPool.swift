// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// Layers whose pages are handed out together, under one set of page ids.
///
/// A page id names a page in the storage of *every* layer of the pool. The pool keeps its own free list and, for each sequence slot, a page
/// table: entry p is the page that holds tokens p·pageSize ..< (p + 1)·pageSize, −1 where there is none (behind the window, or not yet).
struct KVPool {
  /// What makes two layers share a pool.
  struct Key: Hashable {
    var window: Int?
    var numKVHeads: Int
    var headDim: Int
    var valueHeadDim: Int
    var dataType: DataType

    init(_ layer: KVLayerSpec) {
      window = layer.window
      numKVHeads = layer.layout.numKVHeads
      headDim = layer.layout.headDim
      valueHeadDim = layer.layout.valueHeadDim
      dataType = layer.layout.dataType
    }
  }

  let key: Key
  /// The layers of the pool, ascending.
  let layers: [Int]
  /// Bytes of one page id: a page in every layer of the pool.
  let bytesPerPage: Int
  let pageSize: Int
  let maxPagesPerSequence: Int
  let pageCount: Int

  /// Free page ids; the last is handed out next.
  private(set) var freePages: [Int32]
  /// `[slots, maxPagesPerSequence]`.
  private(set) var table: [Int32]
  /// For each slot, the first table entry still held and one past the last.
  private(set) var firstEntry: [Int]
  private(set) var endEntry: [Int]

  init(_ demand: KVPoolDemand, pageCount: Int, pageSize: Int, maxPagesPerSequence: Int, slots: Int) {
    key = demand.key
    layers = demand.layers
    bytesPerPage = demand.bytesPerPage
    self.pageSize = pageSize
    self.maxPagesPerSequence = maxPagesPerSequence
    self.pageCount = pageCount
    freePages = (0..<Int32(pageCount)).reversed()
    table = Array(repeating: -1, count: slots * maxPagesPerSequence)
    firstEntry = Array(repeating: 0, count: slots)
    endEntry = Array(repeating: 0, count: slots)
  }

  var freeCount: Int { freePages.count }
  var heldCount: Int { pageCount - freePages.count }

  /// The table's entries of a slot.
  func entries(of slot: Int) -> ArraySlice<Int32> { table[slot * maxPagesPerSequence..<(slot + 1) * maxPagesPerSequence] }

  /// The first entry that a query at cache position `position` or later can still see.
  func firstVisibleEntry(from position: Int) -> Int {
    guard let window = key.window else { return 0 }
    return max(0, position - window + 1) / pageSize
  }

  /// Further pages that the slot needs to hold `length` tokens.
  func pagesNeeded(slot: Int, to length: Int) -> Int { max(0, pageCovering(length) - endEntry[slot]) }

  /// Takes the pages that the slot needs to hold `length` tokens.
  /// - Precondition: there are as many free pages.
  mutating func extend(slot: Int, to length: Int) {
    let end = pageCovering(length)
    while endEntry[slot] < end {
      table[slot * maxPagesPerSequence + endEntry[slot]] = freePages.removeLast()
      endEntry[slot] += 1
    }
  }

  /// Returns the pages that no query at `position` or later can see.
  mutating func returnPages(slot: Int, behind position: Int) {
    let first = min(firstVisibleEntry(from: position), endEntry[slot])
    while firstEntry[slot] < first {
      release(slot: slot, entry: firstEntry[slot])
      firstEntry[slot] += 1
    }
  }

  /// Returns every page of the slot, the first page last, so that it is handed out next.
  mutating func removeAll(slot: Int) {
    while endEntry[slot] > firstEntry[slot] {
      endEntry[slot] -= 1
      release(slot: slot, entry: endEntry[slot])
    }
    firstEntry[slot] = 0
    endEntry[slot] = 0
  }

  private mutating func release(slot: Int, entry: Int) {
    let index = slot * maxPagesPerSequence + entry
    freePages.append(table[index])
    table[index] = -1
  }

  private func pageCovering(_ length: Int) -> Int { (length + pageSize - 1) / pageSize }
}
