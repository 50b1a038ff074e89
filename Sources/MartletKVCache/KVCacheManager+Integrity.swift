// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// The proof that the books are right, for tests and for anyone who suspects them.

extension KVCacheManager {
  /// Checks that in every pool free + cached + held = all, that no page is two of them or twice free or twice in one sequence, that as many
  /// sequences hold each page as are counted, that every table agrees with its sequence's lengths and the pool's window, and that the prefix
  /// tree agrees with the pools and with the sequences.
  /// - Throws: ``KVCacheError/Code/integrity`` with the first thing that is wrong.
  public func checkIntegrity() throws(KVCacheError) {
    guard slots.count + freeSlots.count == maxSequences, Set(slots.values).union(freeSlots).count == maxSequences else {
      throw .integrity("\(slots.count) sequences and \(freeSlots.count) free slots do not make \(maxSequences) distinct slots")
    }
    for (id, slot) in slots where computedLengths[slot] > lengths[slot] || lengths[slot] > maxSequenceLength {
      throw .integrity("sequence \(id): \(computedLengths[slot]) computed of \(lengths[slot]) tokens, at most \(maxSequenceLength)")
    }
    for index in pools.indices { try check(pools[index], name: "pool \(index)") }
    if let prefixes { try check(prefixes) }
  }

  private func check(_ pool: KVPool, name: String) throws(KVCacheError) {
    /// How many sequences hold each page; −1 for a free one, −2 for a cached one.
    var holders = [Int32](repeating: 0, count: pool.pageCount)
    /// The sequence that was seen to hold the page last.
    var lastHolder = [Int](repeating: -1, count: pool.pageCount)
    for page in pool.freePages {
      guard page >= 0 && page < pool.pageCount else { throw .integrity("\(name): page \(page) of \(pool.pageCount) is free") }
      guard holders[Int(page)] == 0 else { throw .integrity("\(name): page \(page) is twice in the free list") }
      holders[Int(page)] = -1
    }
    for (retention, list) in zip(KVRetention.allCases, pool.cached) {
      var page = list.first
      var count = 0
      while page >= 0 && count <= pool.pageCount {
        if holders[Int(page)] == -1 { throw .integrity("\(name): page \(page) is free and cached") }
        if holders[Int(page)] == -2 { throw .integrity("\(name): page \(page) is cached twice") }
        if pool.nodes[Int(page)] < 0 { throw .integrity("\(name): page \(page) is cached, and the prefix tree has no node for it") }
        if pool.retentions[Int(page)] != retention {
          throw .integrity("\(name): page \(page) of retention \(pool.retentions[Int(page)]) is cached as \(retention)")
        }
        holders[Int(page)] = -2
        count += 1
        page = list.page(after: page)
      }
      guard count == list.count else {
        throw .integrity("\(name): \(list.count) cached pages of retention \(retention) are counted, \(count) are listed")
      }
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
        if holders[Int(page)] < 0 { throw .integrity("\(name): page \(page) is free or cached and belongs to sequence \(id)") }
        if lastHolder[Int(page)] == slot { throw .integrity("\(name): sequence \(id) holds page \(page) twice") }
        if pool.retentions[Int(page)] < retentions[slot] {
          throw .integrity(
            "\(name): page \(page) has retention \(pool.retentions[Int(page)]), and sequence \(id), which holds it, \(retentions[slot])")
        }
        holders[Int(page)] += 1
        lastHolder[Int(page)] = slot
      }
    }
    for slot in freeSlots {
      for page in pool.entries(of: slot) where page != -1 { throw .integrity("\(name): the free slot \(slot) holds page \(page)") }
    }
    for page in 0..<pool.pageCount {
      if holders[page] == 0 { throw .integrity("\(name): page \(page) is neither free nor cached nor held") }
      guard max(holders[page], 0) == pool.holders[page] else {
        throw .integrity(
          "\(name): \(pool.holders[page]) holders of page \(page) are counted, and \(max(holders[page], 0)) sequences hold it")
      }
    }
  }
}

// MARK: - The prefix tree

