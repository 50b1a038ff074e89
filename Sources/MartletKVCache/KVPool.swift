// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// Layers whose pages are handed out together, under one set of page ids.
///
/// A page id names a page in the storage of *every* layer of the pool. The pool keeps its own free list and, for each sequence slot, a page
/// table: entry p is the page that holds tokens p·pageSize ..< (p + 1)·pageSize, −1 where there is none (behind the window, or not yet).
///
/// Sequences with a common prefix may hold the same page; it is free again when the last of them has let it go.
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
  /// `[pageCount]`: how many sequences hold each page.
  private(set) var holders: [Int32]
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
    holders = Array(repeating: 0, count: pageCount)
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
      let page = freePages.removeLast()
      table[slot * maxPagesPerSequence + endEntry[slot]] = page
      holders[Int(page)] = 1
      endEntry[slot] += 1
    }
  }

  /// Whether the source still holds what a query at `length` or later sees of its first `length` tokens.
  func canShare(from source: Int, length: Int) -> Bool { firstEntry[source] <= firstVisibleEntry(from: length) }

  /// Gives an empty slot those of the source's pages for its first `length` tokens that a query at `length` or later sees.
  /// - Precondition: the source holds them; `length` is whole pages.
  mutating func share(from source: Int, length: Int, with slot: Int) {
    let end = length / pageSize
    let first = min(firstVisibleEntry(from: length), end)
    for entry in first..<end {
      let page = table[source * maxPagesPerSequence + entry]
      table[slot * maxPagesPerSequence + entry] = page
      holders[Int(page)] += 1
    }
    firstEntry[slot] = first
    endEntry[slot] = end
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
    let page = table[index]
    table[index] = -1
    holders[Int(page)] -= 1
    if holders[Int(page)] == 0 { freePages.append(page) }
  }

  private func pageCovering(_ length: Int) -> Int { (length + pageSize - 1) / pageSize }
}
