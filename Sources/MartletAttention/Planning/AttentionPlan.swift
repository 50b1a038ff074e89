// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore

/// One plan key's work on the device: planned and copied in `prepare`, read by every layer of the key.
public struct AttentionPlan: Sendable {
  /// What makes the plans, and their capacities.
  public let planner: AttentionPlanner
  private var list: AttentionTaskList
  private let tasks: Tensor  // int32 [taskCapacity, 8]
  private let segments: Tensor  // int32 [segmentCapacity, 8]
  private let merges: Tensor  // int32 [mergeCapacity, 4]
  private let states: Tensor  // float32 [stateCapacity, valueHeadDim + 2]
  private let finished: Tensor  // int32 [mergeCapacity]
  /// The work of the step that was planned last.
  public private(set) var work: AttentionWork

  /// Allocates everything that plans within the capacities need.
  public init(_ planner: AttentionPlanner, on device: any Device) throws {
    self.planner = planner
    list = try AttentionTaskList(planner, on: device)
    tasks = try device.makeTensor(Shape(planner.taskCapacity, 8), .i32)
    merges = try device.makeTensor(Shape(max(planner.mergeCapacity, 1), 4), .i32)
    states = try device.makeTensor(Shape(max(planner.stateCapacity, 1), planner.key.valueHeadDim + 2), .f32)
    finished = try device.makeTensor(Shape(max(planner.mergeCapacity, 1)), .i32)
    segments = try device.makeTensor(Shape(1, 8), .i32)
    work = AttentionWork(
      tasks: tasks.prefix(0), numTasks: 0, segments: segments, merges: merges.prefix(0), numMerges: 0, states: states, finished: finished)
  }

  /// Plans a batch and copies the plan to the device.
  public mutating func update(
    queryIndptr: HostBuffer<Int32>, kvLens: HostBuffer<Int32>, numRequests: Int, on queue: any DeviceQueue
  ) {
    planner.plan(queryIndptr: queryIndptr, kvLens: kvLens, numRequests: numRequests, into: &list)
    queue.copy(list.tasks, count: list.taskCount * 8, to: tasks)
    if list.mergeCount > 0 { queue.copy(list.merges, count: list.mergeCount * 4, to: merges) }
    work = AttentionWork(
      tasks: tasks.prefix(list.taskCount), numTasks: list.taskCount, segments: segments, merges: merges.prefix(list.mergeCount),
      numMerges: list.mergeCount,
      states: states, finished: finished)
  }
}
