// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletCUDAKernels
import MartletCore

/// Weights as the GPU's products read them: groups of 16 rows whose codes lie as a warp's lanes multiply them (`martlet_cuda_arguments.h` has the layout).
///
/// The GPU brings them into this order itself: the file's bytes are copied to it slice by slice, and their pages are given back.
final class CUDAPreparedWeight: PreparedWeight {
  /// One of the matrices that are stacked.
  struct Part: Sendable {
    /// A `martlet_cuda_format`.
    let format: Int32
    let firstRow: Int
    let rows: Int
    /// Terms of inputs that its product multiplies.
    let terms: Int32
    let groups: DeviceBuffer
  }

  let rows: Int
  let columns: Int
  let byteCount: Int
  let parts: [Part]
  /// Terms of the inputs that all parts together need.
  let terms: Int32

  private static let groupRows = martlet_cuda_group_rows
  /// Rows and columns fit the kernels' 32-bit counts with room for their products with small numbers.
  private static let mostRowsOrColumns = 1 << 26
  /// Bytes of a file that are copied to the GPU before they are packed: so much of a matrix, however large, is there twice.
  private static let sliceByteCount = 64 << 20

  /// - Precondition: at least one weight.
  init(_ weights: [Weight], activations: Activations, on context: CUDAContext, _ library: KernelLibrary) throws(DeviceError) {
    enforce(!weights.isEmpty, "prepare: no weights")
    columns = weights[0].columns
    rows = try Self.rows(of: weights, device: context.properties.name)
    var parts: [Part] = [], firstRow = 0
    for weight in weights {
      let format = weight.format.code
      let count = Self.byteCount(weight.format, rows: weight.rows, columns: weight.columns)
      parts.append(
        Part(
          format: format, firstRow: firstRow, rows: weight.rows, terms: martlet_cuda_product_terms(format, activations == .exact),
          groups: try context.makeBuffer(byteCount: count)))
      firstRow += weight.rows
    }
    self.parts = parts
    byteCount = parts.reduce(0) { $0 + $1.groups.byteCount }
    terms = parts.reduce(1) { max($0, $1.terms) }
    let queue = CUDAQueue(context)
    for (weight, part) in zip(weights, parts) {
      try weight.pack(into: part.groups, sliceByteCount: Self.sliceByteCount, on: queue, library)
    }
  }

  /// The rows of all, where they can be multiplied by one product.
  private static func rows(of weights: [Weight], device: String) throws(DeviceError) -> Int {
    var rows = 0
    for weight in weights {
      func unsupported(_ reason: String) -> DeviceError { .unsupportedWeight(device: device, weight: weight.name, reason: reason) }
      guard weight.columns == weights[0].columns else {
        throw unsupported("it has \(weight.columns) columns and cannot be stacked on \"\(weights[0].name)\" with \(weights[0].columns)")
      }
      guard weight.rows > 0, weight.columns > 0 else { throw unsupported("its shape [\(weight.rows), \(weight.columns)] is empty") }
      rows += weight.rows
      guard max(rows, weight.columns) <= mostRowsOrColumns else {
        throw unsupported(
          "its shape [\(weight.rows), \(weight.columns)] makes \(rows) rows; the kernels take at most \(mostRowsOrColumns) rows in one product, "
            + "and as many columns")
      }
    }
    return rows
  }

  /// Bytes of one part. A matrix beyond the kernels' limits, which cannot be prepared, counts as its file's bytes.
  static func byteCount(_ format: WeightFormat, rows: Int, columns: Int) -> Int {
    guard max(rows, columns) <= mostRowsOrColumns else {
      let (bytes, overflow) = format.byteCount(ofRow: columns).multipliedReportingOverflow(by: rows)
      return overflow ? .max : bytes
    }
    return (rows + groupRows - 1) / groupRows * Int(martlet_cuda_group_bytes(format.code, Int32(columns)))
  }

  /// - Precondition: the weight was prepared by a CUDA device.
  static func of(_ weight: any PreparedWeight, _ caller: StaticString) -> CUDAPreparedWeight {
    guard let weight = weight as? CUDAPreparedWeight else {
      fatalError("\(caller): a weight of \(type(of: weight)), which another device prepared, was given to a GPU")
    }
    return weight
  }
}

