// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// What the cache looks like from outside, for whoever draws it. Nothing here changes anything, and nothing is kept for it but a number for each
// page that is let go: ``KVCacheManager/noteTime(_:)``.

/// What becomes of a page.
package enum KVPageState: Int, Sendable {
  case free
  /// One sequence holds it.
  case held
  /// Several sequences do.
  case shared
  /// No sequence does, and it is kept for those that begin alike.
  case kept
}

/// Pages one after the other, in the order of their numbers, that are alike.
package struct KVPageRun {
  package var count: Int
  package var state: KVPageState
  /// The first sequence that holds them, in the order in which sequences were named; −1 where none does.
  package var holder: Int
}

/// Pages of the prefix tree that follow one another, and of which nothing else is to be told apart.
package struct KVPrefixNode {
  /// A place among the nodes; −1 for what follows nothing.
  package var parent: Int
  package var tokens: Int
  /// Of the first pool.
  package var pages: Int
  /// Sequences that hold them.
  package var holders: Int
  /// What ``KVCacheManager/noteTime(_:)`` had last been told when the last sequence let go of any of them; nil while one holds them.
  package var letGo: Int?
  package var retention: KVRetention
}

extension KVCacheManager {
  /// Tells the cache what time it is, in whatever unit: pages that are let go from now on are known to have been let go then.
  package func noteTime(_ time: Int) {
    for pool in pools.indices { pools[pool].time = time }
  }

  /// Bytes of one page id of the pool, all layers together.
  package func bytesPerPage(pool: Int) -> Int { pools[pool].bytesPerPage }
  /// The window of the pool's layers; nil without one.
  package func window(pool: Int) -> Int? { pools[pool].key.window }

  /// The pool's pages in the order of their numbers.
  /// - Parameter sequences: all that are in the cache.
  package func pageRuns(pool index: Int, sequences: [Int]) -> [KVPageRun] {
    let pool = pools[index]
    var owners = [Int](repeating: -1, count: pool.pageCount)
    for id in sequences {
      for page in pool.entries(of: slot(of: id)) where page >= 0 && owners[Int(page)] < 0 { owners[Int(page)] = id }
    }
    var runs: [KVPageRun] = []
    for page in 0..<pool.pageCount {
      let state: KVPageState =
        switch pool.holders[page] {
        case 0: pool.nodes[page] < 0 ? .free : .kept
        case 1: .held
        default: .shared
        }
      if let last = runs.last, last.state == state, last.holder == owners[page] {
        runs[runs.count - 1].count += 1
      } else {
        runs.append(KVPageRun(count: 1, state: state, holder: owners[page]))
      }
    }
    return runs
  }

  /// The prefix tree, every node before those that follow it, and of those the youngest first. Pages that follow one another, held by as many
  /// and kept as long, are one node.
  ///
  /// - Parameter limit: the most nodes.
  /// - Returns: the nodes, and whether there are more.
  package func prefixNodes(limit: Int) -> (nodes: [KVPrefixNode], isCut: Bool) {
    guard let tree = prefixes else { return ([], false) }
    var nodes: [KVPrefixNode] = []
    /// Siblings and children that are still to be visited: the last one next.
    var pending: [(node: Int, parent: Int)] = []
    func push(_ node: Int32, _ parent: Int) { if node >= 0 { pending.append((Int(node), parent)) } }
    push(tree.youngest[PrefixTree.root + 1], -1)
    while let (first, parent) = pending.popLast() {
      if nodes.count == limit { return (nodes, true) }
      push(tree.older[first], parent)
      var node = look(at: first, of: tree)
      node.parent = parent
      var last = first
      while tree.childCounts[last] == 1 {
        let next = Int(tree.youngest[last + 1])
        let page = look(at: next, of: tree)
        guard page.holders == node.holders, page.retention == node.retention else { break }
        node.tokens += page.tokens
        node.pages += page.pages
        if let letGo = page.letGo { node.letGo = max(node.letGo ?? letGo, letGo) }
        last = next
      }
      push(tree.youngest[last + 1], nodes.count)
      nodes.append(node)
    }
    return (nodes, false)
  }

  /// A node of one page.
  private func look(at index: Int, of tree: PrefixTree) -> KVPrefixNode {
    var node = KVPrefixNode(
      parent: -1, tokens: Int(tree.tokenCounts[index]), pages: tree.page(index, pool: 0) < 0 ? 0 : 1, holders: 0, letGo: nil,
      retention: .low)
    for pool in pools.indices {
      let page = Int(tree.page(index, pool: pool))
      if page < 0 { continue }
      node.holders = max(node.holders, Int(pools[pool].holders[page]))
      node.retention = max(node.retention, pools[pool].retentions[page])
      node.letGo = max(node.letGo ?? .min, pools[pool].letGoTimes[page])
    }
    if node.holders > 0 { node.letGo = nil }
    return node
  }
}
