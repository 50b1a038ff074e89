// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore

/// Makes the task list of one step: who computes which rows against which chunks of keys, longest first.
///
/// A request's query rows (token-major: row = token · groupSize + head of the group) are cut into blocks of at most 96, and a block visits
/// the chunks of keys that at least one of its rows can see. Where few blocks would leave workers idle, the costliest blocks are cut into
/// one task per chunk, whose states a merge folds. The plan never decides the arithmetic: chunks are absolute and fold in ascending order
/// either way. The same batch gives the same plan.
public struct AttentionPlanner: Sendable {
  /// The shape of layer that is planned for.
  public let key: AttentionPlanKey
  /// A hint: how many workers claim tasks.
  public let workerCount: Int
  /// The most tasks of a plan within the limits.
  public let taskCapacity: Int
  /// The most merges of a plan within the limits.
  public let mergeCapacity: Int
  /// Rows of scratch for chunk states.
  public let stateCapacity: Int

  /// The most rows of chunk states a plan uses; blocks beyond stay whole.
  private static let mostStates = 65536
  /// A block is cut when it is more than one part in `workers · grain` of all work: then no worker idles longer than that.
  private static let grain = 4

  /// A planner for batches within these limits.
  public init(_ key: AttentionPlanKey, maxNumRequests: Int, maxNumTokens: Int, maxSequenceLength: Int, workerCount: Int) {
    self.key = key
    self.workerCount = workerCount
    let group = key.numHeads / key.numKVHeads
    // Each request can leave its last block unfilled.
    let blocks = maxNumTokens * group / Self.rowsPerBlock(group: group) + maxNumRequests
    let maxChunks = (maxSequenceLength + AttentionWork.chunkSize - 1) / AttentionWork.chunkSize
    // Fewer than this many blocks can pass the threshold.
    mergeCapacity = workerCount > 1 && maxChunks > 1 ? workerCount * Self.grain : 0
    let blockRows = min(Self.rowsPerBlock(group: group), maxNumTokens * group)
    stateCapacity = min(mergeCapacity * maxChunks * blockRows, Self.mostStates)
    taskCapacity = blocks * key.numKVHeads + min(mergeCapacity * maxChunks, stateCapacity)
  }

  /// Rows of a full block: whole tokens where a token's group fits.
  static func rowsPerBlock(group: Int) -> Int {
    group <= AttentionTask.maxRows ? AttentionTask.maxRows / group * group : AttentionTask.maxRows
  }

  /// Writes the plan of a batch, replacing the previous one.
  /// - Parameters:
  ///   - queryIndptr: `numRequests + 1` entries.
  ///   - kvLens: `numRequests` entries, after the step's append.
  public func plan(queryIndptr: HostBuffer<Int32>, kvLens: HostBuffer<Int32>, numRequests: Int, into plan: inout AttentionTaskList) {
    var totalCost = 0
    forEachBlock(queryIndptr, kvLens, numRequests) { totalCost += $0.cost * key.numKVHeads }
    plan.removeAll()
    forEachBlock(queryIndptr, kvLens, numRequests) { block in
      let chunks = block.chunks.count
      let isCostly = chunks > 1 && block.cost * workerCount * Self.grain > totalCost
      for head in 0..<key.numKVHeads {
        if isCostly && plan.mergeCount < mergeCapacity && plan.stateRows + chunks * block.rows <= stateCapacity {
          plan.addSplit(block, kvHead: head)
        } else {
          plan.addWhole(block, kvHead: head)
        }
      }
    }
    plan.sortLongestFirst()
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

  private func forEachBlock(
    _ queryIndptr: HostBuffer<Int32>, _ kvLens: HostBuffer<Int32>, _ numRequests: Int, _ body: (Block) -> Void
  ) {
    let group = key.numHeads / key.numKVHeads
    let step = Self.rowsPerBlock(group: group)
    for request in 0..<numRequests {
      let tokens = Int(queryIndptr[request + 1] - queryIndptr[request])
      let keyLength = Int(kvLens[request])
      var row = 0
      while row < tokens * group {
        let rows = min(step, tokens * group - row)
        let firstPosition = keyLength - tokens + row / group
        let lastPosition = keyLength - tokens + (row + rows - 1) / group
        let keys: Range<Int> =
          switch key.mask {
          case .causal: 0..<lastPosition + 1
          case .slidingWindow(let window): max(0, firstPosition - window + 1)..<lastPosition + 1
          case .full, .custom: 0..<keyLength
          }
        let chunks = keys.lowerBound / AttentionWork.chunkSize..<(keys.upperBound - 1) / AttentionWork.chunkSize + 1
        body(Block(request: request, firstRow: row, rows: rows, chunks: chunks, keys: keys))
        row += rows
      }
    }
  }
}
