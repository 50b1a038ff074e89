// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletKernels
import MartletCore

/// Weights as the CPU's product reads them: 16 rows interleaved, codes in their file's width (`martlet_product.h` has the layout).
///
/// It takes as many bytes as the file's weight (Q4_K, Q5_K and e4m3 3 % more, Q3_K 4 %; of NVFP4 four bytes a row), rows rounded up to 16.
/// The file's memory is read here and never again, and its pages are given back as soon as they are read.
///
/// Where workers are at home on several nodes each part is cut into one piece for each of them, in its memory; groups follow each other node by node,
/// so that a node's tasks are neighbours.
///
/// `@unchecked Sendable`: the memory is written before the initializer returns and read only after that.
final class CPUPreparedWeight: PreparedWeight, @unchecked Sendable {
  let rows: Int
  let columns: Int
  let byteCount: Int
  /// The groups of 16 rows of all parts.
  let groupCount: Int
  let activations: Activations
  /// Whether a part's inputs are coded: where it has integer codes, or they are rounded.
  let readsCodedInputs: Bool
  /// Whether a part has values that are floats, whose inputs are read as they are.
  let readsFloats: Bool
  /// The parts, or the pieces of them, as the kernels see them: by their groups.
  let parts: UnsafeMutableBufferPointer<martlet_product_part>
  /// Where each node's groups begin, and behind them their number; empty where workers are at home in one place.
  private let firstGroups: [Int]
  /// Of ``parts``.
  let partCount: Int
  private let memory: [CPUWeightMemory.Piece]

  /// Slabs of one token's coded inputs.
  var slabCount: Int { (columns + Int(martlet_product_slab) - 1) / Int(martlet_product_slab) }

  /// Whose the tasks are that have so many groups; nil: everybody's.
  func homes(groupsPerTask: Int) -> TaskHomes? {
    firstGroups.isEmpty ? nil : TaskHomes(firstUnits: firstGroups, unitsPerChunk: groupsPerTask)
  }

  private static let lanes = 16
  /// Groups that are packed by one task. Pieces begin at multiples, whose bytes are whole cache lines in every format.
  package static let groupsPerPackingTask = 8
  /// Rows and columns fit the kernels' 32-bit counts with room for their products with small numbers.
  private static let mostRowsOrColumns = 1 << 26

  /// Packed bytes that are made before the file's pages are given back: so much of a matrix, however large, is in memory twice.
  private static let sliceByteCount = 8 << 20

