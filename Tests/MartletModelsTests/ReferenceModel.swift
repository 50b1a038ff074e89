// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletLibc
import MartletTestSupport

/// The independent truth: a whole sequence at once, without a cache, every number a double, written from the papers' formulas.
struct ReferenceModel {
  let model: TinyModel

  /// The logits after each token.
  func logits(_ tokens: [Int32]) -> [[Double]] {
    let embedding = matrix("token_embd.weight")
    let isGemma = model.architecture == .gemma3
    var x = tokens.map { row(embedding, Int($0)).map { $0 * (isGemma ? Double(model.hiddenSize).squareRoot() : 1) } }
    for layer in 0..<model.numLayers {
      let prefix = "blk.\(layer)"
      var added = attention(x.map { norm($0, "\(prefix).attn_norm.weight") }, layer)
      if isGemma { added = added.map { norm($0, "\(prefix).post_attention_norm.weight") } }
      x = zip(x, added).map { zip($0, $1).map(+) }

      added = x.map { feedForward(norm($0, "\(prefix).ffn_norm.weight"), prefix) }
      if isGemma { added = added.map { norm($0, "\(prefix).post_ffw_norm.weight") } }
      x = zip(x, added).map { zip($0, $1).map(+) }
    }
    let output = model.hasOutput ? matrix("output.weight") : embedding
    return x.map { product(norm($0, "output_norm.weight"), output) }
  }

  private func feedForward(_ n: [Double], _ prefix: String) -> [Double] {
    let gate = product(n, matrix("\(prefix).ffn_gate.weight"))
    let up = product(n, matrix("\(prefix).ffn_up.weight"))
    let activated = zip(gate, up).map { g, u in
      let activation =
        model.architecture == .gemma3
        ? 0.5 * g * (1 + tanh((2 / Double.pi).squareRoot() * (g + 0.044715 * g * g * g))) : g / (1 + exp(-g))
      return activation * u
    }
    return product(activated, matrix("\(prefix).ffn_down.weight"))
  }

  private func attention(_ inputs: [[Double]], _ layer: Int) -> [[Double]] {
    let prefix = "blk.\(layer)"
    let dim = model.headDim
    let isGemma = model.architecture == .gemma3
    let isGlobal = !isGemma || (layer + 1) % 6 == 0
    func heads(_ name: String, _ count: Int, norm normName: String?, rotated: Bool) -> [[[Double]]] {
      inputs.enumerated().map { position, input in
        var values = product(input, matrix("\(prefix).\(name).weight"))
        if let bias = model.vectors["\(prefix).\(name).bias"] { values = zip(values, bias).map { $0 + Double($1) } }
        return (0..<count).map { head in
          var head = Array(values[head * dim..<(head + 1) * dim])
          if model.architecture.hasHeadNorms, let normName { head = norm(head, "\(prefix).\(normName).weight") }
          return rotated ? rotate(head, position, isGlobal: isGlobal) : head
        }
      }
    }
    let q = heads("attn_q", model.numHeads, norm: "attn_q_norm", rotated: true)
    let k = heads("attn_k", model.numKVHeads, norm: "attn_k_norm", rotated: true)
    let v = heads("attn_v", model.numKVHeads, norm: nil, rotated: false)
    return inputs.indices.map { i in
      var output: [Double] = []
      for head in 0..<model.numHeads {
        let kvHead = head / (model.numHeads / model.numKVHeads)
        let visible = (0...i).filter { isGlobal || $0 > i - model.window }
        let scores = visible.map { j in zip(q[i][head], k[j][kvHead]).reduce(0) { $0 + $1.0 * $1.1 } / Double(dim).squareRoot() }
        let most = scores.max() ?? 0
        let weights = scores.map { exp($0 - most) }
        let total = weights.reduce(0, +)
        output += (0..<dim).map { d in zip(visible, weights).reduce(0) { $0 + $1.1 / total * v[$1.0][kvHead][d] } }
      }
      return product(output, matrix("\(prefix).attn_output.weight"))
    }
  }

  private func rotate(_ head: [Double], _ position: Int, isGlobal: Bool) -> [Double] {
    let dim = head.count
    let theta = isGlobal ? Double(model.ropeTheta) : 10000
    var result = head
    for pair in 0..<dim / 2 {
      var frequency = pow(theta, -2 * Double(pair) / Double(dim))
      if let divisors = model.vectors["rope_freqs.weight"] { frequency /= Double(divisors[pair]) }
      let angle = Double(position) * frequency
      let (first, second) = model.architecture.isNeoX ? (pair, pair + dim / 2) : (2 * pair, 2 * pair + 1)
      result[first] = head[first] * cos(angle) - head[second] * sin(angle)
      result[second] = head[first] * sin(angle) + head[second] * cos(angle)
    }
    return result
  }

  private func norm(_ x: [Double], _ name: String) -> [Double] {
    let weight = model.vectors[name]!
    let scale = 1 / (x.reduce(0) { $0 + $1 * $1 } / Double(x.count) + Double(model.normEpsilon)).squareRoot()
    return zip(x, weight).map { $0 * scale * Double($1) }
  }

  private func product(_ x: [Double], _ matrix: TinyModel.Matrix) -> [Double] {
    (0..<matrix.rows).map { n in
      var sum = 0.0
      for column in 0..<matrix.columns { sum += x[column] * Double(matrix.values[n * matrix.columns + column]) }
      return sum
    }
  }

  private func matrix(_ name: String) -> TinyModel.Matrix { model.matrices[name]! }
  private func row(_ matrix: TinyModel.Matrix, _ index: Int) -> [Double] {
    matrix.values[index * matrix.columns..<(index + 1) * matrix.columns].map(Double.init)
  }
}
