// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// The step as ``TrtllmAttention`` needs it: with one work plan for each distinct layer shape and mask.
public final class TrtllmMetadata: AttentionMetadata {
  private var plans: [AttentionPlan]
  private let planOfKey: [AttentionPlanKey: Int]

  public required init(_ setup: Setup) throws {
    let context = setup.context
    var plans: [AttentionPlan] = []
    var planOfKey: [AttentionPlanKey: Int] = [:]
    for layer in setup.layers {
      for mask in AttentionMask.allCases where mask != .custom && setup.masks.contains(mask) {
        let key = AttentionPlanKey(layer, mask: mask)
        if planOfKey[key] != nil { continue }
        planOfKey[key] = plans.count
        let planner = AttentionPlanner(
          key, maxNumRequests: setup.maxNumRequests, maxNumTokens: setup.maxNumTokens, maxSequenceLength: context.maxSequenceLength,
          workerCount: context.workerCount)
        plans.append(try AttentionPlan(planner, on: context.device))
      }
    }
    self.plans = plans
    self.planOfKey = planOfKey
    try super.init(setup)
  }

  public override func prepare() throws {
    try super.prepare()
    guard usesCache else {
      throw AttentionError.invalidStep("the TRTLLM backend always uses the key/value cache; choose VANILLA for steps without one")
    }
    for plan in plans.indices {
      plans[plan].update(queryIndptr: queryIndptr, kvLens: kvLens, numRequests: numSeqs, on: setup.queue)
    }
  }

  /// The step's work for layers of this key; nil where the setup's masks did not name it.
  func work(_ key: AttentionPlanKey) -> AttentionWork? { planOfKey[key].map { plans[$0].work } }
}
