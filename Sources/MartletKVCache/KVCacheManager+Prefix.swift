// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Prefix reuse: full pages are remembered by their tokens, and a sequence that begins alike holds them instead of computing them again.
//
// What is reused is whole pages; a page that agrees in part is computed again. Reuse changes no bit of any result: a token's keys and values
// depend on the tokens up to it and on nothing else.

/// How far the pages of a sequence are in the prefix tree.
struct PrefixCursor {
  /// The node of the last page that is; the root where none is.
  var node = PrefixTree.root
  /// Pages that are.
  var pages = 0
  var salt: UInt64 = 0
  /// No further page will be.
  var isStopped = false
}

extension KVCacheManager {
  /// Makes room for a new sequence that begins with these tokens, and gives it the longest prefix of them that is cached.
  ///
  /// A prefix is whole pages: those of layers without a window all, those of layers with a window of W the ones that hold its last W − 1
  /// tokens. At least the last of `tokens` is left to be computed, for its logits.
  /// - Parameters:
  ///   - tokens: all tokens that are known, not only those of the next step.
  ///   - salt: sequences of different salts never share pages.
  /// - Returns: how many tokens the sequence has now, all computed; nil where `maxSequences` are in the cache already.
  /// - Precondition: no sequence of this id is in the cache.
  public func addSequence(_ id: Int, tokens: [Int32], salt: UInt64 = 0) -> Int? {
    guard addSequence(id) else { return nil }
    let slot = slot(of: id)
    cursors[slot].salt = salt
    prefixCounts.askedTokens += tokens.count
    var found = longestPrefix(of: tokens, salt: salt)
    guard found.pages > 0, prefixes != nil else { return 0 }
    let length = found.pages * pageSize
    cursors[slot].node = found.node
    cursors[slot].pages = found.pages
    prefixes?.pin(found.node)
    // From the last page to the first: the tree leads upwards.
    for pool in pools.indices {
      pools[pool].setEntries(min(pools[pool].firstVisibleEntry(from: length), found.pages)..<found.pages, slot: slot)
    }
    while let tree = prefixes, found.node != PrefixTree.root {
      found.pages -= 1
      for pool in pools.indices where found.pages >= pools[pool].firstEntry[slot] {
        pools[pool].hold(tree.page(found.node, pool: pool), slot: slot, entry: found.pages)
      }
      found.node = Int(tree.parents[found.node])
    }
    lengths[slot] = length
    computedLengths[slot] = length
    prefixCounts.reusedTokens += length
    return length
  }

  /// How many tokens ``addSequence(_:tokens:salt:)`` would take from the cache.
  public func cachedPrefix(of tokens: [Int32], salt: UInt64 = 0) -> Int { longestPrefix(of: tokens, salt: salt).pages * pageSize }

  /// Whether the pages that nobody holds suffice for all of a new sequence's tokens, computed at most `chunk` tokens a step.
  /// - Parameter reusing: whether it begins with what is cached of them, as ``addSequence(_:tokens:salt:)`` does.
  public func hasRoom(for tokens: [Int32], salt: UInt64 = 0, reusing: Bool = true, chunk: Int) -> Bool {
    let found = reusing ? longestPrefix(of: tokens, salt: salt) : (node: PrefixTree.root, pages: 0)
    return pools.indices.allSatisfy { pool in
      let first = min(pools[pool].firstVisibleEntry(from: found.pages * pageSize), found.pages)
      // Cached pages that it would hold are no longer to be had.
      var available = pools[pool].availableCount
      var node = found.node
      for _ in first..<found.pages {
        guard let page = prefixes?.page(node, pool: pool), let parent = prefixes?.parents[node] else { break }
        if pools[pool].holders[Int(page)] == 0 { available -= 1 }
        node = Int(parent)
      }
      return peakPages(length: tokens.count, chunk: chunk, pool: pool) - (found.pages - first) <= available
    }
  }

  /// ``computed(_:upTo:)`` of a sequence whose tokens are told: pages that are full now are remembered by them.
  ///
  /// Where the same page is remembered already, because another sequence computed it at the same time, the sequence holds that one from now
  /// on and returns its own.
  /// - Parameter tokens: the sequence's tokens from its first on, at least `length`, the same in every call.
  public func computed(_ id: Int, upTo length: Int, tokens: [Int32]) {
    precondition(tokens.count >= length, "sequence \(id): \(length) tokens are computed, and \(tokens.count) are told")
    index(slot(of: id), upTo: length, tokens)
    computed(id, upTo: length)
  }
}

// MARK: - The tree and the pools together

