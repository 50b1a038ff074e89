// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore

/// Hands out the pages of the key/value cache and takes them back; owns every layer's storage.
///
/// Layers form *pools* by (window, key/value heads, head dims, data type). A pool has its own page ids, its own share of the budget and its
/// own page tables. A sequence grows with ``extend(_:to:)``, which either finds pages in every pool or changes nothing; after a step
/// ``computed(_:upTo:)`` gives back what lies wholly behind a sliding window; ``remove(_:)`` gives back all. Where the tokens are told as
/// well (``computed(_:upTo:tokens:)``), full pages are remembered by them, and a new sequence that begins alike takes them as they are. Where it
/// parts from them inside a page, it takes a copy of that page. ``KVRetention`` says what is given up first when memory is wanted.
///
/// The manager lives inside one loop: it has no locks and is not `Sendable`. Its operations between steps allocate no memory.
public final class KVCacheManager {
  /// What the cache was asked to be.
  public let config: KVCacheConfig
  /// The most tokens of one sequence, prompt and generation together.
  public let maxSequenceLength: Int
  /// The most sequences that are in the cache at one time.
  public let maxSequences: Int
  /// The most tokens that one sequence adds in one step; nil where a prompt may come whole.
  public let maxTokensPerStep: Int?
  /// Tokens in a page.
  public let pageSize: Int
  /// What each layer asked for.
  public let layers: [KVLayerSpec]
  /// The bytes that the budget allows, as it was understood when the cache was made.
  public let budgetByteCount: Int

  /// Where pages are copied, and where kernels that read and write them must run.
  ///
  /// A copy is put on it by ``addSequence(_:tokens:salt:retention:)``, after the kernels that filled the page, and before those that write
  /// to the copy, or to the page when another sequence has it: one queue is all the order that this takes, also on a device that runs later
  /// than it is called.
  public let queue: any DeviceQueue

  let device: any Device
  /// `[layer]`: all pages of the layer.
  let storage: [Tensor]
  let poolOfLayer: [Int]
  var pools: [KVPool]
  /// Where each sequence's row in every pool's table is.
  var slots: [Int: Int] = [:]
  var freeSlots: [Int]
  /// For each slot: tokens that have pages, tokens that were computed.
  var lengths: [Int]
  var computedLengths: [Int]
  /// nil where prefixes are not reused.
  var prefixes: PrefixTree?
  /// For each slot, how far its pages are in the tree.
  var cursors: [PrefixCursor]
  /// For each slot, how long its pages are kept after it.
  var retentions: [KVRetention]
  var prefixCounts = KVCacheStatistics.Prefixes()