  /// - Precondition: at least one weight.
  init(
    _ weights: [Weight], activations: Activations, in memory: CPUWeightMemory, instructionSet: InstructionSet, pool: WorkerPool
  ) throws(DeviceError) {
    enforce(!weights.isEmpty, "prepare: no weights")
    columns = weights[0].columns
    var rowsSoFar = 0
    for weight in weights {
      func unsupported(_ reason: String) -> DeviceError { .unsupportedWeight(device: "cpu", weight: weight.name, reason: reason) }
      guard weight.columns == weights[0].columns else {
        throw unsupported("it has \(weight.columns) columns and cannot be stacked on \"\(weights[0].name)\" with \(weights[0].columns)")
      }
      guard weight.rows > 0, weight.columns > 0 else { throw unsupported("its shape [\(weight.rows), \(weight.columns)] is empty") }
      rowsSoFar += weight.rows
      guard max(rowsSoFar, weight.columns) <= Self.mostRowsOrColumns else {
        throw unsupported(
          "its shape [\(weight.rows), \(weight.columns)] makes \(rowsSoFar) rows; the kernels take at most \(Self.mostRowsOrColumns) "
            + "rows in one product, and as many columns")
      }
    }

    rows = weights.reduce(0) { $0 + $1.rows }
    groupCount = weights.reduce(0) { $0 + ($1.rows + Self.lanes - 1) / Self.lanes }
    self.activations = activations
    readsCodedInputs = activations == .bf16 || weights.contains { $0.format.blockSize > 1 }
    readsFloats = activations != .bf16 && weights.contains { $0.format.blockSize == 1 }
    byteCount = weights.reduce(0) { $0 + Self.byteCount($1.format, rows: $1.rows, columns: $1.columns) }
    let groupCounts = weights.map { ($0.rows + Self.lanes - 1) / Self.lanes }
    let groupBytes = weights.map { Int(martlet_packed_group_bytes($0.format.code, Int32($0.columns))) }
    // [part][node]: where the node's groups of the part begin, and behind them their number.
    let cuts = groupCounts.map { pool.homes?.cuts(of: $0, bunch: Self.groupsPerPackingTask) ?? [0, $0] }
    let nodeCount = pool.homes?.nodes.count ?? 1
    func pieceByteCount(_ part: Int, _ node: Int) -> Int { (cuts[part][node + 1] - cuts[part][node]) * groupBytes[part] }

    var pieces: [CPUWeightMemory.Piece] = [], firstGroups = [0], count = 0
    // [part][node]
    var starts = [[UnsafeMutableRawPointer]](repeating: [], count: weights.count)
    parts = .allocate(capacity: weights.count * nodeCount)
    do {
      for node in 0..<nodeCount {
        let byteCount = weights.indices.reduce(0) { $0 + (pieceByteCount($1, node) + 63) / 64 * 64 }
        let piece = try memory.allocate(byteCount: byteCount, node: node)
        pieces.append(piece)
        var offset = 0, firstRow = 0, firstGroup = firstGroups.last!
        for (part, weight) in weights.enumerated() {
          let first = cuts[part][node], end = cuts[part][node + 1]
          starts[part].append(piece.baseAddress + offset)
          if end > first {
            parts.initializeElement(
              at: count,
              to: martlet_product_part(
                groups: (piece.baseAddress + offset).assumingMemoryBound(to: UInt8.self), group_bytes: Int64(groupBytes[part]),
                format: weight.format.code, rows: Int32(min(end * Self.lanes, weight.rows) - first * Self.lanes),
                first_row: Int32(firstRow + first * Self.lanes), first_group: Int32(firstGroup)))
            count += 1
          }
          offset += (pieceByteCount(part, node) + 63) / 64 * 64
          firstRow += weight.rows
          firstGroup += end - first
        }
        firstGroups.append(firstGroup)
      }
    } catch {
      parts.deallocate()
      throw error
    }
    self.memory = pieces
    self.firstGroups = nodeCount > 1 ? firstGroups : []
    partCount = count
    let pack = instructionSet.table.pointee.product.pack!
    for (part, weight) in weights.enumerated() {
      if nodeCount > 1 {
        CPUMemory.populateAtHome((0..<nodeCount).map { (starts[part][$0], pieceByteCount(part, $0)) }, on: pool)
      }
      for node in 0..<nodeCount {
        weight.pack(
          groups: cuts[part][node]..<cuts[part][node + 1], into: starts[part][node].assumingMemoryBound(to: UInt8.self),
          groupBytes: groupBytes[part], sliceByteCount: Self.sliceByteCount, populates: nodeCount == 1, pack, on: pool)
      }
    }
  }

  /// Bytes of one part: whole groups of 16 rows, rounded up so that each part starts on a cache line. A matrix beyond the kernels' limits, which
  /// cannot be prepared, counts as its file's bytes.
  static func byteCount(_ format: WeightFormat, rows: Int, columns: Int) -> Int {
    guard max(rows, columns) <= mostRowsOrColumns else {
      let (bytes, overflow) = format.byteCount(ofRow: columns).multipliedReportingOverflow(by: rows)
      return overflow ? .max : bytes
    }
    let groups = (rows + lanes - 1) / lanes
    return (groups * Int(martlet_packed_group_bytes(format.code, Int32(columns))) + 63) / 64 * 64
  }

  deinit { parts.deallocate() }

  /// - Precondition: the weight was prepared by a CPU device.
  static func of(_ weight: any PreparedWeight, _ caller: StaticString) -> CPUPreparedWeight {
    guard let weight = weight as? CPUPreparedWeight else {
      fatalError("\(caller): a weight of \(type(of: weight)), which another device prepared, was given to the CPU")
    }
    return weight
  }
}

