// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// The proof that the books are right, for tests and for anyone who suspects them.

extension KVCacheManager {
  /// Checks that in every pool free + held = all, that no page is both or twice free or twice in one sequence, that as many sequences hold
  /// each page as are counted, and that every table agrees with its sequence's lengths and the pool's window.
  /// - Throws: ``KVCacheError/integrity(_:)`` with the first thing that is wrong.
  public func checkIntegrity() throws(KVCacheError) {
    guard slots.count + freeSlots.count == config.maxSequences, Set(slots.values).union(freeSlots).count == config.maxSequences else {
      throw .integrity("\(slots.count) sequences and \(freeSlots.count) free slots do not make \(config.maxSequences) distinct slots")
    }
    for (id, slot) in slots where computedLengths[slot] > lengths[slot] || lengths[slot] > config.maxSequenceLength {
      throw .integrity("sequence \(id): \(computedLengths[slot]) computed of \(lengths[slot]) tokens, at most \(config.maxSequenceLength)")
    }
    for index in pools.indices { try check(pools[index], name: "pool \(index)") }
  }

  private func check(_ pool: KVPool, name: String) throws(KVCacheError) {
    /// How many sequences hold each page; −1 for a free one.
    var holders = [Int32](repeating: 0, count: pool.pageCount)
    /// The sequence that was seen to hold the page last.
    var lastHolder = [Int](repeating: -1, count: pool.pageCount)
    for page in pool.freePages {
      guard page >= 0 && page < pool.pageCount else { throw .integrity("\(name): page \(page) of \(pool.pageCount) is free") }
      guard holders[Int(page)] == 0 else { throw .integrity("\(name): page \(page) is twice in the free list") }
      holders[Int(page)] = -1
    }
    for (id, slot) in slots {
      let first = pool.firstVisibleEntry(from: computedLengths[slot])
      let end = (lengths[slot] + pageSize - 1) / pageSize
      for (entry, page) in pool.entries(of: slot).enumerated() {
        guard entry >= first && entry < end else {
          if page == -1 { continue }
          throw .integrity("\(name): sequence \(id) holds page \(page) at entry \(entry), outside \(first)..<\(max(first, end))")
        }
        guard page >= 0 && page < pool.pageCount else {
          throw .integrity("\(name): sequence \(id) has page \(page) of \(pool.pageCount)")
        }
        if holders[Int(page)] < 0 { throw .integrity("\(name): page \(page) belongs to the free list and to sequence \(id)") }
        if lastHolder[Int(page)] == slot { throw .integrity("\(name): sequence \(id) holds page \(page) twice") }
        holders[Int(page)] += 1
        lastHolder[Int(page)] = slot
      }
    }
    for slot in freeSlots {
      for page in pool.entries(of: slot) where page != -1 { throw .integrity("\(name): the free slot \(slot) holds page \(page)") }
    }
    for page in 0..<pool.pageCount {
      if holders[page] == 0 { throw .integrity("\(name): page \(page) is neither free nor held") }
      guard max(holders[page], 0) == pool.holders[page] else {
        throw .integrity(
          "\(name): \(pool.holders[page]) holders of page \(page) are counted, and \(max(holders[page], 0)) sequences hold it")
      }
    }
  }
}
