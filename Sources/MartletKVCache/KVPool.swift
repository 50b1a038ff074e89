// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// Layers whose pages are handed out together, under one set of page ids.
///
/// A page id names a page in the storage of *every* layer of the pool. The pool keeps its own free list and, for each sequence slot, a page
/// table: entry p is the page that holds tokens p·pageSize ..< (p + 1)·pageSize, −1 where there is none (behind the window, or not yet).
///
/// Sequences with a common prefix may hold the same page. When the last of them has let it go, it is free again; where the prefix tree has a
/// node for it, it is *cached* instead: nobody writes to it, and it is given up when a free page is wanted: lowest retention first, and least
/// recently held first of one retention.
struct KVPool {
  /// What makes two layers share a pool.
  struct Key: Hashable {
    var window: Int?
    var numKVHeads: Int
    var headDim: Int
    var valueHeadDim: Int
    var dataType: DataType
    var valuesAreKeys: Bool

    init(_ layer: KVLayerSpec) {
      window = layer.window
      numKVHeads = layer.layout.numKVHeads
      headDim = layer.layout.headDim
      valueHeadDim = layer.layout.valueHeadDim
      dataType = layer.layout.dataType
      valuesAreKeys = layer.layout.valuesAreKeys
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
  /// `[pageCount]`: the prefix tree's node of each page; −1 where it has none.
  private(set) var nodes: [Int32]
  /// `[pageCount]`: the highest retention of the sequences that hold or held the page as it is filled now; without meaning for a free one.
  private(set) var retentions: [KVRetention]
  /// `[pageCount]`: what ``time`` was when the page was let go last.
  private(set) var letGoTimes: [Int]
  /// The time as it was told last; without meaning for the pool itself.
  var time = 0
  /// The cached pages of each retention, from the lowest on, in the order in which they will be given up.
  private(set) var cached: [PageList]
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
    nodes = Array(repeating: -1, count: pageCount)
    retentions = Array(repeating: .low, count: pageCount)
    letGoTimes = Array(repeating: 0, count: pageCount)
    cached = Array(repeating: PageList(capacity: pageCount), count: KVRetention.allCases.count)
    table = Array(repeating: -1, count: slots * maxPagesPerSequence)
    firstEntry = Array(repeating: 0, count: slots)
    endEntry = Array(repeating: 0, count: slots)
  }

  var freeCount: Int { freePages.count }
  var cachedCount: Int { cached.reduce(0) { $0 + $1.count } }
  var heldCount: Int { pageCount - availableCount }
  /// Pages that an extension can take: what is cached can be given up.
  var availableCount: Int { freePages.count + cachedCount }
  /// The cached page that is given up next; −1 where none is cached.
  var nextToGo: Int32 { cached.first { $0.count > 0 }?.first ?? -1 }
  /// Whether sequences see keys and values of earlier tokens here: not through a window of their own token alone.
  var seesEarlierTokens: Bool { key.window != 1 }

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
  mutating func extend(slot: Int, to length: Int, retention: KVRetention) {
    let end = pageCovering(length)
    while endEntry[slot] < end {
      let page = freePages.removeLast()
      table[slot * maxPagesPerSequence + endEntry[slot]] = page
      holders[Int(page)] = 1
      retentions[Int(page)] = retention
      endEntry[slot] += 1
    }
  }

  /// Whether the source still holds what a query at `length` or later sees of its first `length` tokens.
  func canShare(from source: Int, length: Int) -> Bool { firstEntry[source] <= firstVisibleEntry(from: length) }

  /// Gives an empty slot those of the source's pages for its first `length` tokens that a query at `length` or later sees.
  /// - Precondition: the source holds them; `length` is whole pages.
  mutating func share(from source: Int, length: Int, with slot: Int, retention: KVRetention) {
    let end = length / pageSize
    let first = min(firstVisibleEntry(from: length), end)
    for entry in first..<end { hold(table[source * maxPagesPerSequence + entry], slot: slot, entry: entry, retention: retention) }
    firstEntry[slot] = first
    endEntry[slot] = end
  }

  /// Says which entries an empty slot holds, before or after ``hold(_:slot:entry:retention:)`` of each.
  mutating func setEntries(_ entries: Range<Int>, slot: Int) {
    firstEntry[slot] = entries.lowerBound
    endEntry[slot] = entries.upperBound
  }

  /// Lets a slot hold a page that others hold, or that is cached.
  mutating func hold(_ page: Int32, slot: Int, entry: Int, retention: KVRetention) {
    keep(page)
    raise(page, to: retention)
    table[slot * maxPagesPerSequence + entry] = page
  }

  /// Lets a held page be kept at least so long.
  mutating func raise(_ page: Int32, to retention: KVRetention) {
    enforce(holders[Int(page)] > 0, "page \(page) is raised to \(retention), and nobody holds it")
    retentions[Int(page)] = max(retentions[Int(page)], retention)
  }

  /// Counts a further holder, so that the page cannot be given up.
  mutating func keep(_ page: Int32) {
    if holders[Int(page)] == 0 { uncache(page) }
    holders[Int(page)] += 1
  }

  /// Lets a slot hold another page of the same contents in place of its own.
  mutating func replace(slot: Int, entry: Int, with page: Int32, retention: KVRetention) {
    let own = table[slot * maxPagesPerSequence + entry]
    hold(page, slot: slot, entry: entry, retention: retention)
    letGo(own)
  }

  func page(slot: Int, entry: Int) -> Int32 { table[slot * maxPagesPerSequence + entry] }

  /// Says that the prefix tree has a node for a held page.
  mutating func index(_ page: Int32, node: Int) { nodes[Int(page)] = Int32(node) }

  /// Says that the prefix tree has no node for the page any more.
  mutating func forget(_ page: Int32) {
    nodes[Int(page)] = -1
    if holders[Int(page)] == 0 {
      uncache(page)
      freePages.append(page)
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

  /// Returns every page of the slot, the first page last: of free pages it is handed out next, of cached ones it outlives those that follow.
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
    letGo(page)
  }

  /// Counts a holder less: the page of the last one is cached or free.
  mutating func letGo(_ page: Int32) {
    holders[Int(page)] -= 1
    if holders[Int(page)] > 0 { return }
    letGoTimes[Int(page)] = time
    if nodes[Int(page)] < 0 {
      freePages.append(page)
    } else {
      cached[Int(retentions[Int(page)].rawValue)].append(page)
    }
  }

  private mutating func uncache(_ page: Int32) { cached[Int(retentions[Int(page)].rawValue)].remove(page) }

  private func pageCovering(_ length: Int) -> Int { (length + pageSize - 1) / pageSize }
}
