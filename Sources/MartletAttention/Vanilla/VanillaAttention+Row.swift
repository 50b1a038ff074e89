// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletLibc
import MartletCore

extension VanillaAttention {
  /// One row: the scores of a query head, their softmax, the weighted sum of values.
  ///
  /// The head's keys and values lie in the metadata's scratch, from the request's first visible key on.
  func attend(
    _ queries: HeadRows, token: Int, head: Int, of request: Request, _ metadata: VanillaMetadata, _ output: AttentionOutput
  ) {
    let row = request.firstToken + token
    let query = queries.head(token: row, head)
    let visible = request.visible(to: token)
    let first = visible.lowerBound - request.keys.lowerBound
    let count = visible.count
    let scores = metadata.scoreScratch

    // scores[j] = Σ_d q[d] · k[j][d], d ascending
    for key in 0..<count { scores[key] = 0 }
    for dim in 0..<layer.headDim {
      let q = roundsQueries ? Float(Float8E4M3(saturating: query[dim])) : query[dim]
      let keys = metadata.keyScratch + dim * request.keys.count + first
      for key in 0..<count { scores[key] += q * keys[key] }
    }
    for key in 0..<count { scores[key] *= layer.scale }
    if let cap = layer.softCap {
      for key in 0..<count { scores[key] = cap * tanhf(scores[key] / cap) }
    }
    if let bits = request.bits {
      for key in 0..<count where !bits[token, visible.lowerBound + key] { scores[key] = -.infinity }
    }

    // The sink is one more logit, which has no value.
    let sink = layer.sinks?.unsafeHostPointer(to: Float.self)?[head] ?? -.infinity
    var maximum = sink
    for key in 0..<count where scores[key] > maximum || scores[key].isNaN { maximum = scores[key] }  // NaN stays
    let result = outputRow(output.values, row, head)
    for dim in 0..<layer.valueHeadDim { result[dim] = 0 }
    var sum: Float = 0
    if maximum != -.infinity {
      for key in 0..<count {
        let weight = expf(scores[key] - maximum)
        scores[key] = weight
        sum += weight
      }
      sum += expf(sink - maximum)
      // result = Σ_j weight[j] · v[j] / sum, j ascending; hidden keys are not read
      for key in 0..<count where scores[key] != 0 {
        let weight = scores[key]
        let value = metadata.valueScratch + (first + key) * layer.valueHeadDim
        for dim in 0..<layer.valueHeadDim { result[dim] += weight * value[dim] }
      }
      for dim in 0..<layer.valueHeadDim { result[dim] /= sum }
    }
    if let logSumExp = output.logSumExp?.unsafeHostPointer(to: Float.self) {
      let log2e = 1.442695040888963407
      logSumExp[row * layer.numHeads + head] =
        maximum != -.infinity ? Float(Double(maximum) * log2e + log2(Double(sum))) : -.infinity
    }
  }

  private func outputRow(_ output: Tensor, _ row: Int, _ head: Int) -> UnsafeMutablePointer<Float> {
    guard let base = output.unsafeHostPointer(to: Float.self)?.baseAddress else {
      fatalError("the host cannot reach the output")
    }
    return base + row * layer.outputWidth + head * layer.valueHeadDim
  }
}
