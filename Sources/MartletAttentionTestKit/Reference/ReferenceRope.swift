// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletLibc
package import MartletAttention

/// Rotary positions in float64, from the papers' formulas: it reads `RopeParams` and calls none of its functions.
package struct ReferenceRope: Sendable {
  let dim: Int
  let firstDim: Int
  let isNeoX: Bool
  /// Which of three positions each pair turns by: 0 time, 1 height, 2 width.
  let axes: [Int]
  /// Radians per position of each pair.
  package let frequencies: [Double]
  /// What multiplies every cosine and sine.
  package let magnitude: Double

  /// - Parameter maxSequenceLength: the engine's longest sequence, which chooses LongRoPE's list.
  package init(_ parameters: PositionalEmbeddingParams, maxSequenceLength: Int) {
    let rope = parameters.rope
    dim = rope.dim
    firstDim = parameters.firstDim
    isNeoX = parameters.isNeoX
    let d = Double(rope.dim)
    // RoFormer (arXiv 2104.09864), equation 15: θᵢ = base^(−2(i − 1)/d), i from 1.
    func plain(_ pair: Int) -> Double { exp(-2 * Double(pair) / d * log(rope.theta)) }
    let pairs = 0..<rope.dim / 2
    switch parameters.mrope {
    case nil:
      axes = pairs.map { _ in 0 }
    case let sections? where !sections.isInterleaved:
      // Qwen2-VL (arXiv 2409.12191), 2.1: time's pairs, then height's, then width's.
      axes = pairs.map { $0 < sections.pairs[0] ? 0 : $0 < sections.pairs[0] + sections.pairs[1] ? 1 : 2 }
    case let sections?:
      // Qwen3-VL: height has pairs 1, 4, 7, …, width 2, 5, 8, …, as many as theirs; time has what is left.
      let height = Set((0..<sections.pairs[1]).map { 3 * $0 + 1 }), width = Set((0..<sections.pairs[2]).map { 3 * $0 + 2 })
      axes = pairs.map { height.contains($0) ? 1 : width.contains($0) ? 2 : 0 }
    }
    var magnitude = 1.0
    var frequencies: [Double]
    switch rope.scaling {
    case .none:
      frequencies = pairs.map(plain)
    case .linear(let factor):
      // Position interpolation (arXiv 2306.15595): position p is read as p / factor.
      frequencies = pairs.map { plain($0) / factor }
    case .dynamic(let alpha):
      // A base of base·α^(d/(d − 2)) slows pair i down by α^(2i/(d − 2)): the last pair by α, the first not at all.
      frequencies = pairs.map { plain($0) * exp(-2 * Double($0) / (d - 2) * log(alpha)) }
    case .llama3(let factor, let low, let high, let original):
      frequencies = pairs.map { pair in
        let turns = Double(original) * plain(pair) / (2 * .pi)  // within the original length
        if turns > high { return plain(pair) }
        if turns < low { return plain(pair) / factor }
        let share = (turns - low) / (high - low)
        return plain(pair) * (share + (1 - share) / factor)
      }
    case .yarn(let factor, let original, let fast, let slow, let mscale, let mscaleAllDim, let truncates):
      // YaRN (arXiv 2309.00071): a ramp between the pairs that turn `fast` and `slow` times within the original length, whose numbers are
      // rounded outwards to whole pairs as its authors' program does, unless a model says otherwise.
      func pair(turns: Double) -> Double { d / 2 * log(Double(original) / (turns * 2 * .pi)) / log(rope.theta) }
      let first = max(truncates ? floor(pair(turns: fast)) : pair(turns: fast), 0)
      let last = min(truncates ? ceil(pair(turns: slow)) : pair(turns: slow), d - 1)
      frequencies = pairs.map { index in
        let ramp = last > first ? (Double(index) - first) / (last - first) : (Double(index) > first ? 1 : 0)
        let kept = 1 - min(1, max(0, ramp))
        return plain(index) * (kept + (1 - kept) / factor)
      }
      func length(_ m: Double) -> Double { factor > 1 ? 0.1 * m * log(factor) + 1 : 1 }
      magnitude = length(mscale) / length(mscaleAllDim)
    case .longRope(let short, let long, let original, let most, let attention):
      // LongRoPE (arXiv 2402.13753): a divisor for each pair; √(1 + ln(s)/ln(L)) with s = most / original, L = original.
      let divisors = maxSequenceLength > original ? long : short
      frequencies = pairs.map { plain($0) / divisors[$0] }
      let stretch = Double(most) / Double(original)
      magnitude = attention ?? (stretch > 1 ? sqrt(1 + log(stretch) / log(Double(original))) : 1)
    }
    if let divisors = rope.frequencyDivisors { frequencies = zip(frequencies, divisors).map { $0 / $1 } }
    self.frequencies = frequencies
    self.magnitude = magnitude
  }

  /// Turns the pairs of one head: multiplication by magnitude · e^(i·position·frequency).
  func rotate(_ x: UnsafeMutablePointer<Double>, position: RequestRows.Position) {
    for (pair, frequency) in frequencies.enumerated() {
      let angle = Double(position[axes[pair]]) * frequency
      let (re, im) = (magnitude * cos(angle), magnitude * sin(angle))
      let first = firstDim + (isNeoX ? pair : 2 * pair)
      let second = first + (isNeoX ? dim / 2 : 1)
      let (a, b) = (x[first], x[second])
      x[first] = a * re - b * im
      x[second] = a * im + b * re
    }
  }
}
