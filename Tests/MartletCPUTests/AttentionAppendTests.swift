// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletCPU
import MartletCore
import Testing

@Suite struct `The append of keys and values` {
  enum Order: CaseIterable, Sendable { case packed, nhd, hnd, crossed }

  /// The layouts that have names, and one that has none: dims outermost, pairs along the other axis than where the packed layout has them.
  static func layout(_ order: Order, _ type: DataType, pageSize: Int, _ shape: AttentionShape) -> KVLayout {
    let (heads, dim, valueDim) = (shape.kvHeads, shape.dim, shape.valueDim)
    switch order {
    case .packed: return .packed(dataType: type, pageSize: pageSize, numKVHeads: heads, headDim: dim, valueHeadDim: valueDim)
    case .nhd: return .nhd(dataType: type, pageSize: pageSize, numKVHeads: heads, headDim: dim, valueHeadDim: valueDim)
    case .hnd: return .hnd(dataType: type, pageSize: pageSize, numKVHeads: heads, headDim: dim, valueHeadDim: valueDim)
    case .crossed:
      return KVLayout(
        dataType: type, pageSize: pageSize, numKVHeads: heads, headDim: dim, valueHeadDim: valueDim,
        keys: .init(headStride: 4, tokenStride: 4 * heads, dimStride: heads * pageSize, tokenGroup: 4),
        values: .init(headStride: 4, tokenStride: 4 * heads, dimStride: 4 * heads * pageSize, dimGroup: 4))
    }
  }

  static func bits(_ value: Float, _ type: DataType) -> UInt32 {
    switch type {
    case .f16: UInt32(value.halfBits)
    case .bf16: UInt32(BFloat16(value).bitPattern)
    default: value.bitPattern
    }
  }

  static func value(_ bits: UInt32, _ type: DataType) -> Double {
    switch type {
    case .f16: Double(Float(halfBits: UInt16(bits)))
    case .bf16: Double(Float(BFloat16(bitPattern: UInt16(bits))))
    default: Double(Float(bitPattern: bits))
    }
  }

