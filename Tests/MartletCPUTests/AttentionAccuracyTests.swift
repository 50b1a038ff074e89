// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletKernels
import Foundation
import MartletCPU
import MartletCore
import Testing

func exponential(_ x: Double) -> Double { exp(x) }
func logarithm(_ x: Double) -> Double { log(x) }
func hyperbolicTangent(_ x: Double) -> Double { tanh(x) }
func power(_ x: Double, _ y: Double) -> Double { pow(x, y) }
func sineAndCosine(_ x: Double) -> (Double, Double) { (sin(x), cos(x)) }

/// One point of the grid: drawn, so that each value of each axis meets many of the others.
struct AttentionCase: CustomTestStringConvertible, Sendable {
  var instructionSet: String
  var dataType: DataType
  var shape: AttentionShape
  var order: PageOrder
  var pageSize: Int
  var mask: MaskView
  var extras: AttentionExtras
  /// For each request, tokens cached before the step and tokens in it.
  var requests: [(cached: Int, new: Int)]
  var cut: WorkCut
  var seed: UInt64

  var testDescription: String {
    "\(instructionSet), \(dataType), \(shape), \(order) pages of \(pageSize), \(mask), \(extras), "
      + "\(requests.map { "\($0.cached)+\($0.new)" }), blocks of \(cut.rows)\(cut.isSplit ? ", split" : ""), seed \(seed)"
  }

  /// Every instruction set × type × head dim, the rest drawn without repetition until an axis is used up.
  static let grid: [AttentionCase] = {
    var random = SeededGenerator(seed: 7)
    var groups = Deck([1, 3, 4, 8]), pages = Deck([4, 8, 16, 32, 64, 128]), cuts = Deck([false, true])
    var orders = Deck([PageOrder.packed, .packed, .nhd, .hnd, .crossed])
    var masks = Deck([
      MaskView.causal, .slidingWindow(17), .slidingWindow(100), .full, .around(70), .custom(window: nil), .custom(window: 50),
    ])
    var caps = Deck([nil, nil, Float(30), 2]), sinks = Deck([false, true]), ropes = Deck([0, 0, 0, 1, 2]),
      rounding = Deck([false, false, true])
    var rows = Deck([96, 24, 7])
    var batches = Deck([
      [(0, 1), (0, 63), (0, 65), (0, 513)],  // contexts
      [(64, 65), (511, 2), (513, 100)],  // chunks over cached prefixes
      [(0, 1), (62, 1), (512, 1), (1099, 1)],  // generations
      [(0, 511), (63, 30), (600, 3), (1023, 1), (0, 1)],  // all of these, and drafts
    ])
    var cases: [AttentionCase] = []
    for instructionSet in runnableInstructionSets {
      for dataType in [DataType.f32, .f16, .bf16, .f8e4m3, .i8] {
        for dim in [64, 80, 128, 256, 40] {
          let group = groups.draw(&random), kvHeads = group == 8 ? 1 : 2
          let shape = AttentionShape(heads: group * kvHeads, kvHeads: kvHeads, dim: dim, valueDim: dim == 80 ? 72 : dim)
          var extras = AttentionExtras(softCap: caps.draw(&random), roundsQueries: dataType == .f8e4m3 && rounding.draw(&random))
          if dataType == .f8e4m3 { extras.scales = KVScales(key: 0.013, value: 0.24) }
          if sinks.draw(&random) { extras.sinks = random.floats(shape.heads, scale: 3) }
          let rope = ropes.draw(&random)
          if rope > 0 { extras.deferredRope = (dim: rope == 1 ? dim : dim / 4 * 2 - 6, isNeoX: rope == 1) }
          // Holes, whole tiles among them; keys that come later are seen too; now and then a query that sees nothing.
          extras.bits = { _, position, key in position % 13 != 4 && key / 64 % 4 != 1 && (key * 5 + position * 3) % 11 < 7 }
          cases.append(
            AttentionCase(
              instructionSet: instructionSet, dataType: dataType, shape: shape, order: orders.draw(&random),
              pageSize: pages.draw(&random), mask: masks.draw(&random), extras: extras, requests: batches.draw(&random),
              cut: WorkCut(rows: rows.draw(&random), isSplit: cuts.draw(&random)), seed: random.next()))
        }
      }
    }
    return cases
  }()

