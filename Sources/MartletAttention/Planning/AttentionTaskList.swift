// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore

/// The tasks and merges of one plan, in host memory allocated once.
public struct AttentionTaskList: Sendable {
  /// `[taskCapacity, 8]`: the first ``taskCount`` rows are ``AttentionTask``s, longest first.
  public let tasks: HostBuffer<Int32>
  /// `[mergeCapacity, 4]`: the first ``mergeCount`` rows are ``AttentionMerge``s.
  public let merges: HostBuffer<Int32>
  /// Tasks of the plan.
  public private(set) var taskCount = 0
  /// Merges of the plan.
  public private(set) var mergeCount = 0
  /// Rows of chunk states in use.
  public private(set) var stateRows = 0

  /// Tasks in the order in which the batch gave them, with their costs.
  private let unsorted: HostBuffer<AttentionTask>
  /// Cost in the upper half, the complement of the task's index in the lower: descending keys are longest first, then first come.
  private let order: HostBuffer<UInt64>

  /// Allocates everything that plans within the capacities need.
  public init(_ planner: AttentionPlanner, on device: any Device) throws {
    tasks = try device.makeHostBuffer(of: Int32.self, count: planner.taskCapacity * 8)
    merges = try device.makeHostBuffer(of: Int32.self, count: max(planner.mergeCapacity, 1) * 4)
    unsorted = try device.makeHostBuffer(of: AttentionTask.self, count: planner.taskCapacity)
    order = try device.makeHostBuffer(of: UInt64.self, count: planner.taskCapacity)
  }

  mutating func removeAll() {
    taskCount = 0
    mergeCount = 0
    stateRows = 0
  }

  /// One task for all chunks of a block.
  mutating func addWhole(_ block: AttentionPlanner.Block, kvHead: Int) {
    add(
      AttentionTask(
        request: Int32(block.request), kvHead: Int32(kvHead), firstRow: Int32(block.firstRow), rowCount: Int32(block.rows),
        firstChunk: Int32(block.chunks.lowerBound), endChunk: Int32(block.chunks.upperBound)),
      cost: block.cost)
  }

  /// One task for each chunk of a block, and the merge of their states.
  mutating func addSplit(_ block: AttentionPlanner.Block, kvHead: Int) {
    for (index, chunk) in block.chunks.enumerated() {
      add(
        AttentionTask(
          request: Int32(block.request), kvHead: Int32(kvHead), firstRow: Int32(block.firstRow), rowCount: Int32(block.rows),
          firstChunk: Int32(chunk), endChunk: Int32(chunk + 1), merge: Int32(mergeCount),
          stateRow: Int32(stateRows + index * block.rows)),
        cost: block.cost(of: chunk..<chunk + 1))
    }
    merges[mergeCount * 4] = Int32(stateRows)
    merges[mergeCount * 4 + 1] = Int32(block.chunks.count)
    merges[mergeCount * 4 + 2] = Int32(block.rows)
    merges[mergeCount * 4 + 3] = 0
    mergeCount += 1
    stateRows += block.chunks.count * block.rows
  }

  private mutating func add(_ task: AttentionTask, cost: Int) {
    precondition(taskCount < unsorted.count, "a plan of more than \(unsorted.count) tasks")
    unsorted[taskCount] = task
    order[taskCount] = UInt64(cost) << 32 | UInt64(UInt32.max - UInt32(taskCount))
    taskCount += 1
  }

  /// Writes the tasks in descending order of cost; equal ones keep their order. A heap sort, because it needs no memory.
  mutating func sortLongestFirst() {
    let keys = order.unsafeStorage
    func sink(_ start: Int, _ count: Int) {
      var parent = start
      while true {
        var child = 2 * parent + 1
        if child >= count { return }
        if child + 1 < count && keys[child + 1] < keys[child] { child += 1 }
        if keys[parent] <= keys[child] { return }
        keys.swapAt(parent, child)
        parent = child
      }
    }
    for start in stride(from: taskCount / 2 - 1, through: 0, by: -1) { sink(start, taskCount) }
    for end in stride(from: taskCount - 1, to: 0, by: -1) {
      keys.swapAt(0, end)
      sink(0, end)
    }
    for position in 0..<taskCount {
      let task = unsorted[Int(UInt32.max - UInt32(truncatingIfNeeded: keys[position]))]
      let row = position * 8
      tasks[row] = task.request
      tasks[row + 1] = task.kvHead
      tasks[row + 2] = task.firstRow
      tasks[row + 3] = task.rowCount
      tasks[row + 4] = task.firstChunk
      tasks[row + 5] = task.endChunk
      tasks[row + 6] = task.merge
      tasks[row + 7] = task.stateRow
    }
  }

  /// Task `index`, as kernels read it.
  public func task(_ index: Int) -> AttentionTask {
    precondition(index >= 0 && index < taskCount, "task \(index) of \(taskCount)")
    func field(_ column: Int) -> Int32 { tasks[index * 8 + column] }
    return AttentionTask(
      request: field(0), kvHead: field(1), firstRow: field(2), rowCount: field(3), firstChunk: field(4), endChunk: field(5),
      merge: field(6), stateRow: field(7))
  }

  /// Merge `index`, as kernels read it.
  public func merge(_ index: Int) -> AttentionMerge {
    precondition(index >= 0 && index < mergeCount, "merge \(index) of \(mergeCount)")
    return AttentionMerge(stateRow: merges[index * 4], chunkCount: merges[index * 4 + 1], rowCount: merges[index * 4 + 2])
  }
}
