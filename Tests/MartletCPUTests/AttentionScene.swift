// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// A stage for the attention kernels: requests with known queries, keys and values, run through pages in any sequence of steps.

import MartletCPU
import MartletCore
import Testing

/// Heads and their dims.
struct AttentionShape: Sendable, CustomStringConvertible {
  var heads: Int
  var kvHeads: Int
  var dim: Int
  var valueDim: Int

  init(heads: Int, kvHeads: Int, dim: Int, valueDim: Int? = nil) {
    (self.heads, self.kvHeads, self.dim, self.valueDim) = (heads, kvHeads, dim, valueDim ?? dim)
  }

  var group: Int { heads / kvHeads }
  var queryWidth: Int { heads * dim }
  var fusedWidth: Int { queryWidth + kvHeads * (dim + valueDim) }
  var description: String { "\(heads)/\(kvHeads) heads of \(dim)/\(valueDim)" }
}

/// What a request would compute, whoever computes it: one fused row for each position.
struct TokenSequence {
  let length: Int
  let fused: [Float]

  init(_ length: Int, _ shape: AttentionShape, _ random: inout SeededGenerator) {
    self.length = length
    fused = random.floats(length * shape.fusedWidth)
  }

  init(_ fused: [Float], of shape: AttentionShape) {
    length = fused.count / shape.fusedWidth
    self.fused = fused
  }
}

/// The tokens of one request in one step: positions `range`, of which those before were appended by earlier steps.
struct StepPart: Sendable {
  var request: Int
  var range: Range<Int>
}

/// How a test cuts the work.
struct WorkCut: Sendable {
  var rows = AttentionTask.maxRows
  /// One task for each chunk, and merges.
  var isSplit = false
  /// Visits chunks that no row sees, too.
  var visitsHiddenChunks = false
}

/// One row of one head, as bits: what must not depend on anything but the request.
struct RowKey: Hashable {
  var request: Int
  var position: Int
  var head: Int
}
struct RowResult: Equatable {
  var output: [UInt32]
  var logSumExp: UInt32
}

/// Poisoned pages, a shuffled page table, and the steps that run through them.
final class AttentionScene {
  let device: CPUDevice
  let shape: AttentionShape
  let layout: KVLayout
  let mask: MaskView
  let scale: Float
  let sequences: [TokenSequence]
  let cache: PagedKV
  private(set) var results: [RowKey: RowResult] = [:]

  init(
    instructionSet: String, threads: Int = 1, shape: AttentionShape, layout: KVLayout, mask: MaskView, scale: Float? = nil,
    sequences: [TokenSequence]
  ) throws {
    device = try CPUDevice(instructionSet: instructionSet, threads: threads)
    (self.shape, self.layout, self.mask, self.sequences) = (shape, layout, mask, sequences)
    self.scale = scale ?? 1 / Float(shape.dim).squareRoot()
    let width = sequences.map { ($0.length + layout.pageSize - 1) / layout.pageSize }.max()! + 1
    var random = SeededGenerator(seed: 99)
    let pageCount = width * sequences.count + 1
    let order = (0..<pageCount).shuffled(using: &random)
    var table: [Int32] = []
    for (request, sequence) in sequences.enumerated() {
      for page in 0..<width { table.append(page * layout.pageSize < sequence.length ? Int32(order[request * width + page]) : -1) }
    }
    let pages = try device.makeTensor(Shape(pageCount * layout.pageByteCount / layout.dataType.byteCount), layout.dataType)
    cache = PagedKV(layout: layout, pages: pages, pageTable: try device.tensor(table, Shape(sequences.count, width), .i32))
    for byte in bytes.indices { bytes[byte] = 0xFF }  // NaN in every type
  }

  var bytes: UnsafeMutableRawBufferPointer {
    UnsafeMutableRawBufferPointer(start: cache.pages.buffer.hostAddress! + cache.pages.byteOffset, count: cache.pages.byteCount)
  }