  func layout() -> KVLayout { order.layout(dataType, pageSize: pageSize, shape) }
}

/// Cards drawn without repetition; shuffled anew when none is left.
private struct Deck<Card> {
  private let cards: [Card]
  private var left: [Card] = []

  init(_ cards: [Card]) { self.cards = cards }

  mutating func draw(_ random: inout SeededGenerator) -> Card {
    if left.isEmpty { left = cards.shuffled(using: &random) }
    return left.removeLast()
  }
}

@Suite struct `Attention kernels agree with float64` {
  /// Pages of every type are widened exactly and multiplied in float32, where a chain of n products errs by some √n · 2⁻²⁴. Products of
  /// bf16 pairs round each probability by up to 2⁻⁹ = 2e-3; the reference has the queries rounded, but not keys that are rotated as they are
  /// read.
  @Test(arguments: AttentionCase.grid)
  func `in every phase, type, layout and mask`(point: AttentionCase) throws {
    var random = SeededGenerator(seed: point.seed)
    let sequences = point.requests.map { TokenSequence($0.cached + $0.new, point.shape, &random) }
    let scene = try AttentionScene(
      instructionSet: point.instructionSet, shape: point.shape, layout: point.layout(), mask: point.mask, extras: point.extras,
      sequences: sequences)
    let cached = point.requests.indices.filter { point.requests[$0].cached > 0 }
    if !cached.isEmpty { try scene.append(cached.map { StepPart(request: $0, range: 0..<point.requests[$0].cached) }) }
    try scene.step(
      point.requests.indices.map { StepPart(request: $0, range: point.requests[$0].cached..<sequences[$0].length) }, cut: point.cut)

    var positions: [(request: Int, position: Int, count: Int)] = []
    for (request, sizes) in point.requests.enumerated() {
      // The first, the last, and some between, borders of tiles and chunks among them.
      let range = sizes.cached..<sequences[request].length
      let chosen = [range.lowerBound, range.upperBound - 1, 63, 64, 511, 512, range.randomElement(using: &random)!]
      for position in Set(chosen) where range.contains(position) { positions.append((request, position, range.upperBound)) }
    }
    let errors = try scene.errors(positions: positions)
    #expect(errors.output <= (scene.usesPairDots ? 1e-2 : 1e-5), "output")
    #expect(errors.logSumExp <= (scene.usesPairDots ? 1e-2 : 1e-5), "log-sum-exp")
  }

  /// Keys that grow make the maximum rise in every tile, by less and by more than what is followed lazily.
  @Test(arguments: runnableInstructionSets, [DataType.f32, .bf16])
  func `when the maximum rises again and again`(instructionSet: String, dataType: DataType) throws {
    let shape = AttentionShape(heads: 3, kvHeads: 1, dim: 64)
    var random = SeededGenerator(seed: 11)
    let plain = TokenSequence(700, shape, &random)
    var fused = plain.fused
    for position in 0..<700 {
      for index in 0..<shape.fusedWidth {
        // Queries of ones: a score is the sum of the key's dims, which a bias raises with the position.
        let place = position * shape.fusedWidth + index
        if index < shape.queryWidth { fused[place] = 1 } else if index < shape.queryWidth + 64 { fused[place] += Float(position) / 70 }
      }
    }
    let scene = try AttentionScene(
      instructionSet: instructionSet, shape: shape,
      layout: .packed(dataType: dataType, pageSize: 32, numKVHeads: 1, headDim: 64, valueHeadDim: 64), mask: .causal,
      sequences: [TokenSequence(fused, of: shape)])
    try scene.step([StepPart(request: 0, range: 0..<700)])
    let errors = try scene.errors(positions: [0, 1, 63, 64, 200, 511, 512, 699].map { (0, $0, 700) })
    // Scores up to 115 carry a step of 2⁻¹⁸ into the exponent.
    #expect(errors.output <= (scene.usesPairDots ? 2e-2 : 1e-4))
    #expect(errors.logSumExp <= (scene.usesPairDots ? 1e-2 : 1e-4))
  }

