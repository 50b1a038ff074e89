// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// The type of a metadata value, numbered as in the file.
public enum GGUFValueType: UInt32, Sendable, Hashable, CaseIterable {
  case uint8, int8, uint16, int16, uint32, int32, float32, bool, string, array, uint64, int64, float64

  /// Bytes of one value; nil where values differ in size.
  var fixedSize: Int? {
    switch self {
    case .uint8, .int8, .bool: 1
    case .uint16, .int16: 2
    case .uint32, .int32, .float32: 4
    case .uint64, .int64, .float64: 8
    case .string, .array: nil
    }
  }

  /// The fewest bytes a value can take: a string is at least its length, an array its element type and count.
  var minimumSize: Int {
    switch self {
    case .string: 8
    case .array: 12
    default: fixedSize!
    }
  }
}

/// One metadata value.
public enum GGUFValue: Sendable {
  case uint8(UInt8), int8(Int8), uint16(UInt16), int16(Int16), uint32(UInt32), int32(Int32), uint64(UInt64), int64(Int64)
  case float32(Float), float64(Double)
  case bool(Bool)
  /// Bytes that are not UTF-8 show as U+FFFD here; ``GGUFFile/string(_:)`` refuses them.
  case string(String)
  case array(GGUFArray)

  /// The value as an integer, if it is one and fits.
  public var integer: Int? {
    switch self {
    case .uint8(let value): Int(value)
    case .int8(let value): Int(value)
    case .uint16(let value): Int(value)
    case .int16(let value): Int(value)
    case .uint32(let value): Int(value)
    case .int32(let value): Int(value)
    case .uint64(let value): Int(exactly: value)
    case .int64(let value): Int(value)
    case .float32, .float64, .bool, .string, .array: nil
    }
  }

  /// The value as a floating-point number, if it is one. A float64 is rounded.
  public var float: Float? {
    switch self {
    case .float32(let value): value
    case .float64(let value): Float(value)
    default: nil
    }
  }

  /// The value's type.
  public var type: GGUFValueType {
    switch self {
    case .uint8: .uint8
    case .int8: .int8
    case .uint16: .uint16
    case .int16: .int16
    case .uint32: .uint32
    case .int32: .int32
    case .uint64: .uint64
    case .int64: .int64
    case .float32: .float32
    case .float64: .float64
    case .bool: .bool
    case .string: .string
    case .array: .array
    }
  }

  /// "uint32", "array of string": for messages.
  var typeDescription: String {
    if case .array(let array) = self { return "array of \(array.elementType)" }
    return "\(type)"
  }
}
