// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Which pages hold which tokens: a tree with one node for each full page, keyed by the tokens of the page and of all pages before it.
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
  /// How many sequences stand at the node: their next full page becomes its child.
  private(set) var pins: [Int32]
  private var salts: [UInt64]
  private var hashes: [UInt64]
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
    pins = Array(repeating: 0, count: capacity)
    salts = Array(repeating: 0, count: capacity)
    hashes = Array(repeating: 0, count: capacity)
    tokens = Array(repeating: 0, count: capacity * pageSize)
    pages = Array(repeating: -1, count: capacity * poolCount)
    children.reserveCapacity(capacity)
  }

  /// Nodes in use.
  var count: Int { children.count }

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
    guard children[key] == nil, let new = freeNodes.popLast() else { return nil }
    let node = Int(new)
    children[key] = new
    parents[node] = Int32(parent)
    salts[node] = salt
    hashes[node] = hash
    for index in 0..<pageSize { tokens[node * pageSize + index] = sequence[start + index] }
    if parent != Self.root { childCounts[parent] += 1 }
    return node
  }

  mutating func setPage(_ node: Int, pool: Int, _ page: Int32) { pages[node * poolCount + pool] = page }

  /// Takes an idle node out, and every ancestor that becomes idle by that.
  mutating func prune(_ node: Int) {
    var node = node
    while node != Self.root, isIdle(node) {
      let parent = Int(parents[node])
      children[Key(parent: parents[node], hash: hashes[node])] = nil
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
