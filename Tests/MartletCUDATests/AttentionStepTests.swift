// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCPU
import MartletCUDA
import MartletCore
import Testing

/// One layer's steps through the kernel table, on any device: a prompt, then tokens one by one.
private final class Layer {
  let device: any Device
  let queue: any DeviceQueue
  let layout: KVLayout
  let heads = 4
  private let pages: Tensor
  private let rope: RopeTable
  /// Pages of each request, in an order of no meaning.
  private let table: [[Int32]] = [[3, 0, 5], [1, 4, 2]]

  init(_ device: any Device, dataType: DataType) throws {
    self.device = device
    queue = device.makeQueue()
    layout = .packed(dataType: dataType, pageSize: 16, numKVHeads: 2, headDim: 64, valueHeadDim: 64)
    pages = try device.makeTensor(Shape(6, layout.pageByteCount), .i8)
    let angles = (0..<48).flatMap { position in (0..<32).map { Double(position) * 1 / Double(1 + $0) } }
    let values = angles.flatMap { [Float(cosine($0)), Float(sine($0))] }
    rope = RopeTable(dim: 64, isNeoX: true, values: try device.tensor(values, Shape(48, 32, 2)))
  }

  /// What a step's calls read and write.
  struct Step {
    let append: AppendArguments
    let attend: AttendArguments
    let fused: HostBuffer<Float>
    let output: Tensor
    let input: Tensor
  }

  /// - Parameters:
  ///   - lengths: of each request in this step.
  ///   - cached: tokens of each before it.
  func step(_ rows: [Float], lengths: [Int], cached: [Int]) throws -> Step {
    let tokens = lengths.reduce(0, +), width = (heads + 4) * 64
    func integers(_ values: [Int], _ shape: Shape) throws -> Tensor { try device.tensor(values.map(Int32.init), shape, .i32) }
    let starts = lengths.reduce(into: [0]) { $0.append($0.last! + $1) }
    let positions = zip(cached, lengths).flatMap { first, count in first..<first + count }
    let positionTensor = try integers(positions, Shape(tokens))
    let ragged = RaggedQueries(
      numRequests: lengths.count, numTokens: tokens, queryIndptr: try integers(starts, Shape(starts.count)),
      kvLens: try integers(zip(cached, lengths).map(+), Shape(lengths.count)),
      tokenRequests: try integers(lengths.indices.flatMap { [Int](repeating: $0, count: lengths[$0]) }, Shape(tokens)),
      tokenPositions: positionTensor, positionIDs: positionTensor)
    let input = try device.makeTensor(Shape(tokens, width), .f32), fused = try device.makeHostBuffer(of: Float.self, count: rows.count)
    for (index, value) in rows.enumerated() { fused[index] = value }
    let queries = try device.makeTensor(Shape(tokens, heads * 64), .f32), output = try device.makeTensor(Shape(tokens, heads * 64), .f32)
    let cache = PagedKV(layout: layout, pages: pages, pageTable: try device.tensor(table.flatMap(\.self), Shape(2, 3), .i32))
    let tasks = lengths.indices.flatMap { request in
      (0..<2).map {
        AttentionTask(
          request: Int32(request), kvHead: Int32($0), firstRow: 0, rowCount: Int32(2 * lengths[request]), firstChunk: 0, endChunk: 1)
      }
    }
    let numbers = tasks.flatMap { [$0.request, $0.kvHead, $0.firstRow, $0.rowCount, $0.firstChunk, $0.endChunk, $0.merge, $0.stateRow] }
    let work = AttentionWork(
      tasks: try device.tensor(numbers, Shape(tasks.count, 8), .i32), numTasks: tasks.count,
      segments: try device.makeTensor(Shape(1, 8), .i32),
      merges: try device.makeTensor(Shape(1, 4), .i32), numMerges: 0, states: try device.makeTensor(Shape(1, 66), .f32),
      finished: try device.makeTensor(Shape(1), .i32))
    let append = AppendArguments(
      numHeads: heads, headDim: 64, query: HeadInput(input), queries: queries, keys: HeadInput(input, column: heads * 64),
      values: HeadInput(input, column: (heads + 2) * 64), rope: rope, ragged: ragged, cache: cache)
    let attend = AttendArguments(
      numHeads: heads, queries: queries, output: output, scale: 0.125, mask: .causal, ragged: ragged, cache: cache, work: work)
    return Step(append: append, attend: attend, fused: fused, output: output, input: input)
  }

