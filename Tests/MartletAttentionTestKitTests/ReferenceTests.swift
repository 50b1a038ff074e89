// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// The truth itself, against cases that fit on a page of paper.

import Foundation
import MartletAttention
import MartletAttentionTestKit
import MartletCore
import Testing

@Suite("The float64 reference")
struct ReferenceTests {
  /// One head of two dims; scores are q·k / √2.
  private func spec(_ change: (inout AttentionLayerSpec) -> Void = { _ in }) -> AttentionLayerSpec {
    var spec = AttentionLayerSpec(layerIndex: 0, numHeads: 1, headDim: 2)
    change(&spec)
    return spec
  }

  private func layer(_ spec: AttentionLayerSpec, _ type: DataType = .f32, sinks: [Float]? = nil) -> ReferenceLayer {
    ReferenceLayer(spec, kvType: type, kvScales: spec.quantConfig?.kvScales ?? KVScales(), sinks: sinks, maxSequenceLength: 16)
  }

  private func attend(
    _ layer: ReferenceLayer, _ rows: RequestRows, query: Int = 0, _ visible: VisibleKeys
  ) -> (output: [Double], logSumExp: [Double]) {
    var output = [Double](repeating: .nan, count: layer.spec.outputWidth)
    var sums = [Double](repeating: .nan, count: layer.spec.numHeads)
    ReferenceAttention(layer, rows).attend(query: query, visible: visible, output: &output, logSumExp: &sums)
    return (output, sums)
  }

  private func isClose(_ a: Double, _ b: Double) -> Bool { abs(a - b) < 1e-12 }

  @Test("averages values under equal scores, and weighs them under others")
  func weights() {
    let equal = attend(layer(spec()), RequestRows(q: [0, 0], k: [1, 2, 3, 4], v: [1, 10, 3, 30]), VisibleKeys(0..<2))
    #expect(isClose(equal.output[0], 2) && isClose(equal.output[1], 20))
    #expect(isClose(equal.logSumExp[0], 1))
    // Scores √2·ln 3 / √2 = ln 3 and 0: weights 3/4 and 1/4.
    let q = Float(2.0.squareRoot() * log(3))
    let weighed = attend(layer(spec()), RequestRows(q: [q, 0], k: [1, 0, 0, 1], v: [4, 0, 0, 4]), VisibleKeys(0..<2))
    #expect(abs(weighed.output[0] - 3) < 1e-6 && abs(weighed.output[1] - 1) < 1e-6)
    #expect(abs(weighed.logSumExp[0] - 2) < 1e-6)
  }

  @Test("counts a sink once in the denominator, and nothing at all as zeros and −∞")
  func sinks() {
    let rows = RequestRows(q: [0, 0], k: [1, 1], v: [6, 2])
    let sunk = attend(layer(spec(), sinks: [0]), rows, VisibleKeys(0..<1))
    #expect(sunk.output == [3, 1] && sunk.logSumExp == [1])
    let blind = attend(layer(spec()), rows, VisibleKeys(0..<1, bits: [false]))
    #expect(blind.output == [0, 0] && blind.logSumExp == [-.infinity])
    let onlySink = attend(layer(spec(), sinks: [0]), rows, VisibleKeys(0..<1, bits: [false]))
    #expect(onlySink.output == [0, 0] && onlySink.logSumExp == [0])
  }

  @Test("caps scaled scores")
  func softCap() {
    let capped = attend(
      layer(
        spec {
          $0.softCap = 2; $0.scale = 1
        }), RequestRows(q: [3, 0], k: [1, 0], v: [1, 1]), VisibleKeys(0..<1))
    #expect(isClose(capped.logSumExp[0], 2 * tanh(1.5 as Double) / log(2.0)))
  }

