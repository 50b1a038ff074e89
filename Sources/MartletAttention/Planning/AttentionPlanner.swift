// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// Makes the task list of one step: who computes which rows against which chunks of keys, long tasks first.
///
/// A request's query rows (token-major: row = token · groupSize + head of the group) are cut into blocks of at most 96, and a block visits
/// the chunks of keys that at least one of its rows can see. Where few blocks would leave workers idle, the costliest blocks are cut into
/// one task per chunk, whose states a merge folds. Where requests share the pages of whole chunks (a common prefix), a planner that was
/// asked to reads each such chunk once for all of them: a *cascade*. The plan never decides the arithmetic: chunks are absolute and fold in
/// ascending order either way. The same batch gives the same plan.
public struct AttentionPlanner: Sendable {
  /// The shape of layer that is planned for.
  public let key: AttentionPlanKey
  /// A hint: how many workers claim tasks.
  public let workerCount: Int
  /// The pages of the pool whose shared chunks are looked for; nil where none are.
  public let cascadePageCount: Int?
  /// The most tasks of a plan within the limits.
  public let taskCapacity: Int
  /// The most segments of cascade tasks of a plan within the limits.
  public let segmentCapacity: Int
  /// The most merges of a plan within the limits.
  public let mergeCapacity: Int
  /// Rows of scratch for chunk states.
  public let stateCapacity: Int
  /// The most requests in a batch.
  let maxNumRequests: Int

  /// The most rows of chunk states a plan uses; blocks beyond stay whole.
  private static let mostStates = 65536
  /// A block is cut when it is more than one part in `workers · grain` of all work: then no worker idles longer than that.
  private static let grain = 4
  /// Of tasks whose costs differ by less than one part in `workers · orderGrain` of all work, those of the same request and head go first, so
  /// that a worker finds their pages in its second-level cache. Zen 5, a prompt of 2048 tokens, 32 heads on 8 of 128 dims, one thread: 177 ms in
  /// strict order of cost, 159 in this one with float32, 94 and 89 with bf16.
  public static let orderGrain = 32
  /// The most rows of a request that joins a cascade: a task must hold two.
  static let mostSharedRows = AttentionTask.maxRows / 2

  /// A planner for batches within these limits.
  /// - Parameter cascadePageCount: pages of the pool, where plans are to read chunks that several requests share once.
  public init(
    _ key: AttentionPlanKey, maxNumRequests: Int, maxNumTokens: Int, maxSequenceLength: Int, workerCount: Int,
    cascadePageCount: Int? = nil
  ) {
    self.key = key
    self.workerCount = workerCount
    self.maxNumRequests = maxNumRequests
    let group = key.numHeads / key.numKVHeads
    // Each request can leave its last block unfilled.
    let blocks = maxNumTokens * group / Self.rowsPerBlock(group: group) + maxNumRequests
    let maxChunks = (maxSequenceLength + AttentionWork.chunkSize - 1) / AttentionWork.chunkSize
    let canCascade = cascadePageCount != nil && maxNumRequests > 1 && maxChunks > 1 && group <= Self.mostSharedRows
    self.cascadePageCount = canCascade ? cascadePageCount : nil
    // Fewer than this many blocks can pass the threshold; each request can join cascades with one merge a head.
    mergeCapacity =
      (workerCount > 1 && maxChunks > 1 ? workerCount * Self.grain : 0) + (canCascade ? maxNumRequests * key.numKVHeads : 0)
    let blockRows = min(Self.rowsPerBlock(group: group), maxNumTokens * group)
    stateCapacity = min(mergeCapacity * maxChunks * blockRows, Self.mostStates)
    let splits = min(mergeCapacity * maxChunks, stateCapacity)
    segmentCapacity = canCascade ? splits : 0
    taskCapacity = blocks * key.numKVHeads + splits
  }

  /// Rows of a full block: whole tokens where a token's group fits.
  static func rowsPerBlock(group: Int) -> Int {
    group <= AttentionTask.maxRows ? AttentionTask.maxRows / group * group : AttentionTask.maxRows
  }

