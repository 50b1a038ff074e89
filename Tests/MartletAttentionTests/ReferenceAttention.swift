// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// The truth: attention in float64, written from the formulas, independent of the library's code.

import Foundation
import MartletAttention
import MartletCore

/// Attention of one request over all its positions, in float64.
struct ReferenceAttention {
  let spec: AttentionLayerSpec
  let maxSequenceLength: Int
  /// Whether (query position, key position) is visible.
  var isVisible: (Int, Int) -> Bool
  /// What finished queries are rounded to: bf16, as dot products of bf16 pairs take them, or e4m3 under FP8 inputs.
  var queryType: DataType

  init(
    _ spec: AttentionLayerSpec, maxSequenceLength: Int, queryType: DataType = .f32, isVisible: ((Int, Int) -> Bool)? = nil
  ) {
    self.queryType = queryType
    self.spec = spec
    self.maxSequenceLength = maxSequenceLength
    self.isVisible = isVisible ?? { query, key in key <= query && query - key < spec.window ?? Int.max }
  }

  func queries(id: Int, position: Int) -> [[Double]] {
    let queries = heads(id, position, first: 0, count: spec.numHeads, norm: spec.queryNorm)
    return queries.map { head in
      head.map { x in
        switch queryType {
        case .bf16: Double(Float(BFloat16(Float(x))))
        case .f8e4m3: Double(Float(Float8E4M3(saturating: Float(x))))
        default: x
        }
      }
    }
  }

  func keys(id: Int, position: Int) -> [[Double]] {
    heads(id, position, first: spec.numHeads, count: spec.numKVHeads, norm: spec.keyNorm)
  }

  func values(id: Int, position: Int) -> [[Double]] {
    let row = AttentionRuntime.row(layer: spec.layerIndex, id: id, position: position, width: spec.fusedWidth)
    let first = spec.queryWidth + spec.keyWidth
    return (0..<spec.numKVHeads).map { head in
      (0..<spec.valueHeadDim).map { Double(row[first + head * spec.valueHeadDim + $0]) }
    }
  }

  private func heads(_ id: Int, _ position: Int, first: Int, count: Int, norm: HeadNorm?) -> [[Double]] {
    let row = AttentionRuntime.row(layer: spec.layerIndex, id: id, position: position, width: spec.fusedWidth)
    return (first..<first + count).map { head in
      var x = (0..<spec.headDim).map { Double(row[head * spec.headDim + $0]) }
      if let norm {
        let weight = norm.weight.unsafeHostPointer(to: Float.self)!
        let rms = (x.reduce(0) { $0 + $1 * $1 } / Double(spec.headDim) + Double(norm.epsilon)).squareRoot()
        x = x.enumerated().map { $1 / rms * Double(weight[$0]) }
      }
      if let positional = spec.positionalEmbedding { x = rotated(x, positional, position) }
      return x
    }
  }

  /// Rotation as a product of complex numbers.
  func rotated(_ x: [Double], _ positional: PositionalEmbeddingParams, _ position: Int) -> [Double] {
    let rope = positional.rope
    let frequencies = rope.frequencies(maxSequenceLength: maxSequenceLength)
    var y = x
    for (pair, frequency) in frequencies.enumerated() {
      let (i, j) = positional.isNeoX ? (pair, pair + rope.dim / 2) : (2 * pair, 2 * pair + 1)
      let angle = Double(position) * frequency
      y[i] = rope.magnitude * (x[i] * cos(angle) - x[j] * sin(angle))
      y[j] = rope.magnitude * (x[j] * cos(angle) + x[i] * sin(angle))
    }
    return y
  }

  /// One query's output `[numHeads · valueHeadDim]` and log-sum-exp `[numHeads]`.
  /// - Parameters:
  ///   - keys: `[key position][kv head][dim]`; positions that are not visible may be empty.
  func attend(id: Int, position: Int, keys: [[[Double]]], values: [[[Double]]]) -> (output: [Double], logSumExp: [Double]) {
    let queries = queries(id: id, position: position)
    var output: [Double] = []
    var logSumExp: [Double] = []
    for head in 0..<spec.numHeads {
      let kvHead = head * spec.numKVHeads / spec.numHeads
      var logits: [(key: Int, logit: Double)] = []
      for key in keys.indices where isVisible(position, key) {
        var logit = zip(queries[head], keys[key][kvHead]).reduce(0) { $0 + $1.0 * $1.1 } * Double(spec.scale)
        if let cap = spec.softCap { logit = Double(cap) * tanh(logit / Double(cap)) }
        logits.append((key, logit))
      }
      let sink = spec.sinks.map { Double($0.unsafeHostPointer(to: Float.self)![head]) }
      let all = logits.map(\.logit) + (sink.map { [$0] } ?? [])
      guard let largest = all.max() else {
        output += Array(repeating: 0, count: spec.valueHeadDim)
        logSumExp.append(-.infinity)
        continue
      }
      let sum = all.reduce(0) { $0 + exp($1 - largest) }
      output += (0..<spec.valueHeadDim).map { dim in
        logits.reduce(0) { $0 + exp($1.logit - largest) / sum * values[$1.key][kvHead][dim] }
      }
      logSumExp.append((largest + log(sum)) / log(2))
    }
    return (output, logSumExp)
  }
}

/// The greatest |a − b|.
func distance(_ a: [Float], _ b: [Double]) -> Double {
  zip(a, b).reduce(0) { largest, pair in
    let difference = Double(pair.0) == pair.1 ? 0 : abs(Double(pair.0) - pair.1)
    return difference.isNaN ? .infinity : max(largest, difference)
  }
}
