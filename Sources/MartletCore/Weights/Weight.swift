// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// A weight matrix `[rows, columns]` as it lies in its file: a view, no copy.
///
/// Row n holds the coefficients of output n along k, as in GGUF. The memory must outlive every use; `owner` keeps it.
///
/// `@unchecked Sendable`: the bytes are a read-only map that nobody writes.
public struct Weight: @unchecked Sendable {
  /// For messages: the tensor's name in its file.
  public let name: String
  public let format: WeightFormat
  /// Outputs.
  public let rows: Int
  /// Inputs: the k axis, contiguous.
  public let columns: Int
  public let bytes: UnsafeRawBufferPointer
  private let owner: AnyObject?

  /// - Precondition: `bytes` holds exactly `rows` rows of `columns` values in `format`.
  public init(name: String, format: WeightFormat, rows: Int, columns: Int, bytes: UnsafeRawBufferPointer, owner: AnyObject?) {
    let expected = rows * format.byteCount(ofRow: columns)
    enforce(
      bytes.count == expected,
      "weight \(name): \(bytes.count) bytes where [\(rows), \(columns)] \(format.rawValue) takes \(expected)")
    self.name = name
    self.format = format
    self.rows = rows
    self.columns = columns
    self.bytes = bytes
    self.owner = owner
  }

  /// The rows in so many equal parts, each a view.
  /// - Precondition: the rows divide into them.
  public func split(into count: Int) -> [Weight] {
    enforce(count > 0 && rows % count == 0, "weight \(name): \(rows) rows do not divide into \(count) parts")
    let size = bytes.count / count
    return (0..<count).map {
      Weight(
        name: count == 1 ? name : "\(name)[\($0)]", format: format, rows: rows / count, columns: columns,
        bytes: UnsafeRawBufferPointer(rebasing: bytes[$0 * size..<($0 + 1) * size]), owner: owner)
    }
  }
}

extension Weight {
  /// The first rows, a view.
  public func prefix(_ count: Int) -> Weight { part(0..<count) }

  /// The last rows, a view.
  public func suffix(_ count: Int) -> Weight { part(rows - count..<rows) }

  private func part(_ range: Range<Int>) -> Weight {
    enforce(range.lowerBound >= 0 && range.upperBound <= rows, "weight \(name): rows \(range) of \(rows)")
    let size = format.byteCount(ofRow: columns)
    return Weight(
      name: "\(name)[\(range)]", format: format, rows: range.count, columns: columns,
      bytes: UnsafeRawBufferPointer(rebasing: bytes[range.lowerBound * size..<range.upperBound * size]), owner: owner)
  }

  /// The matrix with its columns as rows, in memory of its own; nil of a format whose values do not stand each for itself.
  public func transposed() -> Weight? {
    let width: Int
    switch format {
    case .f32: width = 4
    case .f16, .bf16: width = 2
    default: return nil
    }
    let memory = TurnedWeight(byteCount: bytes.count)
    for row in 0..<rows {
      for column in 0..<columns {
        for byte in 0..<width { memory.bytes[(column * rows + row) * width + byte] = bytes[(row * columns + column) * width + byte] }
      }
    }
    return Weight(
      name: "\(name), turned", format: format, rows: columns, columns: rows, bytes: UnsafeRawBufferPointer(memory.bytes), owner: memory)
  }
}

/// The memory of a weight that was turned.
private final class TurnedWeight {
  let bytes: UnsafeMutableRawBufferPointer

  init(byteCount: Int) { bytes = .allocate(byteCount: byteCount, alignment: 64) }
  deinit { bytes.deallocate() }
}

/// Weights in the form that a device's kernels read, made once by ``Device/prepare(_:)``.
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
