// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// What keeps the memory of weights: a file that is mapped, whose pages can be read again when they were given back.
public protocol WeightOwner: AnyObject {
  /// Gives back the memory that the pages of `part` take in this process. They can still be read.
  func releasePages(of part: UnsafeRawBufferPointer)
}

/// A weight matrix `[rows, columns]` as it lies in its file: a view, no copy.
///
/// Row n holds the coefficients of output n along k, as in GGUF. The memory must outlive every use; `owner` keeps it.
///
/// Most matrices lie row behind row, block behind block. A ``Layout`` says where the rows of others are, such as those of a transposed matrix, and
/// ``scales`` what lies apart from a matrix's codes.
///
/// `@unchecked Sendable`: the bytes are a read-only map that nobody writes.
public struct Weight: @unchecked Sendable {
  /// Where blocks are in a matrix's bytes; a value of a format without blocks is one.
  public struct Layout: Sendable, Hashable {
    /// Bytes from the beginning of a row to that of the next.
    public var rowStride: Int
    /// Bytes from a block of a row to its next.
    public var blockStride: Int

    public init(rowStride: Int, blockStride: Int) {
      self.rowStride = rowStride
      self.blockStride = blockStride
    }
  }

  /// Scales that lie apart from a matrix's codes.
  public enum Scales: @unchecked Sendable {
    /// Of e4m3: a value is its code's times the scale of its part of the matrix, `rows` × `columns` values; parts of a row are neighbours.
    /// `columns` is a multiple of 128, or at least the matrix's. Of NVFP4: the same beside the scales of its blocks, and `columns` is at least the matrix's.
    case floats([Float], rows: Int, columns: Int)
    /// Of MXFP4: an exponent for each block, those of a row `rowStride` bytes from those of the next. Blocks then are 16 bytes, in each of them the codes
    /// of two neighbours, the first in its low half.
    case exponents(UnsafeRawBufferPointer, rowStride: Int)
    /// Of NVFP4: an e4m3 for every 16 values, those of a row `rowStride` bytes from those of the next, and a factor for all. Blocks then are 32 bytes, in
    /// each of them the codes of two neighbours, the first in its low half.
    case sixteens(UnsafeRawBufferPointer, rowStride: Int, factor: Float)
  }

  /// For messages: the tensor's name in its file.
  public let name: String
  public let format: WeightFormat
  /// Outputs.
  public let rows: Int
  /// Inputs: the k axis.
  public let columns: Int
  public let bytes: UnsafeRawBufferPointer
  public let layout: Layout
  /// nil where the blocks have their scales, or there are none.
  public let scales: Scales?
  private let owner: AnyObject?

  /// - Precondition: `bytes` holds exactly `rows` rows of `columns` values in `format`.
  public init(name: String, format: WeightFormat, rows: Int, columns: Int, bytes: UnsafeRawBufferPointer, owner: AnyObject?) {
    let rowBytes = format.byteCount(ofRow: columns)
    enforce(
      bytes.count == rows * rowBytes,
      "weight \(name): \(bytes.count) bytes where [\(rows), \(columns)] \(format.rawValue) takes \(rows * rowBytes)")
    self.init(
      name: name, format: format, rows: rows, columns: columns, bytes: bytes,
      layout: Layout(rowStride: rowBytes, blockStride: format.blockByteCount), scales: nil, owner: owner)
  }