  @Test(arguments: runnableInstructionSets) func `and give 0 and −∞ to a query that sees no key`(instructionSet: String) throws {
    let shape = AttentionShape(heads: 2, kvHeads: 1, dim: 64)
    var random = SeededGenerator(seed: 12)
    let scene = try AttentionScene(
      instructionSet: instructionSet, shape: shape,
      layout: .packed(dataType: .bf16, pageSize: 16, numKVHeads: 1, headDim: 64, valueHeadDim: 64), mask: .causal,
      sequences: [TokenSequence(3, shape, &random)])
    try scene.append([StepPart(request: 0, range: 0..<3)])
    // Five queries right-aligned to three keys: positions −2 … 2.
    let queries = try scene.device.tensor(random.floats(5 * shape.queryWidth), Shape(5, shape.queryWidth))
    for isSplit in [false, true] {
      try scene.attend([StepPart(request: 0, range: -2..<3)], queries: queries, cut: WorkCut(isSplit: isSplit))
      for head in 0..<2 {
        for position in -2..<3 {
          let result = try #require(scene.results[RowKey(request: 0, position: position, head: head)])
          #expect(result.output.allSatisfy { $0 == 0 } == (position < 0))
          #expect((Float(bitPattern: result.logSumExp) == -.infinity) == (position < 0))
        }
      }
    }
  }

  @Test(arguments: runnableInstructionSets, [DataType.f32, .f16, .bf16])
  func `and show a NaN to the rows that see it, and to no others`(instructionSet: String, dataType: DataType) throws {
    let shape = AttentionShape(heads: 3, kvHeads: 1, dim: 64)
    var random = SeededGenerator(seed: 13)
    for place in [shape.queryWidth + 5, shape.queryWidth + 64 + 5] {  // a key, a value
      var fused = TokenSequence(80, shape, &random).fused
      fused[41 * shape.fusedWidth + place] = .nan
      let scene = try AttentionScene(
        instructionSet: instructionSet, shape: shape,
        layout: .packed(dataType: dataType, pageSize: 16, numKVHeads: 1, headDim: 64, valueHeadDim: 64), mask: .causal,
        sequences: [TokenSequence(fused, of: shape)])
      try scene.step([StepPart(request: 0, range: 0..<80)])
      for (key, result) in scene.results {
        #expect(result.output.contains { Float(bitPattern: $0).isNaN } == (key.position >= 41), "position \(key.position)")
      }
    }
  }

  @Test(arguments: runnableInstructionSets) func `and give a sink alone its own log-sum-exp`(instructionSet: String) throws {
    let shape = AttentionShape(heads: 2, kvHeads: 1, dim: 64)
    var random = SeededGenerator(seed: 14)
    let scene = try AttentionScene(
      instructionSet: instructionSet, shape: shape, layout: PageOrder.packed.layout(.f32, pageSize: 16, shape), mask: .causal,
      extras: AttentionExtras(sinks: [1.5, -.infinity]), sequences: [TokenSequence(3, shape, &random)])
    try scene.append([StepPart(request: 0, range: 0..<3)])
    let queries = try scene.device.tensor(random.floats(4 * shape.queryWidth), Shape(4, shape.queryWidth))
    try scene.attend([StepPart(request: 0, range: -1..<3)], queries: queries)
    let results = try (0..<2).map { try #require(scene.results[RowKey(request: 0, position: -1, head: $0)]) }
    #expect(results.allSatisfy { $0.output.allSatisfy { $0 == 0 } })
    #expect(results.map { Float(bitPattern: $0.logSumExp) } == [Float(1.5 * 1.4426950408889634), -.infinity])
  }

  /// 1e4 is stored as 448 · scale, and a mean of equal values is that value; its roundings are those of the probabilities' sum.
  @Test(arguments: runnableInstructionSets) func `and saturate e4m3 at 448 times its scale`(instructionSet: String) throws {
    let shape = AttentionShape(heads: 1, kvHeads: 1, dim: 64)
    let fused = (0..<40).flatMap { position in
      (0..<192).map { place in place < 64 ? Float(0.01) : place % 2 == 0 ? 1e4 : -1e4 }
    }
    for order in [PageOrder.packed, .hnd] {
      let scene = try AttentionScene(
        instructionSet: instructionSet, shape: shape, layout: order.layout(.f8e4m3, pageSize: 16, shape), mask: .causal,
        extras: AttentionExtras(scales: KVScales(key: 2, value: 0.5)), sequences: [TokenSequence(fused, of: shape)])
      try scene.step([StepPart(request: 0, range: 0..<40)])
      for result in scene.results.values {
        for (dim, bits) in result.output.enumerated() {
          #expect(abs(Float(bitPattern: bits) - (dim % 2 == 0 ? 224 : -224)) <= 224 * 0x1p-20)
        }
      }
    }
  }

  @Test(arguments: runnableInstructionSets) func `and round output to e4m3 as Float8E4M3 does`(instructionSet: String) throws {
    for (valueDim, scale) in [(64, Float(1)), (40, 300)] {
      let shape = AttentionShape(heads: 3, kvHeads: 1, dim: 64, valueDim: valueDim)
      func results(_ outputScale: Float?, _ cut: WorkCut) throws -> [RowKey: RowResult] {
        var random = SeededGenerator(seed: 15)
        let scene = try AttentionScene(
          instructionSet: instructionSet, shape: shape, layout: PageOrder.packed.layout(.f8e4m3, pageSize: 16, shape), mask: .causal,
          extras: AttentionExtras(roundsQueries: true, outputScale: outputScale), sequences: [TokenSequence(600, shape, &random)])
        try scene.append([StepPart(request: 0, range: 0..<550)])
        try scene.step([StepPart(request: 0, range: 550..<600)], cut: cut)
        return scene.results
      }
      let plain = try results(nil, WorkCut())
      for cut in [WorkCut(), WorkCut(isSplit: true)] {
        for (key, result) in try results(scale, cut) {
          let expected = try #require(plain[key]).output.map { bits in
            UInt32(Float8E4M3(saturating: Float(bitPattern: bits) * scale).bitPattern)
          }
          #expect(result.output == expected)
        }
      }
    }
  }
}

