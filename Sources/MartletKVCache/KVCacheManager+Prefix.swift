// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

// Prefix reuse: full pages are remembered by their tokens, and a sequence that begins alike holds them instead of computing them again.
//
// Whole pages are held together with whoever filled them. Of a page that agrees in its first tokens only, the sequence gets a copy, which it
// overwrites from the first other token on. Reuse changes no bit of any result: a token's keys and values depend on the tokens up to it and
// on nothing else, and no kernel reads what a page holds after a sequence's last token.
//
// Why the rest of a copied page cannot matter: the copy is followed by an append of the sequence's next token, because one is always left to
// be computed, before anything attends. An append writes its tokens' slots and zeroes those of the page after the last of them, scales included
// (`AttentionKernels.append`); where the tokens go on to the next page, all slots of this one were written. (The golden backend zeroes nothing
// and reads no slot but those that a query sees.) A page handed out by a pool is full of another sequence's tokens just so.

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

/// What of the cache a new sequence begins with: whole pages, which it holds, and the first tokens of one more, which it gets a copy of.
struct PrefixMatch {
  /// The node of the last whole page; the root where there is none.
  var node = PrefixTree.root
  /// Whole pages.
  var pages = 0
  /// The node of the page to be copied, a child of `node`; the root where none is.
  var copied = PrefixTree.root
  /// How many of its tokens count.
  var copiedTokens = 0
}

extension KVCacheManager {
  /// Makes room for a new sequence that begins with these tokens, and gives it the longest prefix of them that is cached.
  ///
  /// That is whole pages, which it holds together with others, and, if ``KVCacheConfig/reusesPartialPages``, the first tokens of one page
  /// more: of a remembered page that follows them, the one that agrees longest. Of that it gets a copy, put on ``queue``, where a page of every
  /// pool is available for it; where none is, it begins with the whole pages. Of layers without a window all pages must be there, of layers
  /// with a window of W those that hold the last W − 1 tokens. At least the last of `tokens` is left to be computed, for its logits.
  /// - Parameters:
  ///   - tokens: all tokens that are known, not only those of the next step.
  ///   - salt: sequences of different salts never share pages, nor copy them.
  ///   - retention: how long its pages are kept after it; nil is ``KVCacheConfig/retention``. Pages that it holds rise to it.
  /// - Returns: how many tokens the sequence has now, all computed; nil where `maxSequences` are in the cache already.
  /// - Precondition: no sequence of this id is in the cache.
  public func addSequence(_ id: Int, tokens: [Int32], salt: UInt64 = 0, retention: KVRetention? = nil) -> Int? {
    guard addSequence(id, retention: retention) else { return nil }
    let slot = slot(of: id)
    cursors[slot].salt = salt
    prefixCounts.askedTokens += tokens.count
    let found = beginning(of: tokens, salt: salt)
    let length = length(of: found)
    if length == 0 { return 0 }
    cursors[slot].node = found.node
    cursors[slot].pages = found.pages
    prefixes?.pin(found.node)
    // From the last page to the first: the tree leads upwards.
    for pool in pools.indices { pools[pool].setEntries(heldEntries(found, pool: pool), slot: slot) }
    var (node, entry) = (found.node, found.pages)
    while let tree = prefixes, node != PrefixTree.root {
      entry -= 1
      for pool in pools.indices where entry >= pools[pool].firstEntry[slot] {
        pools[pool].hold(tree.page(node, pool: pool), slot: slot, entry: entry, retention: retentions[slot])
      }
      node = Int(tree.parents[node])
    }
    if found.copiedTokens > 0 { copyPage(of: found, slot: slot) }
    lengths[slot] = length
    computedLengths[slot] = length
    prefixCounts.reusedTokens += length
    prefixCounts.copiedTokens += found.copiedTokens
    return length
  }

  /// How many tokens ``addSequence(_:tokens:salt:retention:)`` would take from the cache, held and copied.
  public func cachedPrefix(of tokens: [Int32], salt: UInt64 = 0) -> Int { length(of: beginning(of: tokens, salt: salt)) }

  /// Whether the pages that nobody holds suffice for all of a new sequence's tokens, computed at most `chunk` tokens a step.
  /// - Parameter reusing: whether it begins with what is cached of them, as ``addSequence(_:tokens:salt:retention:)`` does.
  public func hasRoom(for tokens: [Int32], salt: UInt64 = 0, reusing: Bool = true, chunk: Int) -> Bool {
    let found = reusing ? beginning(of: tokens, salt: salt) : PrefixMatch()
    return pools.indices.allSatisfy { pool in
      // A page for a copy is one of those that the tokens take, and cached pages that it would hold are no longer available.
      peakPages(length: tokens.count, chunk: chunk, pool: pool) - heldEntries(found, pool: pool).count
        <= pools[pool].availableCount - cachedPages(of: found, pool: pool)
    }
  }

