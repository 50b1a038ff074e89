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

/// The layouts that have names, and one that has none: dims outermost, groups along the other axis than where the packed layout has them.
enum PageOrder: CaseIterable, Sendable {
  case packed, nhd, hnd, crossed

  func layout(_ type: DataType, pageSize: Int, _ shape: AttentionShape) -> KVLayout {
    let (heads, dim, valueDim) = (shape.kvHeads, shape.dim, shape.valueDim)
    switch self {
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
  /// One task for each chunk that requests share, and merges.
  var cascades = false
}

/// What a call asks for besides shapes, layout and mask.
struct AttentionExtras: Sendable, CustomStringConvertible {
  var scales = KVScales()
  var softCap: Float?
  var sinks: [Float]?
  /// Under a custom mask: whether a query sees a key. Even requests have bits, odd ones have none.
  var bits: @Sendable (_ request: Int, _ position: Int, _ key: Int) -> Bool = { _, position, key in key <= position }
  /// Queries and keys are rotated over this many dims, keys as they are read.
  var deferredRope: (dim: Int, isNeoX: Bool)?
  var roundsQueries = false
  /// Output is e4m3, times this.
  var outputScale: Float?

  var description: String {
    var parts: [String] = []
    if let softCap { parts.append("soft cap \(softCap)") }
    if sinks != nil { parts.append("sinks") }
    if let deferredRope { parts.append("deferred RoPE over \(deferredRope.dim)") }
    if roundsQueries { parts.append("e4m3 queries") }
    return parts.joined(separator: ", ")
  }
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
  let extras: AttentionExtras
  /// Tokens, in whole pages, that every request has in common with request 0, and whose pages they share.
  let sharedTokens: Int
  let cache: PagedKV
  private let rope: RopeTable?
  private(set) var results: [RowKey: RowResult] = [:]
  /// How many cascade tasks plans had.
  private(set) var cascadeTaskCount = 0
  private var queryRows: [RowKey: [Float]] = [:]
  private var truths: [TruthKey: [Double]] = [:]

  init(
    instructionSet: String, threads: Int = 1, shape: AttentionShape, layout: KVLayout, mask: MaskView, scale: Float? = nil,
    extras: AttentionExtras = AttentionExtras(), sharedTokens: Int = 0, sequences: [TokenSequence]
  ) throws {
    device = try CPUDevice(instructionSet: instructionSet, threads: threads)
    (self.shape, self.layout, self.mask, self.sequences) = (shape, layout, mask, sequences)
    (self.extras, self.sharedTokens) = (extras, sharedTokens)
    self.scale = scale ?? 1 / Float(shape.dim).squareRoot()
    let width = sequences.map { ($0.length + layout.pageSize - 1) / layout.pageSize }.max()! + 1
    var random = SeededGenerator(seed: 99)
    let pageCount = width * sequences.count + 1
    let order = (0..<pageCount).shuffled(using: &random)
    var table: [Int32] = []
    for (request, sequence) in sequences.enumerated() {
      for page in 0..<width {
        let owner = page * layout.pageSize < sharedTokens ? 0 : request
        table.append(page * layout.pageSize < sequence.length ? Int32(order[owner * width + page]) : -1)
      }
    }
    if let (dim, isNeoX) = extras.deferredRope {
      let positions = sequences.map(\.length).max()!
      rope = RopeTable(
        dim: dim, isNeoX: isNeoX, values: try device.tensor(Self.angles(positions, dim: dim), Shape(positions, dim / 2, 2)))
    } else {
      rope = nil
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
    switch layout.dataType.byteCount {
    case 4: return bytes.load(fromByteOffset: offset, as: UInt32.self)
    case 2: return UInt32(bytes.load(fromByteOffset: offset, as: UInt16.self))
    default: return UInt32(bytes[offset])
    }
  }

  /// Where the scale of an int8 key or value lies in `bytes`.
  func scaleByteOffset(isValue: Bool, request: Int, position: Int, head: Int) -> Int {
    let scales = layout.scales!
    return Int(table(request)[position / layout.pageSize]) * layout.pageByteCount
      + (isValue ? scales.valuesByteOffset : scales.keysByteOffset)
      + 4 * scales.offset(token: position % layout.pageSize, head: head)
  }

  /// Fills a token's slot with NaN, its scales too.
  func poison(request: Int, position: Int) {
    for head in 0..<shape.kvHeads {
      for (isValue, dims) in [(false, shape.dim), (true, shape.valueDim)] {
        for dim in 0..<dims {
          let offset = byteOffset(isValue: isValue, request: request, position: position, head: head, dim: dim)
          for byte in offset..<offset + layout.dataType.byteCount { bytes[byte] = 0xFF }
        }
        if layout.scales != nil {
          let offset = scaleByteOffset(isValue: isValue, request: request, position: position, head: head)
          for byte in offset..<offset + 4 { bytes[byte] = 0xFF }
        }
      }
    }
  }

  /// Cosines and sines of `positions` positions.
  static func angles(_ positions: Int, dim: Int) -> [Float] {
    (0..<positions).flatMap { position in
      (0..<dim / 2).flatMap { pair in
        let (sine, cosine) = sineAndCosine(Double(position) * power(10000, -2 * Double(pair) / Double(dim)))
        return [Float(cosine), Float(sine)]
      }
    }
  }

  /// Gives back the pages behind every window to come, poisoned.
  func freePages(before parts: [StepPart]) {
    let window: Int
    switch mask {
    case .slidingWindow(let size), .custom(window: .some(let size)): window = size
    default: return
    }
    for part in parts where !hasBits(part.request) {
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
        rope: rope ?? self.rope, rotatesKeys: self.rope == nil, ragged: ragged, cache: try stepCache(parts), scales: extras.scales),
      on: device.makeQueue())
    return queries
  }

  /// Attends from a step's queries and keeps the results by row.
  func attend(_ parts: [StepPart], queries: Tensor, cut: WorkCut = WorkCut()) throws {
    let ragged = try ragged(parts)
    let work = try plan(parts, cut)
    let output = try device.makeTensor(
      Shape(ragged.numTokens, shape.heads * shape.valueDim), extras.outputScale == nil ? .f32 : .f8e4m3)
    let logSumExp = try device.makeTensor(Shape(ragged.numTokens, shape.heads), .f32)
    // Rows that nobody writes would show.
    logSumExp.unsafeHostPointer(to: Float.self)!.update(repeating: 12345)
    if extras.outputScale == nil { output.unsafeHostPointer(to: Float.self)!.update(repeating: 12345) }
    device.attentionKernels.attend(
      AttendArguments(
        numHeads: shape.heads, queries: queries, roundsQueriesToE4M3: extras.roundsQueries, output: output,
        outputScale: extras.outputScale ?? 1, logSumExp: logSumExp, scale: scale, softCap: extras.softCap,
        sinks: try extras.sinks.map { try device.tensor($0, Shape(shape.heads)) }, mask: mask, maskBits: try maskBits(parts), keyRope: rope,
        ragged: ragged, cache: try stepCache(parts), scales: extras.scales, work: work),
      on: device.makeQueue())
    #expect(work.finished.unsafeHostPointer(to: Int32.self)!.allSatisfy { $0 == 0 }, "counters are zero again")
    let sums = logSumExp.floats, asked = queries.floats
    let values =
      extras.outputScale == nil
      ? output.floats.map(\.bitPattern) : output.unsafeHostPointer(to: UInt8.self)!.map { UInt32($0) }
    var row = 0
    for part in parts {
      for position in part.range {
        for head in 0..<shape.heads {
          let start = (row * shape.heads + head) * shape.valueDim
          let key = RowKey(request: part.request, position: position, head: head)
          results[key] = RowResult(
            output: Array(values[start..<start + shape.valueDim]), logSumExp: sums[row * shape.heads + head].bitPattern)
          let query = (row * shape.heads + head) * shape.dim
          queryRows[key] = Array(asked[query..<query + shape.dim])
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

  /// Whether a request has bits of its own.
  func hasBits(_ request: Int) -> Bool {
    if case .custom = mask { return request % 2 == 0 }
    return false
  }

  /// The words of a step's custom masks.
  private func maskBits(_ parts: [StepPart]) throws -> MaskBits? {
    guard case .custom = mask else { return nil }
    var words: [Int32] = [], offsets: [Int32] = []
    for part in parts {
      offsets.append(hasBits(part.request) ? Int32(words.count) : -1)
      guard hasBits(part.request) else { continue }
      for position in part.range {
        var row = [UInt32](repeating: 0, count: (part.range.upperBound + 63) / 64 * 2)
        for key in 0..<part.range.upperBound where extras.bits(part.request, position, key) { row[key / 32] |= 1 << UInt32(key % 32) }
        words += row.map { Int32(bitPattern: $0) }
      }
    }
    return MaskBits(
      words: try device.tensor(words, Shape(words.count), .i32), offsets: try device.tensor(offsets, Shape(offsets.count), .i32))
  }

  /// The range of keys that a query sees some of.
  func keys(of request: Int, seenFrom position: Int, of count: Int) -> Range<Int> {
    switch mask {
    case .causal: return 0..<max(position + 1, 0)
    case .slidingWindow(let window): return max(0, position - window + 1)..<max(position + 1, 0)
    case .around(let window): return max(0, position - window + 1)..<min(position + window, count)
    case .full: return 0..<count
    case .custom(let window):
      if hasBits(request) { return 0..<count }
      return (window.map { max(0, position - $0 + 1) } ?? 0)..<max(position + 1, 0)
    }
  }

  /// A plan as simple as can be: blocks of rows, in order.
  func plan(_ parts: [StepPart], _ cut: WorkCut) throws -> AttentionWork {
    var tasks: [AttentionTask] = [], merges: [AttentionMerge] = [], states = 0
    // For each head and chunk that is shared: the rows that see all of it.
    var shared: [SharedChunk: [AttentionSegment]] = [:]
    for (index, part) in parts.enumerated() {
      let rows = part.range.count * shape.group
      for kvHead in 0..<shape.kvHeads {
        for first in stride(from: 0, to: rows, by: cut.rows) {
          let count = min(cut.rows, rows - first)
          let firstPosition = part.range.lowerBound + first / shape.group
          let firstSeen = keys(of: part.request, seenFrom: firstPosition, of: part.range.upperBound)
          let lastPosition = part.range.lowerBound + (first + count - 1) / shape.group
          let lastSeen = keys(of: part.request, seenFrom: lastPosition, of: part.range.upperBound)
          let firstChunk = cut.visitsHiddenChunks ? 0 : firstSeen.lowerBound / AttentionWork.chunkSize
          let endChunk = max(firstChunk, (max(lastSeen.upperBound, 1) - 1) / AttentionWork.chunkSize) + 1
          var task = AttentionTask(
            request: Int32(index), kvHead: Int32(kvHead), firstRow: Int32(first), rowCount: Int32(count), firstChunk: Int32(firstChunk),
            endChunk: Int32(endChunk))
          guard cut.isSplit || cut.cascades else {
            tasks.append(task)
            continue
          }
          task.merge = Int32(merges.count)
          merges.append(
            AttentionMerge(stateRow: Int32(states), chunkCount: Int32(endChunk - firstChunk), rowCount: Int32(count)))
          for chunk in firstChunk..<endChunk {
            (task.firstChunk, task.endChunk, task.stateRow) = (Int32(chunk), Int32(chunk + 1), Int32(states))
            let tokens = chunk * AttentionWork.chunkSize..<(chunk + 1) * AttentionWork.chunkSize
            if cut.cascades && tokens.upperBound <= min(sharedTokens, firstSeen.upperBound) && lastSeen.lowerBound <= tokens.lowerBound
              && !hasBits(part.request)
            {
              shared[SharedChunk(kvHead: kvHead, chunk: chunk), default: []].append(
                AttentionSegment(
                  request: task.request, firstRow: task.firstRow, rowCount: task.rowCount, merge: task.merge, stateRow: task.stateRow))
            } else {
              tasks.append(task)
            }
            states += count
          }
        }
      }
    }
    var segments: [AttentionSegment] = []
    for (place, rows) in shared {
      var rest = rows[...]
      while !rest.isEmpty {
        // As many segments as a task takes; the pages are read through any request's table, here the last one's.
        var count = 0, rowCount: Int32 = 0
        while count < rest.count, rowCount + rest[rest.startIndex + count].rowCount <= AttentionTask.maxRows {
          rowCount += rest[rest.startIndex + count].rowCount
          count += 1
        }
        tasks.append(
          AttentionTask(
            request: rest[rest.startIndex + count - 1].request, kvHead: Int32(place.kvHead), firstRow: Int32(segments.count),
            rowCount: rowCount, firstChunk: Int32(place.chunk), endChunk: Int32(place.chunk + 1), merge: AttentionTask.cascade,
            stateRow: Int32(count)))
        segments += rest.prefix(count)
        rest = rest.dropFirst(count)
      }
    }
    cascadeTaskCount += tasks.count { $0.merge == AttentionTask.cascade }
    let taskRows = tasks.flatMap {
      [$0.request, $0.kvHead, $0.firstRow, $0.rowCount, $0.firstChunk, $0.endChunk, $0.merge, $0.stateRow]
    }
    let mergeRows = merges.flatMap { [$0.stateRow, $0.chunkCount, $0.rowCount, $0.reserved] }
    let segmentRows: [Int32] = segments.flatMap { segment -> [Int32] in
      [segment.request, segment.firstRow, segment.rowCount, segment.merge, segment.stateRow, 0, 0, 0]
    }
    return AttentionWork(
      tasks: try device.tensor(taskRows, Shape(tasks.count, 8), .i32), numTasks: tasks.count,
      segments: try device.tensor(segmentRows, Shape(segments.count, 8), .i32), numSegments: segments.count,
      merges: try device.tensor(mergeRows, Shape(merges.count, 4), .i32),
      numMerges: merges.count,
      states: try device.makeTensor(Shape(states, shape.valueDim + 2), .f32), finished: try device.makeTensor(Shape(merges.count), .i32))
  }

  // MARK: The truth

  /// What a head of keys or values stands for after it was stored, by the contract's rules.
  static func stored(_ head: [Float], _ type: DataType, scale: Float) -> [Double] {
    switch type {
    case .f16: return head.map { Double(Float(halfBits: $0.halfBits)) }
    case .bf16: return head.map { Double(Float(BFloat16($0))) }
    case .f8e4m3: return head.map { Double(Float(Float8E4M3(saturating: $0 * (1 / scale)))) * Double(scale) }
    case .i8:
      let (codes, scale) = int8(head)
      return codes.map { Double($0) * Double(scale) }
    case .f32, .i32: return head.map(Double.init)
    }
  }

  /// The codes and the scale of a head in int8.
  static func int8(_ head: [Float]) -> (codes: [Int8], scale: Float) {
    let greatest = head.map(\.magnitude).max()!
    if greatest == 0 { return (head.map { _ in 0 }, 0) }
    return (head.map { Int8(($0 * (127 / greatest)).rounded(.toNearestOrEven)) }, greatest / 127)
  }

  /// Whether queries and probabilities are rounded to bf16.
  var usesPairDots: Bool { [.bf16, .f8e4m3, .i8].contains(layout.dataType) && device.instructionSet.name.contains("bf16") }

  private struct TruthKey: Hashable {
    var request: Int
    var kvHead: Int
    var isValue: Bool
  }
  private struct SharedChunk: Hashable {
    var kvHead: Int
    var chunk: Int
  }

  /// All keys or values of a request and head, as stored, keys rotated where that is left to the reading; `[position][dim]`.
  private func truth(_ key: TruthKey) -> [Double] {
    if let known = truths[key] { return known }
    let sequence = sequences[key.request], dims = key.isValue ? shape.valueDim : shape.dim
    let first = shape.queryWidth + (key.isValue ? shape.kvHeads * shape.dim : 0) + key.kvHead * dims
    var all: [Double] = []
    for position in 0..<sequence.length {
      let start = position * shape.fusedWidth + first
      var head = Self.stored(
        Array(sequence.fused[start..<start + dims]), layout.dataType, scale: key.isValue ? extras.scales.value : extras.scales.key)
      if let (dim, isNeoX) = extras.deferredRope, !key.isValue {
        for pair in 0..<dim / 2 {
          let one = isNeoX ? pair : 2 * pair, other = isNeoX ? pair + dim / 2 : 2 * pair + 1
          let (sine, cosine) = sineAndCosine(Double(position) * power(10000, -2 * Double(pair) / Double(dim)))
          (head[one], head[other]) = (head[one] * cosine - head[other] * sine, head[other] * cosine + head[one] * sine)
        }
      }
      all += head
    }
    truths[key] = all
    return all
  }

  /// One row of one head in float64, over keys and values as stored; `count` keys are stored.
  func reference(_ key: RowKey, count: Int) throws -> (output: [Double], logSumExp: Double) {
    let kvHead = key.head / shape.group
    let query = try #require(queryRows[key]).map { x in
      if extras.roundsQueries { return Double(Float(Float8E4M3(saturating: x))) }
      return usesPairDots ? Double(Float(BFloat16(x))) : Double(x)
    }
    let keys = truth(TruthKey(request: key.request, kvHead: kvHead, isValue: false))
    let values = truth(TruthKey(request: key.request, kvHead: kvHead, isValue: true))
    let seen = self.keys(of: key.request, seenFrom: key.position, of: count).filter {
      !hasBits(key.request) || extras.bits(key.request, key.position, $0)
    }
    var logits: [Double] = []
    keys.withUnsafeBufferPointer { keys in
      for position in seen {
        var dot = 0.0
        for dim in 0..<shape.dim { dot += query[dim] * keys[position * shape.dim + dim] }
        dot *= Double(scale)
        logits.append(extras.softCap.map { Double($0) * hyperbolicTangent(dot / Double($0)) } ?? dot)
      }
    }
    let sink = extras.sinks.map { Double($0[key.head]) }
    let greatest = (logits + (sink.map { [$0] } ?? [])).max() ?? 0
    let weights = logits.map { exponential($0 - greatest) }
    let sum = weights.reduce(0, +) + (sink.map { exponential($0 - greatest) } ?? 0)
    var output = [Double](repeating: 0, count: shape.valueDim)
    values.withUnsafeBufferPointer { values in
      for (position, weight) in zip(seen, weights) {
        for dim in 0..<shape.valueDim { output[dim] += weight / sum * values[position * shape.valueDim + dim] }
      }
    }
    return (output, (greatest + logarithm(sum)) / logarithm(2))
  }

  /// The greatest difference from the truth over the rows asked for: output relative to the row's root mean square, and log-sum-exp.
  func errors(positions: [(request: Int, position: Int, count: Int)]) throws -> (output: Double, logSumExp: Double) {
    var worst = (output: 0.0, logSumExp: 0.0)
    for (request, position, count) in positions {
      for head in 0..<shape.heads {
        let key = RowKey(request: request, position: position, head: head)
        let result = try #require(results[key]), truth = try reference(key, count: count)
        let size = (truth.output.reduce(0) { $0 + $1 * $1 } / Double(shape.valueDim)).squareRoot()
        if size == 0 {
          // Nothing is seen: exactly 0, and the sink alone.
          #expect(result.output.allSatisfy { Float(bitPattern: $0) == 0 })
          if extras.sinks == nil { #expect(Float(bitPattern: result.logSumExp) == -.infinity) }
          continue
        }
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
