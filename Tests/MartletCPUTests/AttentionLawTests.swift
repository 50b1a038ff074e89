// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCPU
import MartletCore
import Testing

/// One arithmetic for every row: the bits of a row depend on its request's tokens up to it and on nothing else.
@Suite struct `A row of attention has the same bits` {
  /// Instruction sets × types × masks; each with its own group size and head dim, so that register tiles of every height come up.
  struct Setting: CustomTestStringConvertible, Sendable {
    var instructionSet: String
    var dataType: DataType
    var mask: MaskView
    var shape: AttentionShape

    var testDescription: String { "\(instructionSet), \(dataType), \(mask), \(shape)" }

    func layout(pageSize: Int) -> KVLayout {
      .packed(dataType: dataType, pageSize: pageSize, numKVHeads: shape.kvHeads, headDim: shape.dim, valueHeadDim: shape.valueDim)
    }

    static let all: [Setting] = {
      let shapes = [
        AttentionShape(heads: 3, kvHeads: 1, dim: 64), AttentionShape(heads: 4, kvHeads: 2, dim: 40),
        AttentionShape(heads: 4, kvHeads: 1, dim: 64, valueDim: 72), AttentionShape(heads: 1, kvHeads: 1, dim: 80),
        AttentionShape(heads: 8, kvHeads: 1, dim: 64),
      ]
      var settings: [Setting] = []
      for instructionSet in runnableInstructionSets {
        for dataType in [DataType.f32, .f16, .bf16] {
          for mask in [MaskView.causal, .slidingWindow(100)] {
            settings.append(
              Setting(instructionSet: instructionSet, dataType: dataType, mask: mask, shape: shapes[settings.count % shapes.count]))
          }
        }
      }
      return settings
    }()
  }

  /// Two sequences whose lengths are no multiples of anything.
  private func sequences(_ setting: Setting) -> [TokenSequence] {
    var random = SeededGenerator(seed: 21)
    return [TokenSequence(597, setting.shape, &random), TokenSequence(70, setting.shape, &random)]
  }

  /// All rows, computed in one way.
  private func rows(
    _ setting: Setting, pageSize: Int = 32, threads: Int = 1, cut: WorkCut = WorkCut(), steps: [[StepPart]]? = nil
  ) throws -> [RowKey: RowResult] {
    let sequences = sequences(setting)
    let scene = try AttentionScene(
      instructionSet: setting.instructionSet, threads: threads, shape: setting.shape, layout: setting.layout(pageSize: pageSize),
      mask: setting.mask, sequences: sequences)
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
    for pageSize in [64, 256] { expectSame(try rows(setting, pageSize: pageSize), expected, "pages of \(pageSize)") }
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

  /// The append zeroes what follows the last token; attention does not even rely on that.
  @Test(arguments: Setting.all) func `whatever lies behind the last token`(setting: Setting) throws {
    let sequences = sequences(setting)
    let scene = try AttentionScene(
      instructionSet: setting.instructionSet, shape: setting.shape, layout: setting.layout(pageSize: 64), mask: setting.mask,
      sequences: sequences)
    let part = [StepPart(request: 0, range: 0..<597)]
    let queries = try scene.append(part)
    try scene.attend(part, queries: queries)
    let expected = scene.results
    for position in 597..<640 {
      for head in 0..<setting.shape.kvHeads {
        for (isValue, dims) in [(false, setting.shape.dim), (true, setting.shape.valueDim)] {
          for dim in 0..<dims {
            let offset = scene.byteOffset(isValue: isValue, request: 0, position: position, head: head, dim: dim)
            for byte in offset..<offset + setting.dataType.byteCount { scene.bytes[byte] = 0xFF }
          }
        }
      }
    }
    try scene.attend(part, queries: queries)
    expectSame(scene.results, expected, "NaN behind the last token")
  }
}