  /// Reserves the storage of all layers.
  /// - Parameters:
  ///   - layers: what each layer stores.
  ///   - config: how it is cached.
  ///   - maxSequenceLength: the most tokens of one sequence, prompt and generation together.
  ///   - maxSequences: the most sequences that are in the cache at one time.
  ///   - maxTokensPerStep: the most tokens that one sequence adds in one step (its largest chunk); nil where a prompt may come whole. A
  ///     sliding-window layer needs pages for its window and one chunk, so a bounded chunk is what makes windows save memory.
  ///   - device: where the pages lie.
  ///   - queue: the queue of the kernels that will read and write the pages; nil makes one, which they must take.
  /// - Throws: ``KVCacheError`` where the configuration, a limit or the budget cannot work, `DeviceError` where the memory is not available.
  public init(
    layers: [KVLayerSpec], config: KVCacheConfig, maxSequenceLength: Int, maxSequences: Int, maxTokensPerStep: Int? = nil,
    on device: any Device, queue: (any DeviceQueue)? = nil
  ) throws {
    try config.validate()
    for (limit, value) in [
      ("maxSequenceLength", maxSequenceLength), ("maxSequences", maxSequences), ("maxTokensPerStep", maxTokensPerStep ?? 1),
    ] where value < 1 {
      throw KVCacheError.invalidConfiguration(option: limit, value: "\(value)", wanted: "at least 1")
    }
    let pageSize = config.tokensPerPage(maxSequenceLength: maxSequenceLength)
    for (index, layer) in layers.enumerated() where layer.layout.pageSize != pageSize {
      throw KVCacheError.layerMismatch(
        layer: index, reason: "its layout has pages of \(layer.layout.pageSize) tokens, the configuration \(pageSize)")
    }
    let chunk = maxTokensPerStep ?? maxSequenceLength
    let demands = Self.demands(layers, maxSequenceLength: maxSequenceLength, chunk: chunk, pageSize: pageSize)
    let wanted = demands.reduce(0) { $0 + $1.bytesPerPage * $1.pagesPerSequence * maxSequences }
    let budget =
      switch config.budget {
      case .bytes(let bytes): bytes
      case .fractionOfFreeMemory(let fraction): Int(Double(device.availableByteCount) * fraction)
      case .automatic: min(wanted, Int(Double(device.availableByteCount) * KVCacheConfig.automaticFraction))
      }
    guard
      let pages = KVCacheBudget.pages(
        demands, budget: budget, maxSequenceLength: maxSequenceLength, maxSequences: maxSequences, chunk: chunk, pageSize: pageSize)
    else {
      throw KVCacheError.budgetTooSmall(
        budget: budget, needed: demands.reduce(0) { $0 + $1.bytesPerPage }, pageSize: pageSize, pools: demands.count)
    }
    var poolOfLayer = Array(repeating: 0, count: layers.count)
    for (pool, demand) in demands.enumerated() {
      for layer in demand.layers { poolOfLayer[layer] = pool }
    }
    var storage: [Tensor] = []
    for (index, layer) in layers.enumerated() {
      let elements = layer.layout.pageByteCount / layer.layout.dataType.byteCount
      storage.append(try device.makeTensor(Shape(pages[poolOfLayer[index]], elements), layer.layout.dataType))
    }
    self.config = config
    self.maxSequenceLength = maxSequenceLength
    self.maxSequences = maxSequences
    self.maxTokensPerStep = maxTokensPerStep
    self.pageSize = pageSize
    self.layers = layers
    self.device = device
    self.queue = queue ?? device.makeQueue()
    self.budgetByteCount = budget
    self.storage = storage
    self.poolOfLayer = poolOfLayer
    let maxPagesPerSequence = (maxSequenceLength + pageSize - 1) / pageSize
    pools = demands.indices.map {
      KVPool(
        demands[$0], pageCount: pages[$0], pageSize: pageSize, maxPagesPerSequence: maxPagesPerSequence, slots: maxSequences)
    }
    freeSlots = (0..<maxSequences).reversed()
    lengths = Array(repeating: 0, count: maxSequences)
    computedLengths = Array(repeating: 0, count: maxSequences)
    cursors = Array(repeating: PrefixCursor(), count: maxSequences)
    retentions = Array(repeating: config.retention, count: maxSequences)
    slots.reserveCapacity(maxSequences)
    if config.reusesPrefixes && config.pageSize != .linear {
      prefixes = PrefixTree(
        capacity: Self.prefixCapacity(pools, sequencePages: maxPagesPerSequence * maxSequences), pageSize: pageSize,
        poolCount: pools.count)
    }
  }

  /// Has the system give the memory of the pages that a first sequence of so many tokens fills, so that its first step does not wait for it. The
  /// rest of a cache is given when it is used.
  public func populate(tokens: Int) {
    for pages in storage { device.populate(pages.prefix(min(tokens / pageSize, pages.shape[0]))) }
  }

  static func demands(_ layers: [KVLayerSpec], maxSequenceLength: Int, chunk: Int, pageSize: Int) -> [KVPoolDemand] {
    var keys: [KVPool.Key] = []
    var members: [[Int]] = []
    for (index, layer) in layers.enumerated() {
      let key = KVPool.Key(layer)
      if let pool = keys.firstIndex(of: key) {
        members[pool].append(index)
      } else {
        keys.append(key)
        members.append([index])
      }
    }
    return zip(keys, members).map { key, members in
      KVPoolDemand(
        key: key, layers: members, bytesPerPage: members.reduce(0) { $0 + layers[$1].layout.pageByteCount },
        pagesPerSequence: KVCacheBudget.peakPages(
          length: maxSequenceLength, chunk: chunk, window: key.window, pageSize: pageSize))
    }
  }
}

// MARK: - Storage and pools

extension KVCacheManager {
  /// The width of a page table: pages of a sequence of the greatest length.
  public var maxPagesPerSequence: Int { (maxSequenceLength + pageSize - 1) / pageSize }
  /// Pools of layers that share page ids.
  public var poolCount: Int { pools.count }

  /// All pages of a layer, `layout.pageByteCount` apart: `[pages, elements of a page]`.
  public func pages(layer: Int) -> Tensor { storage[layer] }
  /// How the layer's pages look.
  public func layout(layer: Int) -> KVLayout { layers[layer].layout }
  /// The pool that the layer's pages come from.
  public func pool(ofLayer layer: Int) -> Int { poolOfLayer[layer] }
}