extension Weight {
  /// Packs the rows of some groups, slice by slice: has the system give a slice's memory, fills it, and gives the pages of its rows in the file back.
  /// - Parameters:
  ///   - range: begins at a multiple of ``CPUPreparedWeight/groupsPerPackingTask``.
  ///   - memory: where the first of them goes.
  ///   - populates: whether the memory is still to be given.
  fileprivate func pack(
    groups range: Range<Int>, into memory: UnsafeMutablePointer<UInt8>, groupBytes: Int, sliceByteCount: Int, populates: Bool,
    _ pack: martlet_task_function, on pool: WorkerPool
  ) {
    let lanes = Int(martlet_product_lanes), groupsPerTask = CPUPreparedWeight.groupsPerPackingTask
    let tasksPerSlice = max(1, sliceByteCount / (groupBytes * groupsPerTask))
    // The kernel counts a weight's groups from its first.
    let groups = memory - range.lowerBound * groupBytes
    withPackArguments(groups: groups, groupBytes: Int64(groupBytes), groupsPerTask: groupsPerTask) { arguments in
      nonisolated(unsafe) let arguments = arguments, pack = pack
      for first in stride(from: range.lowerBound, to: range.upperBound, by: tasksPerSlice * groupsPerTask) {
        let firstTask = first / groupsPerTask, end = min(first + tasksPerSlice * groupsPerTask, range.upperBound)
        if populates { CPUMemory.populate(groups + first * groupBytes, byteCount: (end - first) * groupBytes, on: pool) }
        pool.run(taskCount: (end - first + groupsPerTask - 1) / groupsPerTask) { task, worker, scratch in
          withUnsafePointer(to: arguments) { pack($0, Int32(firstTask + task), Int32(worker), scratch.baseAddress) }
        }
        releasePages(ofRows: first * lanes..<min(end * lanes, rows), on: pool)
      }
    }
  }

  /// Gives pages back by all threads, for as many at a time that it seldom happens: every processor of the process must hear of pages that are gone.
  private func releasePages(ofRows range: Range<Int>, on pool: WorkerPool) {
    let rowsPerTask = max(1, (2 << 20) / max(layout.rowStride, 1))
    pool.run(taskCount: (range.count + rowsPerTask - 1) / rowsPerTask) { task, _, _ in
      let first = range.lowerBound + task * rowsPerTask
      releasePages(ofRows: first..<min(first + rowsPerTask, range.upperBound))
    }
  }

  /// Calls `body` with what packs the weight, valid as long as the call.
  fileprivate func withPackArguments(
    groups: UnsafeMutablePointer<UInt8>, groupBytes: Int64, groupsPerTask: Int, _ body: (martlet_pack_arguments) -> Void
  ) {
    func bytes(_ buffer: UnsafeRawBufferPointer) -> UnsafePointer<UInt8> { buffer.baseAddress!.assumingMemoryBound(to: UInt8.self) }
    var arguments = martlet_pack_arguments()
    arguments.file = bytes(self.bytes)
    arguments.groups = groups
    arguments.row_bytes = Int64(layout.rowStride)
    arguments.block_bytes = Int64(layout.blockStride)
    arguments.group_bytes = groupBytes
    arguments.format = format.code
    arguments.rows = Int32(rows)
    arguments.columns = Int32(columns)
    arguments.groups_per_task = Int32(groupsPerTask)
    switch scales {
    case nil: body(arguments)
    case .exponents(let exponents, let rowStride):
      arguments.scale_codes = bytes(exponents)
      arguments.scale_code_row_bytes = Int64(rowStride)
      body(arguments)
    case .sixteens(let scales, let rowStride, let factor):
      arguments.scale_codes = bytes(scales)
      arguments.scale_code_row_bytes = Int64(rowStride)
      multiply(by: [factor], rows: rows, columns: columns)
    case .floats(let values, let scaleRows, let scaleColumns): multiply(by: values, rows: scaleRows, columns: scaleColumns)
    }
    func multiply(by values: [Float], rows scaleRows: Int, columns scaleColumns: Int) {
      values.withUnsafeBufferPointer { values in
        arguments.scales = values.baseAddress
        arguments.scale_columns = Int32((columns + scaleColumns - 1) / scaleColumns)
        arguments.rows_of_a_scale = Int32(clamping: scaleRows)
        arguments.columns_of_a_scale = Int32(clamping: scaleColumns)
        body(arguments)
      }
    }
  }
}

extension WeightFormat {
  /// The format as the kernels name it.
  fileprivate var code: Int32 {
    let format =
      switch self {
      case .f32: martlet_weight_f32
      case .f16: martlet_weight_f16
      case .bf16: martlet_weight_bf16
      case .q4_0: martlet_weight_q4_0
      case .q4_1: martlet_weight_q4_1
      case .q5_0: martlet_weight_q5_0
      case .q5_1: martlet_weight_q5_1
      case .q8_0: martlet_weight_q8_0
      case .q2_K: martlet_weight_q2_k
      case .q3_K: martlet_weight_q3_k
      case .q4_K: martlet_weight_q4_k
      case .q5_K: martlet_weight_q5_k
      case .q6_K: martlet_weight_q6_k
      case .iq4_NL: martlet_weight_iq4_nl
      case .mxfp4: martlet_weight_mxfp4
      case .nvfp4: martlet_weight_nvfp4
      case .e4m3: martlet_weight_e4m3
      }
    return Int32(format.rawValue)
  }
}
