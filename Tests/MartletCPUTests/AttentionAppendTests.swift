// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletCPU
import MartletCore
import Testing

@Suite struct `The append of keys and values` {
  static func bits(_ value: Float, _ type: DataType) -> UInt32 {
    switch type {
    case .f16: UInt32(value.halfBits)
    case .bf16: UInt32(BFloat16(value).bitPattern)
    default: value.bitPattern
    }
  }

  /// A whole head, quantised where the type asks for it.
  static func bits(_ head: [Float], _ type: DataType, scale: Float) -> [UInt32] {
    switch type {
    case .f8e4m3: head.map { UInt32(Float8E4M3(saturating: $0 * (1 / scale)).bitPattern) }
    case .i8: AttentionScene.int8(head).codes.map { UInt32(UInt8(bitPattern: $0)) }
    default: head.map { bits($0, type) }
    }
  }

  static func value(_ bits: UInt32, _ type: DataType) -> Double {
    switch type {
    case .f16: Double(Float(halfBits: UInt16(bits)))
    case .bf16: Double(Float(BFloat16(bitPattern: UInt16(bits))))
    default: Double(Float(bitPattern: bits))
    }
  }

  @Test(arguments: runnableInstructionSets, [DataType.f32, .f16, .bf16, .f8e4m3, .i8])
  func `stores each element rounded once, zeroes the rest of the last page, and touches nothing else`(
    instructionSet: String, dataType: DataType
  ) throws {
    var random = SeededGenerator(seed: 31)
    for order in PageOrder.allCases {
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
        let layout = order.layout(dataType, pageSize: 16, shape)
        let scales = dataType == .f8e4m3 ? KVScales(key: 37.3, value: 0.011) : KVScales()
        let scene = try AttentionScene(
          instructionSet: instructionSet, threads: threads, shape: shape, layout: layout, mask: .causal,
          extras: AttentionExtras(scales: scales), sequences: sequences)
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
                  let first = (isValue ? shape.queryWidth + shape.kvHeads * shape.dim : shape.queryWidth) + head * dims
                  let stored: [UInt32]
                  if isToken {
                    let place = position * shape.fusedWidth + first
                    let x = Array(sequences[part.request].fused[place..<place + dims])
                    stored = Self.bits(x, dataType, scale: isValue ? scales.value : scales.key)
                    if dataType == .i8 {
                      let offset = scene.scaleByteOffset(isValue: isValue, request: part.request, position: position, head: head)
                      withUnsafeBytes(of: AttentionScene.int8(x).scale) { expected.replaceSubrange(offset..<offset + 4, with: $0) }
                    }
                  } else {
                    stored = [UInt32](repeating: 0, count: dims)
                    if dataType == .i8 {
                      let offset = scene.scaleByteOffset(isValue: isValue, request: part.request, position: position, head: head)
                      for byte in offset..<offset + 4 { expected[byte] = 0 }
                    }
                  }
                  for dim in 0..<dims {
                    let bits = stored[dim]
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
        instructionSet: instructionSet, shape: shape, layout: PageOrder.packed.layout(dataType, pageSize: 16, shape), mask: .causal,
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

  /// e4m3 rounds as `Float8E4M3` does; int8 of a head that is not finite stays visible as a scale that is NaN.
  @Test(arguments: runnableInstructionSets) func `quantises the edges of its types`(instructionSet: String) throws {
    let shape = AttentionShape(heads: 1, kvHeads: 1, dim: 64)
    // Around every e4m3 value and every middle between two, and what lies beyond them.
    var edges: [Float] = [0, -0, .infinity, -.infinity, .nan, 1e4, -1e4, 1e-30, 464, 463.9, 448, 449]
    for code in UInt8(0)..<0x7E {
      let value = Float(Float8E4M3(bitPattern: code)), next = Float(Float8E4M3(bitPattern: code + 1))
      for x in [value, (value + next) / 2] { edges += [x, x.nextUp, -x.nextDown, -x] }
    }
    edges += [Float](repeating: 1, count: (64 - edges.count % 64) % 64)
    var fused: [Float] = []
    for start in stride(from: 0, to: edges.count, by: 64) {
      let head = Array(edges[start..<start + 64])
      fused += [Float](repeating: 1, count: 64)
      fused += head + head
    }
    let sequence = TokenSequence(fused, of: shape)
    for dataType in [DataType.f8e4m3, .i8] {
      let scene = try AttentionScene(
        instructionSet: instructionSet, shape: shape, layout: PageOrder.packed.layout(dataType, pageSize: 16, shape), mask: .causal,
        sequences: [sequence])
      try scene.append([StepPart(request: 0, range: 0..<sequence.length)])
      for position in 0..<sequence.length {
        let head = Array(edges[position * 64..<(position + 1) * 64])
        let isFinite = head.allSatisfy(\.isFinite)
        if dataType == .i8 {
          let offset = scene.scaleByteOffset(isValue: true, request: 0, position: position, head: 0)
          let scale = scene.bytes.load(fromByteOffset: offset, as: Float.self)
          #expect(isFinite ? scale == AttentionScene.int8(head).scale : scale.isNaN)
        }
        let stored = (0..<64).map { scene.stored(isValue: true, request: 0, position: position, head: 0, dim: $0) }
        let expected = dataType == .i8 && !isFinite ? [UInt32](repeating: 0, count: 64) : Self.bits(head, dataType, scale: 1)
        #expect(stored == expected, "\(dataType), position \(position)")
      }
    }
  }

  @Test(arguments: runnableInstructionSets) func `leaves dummies out, and finishes queries or keys alone`(instructionSet: String) throws {
    let shape = AttentionShape(heads: 2, kvHeads: 1, dim: 64)
    var random = SeededGenerator(seed: 53)
    let sequence = TokenSequence(3, shape, &random)
    let scene = try AttentionScene(
      instructionSet: instructionSet, shape: shape, layout: PageOrder.packed.layout(.bf16, pageSize: 16, shape), mask: .causal,
      sequences: [sequence, sequence])
    let whole = try scene.append([StepPart(request: 0, range: 0..<3)]).floats
    let pages = Array(scene.bytes)
    for byte in scene.bytes.indices { scene.bytes[byte] = 0xFF }

    // The same request before a dummy of one token, whose position, position id and page are nonsense.
    let device = scene.device
    func ints(_ values: [Int32]) throws -> Tensor { try device.tensor(values, Shape(values.count), .i32) }
    let ragged = RaggedQueries(
      numRequests: 2, numTokens: 4, queryIndptr: try ints([0, 3, 4]), kvLens: try ints([3, 0]), tokenRequests: try ints([0, 0, 0, 1]),
      tokenPositions: try ints([0, 1, 2, -1]), positionIDs: try ints([0, 1, 2, -7]))
    let rows = try device.tensor(sequence.fused + [Float](repeating: .nan, count: shape.fusedWidth), Shape(4, shape.fusedWidth))
    let queries = try device.makeTensor(Shape(4, shape.queryWidth), .f32)
    queries.unsafeHostPointer(to: Float.self)!.update(repeating: 12345)
    let table = try device.tensor([scene.table(0)[0], -1], Shape(2, 1), .i32)
    var arguments = AppendArguments(
      numHeads: 2, headDim: 64, query: HeadInput(rows), queries: queries, ragged: ragged)
    device.attentionKernels.append(arguments, on: device.makeQueue())
    #expect(queries.floats == whole + [Float](repeating: 12345, count: shape.queryWidth))
    #expect(scene.bytes.allSatisfy { $0 == 0xFF }, "queries alone")
    arguments.query = nil
    arguments.queries = nil
    arguments.keys = HeadInput(rows, column: shape.queryWidth)
    arguments.values = HeadInput(rows, column: shape.queryWidth + 64)
    arguments.cache = PagedKV(layout: scene.layout, pages: scene.cache.pages, pageTable: table)
    device.attentionKernels.append(arguments, on: device.makeQueue())
    #expect(scene.bytes.elementsEqual(pages), "keys and values alone")
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
