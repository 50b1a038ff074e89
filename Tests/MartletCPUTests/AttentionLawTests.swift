// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCPU
import MartletCore
import Testing

/// One arithmetic for every row: the bits of a row depend on its request's tokens up to it and on nothing else.
@Suite struct `A row of attention has the same bits` {
  /// Instruction sets × types × kinds of masks and extras; each with its own group size and head dim, so that register tiles of every
  /// height come up.
  struct Setting: CustomTestStringConvertible, Sendable {
    var instructionSet: String
    var dataType: DataType
    var mask: MaskView
    var extras = AttentionExtras()
    var shape: AttentionShape

    var testDescription: String { "\(instructionSet), \(dataType), \(mask), \(extras), \(shape)" }

    static let all: [Setting] = {
      let shapes = [
        AttentionShape(heads: 3, kvHeads: 1, dim: 64), AttentionShape(heads: 4, kvHeads: 2, dim: 40),
        AttentionShape(heads: 4, kvHeads: 1, dim: 64, valueDim: 72), AttentionShape(heads: 1, kvHeads: 1, dim: 80),
        AttentionShape(heads: 8, kvHeads: 1, dim: 64),
      ]
      var settings: [Setting] = []
      for (index, instructionSet) in runnableInstructionSets.enumerated() {
        for (place, dataType) in [DataType.f32, .f16, .bf16, .f8e4m3, .i8].enumerated() {
          for kind in [0, 1 + (index + place) % 4] {
            var setting = Setting(
              instructionSet: instructionSet, dataType: dataType, mask: .causal, shape: shapes[settings.count % shapes.count])
            if dataType == .f8e4m3 { setting.extras.scales = KVScales(key: 0.02, value: 0.3) }
            switch kind {
            case 1: setting.mask = .slidingWindow(100)
            case 2:
              setting.mask = .custom(window: 40)
              setting.extras.sinks = [Float](repeating: 0.7, count: setting.shape.heads)
              setting.extras.bits = Self.bits
            case 3:
              setting.extras.softCap = 3
              setting.extras.deferredRope = (dim: 26, isNeoX: true)
            case 4:
              setting.mask = .slidingWindow(100)
              setting.extras.sinks = [Float](repeating: -0.3, count: setting.shape.heads)
              setting.extras.roundsQueries = true
            default: break
            }
            settings.append(setting)
          }
        }
      }
      return settings
    }()

    /// Never a later key, never one of the third tile, and holes.
    static let bits: @Sendable (Int, Int, Int) -> Bool = { _, position, key in
      key <= position && key / 64 != 2 && (key * 5 + position / 7) % 9 < 6
    }
  }

  /// Two sequences whose lengths are no multiples of anything.
  private func sequences(_ setting: Setting) -> [TokenSequence] {
    var random = SeededGenerator(seed: 21)
    return [TokenSequence(597, setting.shape, &random), TokenSequence(70, setting.shape, &random)]
  }

  /// All rows, computed in one way.
  private func rows(
    _ setting: Setting, order: PageOrder = .packed, pageSize: Int = 32, threads: Int = 1, cut: WorkCut = WorkCut(),
    steps: [[StepPart]]? = nil
  ) throws -> [RowKey: RowResult] {
    let sequences = sequences(setting)
    let scene = try AttentionScene(
      instructionSet: setting.instructionSet, threads: threads, shape: setting.shape,
      layout: order.layout(setting.dataType, pageSize: pageSize, setting.shape), mask: setting.mask, extras: setting.extras,
      sequences: sequences)
    for step in steps ?? [[StepPart(request: 0, range: 0..<597), StepPart(request: 1, range: 0..<70)]] { try scene.step(step, cut: cut) }
    return scene.results
  }

  /// Both sequences in chunks of `size`, side by side.
  private func chunks(of size: Int, last: Int = 0) -> [[StepPart]] {
    var steps: [[StepPart]] = []
    for start in stride(from: 0, to: 597, by: size) {
      var step = [StepPart(request: 0, range: start..<min(start + size, 597))]
      if start < 70 { step.append(StepPart(request: 1, range: start..<min(start + size, 70))) }
      steps.append(step)
    }
    return steps
  }

  /// Fails with the first row that differs.
  private func expectSame(_ rows: [RowKey: RowResult], _ expected: [RowKey: RowResult], _ what: String) {
    #expect(rows.count == expected.count, "\(what)")
    let different = expected.filter { rows[$0.key] != $0.value }.map(\.key)
    let first = different.min { ($0.request, $0.position, $0.head) < ($1.request, $1.position, $1.head) }
    #expect(first == nil, "\(what): \(different.count) of \(expected.count) rows differ")
  }

  @Test(arguments: Setting.all) func `in any plan, alone or together, on any thread`(setting: Setting) throws {
    let expected = try rows(setting)
    expectSame(try rows(setting, cut: WorkCut(rows: 1)), expected, "one row in each task")
    expectSame(try rows(setting, cut: WorkCut(rows: 7)), expected, "seven rows in each task")
    expectSame(try rows(setting, threads: 2, cut: WorkCut(isSplit: true)), expected, "chunks merged, two threads")
    expectSame(try rows(setting, cut: WorkCut(rows: 13, isSplit: true, visitsHiddenChunks: true)), expected, "hidden chunks visited")
  }

