// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore

/// The tasks, segments and merges of one plan, in host memory allocated once.
public struct AttentionTaskList: Sendable {
  /// `[taskCapacity, 8]`: the first ``taskCount`` rows are ``AttentionTask``s, long ones first.
  public let tasks: HostBuffer<Int32>
  /// `[segmentCapacity, 8]`: the first ``segmentCount`` rows are ``AttentionSegment``s.
  public let segments: HostBuffer<Int32>
  /// `[mergeCapacity, 4]`: the first ``mergeCount`` rows are ``AttentionMerge``s.
  public let merges: HostBuffer<Int32>
  /// Tasks of the plan.
  public private(set) var taskCount = 0
  /// Segments of the plan's cascade tasks.
  public private(set) var segmentCount = 0
  /// Merges of the plan.
  public private(set) var mergeCount = 0
  /// Rows of chunk states in use.
  public private(set) var stateRows = 0

  /// Tasks in the order in which the batch gave them, with their costs.
  private let unsorted: HostBuffer<AttentionTask>
  /// From the highest bits: the cost in units of ``costStep``, the complement of the request and head whose pages the task reads, the task's
  /// index. Descending keys are long ones first; of about as long ones, those that read the same pages after one another.
  private let order: HostBuffer<UInt64>
  /// Costs that differ by less are about the same.
  private var costStep = 1
  /// Who shares what, of planners that look for it.
  let cascade: AttentionCascade
  /// Where the segments of the cascade task that is being made begin.
  private var firstSegment = 0

  /// Allocates everything that plans within the capacities need.
  /// - Throws: `DeviceError` where the memory is not available.
  public init(_ planner: AttentionPlanner, on device: any Device) throws(DeviceError) {
    enforce(planner.taskCapacity <= 1 << 24, "room for \(planner.taskCapacity) tasks, more than \(1 << 24), in one plan")
    tasks = try device.makeHostBuffer(of: Int32.self, count: planner.taskCapacity * 8)
    merges = try device.makeHostBuffer(of: Int32.self, count: max(planner.mergeCapacity, 1) * 4)
    segments = try device.makeHostBuffer(of: Int32.self, count: max(planner.segmentCapacity, 1) * 8)
    cascade = try AttentionCascade(
      pageCount: planner.cascadePageCount ?? 0, maxNumRequests: planner.cascadePageCount == nil ? 0 : planner.maxNumRequests, on: device)
    unsorted = try device.makeHostBuffer(of: AttentionTask.self, count: planner.taskCapacity)
    order = try device.makeHostBuffer(of: UInt64.self, count: planner.taskCapacity)
  }

  /// - Parameter costStep: costs that differ by less do not decide the tasks' order.
  mutating func removeAll(costStep: Int) {
    self.costStep = costStep
    taskCount = 0
    segmentCount = 0
    firstSegment = 0
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
      addChunk(chunk, of: block, kvHead: kvHead, merge: mergeCount, stateRow: stateRows + index * block.rows)
    }
    addMerge(chunks: block.chunks.count, rows: block.rows)
  }

  /// The task of one chunk of a block, whose state belongs to a merge.
  mutating func addChunk(_ chunk: Int, of block: AttentionPlanner.Block, kvHead: Int, merge: Int, stateRow: Int) {
    add(
      AttentionTask(
        request: Int32(block.request), kvHead: Int32(kvHead), firstRow: Int32(block.firstRow), rowCount: Int32(block.rows),
        firstChunk: Int32(chunk), endChunk: Int32(chunk + 1), merge: Int32(merge), stateRow: Int32(stateRow)),
      cost: block.cost(of: chunk..<chunk + 1))
  }

  /// A merge of the next states, for which it takes room.
  mutating func addMerge(chunks: Int, rows: Int) {
    merges[mergeCount * 4] = Int32(stateRows)
    merges[mergeCount * 4 + 1] = Int32(chunks)
    merges[mergeCount * 4 + 2] = Int32(rows)
    merges[mergeCount * 4 + 3] = 0
    mergeCount += 1
    stateRows += chunks * rows
  }

  /// A segment of the cascade task that ``endShared(chunk:leader:kvHead:rows:)`` will make.
  mutating func addSegment(_ segment: AttentionSegment) {
    enforce(segmentCount * 8 < segments.count, "a plan of more than \(segments.count / 8) segments")
    let row = segmentCount * 8
    segments[row] = segment.request
    segments[row + 1] = segment.firstRow
    segments[row + 2] = segment.rowCount
    segments[row + 3] = segment.merge
    segments[row + 4] = segment.stateRow
    for column in 5..<8 { segments[row + column] = 0 }
    segmentCount += 1
  }

  /// The cascade task of the segments that were added last.
  mutating func endShared(chunk: Int, leader: Int, kvHead: Int, rows: Int) {
    add(
      AttentionTask(
        request: Int32(leader), kvHead: Int32(kvHead), firstRow: Int32(firstSegment), rowCount: Int32(rows), firstChunk: Int32(chunk),
        endChunk: Int32(chunk + 1), merge: AttentionTask.cascade, stateRow: Int32(segmentCount - firstSegment)),
      cost: AttentionWork.chunkSize / AttentionWork.tileSize * (rows + 8))
    firstSegment = segmentCount
  }

  private mutating func add(_ task: AttentionTask, cost: Int) {
    enforce(taskCount < unsorted.count, "a plan of more than \(unsorted.count) tasks")
    unsorted[taskCount] = task
    let most = 1 << 20 - 1
    let place = min(Int(task.request) << 7 | Int(task.kvHead) & 127, most)
    order[taskCount] = UInt64(min(cost / costStep, most)) << 44 | UInt64(most - place) << 24 | UInt64(taskCount)
    taskCount += 1
  }

  /// Writes the tasks in the order in which workers take them. A heap sort, because it needs no memory.
  mutating func sort() {
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
      let task = unsorted[Int(keys[position] & 0xFF_FFFF)]
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
    enforce(index >= 0 && index < taskCount, "task \(index) of \(taskCount)")
    func field(_ column: Int) -> Int32 { tasks[index * 8 + column] }
    return AttentionTask(
      request: field(0), kvHead: field(1), firstRow: field(2), rowCount: field(3), firstChunk: field(4), endChunk: field(5),
      merge: field(6), stateRow: field(7))
  }

  /// Merge `index`, as kernels read it.
  public func merge(_ index: Int) -> AttentionMerge {
    enforce(index >= 0 && index < mergeCount, "merge \(index) of \(mergeCount)")
    return AttentionMerge(stateRow: merges[index * 4], chunkCount: merges[index * 4 + 1], rowCount: merges[index * 4 + 2])
  }

  /// Segment `index`, as kernels read it.
  public func segment(_ index: Int) -> AttentionSegment {
    enforce(index >= 0 && index < segmentCount, "segment \(index) of \(segmentCount)")
    func field(_ column: Int) -> Int32 { segments[index * 8 + column] }
    return AttentionSegment(request: field(0), firstRow: field(1), rowCount: field(2), merge: field(3), stateRow: field(4))
  }
}
