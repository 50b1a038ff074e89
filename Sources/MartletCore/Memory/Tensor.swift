// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// A dense, row-major view of elements in a device's memory.
///
/// A tensor never owns a kernel or knows a device; it is a buffer, an offset, a shape and a type. Copying it copies the view.
public struct Tensor: Sendable {
  public let buffer: DeviceBuffer
  /// Bytes from the start of the buffer to the first element.
  public let byteOffset: Int
  public let shape: Shape
  public let dataType: DataType

  /// - Precondition: the elements lie within the buffer.
  public init(_ buffer: DeviceBuffer, byteOffset: Int = 0, shape: Shape, dataType: DataType) {
    let end = byteOffset + shape.count * dataType.byteCount
    enforce(
      byteOffset >= 0 && end <= buffer.byteCount,
      "a tensor of \(shape) \(dataType) at byte \(byteOffset) ends at \(end), past its buffer of \(buffer.byteCount) bytes")
    self.buffer = buffer
    self.byteOffset = byteOffset
    self.shape = shape
    self.dataType = dataType
  }

  /// The number of elements.
  public var count: Int { shape.count }
  /// The number of bytes.
  public var byteCount: Int { shape.count * dataType.byteCount }
  /// The address of the first element in the device's address space.
  public var address: UInt { buffer.address + UInt(byteOffset) }

  /// Rows `range` along the outermost dimension, as a view.
  public func rows(_ range: Range<Int>) -> Tensor {
    enforce(range.lowerBound >= 0 && range.upperBound <= shape[0], "rows \(range) of \(shape)")
    let rowBytes = shape[0] == 0 ? 0 : byteCount / shape[0]
    let rows = range.count
    let view: Shape =
      switch shape.rank {
      case 1: Shape(rows)
      case 2: Shape(rows, shape[1])
      case 3: Shape(rows, shape[1], shape[2])
      default: Shape(rows, shape[1], shape[2], shape[3])
      }
    return Tensor(buffer, byteOffset: byteOffset + range.lowerBound * rowBytes, shape: view, dataType: dataType)
  }

  /// The first `count` rows, as a view.
  public func prefix(_ count: Int) -> Tensor { rows(0..<count) }

  /// The same elements under another shape.
  /// - Precondition: the counts agree.
  public func reshaped(_ shape: Shape) -> Tensor {
    enforce(shape.count == count, "\(self.shape) has \(count) elements, \(shape) has \(shape.count)")
    return Tensor(buffer, byteOffset: byteOffset, shape: shape, dataType: dataType)
  }

  /// The elements as host memory, where the host can reach them: the door for code that computes in Swift.
  ///
  /// The pointer is valid while the tensor's buffer lives. Kernels must not be running on the tensor meanwhile (`DeviceQueue.wait()`).
  /// - Precondition: `Element` has the size of `dataType`.
  public func unsafeHostPointer<Element: BitwiseCopyable>(to type: Element.Type) -> UnsafeMutableBufferPointer<Element>? {
    enforce(MemoryLayout<Element>.stride == dataType.byteCount, "\(Element.self) is not as wide as \(dataType)")
    guard let base = buffer.hostAddress else { return nil }
    return UnsafeMutableBufferPointer(start: (base + byteOffset).assumingMemoryBound(to: Element.self), count: count)
  }
}