  @Test(arguments: Setting.all) func `with pages of any size`(setting: Setting) throws {
    let expected = try rows(setting, pageSize: 16)
    for pageSize in [4, 64, 256] { expectSame(try rows(setting, pageSize: pageSize), expected, "pages of \(pageSize)") }
  }

  @Test(arguments: Setting.all) func `in any layout`(setting: Setting) throws {
    let expected = try rows(setting)
    for (order, pageSize) in [(PageOrder.nhd, 1), (.hnd, 2), (.nhd, 32), (.hnd, 597), (.crossed, 8)] {
      let steps = order == .hnd ? chunks(of: 130) : nil
      expectSame(try rows(setting, order: order, pageSize: pageSize, steps: steps), expected, "\(order) pages of \(pageSize)")
    }
  }

  /// Five requests read the same first chunks, and one more that shares only the first page.
  @Test(arguments: runnableInstructionSets, [DataType.f32, .bf16, .i8])
  func `when its chunks are read together with others`(instructionSet: String, dataType: DataType) throws {
    for mask in [MaskView.causal, .slidingWindow(700)] {
      let shape = AttentionShape(heads: 6, kvHeads: 2, dim: 64)
      var random = SeededGenerator(seed: 22)
      let prefix = TokenSequence(1100, shape, &random).fused
      let sequences = [1101, 1180, 1103, 1290, 1120].map { length in
        TokenSequence(Array((prefix + TokenSequence(length, shape, &random).fused).prefix(length * shape.fusedWidth)), of: shape)
      }
      var expected: [RowKey: RowResult] = [:]
      for (order, pageSize, rows, cascades) in [
        (PageOrder.packed, 32, 96, false), (.packed, 32, 96, true), (.hnd, 16, 7, true), (.packed, 64, 24, true),
      ] {
        let scene = try AttentionScene(
          instructionSet: instructionSet, threads: 2, shape: shape, layout: order.layout(dataType, pageSize: pageSize, shape), mask: mask,
          extras: AttentionExtras(softCap: dataType == .f32 ? 4 : nil, sinks: random.floats(0) + [1, 2, 3, 0, -1, -2]),
          sharedTokens: 1100 / pageSize * pageSize, sequences: sequences)
        let shared = scene.sharedTokens
        try scene.append([StepPart(request: 0, range: 0..<1098)])
        try scene.append((1..<5).map { StepPart(request: $0, range: shared..<sequences[$0].length - $0 * 4) })
        let parts = (0..<5).map { StepPart(request: $0, range: sequences[$0].length - max($0 * 4, 3)..<sequences[$0].length) }
        try scene.attend(parts, queries: try scene.append(parts), cut: WorkCut(rows: rows, cascades: cascades))
        #expect((scene.cascadeTaskCount > 0) == cascades)
        if cascades {
          expectSame(scene.results, expected, "\(mask), \(order) pages of \(pageSize), \(rows) rows")
        } else {
          expected = scene.results
        }
      }
    }
  }

  @Test(arguments: Setting.all) func `whole and in chunks, alone and beside others`(setting: Setting) throws {
    let expected = try rows(setting)
    for size in [16, 64, 5] { expectSame(try rows(setting, pageSize: 16, steps: chunks(of: size)), expected, "chunks of \(size)") }
    let alone = try rows(setting, steps: [[StepPart(request: 1, range: 0..<70)]])
    expectSame(alone, expected.filter { $0.key.request == 1 }, "alone")
    // A prompt, then token by token.
    var steps = [[StepPart(request: 0, range: 0..<500)]]
    for position in 500..<597 { steps.append([StepPart(request: 0, range: position..<position + 1)]) }
    let generated = try rows(setting, threads: 2, cut: WorkCut(isSplit: true), steps: steps)
    expectSame(generated, expected.filter { $0.key.request == 0 }, "token by token")
  }

  /// The append zeroes what follows the last token; attention does not even rely on that. Nor on tokens that a mask hides from every row.
  @Test(arguments: Setting.all) func `whatever lies where it does not look`(setting: Setting) throws {
    let sequences = sequences(setting)
    let scene = try AttentionScene(
      instructionSet: setting.instructionSet, shape: setting.shape,
      layout: PageOrder.packed.layout(setting.dataType, pageSize: 64, setting.shape), mask: setting.mask, extras: setting.extras,
      sequences: sequences)
    let part = [StepPart(request: 0, range: 0..<597)]
    let queries = try scene.append(part)
    try scene.attend(part, queries: queries)
    let expected = scene.results
    for position in 597..<640 { scene.poison(request: 0, position: position) }
    if scene.hasBits(0) {
      for position in 128..<192 { scene.poison(request: 0, position: position) }
    }
    try scene.attend(part, queries: queries)
    expectSame(scene.results, expected, "NaN out of sight")
    guard scene.hasBits(0) else { return }
    // Keys that only some rows see: rows before 300 see none from there on.
    for position in 300..<597 { scene.poison(request: 0, position: position) }
    try scene.attend(part, queries: queries)
    let before = { (row: (key: RowKey, value: RowResult)) in row.key.position < 300 }
    expectSame(scene.results.filter(before), expected.filter(before), "NaN among hidden tokens")
  }
}
