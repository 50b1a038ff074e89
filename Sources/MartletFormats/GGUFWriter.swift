// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletLibc
import MartletCore

/// Writes GGUF files: tiny models for tests, and files that are wrong on purpose, so that it checks nothing.
package struct GGUFWriter {
  package indirect enum Value {
    case uint8(UInt8), int8(Int8), uint16(UInt16), int16(Int16), uint32(UInt32), int32(Int32), uint64(UInt64), int64(Int64)
    case float32(Float), float64(Double), bool(Bool), string(String)
    /// A string of any bytes.
    case bytes([UInt8])
    case array(GGUFValueType, [Value])
  }

  package var version: UInt32 = 3
  /// Where tensors begin. Written as `general.alignment` if it is not 32.
  package var alignment = 32
  private var metadata: [(key: String, value: Value)] = []
  private var tensors: [(name: String, type: GGUFTensorType, dims: [Int], bytes: [UInt8])] = []

  package init() {}

  /// Appends a key, even one that is already there.
  package mutating func add(_ key: String, _ value: Value) { metadata.append((key, value)) }

  package mutating func add(_ key: String, strings: [String]) { add(key, .array(.string, strings.map { .string($0) })) }
  package mutating func add(_ key: String, floats: [Float]) { add(key, .array(.float32, floats.map { .float32($0) })) }
  package mutating func add(_ key: String, int32s: [Int32]) { add(key, .array(.int32, int32s.map { .int32($0) })) }

  /// Appends a tensor: `shape` outermost first, `bytes` its values in `type`.
  package mutating func addTensor(_ name: String, type: GGUFTensorType, shape: [Int], bytes: [UInt8]) {
    tensors.append((name, type, shape.reversed(), bytes))
  }

  /// Appends a tensor of float32 values.
  package mutating func addTensor(_ name: String, shape: [Int], floats: [Float]) {
    addTensor(name, type: GGUFTensorType(.f32), shape: shape, bytes: floats.flatMap { littleEndianBytes($0.bitPattern) })
  }

  /// The whole file.
  package func bytes() -> [UInt8] {
    var all = metadata
    if alignment != 32 { all.append(("general.alignment", .uint32(UInt32(alignment)))) }
    var out = Array("GGUF".utf8) + littleEndianBytes(version)
    out += littleEndianBytes(UInt64(tensors.count)) + littleEndianBytes(UInt64(all.count))
    for (key, value) in all {
      Self.append(Array(key.utf8), to: &out)
      out += littleEndianBytes(Self.type(of: value).rawValue)
      Self.append(value, to: &out)
    }
    var data: [UInt8] = []
    for tensor in tensors {
      Self.append(Array(tensor.name.utf8), to: &out)
      out += littleEndianBytes(UInt32(tensor.dims.count))
      for dim in tensor.dims { out += littleEndianBytes(UInt64(dim)) }
      out += littleEndianBytes(tensor.type.code) + littleEndianBytes(UInt64(data.count))
      data += tensor.bytes
      pad(&data)
    }
    if !tensors.isEmpty { pad(&out) }
    return out + data
  }

  /// Writes the file to `path`, replacing what is there.
  package func write(toPath path: String) throws(GGUFError) {
    guard let file = fopen(path, "wb") else { throw .cannotOpen(path: path, reason: String(cString: strerror(martlet_errno()))) }
    let bytes = bytes()
    let written = fwrite(bytes, 1, bytes.count, file)
    guard fclose(file) == 0, written == bytes.count else {
      throw .cannotOpen(path: path, reason: String(cString: strerror(martlet_errno())))
    }
  }

  private func pad(_ bytes: inout [UInt8]) {
    bytes += [UInt8](repeating: 0, count: (alignment - bytes.count % alignment) % alignment)
  }

  private static func append(_ string: [UInt8], to out: inout [UInt8]) {
    out += littleEndianBytes(UInt64(string.count)) + string
  }

  private static func append(_ value: Value, to out: inout [UInt8]) {
    switch value {
    case .uint8(let value): out += littleEndianBytes(value)
    case .int8(let value): out += littleEndianBytes(value)
    case .uint16(let value): out += littleEndianBytes(value)
    case .int16(let value): out += littleEndianBytes(value)
    case .uint32(let value): out += littleEndianBytes(value)
    case .int32(let value): out += littleEndianBytes(value)
    case .uint64(let value): out += littleEndianBytes(value)
    case .int64(let value): out += littleEndianBytes(value)
    case .float32(let value): out += littleEndianBytes(value.bitPattern)
    case .float64(let value): out += littleEndianBytes(value.bitPattern)
    case .bool(let value): out.append(value ? 1 : 0)
    case .string(let value): append(Array(value.utf8), to: &out)
    case .bytes(let value): append(value, to: &out)
    case .array(let type, let values):
      out += littleEndianBytes(type.rawValue) + littleEndianBytes(UInt64(values.count))
      for value in values { append(value, to: &out) }
    }
  }

  private static func type(of value: Value) -> GGUFValueType {
    switch value {
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
    case .string, .bytes: .string
    case .array: .array
    }
  }
}

private func littleEndianBytes<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
  withUnsafeBytes(of: value.littleEndian) { Array($0) }
}