  /// A matrix that lies otherwise than row behind row, or has scales apart.
  /// - Precondition: every block lies within `bytes`, and there is a scale for each part of the matrix.
  public init(
    name: String, format: WeightFormat, rows: Int, columns: Int, bytes: UnsafeRawBufferPointer, layout: Layout, scales: Scales? = nil,
    owner: AnyObject?
  ) {
    let blocks = format.byteCount(ofRow: columns) / format.blockByteCount
    var blockByteCount = format.blockByteCount
    switch scales {
    case nil: break
    case .floats(let values, let scaleRows, let scaleColumns):
      enforce(
        format == .e4m3 || format == .nvfp4,
        "weight \(name): scales for parts of a matrix are those of \(WeightFormat.e4m3.rawValue) and \(WeightFormat.nvfp4.rawValue), not of "
          + format.rawValue)
      enforce(
        scaleRows > 0 && (scaleColumns >= columns || scaleColumns > 0 && scaleColumns % 128 == 0 && format == .e4m3),
        "weight \(name): a scale for \(scaleRows) × \(scaleColumns) values of [\(rows), \(columns)]")
      let needed = (rows + scaleRows - 1) / scaleRows * ((columns + scaleColumns - 1) / scaleColumns)
      enforce(values.count == needed, "weight \(name): \(values.count) scales where there are \(needed) parts")
    case .exponents(let exponents, let rowStride):
      enforce(format == .mxfp4, "weight \(name): exponents apart are those of \(WeightFormat.mxfp4.rawValue), not of \(format.rawValue)")
      enforce(
        exponents.count >= (rows - 1) * rowStride + blocks, "weight \(name): \(exponents.count) exponents for \(rows) rows of \(blocks)")
      blockByteCount = 16
    case .sixteens(let scales, let rowStride, _):
      enforce(
        format == .nvfp4, "weight \(name): scales of 16 values are those of \(WeightFormat.nvfp4.rawValue), not of \(format.rawValue)")
      enforce(
        scales.count >= (rows - 1) * rowStride + columns / 16,
        "weight \(name): \(scales.count) scales for \(rows) rows of \(columns / 16)")
      blockByteCount = 32
    }
    let needed = rows > 0 && blocks > 0 ? (rows - 1) * layout.rowStride + (blocks - 1) * layout.blockStride + blockByteCount : 0
    enforce(bytes.count >= needed, "weight \(name): \(bytes.count) bytes where [\(rows), \(columns)] \(format.rawValue) reaches \(needed)")
    self.name = name
    self.format = format
    self.rows = rows
    self.columns = columns
    self.bytes = bytes
    self.layout = layout
    self.scales = scales
    self.owner = owner
  }

  /// Whether it lies row behind row, block behind block, and nothing of it lies apart.
  public var isContiguous: Bool {
    scales == nil && layout == Layout(rowStride: format.byteCount(ofRow: columns), blockStride: format.blockByteCount)
  }

  /// The rows in so many equal parts, each a view.
  /// - Precondition: the rows divide into them, and lie row behind row.
  public func split(into count: Int) -> [Weight] {
    enforce(count > 0 && rows % count == 0, "weight \(name): \(rows) rows do not divide into \(count) parts")
    enforce(isContiguous, "weight \(name): its rows do not lie one behind the other")
    let size = bytes.count / count
    return (0..<count).map {
      Weight(
        name: count == 1 ? name : "\(name)[\($0)]", format: format, rows: rows / count, columns: columns,
        bytes: UnsafeRawBufferPointer(rebasing: bytes[$0 * size..<($0 + 1) * size]), owner: owner)
    }
  }
}

extension Weight {
  /// Gives back the memory that some rows take in the map of their file: whoever has read them and has no more need of them says so, and a model
  /// that is brought into another order does not lie in memory twice. They can still be read; where rows do not lie one behind the other
  /// all are given back with the last, and of a weight that lies in no map nothing is.
  public func releasePages(ofRows range: Range<Int>) {
    enforce(range.lowerBound >= 0 && range.upperBound <= rows, "weight \(name): rows \(range) of \(rows)")
    guard let owner = owner as? any WeightOwner, !range.isEmpty else { return }
    if layout.blockStride <= layout.rowStride {
      let end = min(range.upperBound * layout.rowStride, bytes.count)
      owner.releasePages(of: UnsafeRawBufferPointer(rebasing: bytes[range.lowerBound * layout.rowStride..<end]))
    } else if range.upperBound == rows {
      owner.releasePages(of: bytes)
    }
    guard range.upperBound == rows else { return }
    switch scales {
    case nil, .floats: break
    case .exponents(let exponents, _): owner.releasePages(of: exponents)
    case .sixteens(let scales, _, _): owner.releasePages(of: scales)
    }
  }

