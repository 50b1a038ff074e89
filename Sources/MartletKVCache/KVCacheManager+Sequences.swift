// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

// The life of a sequence: added, extended before each step, computed after it, removed. "Does not fit now" is false and changes nothing.

extension KVCacheManager {
  /// Sequences in the cache.
  public var sequenceCount: Int { slots.count }

  /// Whether the sequence is in the cache.
  public func contains(_ id: Int) -> Bool { slots[id] != nil }

  /// Makes room for a new sequence of no tokens.
  /// - Parameter retention: how long its pages are kept after it; nil is ``KVCacheConfig/retention``.
  /// - Returns: false where `maxSequences` are in the cache already.
  /// - Precondition: no sequence of this id is in the cache.
  public func addSequence(_ id: Int, retention: KVRetention? = nil) -> Bool {
    enforce(slots[id] == nil, "sequence \(id) is in the key/value cache already")
    guard let slot = freeSlots.popLast() else { return false }
    slots[id] = slot
    lengths[slot] = 0
    computedLengths[slot] = 0
    cursors[slot] = PrefixCursor()
    retentions[slot] = retention ?? config.retention
    return true
  }

  /// Gives the sequence pages for its first `length` tokens, in every pool or in none.
  ///
  /// Cached pages are given up for it where the free ones do not suffice; pages that sequences hold never are.
  /// - Returns: false where the pages that no sequence holds do not suffice; nothing has changed then.
  /// - Precondition: the sequence is in the cache; `length` is neither less than its length nor above `maxSequenceLength`.
  public func extend(_ id: Int, to length: Int) -> Bool {
    let slot = slot(of: id)
    enforce(length >= lengths[slot], "sequence \(id) has \(lengths[slot]) tokens and cannot be extended to \(length)")
    enforce(
      length <= maxSequenceLength, "sequence \(id) of \(length) tokens: the longest sequence has \(maxSequenceLength)")
    for pool in pools.indices where pools[pool].pagesNeeded(slot: slot, to: length) > pools[pool].availableCount { return false }
    for pool in pools.indices {
      evict(from: pool, untilFree: pools[pool].pagesNeeded(slot: slot, to: length))
      pools[pool].extend(slot: slot, to: length, retention: retentions[slot])
    }
    lengths[slot] = length
    return true
  }

  /// Gives a new sequence the first tokens of another one, which it holds together with it: nothing is copied, and neither writes there again.
  ///
  /// Afterwards the sequence has `tokens` tokens, all computed, and its pages are not remembered by tokens. A page returns to its pool when the last sequence that holds it is removed.
  /// - Parameter tokens: whole pages; computed by the source.
  /// - Returns: false where the source has returned pages behind a sliding window that the new sequence's next token would see; nothing has
  ///   changed then.
  /// - Precondition: both sequences are in the cache, `id` with no tokens.
  public func share(prefixOf source: Int, tokens: Int, with id: Int) -> Bool {
    let from = slot(of: source)
    let slot = slot(of: id)
    enforce(lengths[slot] == 0, "sequence \(id) has \(lengths[slot]) tokens already and cannot take those of \(source)")
    enforce(
      tokens >= 0 && tokens % pageSize == 0 && tokens <= computedLengths[from],
      "\(tokens) tokens of sequence \(source) cannot be shared: whole pages of \(pageSize) of its \(computedLengths[from]) computed tokens")
    for pool in pools where !pool.canShare(from: from, length: tokens) { return false }
    for pool in pools.indices { pools[pool].share(from: from, length: tokens, with: slot, retention: retentions[slot]) }
    lengths[slot] = tokens
    computedLengths[slot] = tokens
    stopIndexing(slot)
    return true
  }

  /// Says that the keys and values of the first `length` tokens are written and attended to: pages that no later query can see return to
  /// their pools.
  /// - Precondition: `length` is neither less than what was computed before nor above the sequence's length.
  public func computed(_ id: Int, upTo length: Int) {
    let slot = slot(of: id)
    enforce(
      length >= computedLengths[slot] && length <= lengths[slot],
      "sequence \(id): \(length) tokens cannot be computed of \(lengths[slot]), after \(computedLengths[slot])")
    computedLengths[slot] = length
    for pool in pools.indices { pools[pool].returnPages(slot: slot, behind: length) }
  }

