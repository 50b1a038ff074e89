// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// Which pages hold which tokens: a tree with one node for each full page, keyed by the tokens of the page and of all pages before it.
///
/// Where a sequence ended inside a page, that page may be a node too, a *tail*: nothing follows it, and nobody can hold it, but its tokens can
/// be copied.
///
/// A node names one page in each pool, or −1 where the pool has none any more (a window pool may give up pages that others keep). The tree
/// knows nothing of who holds a page or when it goes; that is the pools' business. All its memory is made once.
struct PrefixTree {
  static let root = -1

  private struct Key: Hashable {
    var parent: Int32
    var hash: UInt64
  }

  let pageSize: Int
  let poolCount: Int
  let capacity: Int
  private var children: [Key: Int32] = [:]
  /// Nodes in use are those that are not here.
  private(set) var freeNodes: [Int32]
  /// `[capacity]` each.
  private(set) var parents: [Int32]
  private(set) var childCounts: [Int32]
  /// `[capacity + 1]`: the youngest child of the root and of each node; −1 where there is none.
  private(set) var youngest: [Int32]
  /// `[capacity]` each: the next younger and the next older node of the same parent; −1 where there is none.
  private(set) var younger: [Int32]
  private(set) var older: [Int32]
  /// How many sequences stand at the node: their next full page becomes its child.
  private(set) var pins: [Int32]
  private var salts: [UInt64]
  private var hashes: [UInt64]
  /// `[capacity]`: tokens of the node's page, fewer than `pageSize` in a tail.
  private(set) var tokenCounts: [Int32]
  /// `[capacity][pageSize]`.
  private var tokens: [Int32]
  /// `[capacity][poolCount]`.
  private var pages: [Int32]

  init(capacity: Int, pageSize: Int, poolCount: Int) {
    self.capacity = capacity
    self.pageSize = pageSize
    self.poolCount = poolCount
    freeNodes = (0..<Int32(capacity)).reversed()
    parents = Array(repeating: -1, count: capacity)
    childCounts = Array(repeating: 0, count: capacity)
    youngest = Array(repeating: -1, count: capacity + 1)
    younger = Array(repeating: -1, count: capacity)
    older = Array(repeating: -1, count: capacity)
    pins = Array(repeating: 0, count: capacity)
    salts = Array(repeating: 0, count: capacity)
    hashes = Array(repeating: 0, count: capacity)
    tokenCounts = Array(repeating: 0, count: capacity)
    tokens = Array(repeating: 0, count: capacity * pageSize)
    pages = Array(repeating: -1, count: capacity * poolCount)
    children.reserveCapacity(capacity)
  }

  /// Nodes in use.
  var count: Int { capacity - freeNodes.count }
  /// Those of full pages.
  var fullCount: Int { children.count }

  // MARK: Finding

  /// The node of the page whose tokens begin at `start`, after the pages that lead to `parent`.
  func child(of parent: Int, salt: UInt64, _ sequence: [Int32], from start: Int) -> Int? {
    guard let found = children[Key(parent: Int32(parent), hash: hash(salt, sequence, from: start))] else { return nil }
    let node = Int(found)
    // Hashes only lead here: the tokens decide.
    guard salts[node] == salt else { return nil }
    for index in 0..<pageSize where tokens[node * pageSize + index] != sequence[start + index] { return nil }
    return node
  }

  /// The child whose page agrees longest with the first of these tokens, of those that `isUsable`; of equals the youngest.
  ///
  /// Looks at every child, which costs a comparison of one token for most of them.
  /// - Parameter most: tokens after which it is the same whether they agree.
  /// - Returns: the child and how many tokens agree, at most `most`; nil where no usable one agrees in its first.
  func closestChild(
    of parent: Int, salt: UInt64, _ sequence: ArraySlice<Int32>, most: Int, where isUsable: (Int) -> Bool
  ) -> (node: Int, count: Int)? {
    var best: (node: Int, count: Int)?
    var next = youngest[parent + 1]
    while next >= 0, best?.count ?? 0 < most {
      let node = Int(next)
      next = older[node]
      if salts[node] != salt { continue }
      var count = 0
      let most = min(most, Int(tokenCounts[node]))
      while count < most, tokens[node * pageSize + count] == sequence[sequence.startIndex + count] { count += 1 }
      if count > best?.count ?? 0, isUsable(node) { best = (node, count) }
    }
    return best
  }