extension Weight {
  /// Packs all rows, slice by slice, and gives the pages of a slice's rows in the file back.
  fileprivate func pack(
    into groups: DeviceBuffer, sliceByteCount: Int, on queue: CUDAQueue, _ library: KernelLibrary
  ) throws(DeviceError) {
    let context = queue.context, groupRows = martlet_cuda_group_rows
    var arguments = martlet_cuda_pack_arguments()
    arguments.row_bytes = Int64(layout.rowStride)
    arguments.block_bytes = Int64(layout.blockStride)
    arguments.format = format.code
    arguments.columns = Int32(columns)
    // Scales that lie apart are small: they are there whole.
    var memory: [DeviceBuffer] = []
    func upload(_ bytes: UnsafeRawBufferPointer) throws(DeviceError) -> UInt64 {
      let buffer = try context.makeBuffer(byteCount: bytes.count)
      try context.upload(bytes, to: buffer.address)
      memory.append(buffer)
      return UInt64(buffer.address)
    }
    func multiply(by values: [Float], rows scaleRows: Int, columns scaleColumns: Int) throws(DeviceError) {
      arguments.scales = try values.withUnsafeBufferPointer { (values) throws(DeviceError) in try upload(UnsafeRawBufferPointer(values)) }
      arguments.scale_columns = Int32((columns + scaleColumns - 1) / scaleColumns)
      arguments.rows_of_a_scale = Int32(clamping: scaleRows)
      arguments.columns_of_a_scale = Int32(clamping: scaleColumns)
    }
    switch scales {
    case nil: break
    case .exponents(let exponents, let rowStride):
      arguments.scale_codes = try upload(exponents)
      arguments.scale_code_row_bytes = Int64(rowStride)
    case .sixteens(let codes, let rowStride, let factor):
      arguments.scale_codes = try upload(codes)
      arguments.scale_code_row_bytes = Int64(rowStride)
      try multiply(by: [factor], rows: rows, columns: columns)
    case .floats(let values, let scaleRows, let scaleColumns): try multiply(by: values, rows: scaleRows, columns: scaleColumns)
    }

    // Rows that do not lie one behind the other, as of a transposed matrix, are one slice.
    let isSliced = layout.blockStride <= layout.rowStride
    let rowsPerSlice = isSliced ? max(1, sliceByteCount / max(layout.rowStride, 1) / groupRows) * groupRows : rows
    let staged = isSliced ? min(bytes.count, rowsPerSlice * layout.rowStride) : bytes.count
    let stage = try context.makeBuffer(byteCount: staged)
    let groupBytes = Int(martlet_cuda_group_bytes(format.code, Int32(columns)))
    for first in stride(from: 0, to: rows, by: rowsPerSlice) {
      let end = min(first + rowsPerSlice, rows)
      let slice = isSliced ? bytes[first * layout.rowStride..<min(end * layout.rowStride, bytes.count)] : bytes[...]
      try context.upload(UnsafeRawBufferPointer(rebasing: slice), to: stage.address)
      arguments.file = UInt64(stage.address)
      arguments.groups = UInt64(groups.address) + UInt64(first / groupRows * groupBytes)
      arguments.rows = Int32(end - first)
      arguments.first_row = Int32(first)
      queue.run { [arguments] (stream) throws(DeviceError) in
        try library.launch(martlet_cuda_launch_pack, arguments, on: stream)
      }
      try queue.finish()
      releasePages(ofRows: first..<end)
    }
    withExtendedLifetime(memory) {}
  }
}

extension WeightFormat {
  /// The format as the kernels name it.
  var code: Int32 {
    let format =
      switch self {
      case .f32: martlet_cuda_f32
      case .f16: martlet_cuda_f16
      case .bf16: martlet_cuda_bf16
      case .q4_0: martlet_cuda_q4_0
      case .q4_1: martlet_cuda_q4_1
      case .q5_0: martlet_cuda_q5_0
      case .q5_1: martlet_cuda_q5_1
      case .q8_0: martlet_cuda_q8_0
      case .q2_K: martlet_cuda_q2_k
      case .q3_K: martlet_cuda_q3_k
      case .q4_K: martlet_cuda_q4_k
      case .q5_K: martlet_cuda_q5_k
      case .q6_K: martlet_cuda_q6_k
      case .iq4_NL: martlet_cuda_iq4_nl
      case .mxfp4: martlet_cuda_mxfp4
      case .nvfp4: martlet_cuda_nvfp4
      case .e4m3: martlet_cuda_e4m3
      }
    return Int32(format.rawValue)
  }
}