extension KVCacheManager {
  /// As many nodes as can have a page of the pools without a window, in which every node has one. Where there are none, a node may be there
  /// for its descendants alone: room for those of every sequence, and for a page each of all that is cached.
  static func prefixCapacity(_ pools: [KVPool], sequencePages: Int) -> Int {
    pools.filter { $0.key.window == nil }.map(\.pageCount).min() ?? sequencePages + pools.reduce(0) { $0 + $1.pageCount }
  }

  private func longestPrefix(of tokens: [Int32], salt: UInt64) -> (node: Int, pages: Int) {
    var best = (node: PrefixTree.root, pages: 0)
    guard let tree = prefixes else { return best }
    var node = PrefixTree.root
    var pages = 0
    while (pages + 1) * pageSize < tokens.count, let child = tree.child(of: node, salt: salt, tokens, from: pages * pageSize) {
      node = child
      pages += 1
      if isWhole(tree, node, pages: pages) { best = (node, pages) }
    }
    return best
  }

  /// Whether every pool has what the token after `pages` pages, the last of which is the node's, sees of them.
  private func isWhole(_ tree: PrefixTree, _ node: Int, pages: Int) -> Bool {
    for pool in pools.indices where pools[pool].key.window != nil {
      var node = node
      for _ in pools[pool].firstVisibleEntry(from: pages * pageSize)..<pages {
        if tree.page(node, pool: pool) < 0 { return false }
        node = Int(tree.parents[node])
      }
    }
    return true
  }

  private func index(_ slot: Int, upTo length: Int, _ tokens: [Int32]) {
    while prefixes != nil, !cursors[slot].isStopped, (cursors[slot].pages + 1) * pageSize <= length {
      let cursor = cursors[slot]
      guard let node = node(after: cursor, tokens) else { return stopIndexing(slot) }
      for pool in pools.indices {
        let own = pools[pool].page(slot: slot, entry: cursor.pages)
        guard own >= 0, let known = prefixes?.page(node, pool: pool) else { continue }
        if known < 0 {
          prefixes?.setPage(node, pool: pool, own)
          pools[pool].index(own, node: node)
        } else if known != own {
          pools[pool].replace(slot: slot, entry: cursor.pages, with: known)
        }
      }
      cursors[slot].node = node
      cursors[slot].pages += 1
      prefixes?.pin(node)
      prefixes?.unpin(cursor.node)
    }
  }

  /// The node of the sequence's next page, made where there is none; nil where there is no room for one.
  private func node(after cursor: PrefixCursor, _ tokens: [Int32]) -> Int? {
    let start = cursor.pages * pageSize
    if let child = prefixes?.child(of: cursor.node, salt: cursor.salt, tokens, from: start) { return child }
    while prefixes?.freeNodes.isEmpty == true {
      guard let pool = pools.indices.first(where: { pools[$0].cachedCount > 0 }) else { return nil }
      evictOldest(from: pool)
    }
    return prefixes?.insert(under: cursor.node, salt: cursor.salt, tokens, from: start)
  }

  /// No further page of the sequence will be remembered.
  func stopIndexing(_ slot: Int) {
    prefixes?.unpin(cursors[slot].node)
    cursors[slot] = PrefixCursor(isStopped: true)
  }

  // MARK: Eviction

  /// Gives up cached pages of the pool, least recently held first, until so many are free.
  /// - Precondition: so many are free or cached.
  func evict(from pool: Int, untilFree count: Int) {
    while pools[pool].freeCount < count { evictOldest(from: pool) }
  }

  /// Gives up one page.
  ///
  /// A page of a pool without a window is a leaf's: whoever holds a page there holds all before it and lets go of them later. Its node goes
  /// with it, and so do the node's pages in other pools. A window pool gives up its page alone: longer prefixes may do without it.
  private func evictOldest(from pool: Int) {
    let page = pools[pool].cached.first
    precondition(page >= 0, "a page is to be given up of a pool that has none cached")
    let node = Int(pools[pool].nodes[Int(page)])
    if pools[pool].key.window == nil {
      precondition(prefixes?.childCounts[node] == 0, "a page is given up before the one that follows it")
      for other in pools.indices { forget(node, pool: other) }
    } else {
      forget(node, pool: pool)
    }
    prefixes?.prune(node)
  }

  private func forget(_ node: Int, pool: Int) {
    guard let page = prefixes?.page(node, pool: pool), page >= 0 else { return }
    prefixes?.setPage(node, pool: pool, -1)
    pools[pool].forget(page)
    prefixCounts.evictedPages += 1
  }
}