  /// ``remove(_:)`` of a sequence whose tokens are told: the page inside which it ends is remembered too, to be copied by a sequence that goes
  /// on after it or agrees with a part of it.
  /// - Parameter tokens: the sequence's tokens from its first on, as ``computed(_:upTo:tokens:)`` was told them.
  public func remove(_ id: Int, tokens: [Int32]) {
    let slot = slot(of: id)
    enforce(
      tokens.count >= computedLengths[slot], "sequence \(id): \(computedLengths[slot]) tokens are computed, and \(tokens.count) are told")
    indexTail(slot, tokens)
    remove(id)
  }

  /// ``computed(_:upTo:)`` of a sequence whose tokens are told: pages that are full now are remembered by them.
  ///
  /// Where the same page is remembered already, because another sequence computed it at the same time, the sequence holds that one from now
  /// on and returns its own.
  /// - Parameter tokens: the sequence's tokens from its first on, at least `length`, the same in every call.
  public func computed(_ id: Int, upTo length: Int, tokens: [Int32]) {
    enforce(tokens.count >= length, "sequence \(id): \(length) tokens are computed, and \(tokens.count) are told")
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

  private func length(of match: PrefixMatch) -> Int { match.pages * pageSize + match.copiedTokens }

  /// What a new sequence of these tokens begins with: as much as there is, copied tokens only where there is room for the copy.
  private func beginning(of tokens: [Int32], salt: UInt64) -> PrefixMatch {
    let longest = longestPrefix(of: tokens, salt: salt, copying: config.reusesPartialPages)
    return longest.copiedTokens == 0 || hasRoomForCopy(longest) ? longest : longestPrefix(of: tokens, salt: salt, copying: false)
  }

  private func longestPrefix(of tokens: [Int32], salt: UInt64, copying: Bool) -> PrefixMatch {
    var match = PrefixMatch()
    guard let tree = prefixes else { return match }
    while (match.pages + 1) * pageSize < tokens.count,
      let child = tree.child(of: match.node, salt: salt, tokens, from: match.pages * pageSize)
    {
      match.node = child
      match.pages += 1
    }
    // The deeper, the longer: the first of these pages, from the last on, with what the token after it sees, or after a part of the next one.
    while true {
      let start = match.pages * pageSize
      let most = copying ? min(pageSize - 1, tokens.count - 1 - start) : 0
      if let next = tree.closestChild(of: match.node, salt: salt, tokens[start...], most: most, where: { canCopy(tree, $0) }) {
        // If the longest agreement does not do, no shorter one does: a token sees no less than those after it.
        var partial = match
        partial.copied = next.node
        partial.copiedTokens = next.count
        if isWhole(tree, partial) { return partial }
      }
      if match.node == PrefixTree.root || isWhole(tree, match) { return match }
      match.node = Int(tree.parents[match.node])
      match.pages -= 1
    }
  }

  /// The whole pages that the token after the match sees.
  private func heldEntries(_ match: PrefixMatch, pool: Int) -> Range<Int> {
    min(pools[pool].firstVisibleEntry(from: length(of: match)), match.pages)..<match.pages
  }

  /// Whether every pool has the whole pages that the token after the match sees.
  private func isWhole(_ tree: PrefixTree, _ match: PrefixMatch) -> Bool {
    for pool in pools.indices where pools[pool].key.window != nil {
      var node = match.node
      for _ in heldEntries(match, pool: pool) {
        if tree.page(node, pool: pool) < 0 { return false }
        node = Int(tree.parents[node])
      }
    }
    return true
  }

  /// Whether the node has a page in every pool that needs one for a copy.
  private func canCopy(_ tree: PrefixTree, _ node: Int) -> Bool {
    pools.indices.allSatisfy { !pools[$0].seesEarlierTokens || tree.page(node, pool: $0) >= 0 }
  }

  /// Cached pages of the pool that a sequence would hold that begins with the match.
  private func cachedPages(of match: PrefixMatch, pool: Int) -> Int {
    var count = 0
    var node = match.node
    for _ in heldEntries(match, pool: pool) {
      guard let page = prefixes?.page(node, pool: pool), let parent = prefixes?.parents[node] else { break }
      if pools[pool].holders[Int(page)] == 0 { count += 1 }
      node = Int(parent)
    }
    return count
  }

  /// Whether every pool has a page for the copy, besides those that the sequence will hold and the one that is copied.
  private func hasRoomForCopy(_ match: PrefixMatch) -> Bool {
    pools.indices.allSatisfy { pool in
      let source = prefixes?.page(match.copied, pool: pool) ?? -1
      let isCached = source >= 0 && pools[pool].holders[Int(source)] == 0
      return pools[pool].availableCount - cachedPages(of: match, pool: pool) > (isCached ? 1 : 0)
    }
  }

  /// Gives the slot, which holds the match's whole pages, a page in every pool with the contents of the one that is copied.
  private func copyPage(of match: PrefixMatch, slot: Int) {
    // Held meanwhile, lest it is given up for its own copy; and afterwards the most recent, because it was of use.
    for pool in pools.indices {
      if let source = prefixes?.page(match.copied, pool: pool), source >= 0 { pools[pool].keep(source) }
    }
    for pool in pools.indices {
      evict(from: pool, untilFree: 1)
      pools[pool].extend(slot: slot, to: length(of: match), retention: retentions[slot])
      guard let source = prefixes?.page(match.copied, pool: pool), source >= 0 else { continue }
      let (from, to) = (Int(source), Int(pools[pool].page(slot: slot, entry: match.pages)))
      for layer in pools[pool].layers {
        queue.copy(storage[layer].rows(from..<from + 1), to: storage[layer].rows(to..<to + 1))
      }
    }
    for pool in pools.indices {
      if let source = prefixes?.page(match.copied, pool: pool), source >= 0 { pools[pool].letGo(source) }
    }
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
          pools[pool].replace(slot: slot, entry: cursor.pages, with: known, retention: retentions[slot])
        }
      }
      forgetTails(within: node)
      cursors[slot].node = node
      cursors[slot].pages += 1
      prefixes?.pin(node)
      prefixes?.unpin(cursor.node)
    }
  }

  /// Remembers the page inside which the sequence ends, if it has tokens that no remembered page has.
  private func indexTail(_ slot: Int, _ tokens: [Int32]) {
    let cursor = cursors[slot]
    let start = cursor.pages * pageSize
    let count = computedLengths[slot] - start
    guard config.reusesPartialPages, prefixes != nil, !cursor.isStopped, count > 0, count < pageSize else { return }
    if let known = knownNode(tokens[start..<start + count], after: cursor) { return raise(known, to: retentions[slot]) }
    guard let node = prefixes?.insertTail(under: cursor.node, salt: cursor.salt, tokens, from: start, count: count) else { return }
    for pool in pools.indices {
      let own = pools[pool].page(slot: slot, entry: cursor.pages)
      prefixes?.setPage(node, pool: pool, own)
      pools[pool].index(own, node: node)
    }
    forgetTails(within: node)
  }

  /// The node of a page that can be copied and begins with these tokens, after the cursor's pages.
  private func knownNode(_ tokens: ArraySlice<Int32>, after cursor: PrefixCursor) -> Int? {
    guard let tree = prefixes else { return nil }
    let closest = tree.closestChild(of: cursor.node, salt: cursor.salt, tokens, most: tokens.count, where: { canCopy(tree, $0) })
    return closest.flatMap { $0.count == tokens.count ? $0.node : nil }
  }

  /// Lets the node's pages be kept at least so long, and be the most recent.
  /// - Precondition: the pages before them are kept as long: the caller's sequence holds them.
  private func raise(_ node: Int, to retention: KVRetention) {
    for pool in pools.indices {
      guard let page = prefixes?.page(node, pool: pool), page >= 0 else { continue }
      pools[pool].keep(page)
      pools[pool].raise(page, to: retention)
      pools[pool].letGo(page)
    }
  }

  /// Gives up tails whose tokens the node's page has too, which takes over their retention.
  private func forgetTails(within node: Int) {
    guard config.reusesPartialPages else { return }
    while let tail = prefixes?.tail(within: node) {
      for pool in pools.indices {
        guard let page = prefixes?.page(node, pool: pool), let old = prefixes?.page(tail, pool: pool), page >= 0, old >= 0,
          pools[pool].holders[Int(page)] > 0
        else { continue }
        pools[pool].raise(page, to: pools[pool].retentions[Int(old)])
      }
      for pool in pools.indices { forget(tail, pool: pool) }
      prefixes?.prune(tail)
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

  /// Gives up cached pages of the pool, lowest retention and then least recently held first, until so many are free.
  /// - Precondition: so many are free or cached.
  func evict(from pool: Int, untilFree count: Int) {
    while pools[pool].freeCount < count { evictOldest(from: pool) }
  }

  /// Gives up one page.
  ///
  /// A page of a pool without a window is a leaf's: whoever holds a page there holds all before it, raises them to the same retention, and lets
  /// go of them later. Its node goes with it, and so do the node's pages in other pools. A window pool gives up its page alone: longer prefixes may do without it.
  private func evictOldest(from pool: Int) {
    let page = pools[pool].nextToGo
    enforce(page >= 0, "a page is to be given up of a pool that has none cached")
    let node = Int(pools[pool].nodes[Int(page)])
    if pools[pool].key.window == nil {
      enforce(prefixes?.childCounts[node] == 0, "a page is given up before the one that follows it")
      for other in pools.indices where forget(node, pool: other) { prefixCounts.evictedPages += 1 }
    } else if forget(node, pool: pool) {
      prefixCounts.evictedPages += 1
    }
    prefixes?.prune(node)
  }

  /// - Returns: whether the pool had a page of the node.
  @discardableResult
  private func forget(_ node: Int, pool: Int) -> Bool {
    guard let page = prefixes?.page(node, pool: pool), page >= 0 else { return false }
    prefixes?.setPage(node, pool: pool, -1)
    pools[pool].forget(page)
    return true
  }
}