  @Test(arguments: runnableInstructionSets, [DataType.f32, .f16, .bf16])
  func `stores each element rounded once, zeroes the rest of the last page, and touches nothing else`(
    instructionSet: String, dataType: DataType
  ) throws {
    var random = SeededGenerator(seed: 31)
    for order in Order.allCases {
      let shape = AttentionShape(heads: 4, kvHeads: 2, dim: 64, valueDim: order == .crossed ? 64 : 40)
      // Lengths that end on a page, in a pair, between pairs; values up to where f16 overflows.
      let lengths = [48, 33, 150, 1]
      let sequences = lengths.map { length in
        var fused = TokenSequence(length, shape, &random).fused
        let factors: [Float] = [1e5, 1e-6, -3e4, 65519, 1e-9]
        for index in stride(from: 0, to: fused.count, by: 37) { fused[index] *= factors.randomElement(using: &random)! }
        return TokenSequence(fused, of: shape)
      }
      for threads in [1, 2] {
        let layout = Self.layout(order, dataType, pageSize: 16, shape)
        let scene = try AttentionScene(
          instructionSet: instructionSet, threads: threads, shape: shape, layout: layout, mask: .causal, sequences: sequences)
        // The truth, by the layout's own arithmetic, written beside it.
        var expected = [UInt8](repeating: 0xFF, count: scene.bytes.count)
        let steps = [[0..<5, 0..<33, 0..<47, 0..<1], [5..<6, nil, 47..<48, nil], [6..<48, nil, 48..<150, nil]]
        for step in steps {
          let parts = step.enumerated().compactMap { request, range in range.map { StepPart(request: request, range: $0) } }
          let queries = try scene.append(parts)
          var row = 0
          for part in parts {
            let pageEnd = (part.range.upperBound + 15) / 16 * 16
            for position in part.range.lowerBound..<pageEnd {
              let isToken = part.range.contains(position)
              for head in 0..<shape.kvHeads {
                for (isValue, dims) in [(false, shape.dim), (true, shape.valueDim)] {
                  for dim in 0..<dims {
                    let start = isValue ? shape.queryWidth + shape.kvHeads * shape.dim : shape.queryWidth
                    let place = position * shape.fusedWidth + start + head * dims + dim
                    let bits = isToken ? Self.bits(sequences[part.request].fused[place], dataType) : 0
                    let offset = scene.byteOffset(isValue: isValue, request: part.request, position: position, head: head, dim: dim)
                    for byte in 0..<dataType.byteCount { expected[offset + byte] = UInt8(truncatingIfNeeded: bits >> (8 * UInt32(byte))) }
                  }
                }
              }
            }
            for position in part.range {
              let source = position * shape.fusedWidth
              #expect(
                queries.floats[row * shape.queryWidth..<(row + 1) * shape.queryWidth]
                  == sequences[part.request].fused[source..<source + shape.queryWidth], "queries pass")
              row += 1
            }
          }
          #expect(scene.bytes.elementsEqual(expected), "\(order), \(threads) threads")
        }
      }
    }
  }

  struct Turn: CustomTestStringConvertible, Sendable {
    var isNeoX: Bool
    var dim: Int
    var hasNorm: Bool
    var testDescription: String { "\(isNeoX ? "NeoX" : "GPT-J"), \(dim) of 80 dims\(hasNorm ? ", normalised" : "")" }
  }
  static let turns = [
    Turn(isNeoX: true, dim: 80, hasNorm: false), Turn(isNeoX: false, dim: 80, hasNorm: false), Turn(isNeoX: true, dim: 26, hasNorm: false),
    Turn(isNeoX: false, dim: 26, hasNorm: false), Turn(isNeoX: true, dim: 80, hasNorm: true), Turn(isNeoX: false, dim: 48, hasNorm: true),
  ]

  /// Without a norm the rotation is two products and one sum, each rounded once, so that every bit is known. With it the bound is one step
  /// of the cache's type, plus float32's own: the norm carries some 4 roundings, and where the rotation cancels they stay.
  @Test(arguments: runnableInstructionSets, turns)
  func `normalises and rotates queries and keys, never values`(instructionSet: String, turn: Turn) throws {
    let shape = AttentionShape(heads: 4, kvHeads: 2, dim: 80, valueDim: 24), epsilon: Float = 1e-6
    for dataType in [DataType.f32, .f16, .bf16] {
      var random = SeededGenerator(seed: 41)
      let sequence = TokenSequence(37, shape, &random)
      let scene = try AttentionScene(
        instructionSet: instructionSet, shape: shape, layout: Self.layout(.packed, dataType, pageSize: 16, shape), mask: .causal,
        sequences: [sequence])
      let weights = [random.floats(80), random.floats(80)]
      var angles: [Float] = []
      for position in 0..<40 {
        for pair in 0..<turn.dim / 2 {
          let angle = Double(position) * pow(10000, -2 * Double(pair) / Double(turn.dim))
          angles += [Float(cos(angle)), Float(sin(angle))]
        }
      }
      let rope = RopeTable(
        dim: turn.dim, isNeoX: turn.isNeoX, values: try scene.device.tensor(angles, Shape(40, turn.dim / 2, 2)))
      let norms = try weights.map { turn.hasNorm ? HeadNorm(weight: try scene.device.tensor($0, Shape(80)), epsilon: epsilon) : nil }
      let queries = try scene.append([StepPart(request: 0, range: 0..<37)], queryNorm: norms[0], keyNorm: norms[1], rope: rope).floats

      for position in 0..<37 {
        for head in 0..<shape.heads + shape.kvHeads {
          let isKey = head >= shape.heads
          let start = position * shape.fusedWidth + head * 80
          let x = Array(sequence.fused[start..<start + 80])
          let finished = (0..<80).map { dim in
            isKey
              ? scene.stored(isValue: false, request: 0, position: position, head: head - shape.heads, dim: dim)
              : queries[position * shape.queryWidth + head * 80 + dim].bitPattern
          }
          let type = isKey ? dataType : .f32
          var exact = x, truth = x.map(Double.init)
          if turn.hasNorm {
            let scale = 1 / (truth.reduce(0) { $0 + $1 * $1 } / 80 + Double(epsilon)).squareRoot()
            for dim in 0..<80 { truth[dim] *= scale * Double(weights[isKey ? 1 : 0][dim]) }
          }
          var sizes = truth.map { abs($0) }
          for pair in 0..<turn.dim / 2 {
            let first = turn.isNeoX ? pair : 2 * pair, second = turn.isNeoX ? pair + turn.dim / 2 : 2 * pair + 1
            let cosine = angles[(position * turn.dim / 2 + pair) * 2], sine = angles[(position * turn.dim / 2 + pair) * 2 + 1]
            let products = (exact[first] * cosine, exact[second] * sine, exact[second] * cosine, exact[first] * sine)
            (exact[first], exact[second]) = (products.0 - products.1, products.2 + products.3)
            let (t1, t2, c, s) = (truth[first], truth[second], Double(cosine), Double(sine))
            (truth[first], truth[second]) = (t1 * c - t2 * s, t2 * c + t1 * s)
            sizes[first] = abs(t1 * c) + abs(t2 * s)
            sizes[second] = abs(t2 * c) + abs(t1 * s)
          }
          if !turn.hasNorm {
            #expect(finished == exact.map { Self.bits($0, type) }, "\(dataType), position \(position), head \(head)")
            continue
          }
          let relativeStep: Double = type == .f32 ? 0x1p-23 : type == .f16 ? 0x1p-10 : 0x1p-7
          let smallestStep: Double = type == .f16 ? 0x1p-24 : 0
          for dim in 0..<80 {
            let error = abs(Self.value(finished[dim], type) - truth[dim])
            let bound = max(relativeStep * abs(truth[dim]), smallestStep) + 8 * 0x1p-24 * sizes[dim]
            #expect(error <= bound, "\(dataType), position \(position), head \(head), dim \(dim)")
          }
        }
        for head in 0..<shape.kvHeads {
          let start = position * shape.fusedWidth + shape.queryWidth + shape.kvHeads * 80 + head * 24
          for dim in 0..<24 {
            let bits = scene.stored(isValue: true, request: 0, position: position, head: head, dim: dim)
            #expect(bits == Self.bits(sequence.fused[start + dim], dataType))
          }
        }
      }
    }
  }

  @Test func `refuses a token whose page is not there`() async {
    await #expect(processExitsWith: .failure) {
      let shape = AttentionShape(heads: 1, kvHeads: 1, dim: 64)
      var random = SeededGenerator(seed: 51)
      let scene = try AttentionScene(
        instructionSet: "portable", shape: shape,
        layout: .packed(dataType: .f32, pageSize: 16, numKVHeads: 1, headDim: 64, valueHeadDim: 64), mask: .causal,
        sequences: [TokenSequence(20, shape, &random)])
      scene.table(0)[1] = -1
      try scene.append([StepPart(request: 0, range: 0..<20)])
    }
  }
}