  func call(_ step: Step) {
    queue.copy(step.fused, count: step.fused.count, to: step.input)
    device.attentionKernels.append(step.append, on: queue)
    device.attentionKernels.attend(step.attend, on: queue)
  }
}

/// Of small angles Taylor's series, so that no library is needed; both devices read the same table.
private func sine(_ x: Double) -> Double { cosine(x - 1.5707963267948966) }
private func cosine(_ x: Double) -> Double {
  let turn = 6.283185307179586, reduced = x - (x / turn).rounded() * turn
  var term = 1.0, sum = 1.0
  for n in 1...16 {
    term *= -reduced * reduced / Double((2 * n - 1) * 2 * n)
    sum += term
  }
  return sum
}

@Suite("A layer's steps on a GPU")
struct AttentionStepTests {
  /// Two requests' prompts, then three tokens of each; the CPU's kernels, which have tests of their own against float64, are the truth. Both read the same
  /// stored keys and values; queries, scores and sums are float32, or as two numbers of bfloat16 as good as 16 bits of it.
  @Test("agree with the CPU's", arguments: [DataType.f32, .f16, .bf16, .f8e4m3, .i8])
  func agreement(dataType: DataType) throws {
    let cpu = try Layer(CPUDevice(instructionSet: "portable", threads: 1), dataType: dataType),
      gpu = try Layer(StandIn.device(), dataType: dataType)
    #expect(gpu.device.attentionKernels.obstacles(layout: gpu.layout, numHeads: 4) == [])
    var random = SeededGenerator(seed: 21), cached = [0, 0]
    for lengths in [[20, 33], [1, 1], [1, 1], [1, 1]] {
      let rows = random.floats(lengths.reduce(0, +) * 8 * 64)
      let outputs = try [cpu, gpu].map { layer in
        let step = try layer.step(rows, lengths: lengths, cached: cached)
        layer.call(step)
        try layer.queue.finish()
        return try layer.device.values(step.output)
      }
      let difference = zip(outputs[0], outputs[1]).reduce(Float(0)) { max($0, ($1.0 - $1.1).magnitude) }
      #expect(outputs[1].allSatisfy(\.isFinite) && difference < 1e-3, "\(lengths) behind \(cached): \(difference)")
      cached = zip(cached, lengths).map(+)
    }
  }

  @Test("that were recorded give the bits of those that were called")
  func replay() throws {
    var random = SeededGenerator(seed: 22)
    let prompt = random.floats(53 * 8 * 64), rows = random.floats(2 * 8 * 64), others = random.floats(2 * 8 * 64)
    func decode(isRecorded: Bool) throws -> [UInt32] {
      let layer = try Layer(StandIn.device(), dataType: .bf16)
      layer.call(try layer.step(prompt, lengths: [20, 33], cached: [0, 0]))
      try layer.queue.finish()
      let step = try layer.step(isRecorded ? others : rows, lengths: [1, 1], cached: [20, 33])
      if isRecorded {
        let recording = try #require(try layer.queue.record { layer.call(step) })
        layer.queue.replay(recording)
        try layer.queue.finish()
        // The same addresses with what is there now.
        for (index, value) in rows.enumerated() { step.fused[index] = value }
        layer.queue.replay(recording)
      } else {
        layer.call(step)
      }
      try layer.queue.finish()
      return try layer.device.values(step.output).map(\.bitPattern)
    }
    let called = try decode(isRecorded: false)
    #expect(Set(called).count > 100)
    #expect(try decode(isRecorded: true) == called)
  }
}