  /// The page table of a request, for reading and writing.
  func table(_ request: Int) -> UnsafeMutableBufferPointer<Int32> {
    let width = cache.pageTable.shape[1]
    let all = cache.pageTable.unsafeHostPointer(to: Int32.self)!
    return UnsafeMutableBufferPointer(rebasing: all[request * width..<(request + 1) * width])
  }

  /// Where an element lies in `bytes`.
  func byteOffset(isValue: Bool, request: Int, position: Int, head: Int, dim: Int) -> Int {
    let plane = isValue ? layout.values : layout.keys
    return Int(table(request)[position / layout.pageSize]) * layout.pageByteCount + (isValue ? layout.valuesByteOffset : 0)
      + plane.offset(token: position % layout.pageSize, head: head, dim: dim) * layout.dataType.byteCount
  }

  /// The bits of an element.
  func stored(isValue: Bool, request: Int, position: Int, head: Int, dim: Int) -> UInt32 {
    let offset = byteOffset(isValue: isValue, request: request, position: position, head: head, dim: dim)
    return layout.dataType.byteCount == 4
      ? bytes.load(fromByteOffset: offset, as: UInt32.self) : UInt32(bytes.load(fromByteOffset: offset, as: UInt16.self))
  }

  /// Gives back the pages behind every window to come, poisoned.
  func freePages(before parts: [StepPart]) {
    guard case .slidingWindow(let window) = mask else { return }
    for part in parts {
      let table = table(part.request)
      for entry in table.indices where (entry + 1) * layout.pageSize <= part.range.lowerBound - window + 1 && table[entry] >= 0 {
        let start = Int(table[entry]) * layout.pageByteCount
        for byte in start..<start + layout.pageByteCount { bytes[byte] = 0xFF }
        table[entry] = -1
      }
    }
  }

  func ragged(_ parts: [StepPart]) throws -> RaggedQueries {
    var indptr: [Int32] = [0], requests: [Int32] = [], positions: [Int32] = []
    for (index, part) in parts.enumerated() {
      indptr.append(indptr.last! + Int32(part.range.count))
      for position in part.range {
        requests.append(Int32(index))
        positions.append(Int32(position))
      }
    }
    let positionTensor = try device.tensor(positions, Shape(positions.count), .i32)
    return RaggedQueries(
      numRequests: parts.count, numTokens: positions.count, queryIndptr: try device.tensor(indptr, Shape(indptr.count), .i32),
      kvLens: try device.tensor(parts.map { Int32($0.range.upperBound) }, Shape(parts.count), .i32),
      tokenRequests: try device.tensor(requests, Shape(requests.count), .i32), tokenPositions: positionTensor,
      positionIDs: positionTensor)
  }

  /// The page tables of a step's requests, in the step's order.
  func stepCache(_ parts: [StepPart]) throws -> PagedKV {
    let rows = parts.flatMap { Array(table($0.request)) }
    return PagedKV(
      layout: layout, pages: cache.pages, pageTable: try device.tensor(rows, Shape(parts.count, cache.pageTable.shape[1]), .i32))
  }

  /// Appends a step's tokens; returns their queries.
  @discardableResult
  func append(
    _ parts: [StepPart], queryNorm: HeadNorm? = nil, keyNorm: HeadNorm? = nil, rope: RopeTable? = nil
  ) throws -> Tensor {
    let ragged = try ragged(parts)
    let width = shape.fusedWidth
    let fused = parts.flatMap { sequences[$0.request].fused[$0.range.lowerBound * width..<$0.range.upperBound * width] }
    let queries = try device.makeTensor(Shape(ragged.numTokens, shape.queryWidth), .f32)
    let rows = try device.tensor(fused, Shape(ragged.numTokens, shape.fusedWidth))
    device.attentionKernels.append(
      AppendArguments(
        numHeads: shape.heads, headDim: shape.dim, query: HeadInput(rows), queries: queries,
        keys: HeadInput(rows, column: shape.queryWidth),
        values: HeadInput(rows, column: shape.queryWidth + layout.numKVHeads * shape.dim), queryNorm: queryNorm, keyNorm: keyNorm,
        rope: rope, ragged: ragged, cache: try stepCache(parts)),
      on: device.makeQueue())
    return queries
  }