  /// Writes the plan of a batch, replacing the previous one.
  public func plan(_ batch: PlannedBatch, into plan: inout AttentionTaskList) {
    var totalCost = 0
    forEachBlock(batch) { totalCost += $0.cost * key.numKVHeads }
    plan.removeAll(costStep: max(1, totalCost / (workerCount * Self.orderGrain)))
    let cascades = cascadePageCount != nil && batch.pages != nil && findSharers(batch, &plan)
    forEachBlock(batch) { block in
      if cascades && plan.cascade.isSharer(block.request) && join(block, &plan) { return }
      let chunks = block.chunks.count
      let isCostly = chunks > 1 && block.cost * workerCount * Self.grain > totalCost
      for head in 0..<key.numKVHeads {
        if workerCount > 1 && isCostly && plan.mergeCount < mergeCapacity && plan.stateRows + chunks * block.rows <= stateCapacity {
          plan.addSplit(block, kvHead: head)
        } else {
          plan.addWhole(block, kvHead: head)
        }
      }
    }
    if cascades { addChunks(batch, &plan) }
    plan.sort()
  }

  /// A block of rows of one request, the same for each of its key/value heads.
  struct Block {
    var request: Int
    var firstRow: Int
    var rows: Int
    /// The chunks that some row sees.
    var chunks: Range<Int>
    /// The keys that some row sees.
    var keys: Range<Int>

    /// Work in units of one row against one tile; reading the tile itself costs about as much as 8 rows.
    var cost: Int { cost(of: chunks) }

    func cost(of chunks: Range<Int>) -> Int {
      let first = max(keys.lowerBound, chunks.lowerBound * AttentionWork.chunkSize) / AttentionWork.tileSize
      let end = (min(keys.upperBound, chunks.upperBound * AttentionWork.chunkSize) + AttentionWork.tileSize - 1) / AttentionWork.tileSize
      return (end - first) * (rows + 8)
    }
  }

  private func forEachBlock(_ batch: PlannedBatch, _ body: (Block) -> Void) {
    let group = key.numHeads / key.numKVHeads
    let step = Self.rowsPerBlock(group: group)
    for request in 0..<batch.numRequests where !batch.isLeftOut(request, of: key) {
      let rows = batch.queryCount(request) * group
      for row in stride(from: 0, to: rows, by: step) {
        body(block(of: request, rows: row..<min(row + step, rows), batch))
      }
    }
  }

  /// Some rows of a request, with what they see.
  func block(of request: Int, rows: Range<Int>, _ batch: PlannedBatch) -> Block {
    let group = key.numHeads / key.numKVHeads
    let keyLength = batch.keyLength(request)
    let firstPosition = keyLength - batch.queryCount(request) + rows.lowerBound / group
    let lastPosition = keyLength - batch.queryCount(request) + (rows.upperBound - 1) / group
    let keys: Range<Int> =
      switch key.mask(hasBits: batch.hasBits(request)) {
      case .causal: 0..<lastPosition + 1
      case .slidingWindow(let window): max(0, firstPosition - window + 1)..<lastPosition + 1
      case .around(let window): max(0, firstPosition - window + 1)..<min(keyLength - lastPosition, window) + lastPosition
      case .full, .custom: 0..<keyLength
      }
    let chunks = keys.lowerBound / AttentionWork.chunkSize..<(keys.upperBound - 1) / AttentionWork.chunkSize + 1
    return Block(request: request, firstRow: rows.lowerBound, rows: rows.count, chunks: chunks, keys: keys)
  }
}

extension AttentionPlanKey {
  /// The mask of one request: under the custom mask a request without bits is causal, within the window if there is one.
  func mask(hasBits: Bool) -> MaskView {
    if case .custom(let window) = mask, !hasBits { return window.map { .slidingWindow($0) } ?? .causal }
    return mask
  }
}