  /// The same matrix, all of whose values are multiplied by `factor`.
  /// - Precondition: it is of NVFP4, and nothing of it lies apart.
  public func multiplied(by factor: Float) -> Weight {
    Weight(
      name: name, format: format, rows: rows, columns: columns, bytes: bytes, layout: layout,
      scales: .floats([factor], rows: max(rows, 1), columns: columns), owner: owner)
  }

  /// Some of the rows, a view; nil where they share a scale with a part of the others.
  public func rows(_ range: Range<Int>) -> Weight? {
    enforce(range.lowerBound >= 0 && range.upperBound <= rows, "weight \(name): rows \(range) of \(rows)")
    var part = scales
    switch scales {
    case nil: break
    case .floats(let values, let scaleRows, let scaleColumns):
      if scaleRows >= rows {
        part = .floats(range.isEmpty ? [] : values, rows: max(range.count, 1), columns: scaleColumns)
        break
      }
      guard range.lowerBound % scaleRows == 0, range.upperBound % scaleRows == 0 || range.upperBound == rows else { return nil }
      let perRow = (columns + scaleColumns - 1) / scaleColumns, end = (range.upperBound + scaleRows - 1) / scaleRows
      part = .floats(Array(values[range.lowerBound / scaleRows * perRow..<end * perRow]), rows: scaleRows, columns: scaleColumns)
    case .exponents(let exponents, let rowStride):
      part = .exponents(UnsafeRawBufferPointer(rebasing: exponents[(range.lowerBound * rowStride)...]), rowStride: rowStride)
    case .sixteens(let scales, let rowStride, let factor):
      part = .sixteens(
        UnsafeRawBufferPointer(rebasing: scales[(range.lowerBound * rowStride)...]), rowStride: rowStride, factor: factor)
    }
    return Weight(
      name: "\(name)[\(range)]", format: format, rows: range.count, columns: columns,
      bytes: UnsafeRawBufferPointer(rebasing: bytes[(range.lowerBound * layout.rowStride)...]), layout: layout, scales: part, owner: owner)
  }

  /// The matrix with its columns as rows, a view; nil of a format whose values do not stand each for itself, and where scales are for parts that no
  /// product takes so.
  public func transposed() -> Weight? {
    guard format.blockSize == 1 else { return nil }
    var turned = scales
    if case .floats(let values, let scaleRows, let scaleColumns) = scales {
      guard scaleRows % 128 == 0 || scaleRows >= rows else { return nil }
      let down = (rows + scaleRows - 1) / scaleRows, across = (columns + scaleColumns - 1) / scaleColumns
      turned = .floats(
        (0..<across).flatMap { column in (0..<down).map { values[$0 * across + column] } }, rows: scaleColumns, columns: scaleRows)
    }
    return Weight(
      name: "\(name), transposed", format: format, rows: columns, columns: rows, bytes: bytes,
      layout: Layout(rowStride: layout.blockStride, blockStride: layout.rowStride), scales: turned, owner: owner)
  }
}

/// Weights in the form that a device's kernels read, made once by ``Device/prepare(_:activations:)``.
///
/// It may hold several matrices with the same number of columns, stacked by rows: one product then computes q, k and v, or gate and up.
/// The integer codes are the file's own, only their order may differ.
public protocol PreparedWeight: AnyObject, Sendable {
  /// Outputs of all parts together.
  var rows: Int { get }
  /// Inputs.
  var columns: Int { get }
  /// Bytes held.
  var byteCount: Int { get }
}
