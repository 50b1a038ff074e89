// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// An array of the metadata, read where it lies: a view that keeps its file, not a copy.
///
/// Reading front to back costs each element once. `array[i]` is O(1) for numbers; strings and arrays have no fixed size, so it walks from the
/// nearest of the positions noted every ``stride`` elements.
public struct GGUFArray: Sendable {
  public let elementType: GGUFValueType
  public let count: Int

  private let file: FileBytes
  /// Where the first element lies.
  private let start: Int
  /// Where elements 0, stride, 2·stride … lie, for elements without a fixed size.
  private let marks: [Int]
  private static let stride = 64
  /// Arrays of arrays of arrays: deeper ones are refused, so that a file cannot make the reader recurse without end.
  static let maximumDepth = 4

  /// Validates the array at the cursor, elements included, and moves the cursor past it.
  init(_ file: FileBytes, at cursor: inout ByteCursor, field: String, depth: Int = 1) throws(GGUFError) {
    (elementType, count) = try Self.readHeader(at: &cursor, field: field, depth: depth)
    self.file = file
    start = cursor.offset
    var marks: [Int] = []
    if elementType.fixedSize == nil { marks.reserveCapacity(count / Self.stride + 1) }
    try Self.skipElements(count, of: elementType, at: &cursor, field: field, depth: depth) { index, offset in
      if index % Self.stride == 0 { marks.append(offset) }
    }
    self.marks = marks
  }

  private static func readHeader(
    at cursor: inout ByteCursor, field: String, depth: Int
  ) throws(GGUFError) -> (GGUFValueType, Int) {
    guard depth <= maximumDepth else {
      throw .malformed(field: field, problem: "nests arrays more than \(maximumDepth) deep")
    }
    let code = try cursor.read(UInt32.self, "the element type of \(field)")
    guard let type = GGUFValueType(rawValue: code) else {
      throw .malformed(field: field, problem: "has elements of the unknown type \(code)")
    }
    let count = try cursor.read(UInt64.self, "the element count of \(field)")
    try cursor.require(count, of: type.minimumSize, "\(field), \(count) elements of type \(type),")
    return (type, Int(count))
  }

  /// Checks the elements and moves past them; `visit` gets the index and offset of each one without a fixed size.
  private static func skipElements(
    _ count: Int, of type: GGUFValueType, at cursor: inout ByteCursor, field: String, depth: Int, visit: (Int, Int) -> Void
  ) throws(GGUFError) {
    switch type {
    case .string:
      for index in 0..<count {
        visit(index, cursor.offset)
        _ = try cursor.takeString("\(field)[\(index)]")
      }
    case .array:
      for index in 0..<count {
        visit(index, cursor.offset)
        let (innerType, innerCount) = try readHeader(at: &cursor, field: field, depth: depth + 1)
        try skipElements(innerCount, of: innerType, at: &cursor, field: field, depth: depth + 1) { _, _ in }
      }
    default:
      let elements = try cursor.take(UInt64(count) * UInt64(type.fixedSize!), field)
      if type == .bool, let bad = elements.first(where: { $0 > 1 }) {
        throw .malformed(field: field, problem: "has a bool that reads \(bad)")
      }
    }
  }

  /// Element `index`.
  /// - Precondition: `index` is within `0..<count`.
  public subscript(index: Int) -> GGUFValue {
    enforce(index >= 0 && index < count, "index \(index) of an array of \(count)")
    var cursor = ByteCursor(file.bytes, at: start)
    do {
      if let size = elementType.fixedSize {
        cursor = ByteCursor(file.bytes, at: start + index * size)
      } else {
        cursor = ByteCursor(file.bytes, at: marks[index / Self.stride])
        try Self.skipElements(index % Self.stride, of: elementType, at: &cursor, field: "", depth: 1) { _, _ in }
      }
      return try GGUFValue(elementType, file, at: &cursor, field: "")
    } catch {
      fatalError("an array that was valid when the file was opened no longer is: another program wrote the file")
    }
  }

