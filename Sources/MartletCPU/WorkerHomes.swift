// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Where a pool's workers run.
public enum WorkerPlacement: Sendable, Hashable {
  /// By node where the machine has several nodes and there are several workers; else as the system likes.
  case automatic
  /// As the system likes.
  case free
  /// Each of the pool's threads on the processors of one of these nodes, as many threads on each node as its share of the processors. The thread that
  /// calls ``WorkerPool/run(taskCount:_:)`` is the caller's, and stays where it is unless it asks for its place with ``WorkerPool/pinCallingThread()``.
  case nodes(NUMATopology)
}

/// Which worker is at home on which node, and what of a row of things is whose.
///
/// Workers of a node are neighbours: the first ones are at home on the first node. Weights are cut along their rows in the same shares, so that each
/// node's workers find theirs in their own memory. Who computes what changes no bit of it.
package struct WorkerHomes: Sendable {
  /// Those that have a worker.
  package let nodes: [NUMATopology.Node]
  /// The first worker of each node, and behind them the number of all workers.
  package let firstWorkers: [Int]

  /// - Returns: nil where all workers are at home in one place.
  package init?(_ placement: WorkerPlacement, threadCount: Int) {
    let topology: NUMATopology
    switch placement {
    case .free: return nil
    case .nodes(let nodes): topology = nodes
    case .automatic:
      guard threadCount > 1 else { return nil }
      topology = NUMATopology()
      guard topology.nodes.count > 1 else { return nil }
    }
    let processorCount = topology.nodes.reduce(0) { $0 + $1.processors.count }
    var nodes: [NUMATopology.Node] = [], firstWorkers = [0], processors = 0
    for node in topology.nodes {
      processors += node.processors.count
      let end = (2 * threadCount * processors + processorCount) / (2 * processorCount)
      guard end > firstWorkers.last! else { continue }
      nodes.append(node)
      firstWorkers.append(end)
    }
    self.nodes = nodes
    self.firstWorkers = firstWorkers
  }

  /// The place among ``nodes`` of a worker's.
  package func node(ofWorker worker: Int) -> Int { firstWorkers.lastIndex { $0 <= worker }! }

  /// Where the nodes' shares of `count` things begin, and behind them `count`: by their workers, in whole bunches of `bunch`.
  package func cuts(of count: Int, bunch: Int) -> [Int] {
    let bunches = (count + bunch - 1) / bunch, workers = firstWorkers.last!
    return firstWorkers.map { min(count, (2 * bunches * $0 + workers) / (2 * workers) * bunch) }
  }
}

/// Which node's the tasks of a run are: where what they read lies in one row, cut into chunks of some units, and the tasks are all chunks of the row, once
/// or, for one block of tokens after the other, several times.
package struct TaskHomes: Sendable {
  /// Where each node's units begin, and behind them their number.
  package let firstUnits: [Int]
  package let unitsPerChunk: Int
  /// Chunks of the row.
  package let chunkCount: Int

  package init(firstUnits: [Int], unitsPerChunk: Int) {
    self.firstUnits = firstUnits
    self.unitsPerChunk = unitsPerChunk
    chunkCount = (firstUnits.last! + unitsPerChunk - 1) / unitsPerChunk
  }

  /// Where each node's chunks begin: those of which most is its own.
  package func firstChunk(_ node: Int) -> Int {
    node == firstUnits.count - 1 ? chunkCount : min(chunkCount, (firstUnits[node] + unitsPerChunk / 2) / unitsPerChunk)
  }
}

/// The tasks of one run and how they are counted: each node's by themselves.
package struct TaskShares: Sendable {
  /// Where each node's chunks begin, and behind them their number.
  nonisolated(unsafe) let firstChunks: UnsafePointer<UInt32>
  /// How often the row of chunks comes.
  let rounds: UInt32

  package init(firstChunks: UnsafePointer<UInt32>, rounds: UInt32) {
    self.firstChunks = firstChunks
    self.rounds = rounds
  }

  /// The task that is a node's `index`-th; nil where it has no more.
  @inline(__always)
  package func task(_ index: UInt32, ofNode node: Int, nodeCount: Int) -> UInt32? {
    let first = firstChunks[node], width = firstChunks[node + 1] - first
    guard index < width * rounds else { return nil }
    return index / width * firstChunks[nodeCount] + first + index % width
  }
}