extension KVCacheManager {
  private func check(_ tree: PrefixTree) throws(KVCacheError) {
    var isFree = [Bool](repeating: false, count: tree.capacity)
    for node in tree.freeNodes {
      if isFree[Int(node)] { throw .integrity("node \(node) of the prefix tree is twice free") }
      isFree[Int(node)] = true
    }
    let full = (0..<tree.capacity).count { !isFree[$0] && Int(tree.tokenCounts[$0]) == pageSize }
    guard tree.fullCount == full else {
      throw .integrity("\(tree.fullCount) full nodes of the prefix tree can be found, of \(full)")
    }
    var children = [Int32](repeating: 0, count: tree.capacity)
    var pages = pools.map { [Int32](repeating: -1, count: $0.pageCount) }
    for node in 0..<tree.capacity where !isFree[node] {
      let parent = Int(tree.parents[node])
      if parent >= 0 {
        if isFree[parent] { throw .integrity("node \(node) of the prefix tree has a free parent") }
        children[parent] += 1
      }
      if Int(tree.tokenCounts[node]) < pageSize, tree.childCounts[node] + tree.pins[node] > 0 {
        throw .integrity("node \(node) of the prefix tree has \(tree.tokenCounts[node]) tokens, and something follows it")
      }
      if tree.isIdle(node) { throw .integrity("node \(node) of the prefix tree is there for nothing") }
      for pool in pools.indices {
        let page = tree.page(node, pool: pool)
        if page < 0 {
          if pools[pool].key.window == nil { throw .integrity("pool \(pool) without a window has no page of node \(node)") }
          continue
        }
        if pages[pool][Int(page)] >= 0 { throw .integrity("pool \(pool): page \(page) is at two nodes of the prefix tree") }
        pages[pool][Int(page)] = Int32(node)
        if pools[pool].key.window == nil, parent >= 0, pools[pool].holders[Int(page)] > 0,
          pools[pool].holders[Int(tree.page(parent, pool: pool))] == 0
        {
          throw .integrity("pool \(pool): page \(page) is held, and the page before it is not")
        }
        if pools[pool].key.window == nil, parent >= 0 {
          let before = pools[pool].retentions[Int(tree.page(parent, pool: pool))]
          if before < pools[pool].retentions[Int(page)] {
            throw .integrity("pool \(pool): page \(page) has retention \(pools[pool].retentions[Int(page)]), the page before it \(before)")
          }
        }
      }
    }
    if children != tree.childCounts.enumerated().map({ isFree[$0] ? 0 : $1 }) {
      throw .integrity("the children of the prefix tree's nodes are counted wrong")
    }
    try checkSiblings(tree, isFree)
    for pool in pools.indices where pages[pool] != pools[pool].nodes {
      throw .integrity("pool \(pool) and the prefix tree do not agree which pages it remembers")
    }
    try checkCursors(tree)
  }

  /// Every node in use is in the list of its parent's children, once.
  private func checkSiblings(_ tree: PrefixTree, _ isFree: [Bool]) throws(KVCacheError) {
    var listed = 0
    for parent in PrefixTree.root..<tree.capacity where parent == PrefixTree.root || !isFree[parent] {
      var (before, node) = (Int32(-1), tree.youngest[parent + 1])
      while node >= 0 && listed <= tree.count {
        if isFree[Int(node)] || tree.parents[Int(node)] != Int32(parent) || tree.younger[Int(node)] != before {
          throw .integrity("node \(node) of the prefix tree stands wrong among the children of \(parent)")
        }
        listed += 1
        (before, node) = (node, tree.older[Int(node)])
      }
    }
    guard listed == tree.count else { throw .integrity("\(listed) nodes of the prefix tree are listed as children, of \(tree.count)") }
  }

  private func checkCursors(_ tree: PrefixTree) throws(KVCacheError) {
    var pins = [Int32](repeating: 0, count: tree.capacity)
    for (id, slot) in slots where !cursors[slot].isStopped {
      var node = cursors[slot].node
      if node >= 0 { pins[node] += 1 }
      for entry in (0..<cursors[slot].pages).reversed() {
        if node < 0 { throw .integrity("sequence \(id) is at page \(cursors[slot].pages) of the prefix tree, less deep than that") }
        for pool in pools where entry >= pool.firstEntry[slot] {
          let page = pool.page(slot: slot, entry: entry)
          if Int(pool.nodes[Int(page)]) != node {
            throw .integrity("sequence \(id) holds page \(page), which is not that of its node \(node)")
          }
        }
        node = Int(tree.parents[node])
      }
      if node >= 0 { throw .integrity("sequence \(id) is at page \(cursors[slot].pages) of the prefix tree, deeper than that") }
    }
    for node in 0..<tree.capacity where pins[node] != tree.pins[node] {
      throw .integrity("\(pins[node]) sequences stand at node \(node) of the prefix tree, \(tree.pins[node]) are counted")
    }
  }
}