@Suite struct `Attention kernels say what they cannot do` {
  @Test func `for each shape and layout, in words`() throws {
    let kernels = try CPUDevice(instructionSet: "portable", threads: 1).attentionKernels
    func packed(_ type: DataType = .bf16, page: Int = 32, dim: Int = 64, valueDim: Int = 64) -> KVLayout {
      .packed(dataType: type, pageSize: page, numKVHeads: 2, headDim: dim, valueHeadDim: valueDim)
    }
    for layout in [
      packed(), packed(.f32), packed(.f16, page: 16), packed(page: 1024), packed(dim: 576, valueDim: 8), packed(page: 48), packed(page: 2),
      packed(.f8e4m3), packed(.i8),
      .nhd(dataType: .i8, pageSize: 1, numKVHeads: 2, headDim: 64, valueHeadDim: 64),
      .hnd(dataType: .f32, pageSize: 33, numKVHeads: 2, headDim: 64, valueHeadDim: 64),
      .latent(dataType: .i8, pageSize: 64, headDim: 576, valueHeadDim: 512),
    ] {
      #expect(kernels.obstacles(layout: layout, numHeads: 6).isEmpty)
    }
    let astray = KVLayout(
      dataType: .f32, pageSize: 16, numKVHeads: 2, headDim: 64, valueHeadDim: 64,
      keys: .init(headStride: 64, tokenStride: 129, dimStride: 1), values: .init(headStride: 64, tokenStride: 128, dimStride: 1))
    for (layout, heads, word) in [
      (packed(), 3, "evenly"), (packed(.i32), 2, "i32"), (packed(dim: 36), 2, "36"), (packed(valueDim: 584), 2, "584"),
      (.hnd(dataType: .f32, pageSize: 33, numKVHeads: 2, headDim: 63, valueHeadDim: 64), 2, "63"),
      (.nhd(dataType: .bf16, pageSize: 0, numKVHeads: 2, headDim: 64, valueHeadDim: 64), 2, "1 to"), (astray, 2, "strides"),
    ] {
      let reasons = kernels.obstacles(layout: layout, numHeads: heads)
      #expect(reasons.contains { $0.contains(word) }, "\(word): \(reasons)")
    }
  }