  @Test("turns the first pair by one radian a position, NeoX pairs halves, GPT-J neighbours")
  func rotation() {
    let turned = layer(
      spec {
        $0.scale = 1; $0.positionalEmbedding = PositionalEmbeddingParams(RopeParams(dim: 2))
      })
    let rows = RequestRows(q: [0, 0, 0, 0, 0, 0, 1, 0], k: [0, 0, 1, 0], v: [1, 1, 1, 1])
    // The query at position 3, the key at position 1: two radians apart.
    let result = attend(turned, rows, query: 3, VisibleKeys(1..<2))
    #expect(abs(result.logSumExp[0] * log(2) - cos(2.0)) < 1e-6)
    for (isNeoX, partner) in [(true, 2), (false, 1)] {
      var wide = AttentionLayerSpec(layerIndex: 0, numHeads: 1, headDim: 4)
      wide.positionalEmbedding = PositionalEmbeddingParams(RopeParams(dim: 4), isNeoX: isNeoX)
      let reference = ReferenceAttention(
        layer(wide), RequestRows(q: [0, 0, 0, 0], k: [0, 0, 0, 0, 1, 0, 0, 0], v: Array(repeating: 0, count: 8)))
      var expected = [0.5403023058681398, 0, 0, 0]  // cos 1 and sin 1
      expected[partner] = 0.8414709848078965
      for dim in 0..<4 { #expect(abs(reference.storedKeys[4 + dim] - expected[dim]) < 1e-6) }
    }
  }

  @Test("normalises heads before it turns them")
  func norm() {
    var layer = layer(spec())
    layer.keyNorm = ([2, 1], 0)
    let reference = ReferenceAttention(layer, RequestRows(q: [0, 0], k: [3, 4], v: [0, 0]))
    // √((9 + 16) / 2) = 5/√2
    #expect(abs(reference.storedKeys[0] - 6 / (5 / 2.0.squareRoot())) < 1e-6)
    #expect(abs(reference.storedKeys[1] - 4 / (5 / 2.0.squareRoot())) < 1e-6)
  }

  @Test("stores what each type can hold")
  func storing() {
    func stored(_ type: DataType, _ k: [Float], scale: Float = 1) -> [Double] {
      let spec = spec { $0.quantConfig = QuantConfig(kvScales: KVScales(key: scale, value: 1)) }
      return ReferenceAttention(layer(spec, type), RequestRows(q: [0, 0], k: k, v: [0, 0])).storedKeys
    }
    // Ties go to even: 1 + 2⁻⁸ lies between 1 and 1 + 2⁻⁷; 1 + 3·2⁻⁸ between 1 + 2⁻⁷ and 1 + 2⁻⁶.
    #expect(stored(.bf16, [1 + 0x1p-8, 1 + 0x3p-8]) == [1, 1 + 0x1p-6])
    #expect(stored(.f16, [1 + 0x1p-11, 0x1p-25]) == [1, 0])
    #expect(stored(.f8e4m3, [0.3, 17]) == [0.3125, 16])
    #expect(stored(.f8e4m3, [1e4, -1e4], scale: 0.5) == [224, -224])
    #expect(stored(.f8e4m3, [.infinity, 0x1p-10]) == [448, 0])
    // 127 and −63.5, which rounds to −64.
    let codes = stored(.i8, [2, -1])
    #expect(codes[0] == 127 * Double(Float(2) / 127) && codes[1] == -64 * Double(Float(2) / 127))
    #expect(stored(.i8, [0, 0]) == [0, 0])
  }

  @Test("has its own frequencies, and they are the library's")
  func frequencies() {
    let pairs = (0..<32).map { 1 + Double($0) / 8 }
    for scaling: RopeParams.Scaling in [
      .none, .linear(factor: 3), .dynamic(alpha: 5), .llama3(factor: 8, originalMaxPositions: 256),
      .yarn(factor: 16, originalMaxPositions: 256), .yarn(factor: 40, originalMaxPositions: 4096, mscale: 0.7, mscaleAllDim: 1),
      .longRope(shortFactors: pairs, longFactors: pairs.reversed(), originalMaxPositions: 64, maxPositions: 512),
      .longRope(shortFactors: pairs, longFactors: pairs.reversed(), originalMaxPositions: 4096, maxPositions: 8192),
    ] {
      let rope = RopeParams(dim: 64, theta: 20000, scaling: scaling, frequencyDivisors: pairs)
      let mine = ReferenceRope(PositionalEmbeddingParams(rope), maxSequenceLength: 1024)
      let theirs = rope.frequencies(maxSequenceLength: 1024)
      #expect(zip(mine.frequencies, theirs).allSatisfy { abs($0 / $1 - 1) < 1e-12 }, "\(scaling)")
      #expect(abs(mine.magnitude / rope.magnitude - 1) < 1e-12, "\(scaling)")
    }
  }
}
