// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore

/// The step as ``TrtllmAttention`` needs it: with one work plan for each distinct layer shape and mask.
public final class TrtllmMetadata: AttentionMetadata {
  private var plans: AttentionPlanTable<AttentionPlanKey>

  public required init(_ setup: Setup) throws {
    let context = setup.context
    let keys = setup.layers.flatMap { layer in
      AttentionMask.allCases.filter(setup.masks.contains).map { AttentionPlanKey(layer, mask: $0) }
    }
    plans = try AttentionPlanTable(keys, on: context.device) {
      AttentionPlanner(
        $0, maxNumRequests: setup.maxNumRequests, maxNumTokens: setup.maxNumTokens, maxSequenceLength: context.maxSequenceLength,
        workerCount: context.workerCount)
    }
    try super.init(setup)
  }

  public override class func stepLayout(for layer: AttentionLayerSpec, in context: AttentionContext) -> KVLayout? {
    layer.latentLayout(.f32, pageSize: context.stepPageSize)
      ?? .packed(
        dataType: .f32, pageSize: context.stepPageSize, numKVHeads: layer.numKVHeads, headDim: layer.headDim,
        valueHeadDim: layer.valueHeadDim)
  }

  public override func prepare() throws {
    try super.prepare()
    let batch = plannedBatch()
    plans.update(on: setup.queue) { _ in batch }
  }

  /// The plan keys of the setup's layers and masks.
  public var planKeys: [AttentionPlanKey] { plans.keys }

  /// How often a key was planned: once for each `prepare()`, however many layers share it. 0 for a key that no layer has.
  public func planCount(for key: AttentionPlanKey) -> Int { plans.planCount(key) ?? 0 }

  /// The step's work for layers of this key; nil where the setup's masks did not name it.
  func work(_ key: AttentionPlanKey) -> AttentionWork? { plans.work(key) }
}
