// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// Reads little-endian fields front to back; every read is checked against the bytes that are left before it happens.
///
/// `field` says in words what is read; it is evaluated for an error only.
struct ByteCursor {
  let bytes: UnsafeRawBufferPointer
  /// Never past `bytes.count`.
  private(set) var offset: Int

  init(_ bytes: UnsafeRawBufferPointer, at offset: Int = 0) {
    enforce(offset >= 0 && offset <= bytes.count, "offset \(offset) of \(bytes.count) bytes")
    self.bytes = bytes
    self.offset = offset
  }

  var remaining: Int { bytes.count - offset }

  /// Fails unless `count` elements of at least `size` bytes can be left: the check before anything is sized by a count from the file.
  func require(_ count: UInt64, of size: Int, _ field: @autoclosure () -> String) throws(GGUFError) {
    let (needed, overflow) = count.multipliedReportingOverflow(by: UInt64(size))
    guard !overflow, needed <= UInt64(remaining) else {
      throw .truncated(field: field(), offset: offset, needed: overflow ? .max : needed, available: remaining)
    }
  }

  mutating func read<T: FixedWidthInteger & BitwiseCopyable>(
    _ type: T.Type, _ field: @autoclosure () -> String
  ) throws(GGUFError) -> T {
    let size = MemoryLayout<T>.size
    guard remaining >= size else {
      throw .truncated(field: field(), offset: offset, needed: UInt64(size), available: remaining)
    }
    defer { offset += size }
    return T(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: T.self))
  }

  /// The next `count` bytes, as a view.
  mutating func take(_ count: UInt64, _ field: @autoclosure () -> String) throws(GGUFError) -> UnsafeRawBufferPointer {
    try require(count, of: 1, field())
    let start = offset
    offset += Int(count)
    return UnsafeRawBufferPointer(rebasing: bytes[start..<offset])
  }

  /// A string: a 64-bit length and that many bytes, as a view.
  mutating func takeString(_ field: @autoclosure () -> String) throws(GGUFError) -> UnsafeRawBufferPointer {
    let length = try read(UInt64.self, "the length of " + field())
    return try take(length, field())
  }
}