  /// Calls `body` with the index and bytes of every string, front to back, without making a `String` of any.
  /// - Precondition: `elementType` is `.string`.
  public func forEachString<E: Error>(_ body: (Int, Span<UInt8>) throws(E) -> Void) throws(E) {
    enforce(elementType == .string, "the array holds \(elementType), not strings")
    var offset = start
    for index in 0..<count {
      let bytes: UnsafeRawBufferPointer
      do {
        var cursor = ByteCursor(file.bytes, at: offset)
        bytes = try cursor.takeString("")
        offset = cursor.offset
      } catch {
        fatalError("an array that was valid when the file was opened no longer is: another program wrote the file")
      }
      try bytes.withMemoryRebound(to: UInt8.self) { (buffer) throws(E) in try body(index, buffer.span) }
    }
  }

  /// All elements as integers; nil if they are not integers or one does not fit an `Int`.
  public func integers() -> [Int]? {
    switch elementType {
    case .uint8: map(UInt8.self) { Int($0) }
    case .int8: map(Int8.self) { Int($0) }
    case .uint16: map(UInt16.self) { Int($0) }
    case .int16: map(Int16.self) { Int($0) }
    case .uint32: map(UInt32.self) { Int($0) }
    case .int32: map(Int32.self) { Int($0) }
    case .uint64: map(UInt64.self) { Int(exactly: $0) }
    case .int64: map(Int64.self) { Int($0) }
    case .float32, .float64, .bool, .string, .array: nil
    }
  }

  /// All elements as floating-point numbers, a float64 rounded; nil if they are something else.
  public func floats() -> [Float]? {
    switch elementType {
    case .float32: map(UInt32.self) { Float(bitPattern: $0) }
    case .float64: map(UInt64.self) { Float(Double(bitPattern: $0)) }
    default: nil
    }
  }

  /// All elements as Booleans; nil if they are something else.
  public func bools() -> [Bool]? {
    elementType == .bool ? map(UInt8.self) { $0 == 1 } : nil
  }

  /// All elements as strings; nil if they are something else or one is not valid UTF-8.
  public func strings() -> [String]? {
    guard elementType == .string else { return nil }
    var result: [String] = []
    result.reserveCapacity(count)
    var isValid = true
    forEachString { _, bytes in
      if isValid, let string = bytes.withUnsafeBufferPointer({ String(validating: $0, as: UTF8.self) }) {
        result.append(string)
      } else {
        isValid = false
      }
    }
    return isValid ? result : nil
  }

  /// The elements, which are stored as `Stored`, transformed; nil if one transforms to nil.
  private func map<Stored: FixedWidthInteger & BitwiseCopyable, T>(_ type: Stored.Type, _ transform: (Stored) -> T?) -> [T]? {
    var result: [T] = []
    result.reserveCapacity(count)
    for index in 0..<count {
      // In range: the array's bytes were checked against the file when it was opened.
      let stored = file.bytes.loadUnaligned(fromByteOffset: start + index * MemoryLayout<Stored>.size, as: Stored.self)
      guard let value = transform(Stored(littleEndian: stored)) else { return nil }
      result.append(value)
    }
    return result
  }
}

extension GGUFValue {
  /// Reads a value of `type` at the cursor, checking it, and moves the cursor past it.
  init(_ type: GGUFValueType, _ file: FileBytes, at cursor: inout ByteCursor, field: String) throws(GGUFError) {
    switch type {
    case .uint8: self = .uint8(try cursor.read(UInt8.self, field))
    case .int8: self = .int8(try cursor.read(Int8.self, field))
    case .uint16: self = .uint16(try cursor.read(UInt16.self, field))
    case .int16: self = .int16(try cursor.read(Int16.self, field))
    case .uint32: self = .uint32(try cursor.read(UInt32.self, field))
    case .int32: self = .int32(try cursor.read(Int32.self, field))
    case .uint64: self = .uint64(try cursor.read(UInt64.self, field))
    case .int64: self = .int64(try cursor.read(Int64.self, field))
    case .float32: self = .float32(Float(bitPattern: try cursor.read(UInt32.self, field)))
    case .float64: self = .float64(Double(bitPattern: try cursor.read(UInt64.self, field)))
    case .bool:
      let byte = try cursor.read(UInt8.self, field)
      guard byte <= 1 else { throw .malformed(field: field, problem: "is a bool that reads \(byte)") }
      self = .bool(byte == 1)
    case .string: self = .string(String(decoding: try cursor.takeString(field), as: UTF8.self))
    case .array: self = .array(try GGUFArray(file, at: &cursor, field: field))
    }
  }
}