  /// A tail beside the node whose tokens are the first of the node's; nil where there is none.
  func tail(within node: Int) -> Int? {
    var next = youngest[Int(parents[node]) + 1]
    while next >= 0 {
      let other = Int(next)
      next = older[other]
      let count = Int(tokenCounts[other])
      if other == node || count == pageSize || count > tokenCounts[node] || salts[other] != salts[node] { continue }
      if (0..<count).allSatisfy({ tokens[other * pageSize + $0] == tokens[node * pageSize + $0] }) { return other }
    }
    return nil
  }

  func page(_ node: Int, pool: Int) -> Int32 { pages[node * poolCount + pool] }

  /// Whether nothing needs the node: no page, no child, no sequence.
  func isIdle(_ node: Int) -> Bool {
    childCounts[node] == 0 && pins[node] == 0 && (0..<poolCount).allSatisfy { page(node, pool: $0) < 0 }
  }

  // MARK: Changing

  /// A new node without pages.
  /// - Returns: nil where the tree is full, or where another page of the same hash has the place.
  mutating func insert(under parent: Int, salt: UInt64, _ sequence: [Int32], from start: Int) -> Int? {
    let hash = hash(salt, sequence, from: start)
    let key = Key(parent: Int32(parent), hash: hash)
    guard children[key] == nil, let node = insert(under: parent, salt: salt, sequence, from: start, count: pageSize) else { return nil }
    children[key] = Int32(node)
    hashes[node] = hash
    return node
  }

  /// A new tail of `count` tokens, without pages.
  /// - Returns: nil where the tree is full.
  mutating func insertTail(under parent: Int, salt: UInt64, _ sequence: [Int32], from start: Int, count: Int) -> Int? {
    enforce(count > 0 && count < pageSize, "a tail of \(count) tokens, in pages of \(pageSize)")
    return insert(under: parent, salt: salt, sequence, from: start, count: count)
  }

  private mutating func insert(under parent: Int, salt: UInt64, _ sequence: [Int32], from start: Int, count: Int) -> Int? {
    guard let new = freeNodes.popLast() else { return nil }
    let node = Int(new)
    parents[node] = Int32(parent)
    salts[node] = salt
    tokenCounts[node] = Int32(count)
    for index in 0..<count { tokens[node * pageSize + index] = sequence[start + index] }
    if parent != Self.root { childCounts[parent] += 1 }
    older[node] = youngest[parent + 1]
    younger[node] = -1
    if older[node] >= 0 { younger[Int(older[node])] = new }
    youngest[parent + 1] = new
    return node
  }

  mutating func setPage(_ node: Int, pool: Int, _ page: Int32) { pages[node * poolCount + pool] = page }

  /// Takes an idle node out, and every ancestor that becomes idle by that.
  mutating func prune(_ node: Int) {
    var node = node
    while node != Self.root, isIdle(node) {
      let parent = Int(parents[node])
      if tokenCounts[node] == pageSize { children[Key(parent: parents[node], hash: hashes[node])] = nil }
      if younger[node] >= 0 { older[Int(younger[node])] = older[node] } else { youngest[parent + 1] = older[node] }
      if older[node] >= 0 { younger[Int(older[node])] = younger[node] }
      freeNodes.append(Int32(node))
      if parent != Self.root { childCounts[parent] -= 1 }
      node = parent
    }
  }

  mutating func pin(_ node: Int) { if node != Self.root { pins[node] += 1 } }

  mutating func unpin(_ node: Int) {
    if node == Self.root { return }
    pins[node] -= 1
    prune(node)
  }

  /// FNV-1a over the salt's and the tokens' words, mixed once more because it is weak in the low bits.
  private func hash(_ salt: UInt64, _ sequence: [Int32], from start: Int) -> UInt64 {
    var hash = (0xcbf2_9ce4_8422_2325 ^ salt) &* 0x100_0000_01b3
    for index in start..<start + pageSize {
      hash = (hash ^ UInt64(UInt32(bitPattern: sequence[index]))) &* 0x100_0000_01b3
    }
    return hash ^ (hash >> 32)
  }
}