  /// Takes the sequence out and returns its pages, those apart that another sequence holds too.
  /// - Precondition: the sequence is in the cache.
  public func remove(_ id: Int) {
    let slot = slot(of: id)
    stopIndexing(slot)
    for pool in pools.indices { pools[pool].removeAll(slot: slot) }
    slots[id] = nil
    freeSlots.append(slot)
    lengths[slot] = 0
    computedLengths[slot] = 0
  }

  /// Tokens of the sequence that have pages.
  public func length(_ id: Int) -> Int { lengths[slot(of: id)] }

  /// Tokens of the sequence that were computed.
  public func computedLength(_ id: Int) -> Int { computedLengths[slot(of: id)] }

  func slot(of id: Int) -> Int {
    guard let slot = slots[id] else { fatalError("sequence \(id) is not in the key/value cache") }
    return slot
  }
}

// MARK: - What a scheduler asks

extension KVCacheManager {
  /// Further pages of the pool that the sequence needs to hold `length` tokens.
  public func pagesNeeded(_ id: Int, to length: Int, pool: Int) -> Int { pools[pool].pagesNeeded(slot: slot(of: id), to: length) }

  /// The most pages of the pool that a sequence of `length` tokens holds at one time, when it is computed at most `chunk` tokens a step.
  ///
  /// A window pool needs pages for the window and the chunk only.
  public func peakPages(length: Int, chunk: Int, pool: Int) -> Int {
    KVCacheBudget.peakPages(length: length, chunk: chunk, window: pools[pool].key.window, pageSize: pageSize)
  }

  /// Pages of the pool.
  public func pageCount(pool: Int) -> Int { pools[pool].pageCount }
  /// Pages of the pool that hold nothing.
  public func freePages(pool: Int) -> Int { pools[pool].freeCount }
  /// Pages of the pool that no sequence holds, kept for sequences that begin alike until a free page is wanted.
  public func cachedPages(pool: Int) -> Int { pools[pool].cachedCount }
  /// Pages of the pool that sequences hold; one that several hold counts once.
  public func heldPages(pool: Int) -> Int { pools[pool].heldCount }
  /// Pages of the pool that this sequence holds, alone or with others.
  public func heldPages(pool: Int, by id: Int) -> Int {
    let slot = slot(of: id)
    return pools[pool].endEntry[slot] - pools[pool].firstEntry[slot]
  }

  /// Why a sequence of `length` tokens, computed at most `chunk` tokens a step, can never fit, in words; nil where it can.
  public func obstacle(toLength length: Int, chunk: Int? = nil) -> String? {
    if length > maxSequenceLength {
      return "\(length) tokens are more than the longest sequence of \(maxSequenceLength) (maxSequenceLength)"
    }
    for pool in pools.indices {
      let needed = peakPages(length: length, chunk: chunk ?? maxTokensPerStep ?? length, pool: pool)
      if needed > pools[pool].pageCount {
        let kind = pools[pool].key.window.map { "layers with a window of \($0)" } ?? "layers without a window"
        return "\(length) tokens need \(needed) pages of \(pageSize) tokens in the \(kind), and the budget of \(budgetByteCount) bytes has "
          + "\(pools[pool].pageCount); raise the key/value cache budget (kvCache.budget)"
      }
    }
    return nil
  }
}

// MARK: - Page tables

extension KVCacheManager {
  /// Writes one request's row of a batch's page table: the pages of its first `length` tokens, −1 for those returned and up to the row's end.
  /// - Precondition: the sequence has `length` tokens; the row holds their pages.
  public func writePageTable(_ id: Int, length: Int, pool: Int, into row: UnsafeMutableBufferPointer<Int32>) {
    let slot = slot(of: id)
    enforce(length <= lengths[slot], "sequence \(id) has pages for \(lengths[slot]) tokens, not for \(length)")
    let used = (length + pageSize - 1) / pageSize
    enforce(used <= row.count, "\(used) pages of sequence \(id) do not fit a row of \(row.count)")
    let start = slot * pools[pool].maxPagesPerSequence
    for entry in 0..<used { row[entry] = pools[pool].table[start + entry] }
    for entry in used..<row.count { row[entry] = -1 }
  }
}
