// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// The proof that the books are right, for tests and for anyone who suspects them.

extension KVCacheManager {
  /// Checks that in every pool free + held = all, that no page is in two places, and that every table agrees with its sequence's lengths
  /// and the pool's window.
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
    var owner = [String?](repeating: nil, count: pool.pageCount)
    func claim(_ page: Int32, _ claimant: String) throws(KVCacheError) {
      guard page >= 0 && page < pool.pageCount else {
        throw .integrity("\(name): \(claimant) has page \(page) of \(pool.pageCount)")
      }
      if let other = owner[Int(page)] { throw .integrity("\(name): page \(page) belongs to \(other) and to \(claimant)") }
      owner[Int(page)] = claimant
    }
    for page in pool.freePages { try claim(page, "the free list") }
    for (id, slot) in slots {
      let first = pool.firstVisibleEntry(from: computedLengths[slot])
      let end = (lengths[slot] + pageSize - 1) / pageSize
      for (entry, page) in pool.entries(of: slot).enumerated() {
        if entry >= first && entry < end {
          try claim(page, "sequence \(id)")
        } else if page != -1 {
          throw .integrity("\(name): sequence \(id) holds page \(page) at entry \(entry), outside \(first)..<\(max(first, end))")
        }
      }
    }
    for slot in freeSlots {
      for page in pool.entries(of: slot) where page != -1 { throw .integrity("\(name): the free slot \(slot) holds page \(page)") }
    }
    if let lost = owner.firstIndex(of: nil) { throw .integrity("\(name): page \(lost) is neither free nor held") }
  }
}