  /// Arguments of one request of 600 tokens, of which 3 ask; sound until something is broken.
  private static func arguments(_ scene: AttentionScene) throws -> AttendArguments {
    let part = [StepPart(request: 0, range: 597..<600)]
    let ragged = try scene.ragged(part), device = scene.device
    return AttendArguments(
      numHeads: 1, queries: try device.makeTensor(Shape(3, 64), .f32), output: try device.makeTensor(Shape(3, 64), .f32), scale: 1,
      mask: .causal, ragged: ragged, cache: try scene.stepCache(part), work: try scene.plan(part, WorkCut(cascades: true)))
  }
  private static func scene() throws -> AttentionScene {
    let shape = AttentionShape(heads: 1, kvHeads: 1, dim: 64)
    var random = SeededGenerator(seed: 61)
    let scene = try AttentionScene(
      instructionSet: "portable", shape: shape, layout: PageOrder.hnd.layout(.i8, pageSize: 8, shape), mask: .causal, sharedTokens: 600,
      sequences: [TokenSequence(600, shape, &random)])
    try scene.append([StepPart(request: 0, range: 0..<600)])
    return scene
  }

  @Test func `and stop at numbers that lead astray, but not without them`() async throws {
    let scene = try Self.scene()
    let sound = try Self.arguments(scene)
    #expect(scene.cascadeTaskCount == 1)
    scene.device.attentionKernels.attend(sound, on: scene.device.makeQueue())
    // Words for 3 queries of 600 keys are 60.
    await #expect(processExitsWith: .failure) {
      let scene = try Self.scene()
      var arguments = try Self.arguments(scene)
      arguments.mask = .custom(window: nil)
      arguments.maskBits = MaskBits(
        words: try scene.device.makeTensor(Shape(59), .i32), offsets: try scene.device.tensor([Int32(0)], Shape(1), .i32))
      scene.device.attentionKernels.attend(arguments, on: scene.device.makeQueue())
    }
    // Under this window the rows of the cascade do not see all of the first chunk.
    await #expect(processExitsWith: .failure) {
      let scene = try Self.scene()
      var arguments = try Self.arguments(scene)
      arguments.mask = .slidingWindow(100)
      scene.device.attentionKernels.attend(arguments, on: scene.device.makeQueue())
    }
    await #expect(processExitsWith: .failure) {
      let scene = try Self.scene()
      var arguments = try Self.arguments(scene)
      arguments.keyRope = RopeTable(dim: 64, isNeoX: true, values: try scene.device.makeTensor(Shape(599, 32, 2), .f32))
      scene.device.attentionKernels.attend(arguments, on: scene.device.makeQueue())
    }
    await #expect(processExitsWith: .failure) {
      let scene = try Self.scene()
      let arguments = try Self.arguments(scene)
      arguments.work.segments.unsafeHostPointer(to: Int32.self)![3] = 7  // no such merge
      scene.device.attentionKernels.attend(arguments, on: scene.device.makeQueue())
    }
  }

  @Test func `and read tasks and merges as Core lays them out`() {
    let task = AttentionTask(
      request: 1, kvHead: 2, firstRow: 3, rowCount: 4, firstChunk: 5, endChunk: 6, merge: 7, stateRow: 8)
    let c = unsafeBitCast(task, to: martlet_attention_task.self)
    #expect([c.request, c.kv_head, c.first_row, c.row_count, c.first_chunk, c.end_chunk, c.merge, c.state_row] == Array(1...8))
    let segment = unsafeBitCast(
      AttentionSegment(request: 1, firstRow: 2, rowCount: 3, merge: 4, stateRow: 5), to: martlet_attention_segment.self)
    #expect([segment.request, segment.first_row, segment.row_count, segment.merge, segment.state_row] == Array(1...5))
    #expect(AttentionTask.cascade == Int32(martlet_attention_cascade))
    let merge = unsafeBitCast(AttentionMerge(stateRow: 1, chunkCount: 2, rowCount: 3), to: martlet_attention_merge.self)
    #expect([merge.state_row, merge.chunk_count, merge.row_count] == [1, 2, 3])
    #expect(Int(martlet_kv_chunk_size) == AttentionWork.chunkSize)
    #expect(Int(martlet_kv_tile_size) == AttentionWork.tileSize)
    #expect(Int(martlet_attention_max_rows) == AttentionTask.maxRows)
  }
}
