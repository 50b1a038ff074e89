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
  /// - Parameter states: float32 of at least ``stateElementCount(_:)`` elements to use for chunk states, which plans whose layers run one
  ///   after another may share; nil allocates them.
  /// - Throws: `DeviceError` where the memory is not available.
  public init(_ planner: AttentionPlanner, states: Tensor? = nil, on device: any Device) throws(DeviceError) {
    self.planner = planner
    list = try AttentionTaskList(planner, on: device)
    tasks = try device.makeTensor(Shape(planner.taskCapacity, 8), .i32)
    segments = try device.makeTensor(Shape(max(planner.segmentCapacity, 1), 8), .i32)
    merges = try device.makeTensor(Shape(max(planner.mergeCapacity, 1), 4), .i32)
    let stateRows = max(planner.stateCapacity, 1)
    let room = if let states { states } else { try device.makeTensor(Shape(Self.stateElementCount(planner)), .f32) }
    self.states = room.prefix(Self.stateElementCount(planner)).reshaped(Shape(stateRows, planner.key.valueHeadDim + 2))
    finished = try device.makeTensor(Shape(max(planner.mergeCapacity, 1)), .i32)
    work = AttentionWork(
      tasks: tasks.prefix(0), numTasks: 0, segments: segments.prefix(0), merges: merges.prefix(0), numMerges: 0, states: self.states,
      finished: finished)
  }

  /// Floats that the chunk states of a planner's plans take.
  public static func stateElementCount(_ planner: AttentionPlanner) -> Int {
    max(planner.stateCapacity, 1) * (planner.key.valueHeadDim + 2)
  }

  /// Plans a batch and copies the plan to the device.
  public mutating func update(_ batch: PlannedBatch, on queue: any DeviceQueue) {
    planner.plan(batch, into: &list)
    queue.copy(list.tasks, count: list.taskCount * 8, to: tasks)
    if list.segmentCount > 0 { queue.copy(list.segments, count: list.segmentCount * 8, to: segments) }
    if list.mergeCount > 0 { queue.copy(list.merges, count: list.mergeCount * 4, to: merges) }
    work = AttentionWork(
      tasks: tasks.prefix(list.taskCount), numTasks: list.taskCount, segments: segments.prefix(list.segmentCount),
      numSegments: list.segmentCount, merges: merges.prefix(list.mergeCount), numMerges: list.mergeCount, states: states,
      finished: finished)
  }
}
