// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// One plan for each distinct key of a model's layers: all planned in `prepare`, once a step, and never by a layer.
struct AttentionPlanTable<Key: Hashable> {
  /// In the order of the layers that named them first.
  let keys: [Key]
  private var plans: [AttentionPlan] = []
  private var counts: [Int]
  private let indices: [Key: Int]

  /// Plans of distinct keys; equal ones share a plan.
  init(_ keys: [Key], on device: any Device, planner: (Key) -> AttentionPlanner) throws {
    var distinct: [Key] = []
    var indices: [Key: Int] = [:]
    for key in keys where indices[key] == nil {
      indices[key] = distinct.count
      distinct.append(key)
    }
    self.keys = distinct
    self.indices = indices
    counts = Array(repeating: 0, count: distinct.count)
    let planners = distinct.map(planner)
    // Layers run one after another, so all plans share the memory of chunk states.
    let states = try device.makeTensor(Shape(planners.map(AttentionPlan.stateElementCount).max() ?? 1), .f32)
    for planner in planners { plans.append(try AttentionPlan(planner, states: states, on: device)) }
  }

  /// Plans every key for a step.
  mutating func update(on queue: any DeviceQueue, batch: (Key) -> PlannedBatch) {
    for index in keys.indices {
      plans[index].update(batch(keys[index]), on: queue)
      counts[index] += 1
    }
  }

  /// The step's work for layers of this key; nil where there is no such key.
  func work(_ key: Key) -> AttentionWork? { indices[key].map { plans[$0].work } }

  /// How often the key was planned; nil where there is no such key.
  func planCount(_ key: Key) -> Int? { indices[key].map { counts[$0] } }
}