  /// Attends from a step's queries and keeps the results by row.
  func attend(_ parts: [StepPart], queries: Tensor, cut: WorkCut = WorkCut()) throws {
    let ragged = try ragged(parts)
    let work = try plan(parts, cut)
    let output = try device.makeTensor(Shape(ragged.numTokens, shape.heads * shape.valueDim), .f32)
    let logSumExp = try device.makeTensor(Shape(ragged.numTokens, shape.heads), .f32)
    // Rows that nobody writes would show.
    for tensor in [output, logSumExp] { tensor.unsafeHostPointer(to: Float.self)!.update(repeating: 12345) }
    device.attentionKernels.attend(
      AttendArguments(
        numHeads: shape.heads, queries: queries, output: output, logSumExp: logSumExp, scale: scale, mask: mask, ragged: ragged,
        cache: try stepCache(parts), work: work),
      on: device.makeQueue())
    #expect(work.finished.unsafeHostPointer(to: Int32.self)!.allSatisfy { $0 == 0 }, "counters are zero again")
    let values = output.floats, sums = logSumExp.floats
    var row = 0
    for part in parts {
      for position in part.range {
        for head in 0..<shape.heads {
          let start = (row * shape.heads + head) * shape.valueDim
          results[RowKey(request: part.request, position: position, head: head)] = RowResult(
            output: values[start..<start + shape.valueDim].map(\.bitPattern), logSumExp: sums[row * shape.heads + head].bitPattern)
        }
        row += 1
      }
    }
  }

  /// Frees, appends, attends.
  func step(_ parts: [StepPart], cut: WorkCut = WorkCut()) throws {
    freePages(before: parts)
    try attend(parts, queries: try append(parts), cut: cut)
  }

  /// The keys that a query sees.
  func keys(seenFrom position: Int, of count: Int) -> Range<Int> {
    switch mask {
    case .causal: 0..<max(position + 1, 0)
    case .slidingWindow(let window): max(0, position - window + 1)..<max(position + 1, 0)
    case .full, .custom: 0..<count
    }
  }

  /// A plan as simple as can be: blocks of rows, in order.
  func plan(_ parts: [StepPart], _ cut: WorkCut) throws -> AttentionWork {
    var tasks: [AttentionTask] = [], merges: [AttentionMerge] = [], states = 0
    for (index, part) in parts.enumerated() {
      let rows = part.range.count * shape.group
      for kvHead in 0..<shape.kvHeads {
        for first in stride(from: 0, to: rows, by: cut.rows) {
          let count = min(cut.rows, rows - first)
          let firstSeen = keys(seenFrom: part.range.lowerBound + first / shape.group, of: part.range.upperBound)
          let lastSeen = keys(seenFrom: part.range.lowerBound + (first + count - 1) / shape.group, of: part.range.upperBound)
          let firstChunk = cut.visitsHiddenChunks ? 0 : firstSeen.lowerBound / AttentionWork.chunkSize
          let endChunk = max(firstChunk, (max(lastSeen.upperBound, 1) - 1) / AttentionWork.chunkSize) + 1
          var task = AttentionTask(
            request: Int32(index), kvHead: Int32(kvHead), firstRow: Int32(first), rowCount: Int32(count), firstChunk: Int32(firstChunk),
            endChunk: Int32(endChunk))
          guard cut.isSplit else {
            tasks.append(task)
            continue
          }
          task.merge = Int32(merges.count)
          merges.append(
            AttentionMerge(stateRow: Int32(states), chunkCount: Int32(endChunk - firstChunk), rowCount: Int32(count)))
          for chunk in firstChunk..<endChunk {
            (task.firstChunk, task.endChunk, task.stateRow) = (Int32(chunk), Int32(chunk + 1), Int32(states))
            tasks.append(task)
            states += count
          }
        }
      }
    }
    let taskRows = tasks.flatMap {
      [$0.request, $0.kvHead, $0.firstRow, $0.rowCount, $0.firstChunk, $0.endChunk, $0.merge, $0.stateRow]
    }
    let mergeRows = merges.flatMap { [$0.stateRow, $0.chunkCount, $0.rowCount, $0.reserved] }
    return AttentionWork(
      tasks: try device.tensor(taskRows, Shape(tasks.count, 8), .i32), numTasks: tasks.count,
      segments: try device.makeTensor(Shape(1, 8), .i32), merges: try device.tensor(mergeRows, Shape(merges.count, 4), .i32),
      numMerges: merges.count,
      states: try device.makeTensor(Shape(states, shape.valueDim + 2), .f32), finished: try device.makeTensor(Shape(merges.count), .i32))
  }

