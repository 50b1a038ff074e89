// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

extension AttentionLayerSpec {
  /// What stands in the way of any backend.
  func generalObstacles(in context: AttentionContext) -> [String] {
    var reasons: [String] = []
    if !(scale > 0 && scale.isFinite) { reasons.append("the scale of scores must be above 0, not \(scale)") }
    if let softCap, !(softCap > 0 && softCap.isFinite) {
      reasons.append("the soft cap must be above 0, not \(softCap); leave it out for none")
    }
    if let position = positionalEmbedding {
      let rope = position.rope
      if let problem = rope.problem { reasons.append(problem) }
      if rope.dim > headDim {
        reasons.append("\(rope.dim) rotated dims are more than the \(headDim) of a head")
      } else if position.firstDim < 0 || position.firstDim + rope.dim > headDim {
        reasons.append("\(rope.dim) rotated dims from \(position.firstDim) on lie outside the \(headDim) of a head")
      }
      if let problem = position.mrope?.problem(dim: rope.dim) { reasons.append(problem) }
      if position.mrope != nil && position.kind == .deferred {
        reasons.append(
          "keys that are rotated as they are read have cache positions, not those of three axes; rotate them before they are cached")
      }
    }
    let type = context.kvDataType(of: self), quantConfig = context.quantConfig(of: self)
    if type == .i32 { reasons.append("keys and values are stored as f32, f16, bf16, f8e4m3 or i8, not \(type)") }
    if quantConfig.fp8Inputs && type != .f8e4m3 {
      reasons.append(
        "FP8 inputs go with an e4m3 cache, and this one is \(type); choose f8e4m3 keys and values, or leave queries as they are")
    }
    for (name, scale) in [("keys", quantConfig.kvScales.key), ("values", quantConfig.kvScales.value)] {
      if !(scale > 0 && scale.isFinite) { reasons.append("the scale of \(name) must be above 0, not \(scale)") }
    }
    if mla != nil && quantConfig.kvScales.key != quantConfig.kvScales.value {
      reasons.append(
        "values are part of the keys here, and have their scale: \(quantConfig.kvScales.key) and \(quantConfig.kvScales.value) differ")
    }
    if let sinks, sinks.shape != Shape(numHeads) || sinks.dataType != .f32 {
      reasons.append("the sinks are \(sinks.shape) \(sinks.dataType), not one f32 for each of \(numHeads) heads")
    }
    for (name, norm) in [("query", queryNorm), ("key", keyNorm)] {
      if let weight = norm?.weight, weight.shape != Shape(headDim) || weight.dataType != .f32 {
        reasons.append("the \(name) norm's weight is \(weight.shape) \(weight.dataType), not one f32 for each of \(headDim) dims")
      }
    }
    return reasons
  }
}