  // MARK: The truth

  /// A float32 as the cache keeps it.
  static func rounded(_ value: Float, _ type: DataType) -> Double {
    switch type {
    case .f16: Double(Float(halfBits: value.halfBits))
    case .bf16: Double(Float(BFloat16(value)))
    default: Double(value)
    }
  }

  /// Whether queries and probabilities are rounded to bf16.
  var usesPairDots: Bool { layout.dataType == .bf16 && device.instructionSet.name.contains("bf16") }

  /// One row of one head in float64, over keys and values as stored; `count` keys are stored.
  func reference(_ key: RowKey, count: Int) -> (output: [Double], logSumExp: Double) {
    let sequence = sequences[key.request].fused, type = layout.dataType, kvHead = key.head / shape.group
    let query = (0..<shape.dim).map {
      Self.rounded(sequence[key.position * shape.fusedWidth + key.head * shape.dim + $0], usesPairDots ? .bf16 : .f32)
    }
    let seen = keys(seenFrom: key.position, of: count)
    var logits: [Double] = []
    sequence.withUnsafeBufferPointer { sequence in
      for position in seen {
        let start = position * shape.fusedWidth + shape.queryWidth + kvHead * shape.dim
        var dot = 0.0
        for dim in 0..<shape.dim { dot += query[dim] * Self.rounded(sequence[start + dim], type) }
        logits.append(dot * Double(scale))
      }
    }
    let greatest = logits.max() ?? 0
    let weights = logits.map { exponential($0 - greatest) }
    let sum = weights.reduce(0, +)
    var output = [Double](repeating: 0, count: shape.valueDim)
    for (position, weight) in zip(seen, weights) {
      let start = position * shape.fusedWidth + shape.queryWidth + shape.kvHeads * shape.dim + kvHead * shape.valueDim
      for dim in 0..<shape.valueDim { output[dim] += weight / sum * Self.rounded(sequence[start + dim], type) }
    }
    return (output, (greatest + logarithm(sum)) / logarithm(2))
  }

  /// The greatest difference from the truth over the rows asked for: output relative to the row's root mean square, and log-sum-exp.
  func errors(positions: [(request: Int, position: Int, count: Int)]) throws -> (output: Double, logSumExp: Double) {
    var worst = (output: 0.0, logSumExp: 0.0)
    for (request, position, count) in positions {
      for head in 0..<shape.heads {
        let key = RowKey(request: request, position: position, head: head)
        let result = try #require(results[key]), truth = reference(key, count: count)
        let size = (truth.output.reduce(0) { $0 + $1 * $1 } / Double(shape.valueDim)).squareRoot()
        for (bits, expected) in zip(result.output, truth.output) {
          let error = abs(Double(Float(bitPattern: bits)) - expected) / size
          worst.output = error <= worst.output ? worst.output : error  // NaN is the worst
        }
        let error = abs(Double(Float(bitPattern: result.logSumExp)) - truth.logSumExp)
        worst.logSumExp = error <= worst.logSumExp ? worst.logSumExp : error
      }
    }
    return worst
  }
}
