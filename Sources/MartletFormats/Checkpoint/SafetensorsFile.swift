// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore

/// One tensor of a safetensors file: what it is and where it lies.
public struct SafetensorsTensor: Sendable, Hashable {
  public let name: String
  /// The file's name of the type, such as "BF16"; more than a build can read.
  public let type: String
  /// Sizes, outermost first; empty for one value.
  public let shape: [Int]
  /// Where its bytes begin in the file.
  public let offset: Int
  public let byteCount: Int

  /// The number of values. Never overflows: checked when the file was opened.
  public var count: Int { shape.reduce(1, *) }

  /// The format in which this build can read it; nil if it cannot. The names are the same as GGUF's.
  public var weightFormat: WeightFormat? { Self.readable.first { $0.rawValue == type } }

  /// The formats that this build reads from safetensors files.
  static let readable: [WeightFormat] = [.f32, .f16, .bf16, .e4m3]
}

/// A safetensors file: tensors, read where they lie.
///
/// The format is 8 bytes of header length (little endian), the header (a JSON object: name → type, shape, range of bytes), the data. Opening maps the
/// file read-only and checks all of it except the values of tensors: that the header is JSON and lies in the file, and that the ranges are
/// what types and shapes say and tile the data without gap or overlap, as the format demands. Afterwards nothing can run past the end.
/// A file that is not valid gives a ``CheckpointError`` that names the field; memory taken is in proportion to the bytes that the file really has.
public final class SafetensorsFile: Sendable {
  /// For messages: the file's name without its folder; "safetensors" for bytes in memory.
  public let name: String
  /// The tensors, in the order of their bytes.
  public let tensors: [SafetensorsTensor]

  private let file: FileBytes
  private let tensorIndices: [String: Int]

  /// The reference implementation's limit for a header.
  static let largestHeader: UInt64 = 100_000_000

  /// Maps and checks the file at `path`.
  public convenience init(path: String) throws(CheckpointError) {
    let file: FileBytes
    do { file = try FileBytes(path: path) } catch { throw .cannotOpen(path: path, reason: error.reason) }
    try self.init(file, name: path.split(separator: "/").last.map(String.init) ?? path)
  }

  /// Checks a file that is in memory; the bytes are copied to memory of exactly their size.
  public convenience init(bytes: [UInt8]) throws(CheckpointError) {
    try self.init(FileBytes(copying: bytes), name: "safetensors")
  }

  private init(_ file: FileBytes, name: String) throws(CheckpointError) {
    self.file = file
    self.name = name
    let (header, dataStart) = try Self.readHeader(file.bytes, name)
    tensors = try Self.readTensors(header, dataStart: dataStart, dataSize: file.bytes.count - dataStart, name)
    var indices = [String: Int](minimumCapacity: tensors.count)
    for (index, tensor) in tensors.enumerated() {
      // Keys are distinct bytes; these are two names that a Swift string cannot tell apart.
      guard indices.updateValue(index, forKey: tensor.name) == nil else {
        throw .malformed(file: name, field: "tensor \"\(tensor.name)\"", problem: "is listed twice in different Unicode forms")
      }
    }
    tensorIndices = indices
  }

  /// Bytes of the file.
  public var byteCount: Int { file.bytes.count }

  /// As ``WeightOwner`` has it; nothing where `part` lies in another file.
  func releasePages(of part: UnsafeRawBufferPointer) { file.releasePages(of: part) }

  /// The tensor of that name; nil without one.
  public func tensor(_ name: String) -> SafetensorsTensor? { tensorIndices[name].map { tensors[$0] } }

  /// The matrix `name` as it lies in the file: a view, no copy, that keeps the file.
  ///
  /// - Parameters rows, columns: what the model needs; another shape is an error. nil accepts any.
  public func weight(_ name: String, rows: Int? = nil, columns: Int? = nil) throws(CheckpointError) -> Weight {
    guard let tensor = tensor(name) else { throw .missingTensor(name) }
    guard let format = tensor.weightFormat else {
      throw .unreadableFormat(tensor: name, format: tensor.type, readable: SafetensorsTensor.readable.map(\.rawValue))
    }
    guard tensor.shape.count == 2, tensor.count > 0, rows.map({ $0 == tensor.shape[0] }) ?? true,
      columns.map({ $0 == tensor.shape[1] }) ?? true
    else {
      func text(_ size: Int?) -> String { size.map(String.init) ?? "any" }
      let expected = rows == nil && columns == nil ? "a matrix" : "[\(text(rows)), \(text(columns))]"
      throw .wrongShape(tensor: name, found: tensor.shape, expected: expected)
    }
    return Weight(name: name, format: format, rows: tensor.shape[0], columns: tensor.shape[1], bytes: bytes(of: tensor), owner: file)
  }

  /// The matrices of the tensor `name`, which has three dims: views in order, no copies.
  ///
  /// - Parameters count, rows, columns: what the model needs; another shape is an error.
  public func weights(_ name: String, count: Int, rows: Int, columns: Int) throws(CheckpointError) -> [Weight] {
    guard let tensor = tensor(name) else { throw .missingTensor(name) }
    guard let format = tensor.weightFormat else {
      throw .unreadableFormat(tensor: name, format: tensor.type, readable: SafetensorsTensor.readable.map(\.rawValue))
    }
    guard tensor.shape == [count, rows, columns], tensor.count > 0 else {
      throw .wrongShape(tensor: name, found: tensor.shape, expected: "[\(count), \(rows), \(columns)]")
    }
    return Weight(name: name, format: format, rows: count * rows, columns: columns, bytes: bytes(of: tensor), owner: file).split(
      into: count)
  }

  /// The values of a small tensor that is kept as floats, such as a norm's or a bias: F32, F16, BF16, F8_E4M3 or F8_E8M0, widened exactly.
  ///
  /// - Parameter count: how many the model needs; another number is an error. nil accepts any.
  public func floats(_ name: String, count: Int? = nil) throws(CheckpointError) -> [Float] {
    guard let tensor = tensor(name) else { throw .missingTensor(name) }
    guard count.map({ $0 == tensor.count }) ?? true else {
      throw .wrongShape(tensor: name, found: tensor.shape, expected: "\(count!) values")
    }
    if tensor.type == "F8_E8M0" {  // powers of two, the greatest code NaN
      return bytes(of: tensor).map { $0 == 255 ? .nan : $0 == 0 ? 0x1p-127 : Float(bitPattern: UInt32($0) << 23) }
    }
    guard let format = tensor.weightFormat, let values = format.widened(bytes(of: tensor), count: tensor.count) else {
      throw .unreadableFormat(tensor: name, format: tensor.type, readable: SafetensorsTensor.readable.map(\.rawValue))
    }
    return values
  }

  /// The tensor `name` and its bytes, which the file keeps.
  package func contents(of name: String) throws(CheckpointError) -> (tensor: SafetensorsTensor, bytes: UnsafeRawBufferPointer) {
    guard let tensor = tensor(name) else { throw .missingTensor(name) }
    return (tensor, bytes(of: tensor))
  }

  private func bytes(of tensor: SafetensorsTensor) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(rebasing: file.bytes[tensor.offset..<tensor.offset + tensor.byteCount])
  }
}

// MARK: - Reading the header

extension SafetensorsFile {
  private static func readHeader(_ bytes: UnsafeRawBufferPointer, _ name: String) throws(CheckpointError) -> (JSONValue, Int) {
    guard bytes.count >= 8 else { throw .truncated(file: name, field: "the length of the header", needed: 8, available: bytes.count) }
    let length = UInt64(littleEndian: bytes.loadUnaligned(as: UInt64.self))
    guard length <= largestHeader else {
      throw .malformed(file: name, field: "the length of the header", problem: "is \(length), more than the format's \(largestHeader)")
    }
    guard length <= UInt64(bytes.count - 8) else {
      throw .truncated(file: name, field: "the header", needed: length, available: bytes.count - 8)
    }
    let end = 8 + Int(length)
    let header: JSONValue
    do {
      header = try JSONValue(UnsafeRawBufferPointer(rebasing: bytes[8..<end]))
    } catch {
      throw .malformed(file: name, field: "the header", problem: "cannot be read (\(error))")
    }
    guard header.kind == .object else { throw .malformed(file: name, field: "the header", problem: "is \(header), not an object") }
    return (header, end)
  }

  private static func readTensors(
    _ header: JSONValue, dataStart: Int, dataSize: Int, _ file: String
  ) throws(CheckpointError) -> [SafetensorsTensor] {
    var tensors: [SafetensorsTensor] = []
    for (key, value) in header.members {
      let name = key.string!
      if name == "__metadata__" {
        guard value.kind == .object, value.members.allSatisfy({ $0.value.kind == .string }) else {
          throw .malformed(file: file, field: "__metadata__", problem: "is not an object of strings")
        }
        continue
      }
      tensors.append(try readTensor(name, value, dataStart: dataStart, dataSize: dataSize, file))
    }
    tensors.sort { ($0.offset, $0.byteCount, $0.name) < ($1.offset, $1.byteCount, $1.name) }
    var end = dataStart
    for tensor in tensors {
      guard tensor.offset == end else {
        let problem = tensor.offset < end ? "overlaps the tensor before it" : "leaves a gap to the tensor before it"
        throw .malformed(
          file: file, field: "tensor \"\(tensor.name)\"",
          problem: "\(problem): it begins at byte \(tensor.offset - dataStart) of the data, not at \(end - dataStart)")
      }
      end += tensor.byteCount
    }
    guard end == dataStart + dataSize else {
      throw .malformed(file: file, field: "the data", problem: "has \(dataSize) bytes, of which tensors take \(end - dataStart)")
    }
    return tensors
  }

  private static func readTensor(
    _ name: String, _ entry: JSONValue, dataStart: Int, dataSize: Int, _ file: String
  ) throws(CheckpointError) -> SafetensorsTensor {
    func malformed(_ problem: String) -> CheckpointError { .malformed(file: file, field: "tensor \"\(name)\"", problem: problem) }
    for (key, _) in entry.members where !["dtype", "shape", "data_offsets"].contains(key.string!) {
      throw malformed("has an unknown field \"\(key.string!)\"")
    }
    guard let type = entry["dtype"]?.string else { throw malformed("has no \"dtype\" that is a string") }
    guard let dims = entry["shape"], dims.kind == .array else { throw malformed("has no \"shape\" that is an array") }
    guard dims.count <= 8 else { throw malformed("has \(dims.count) dimensions, more than 8") }
    var shape: [Int] = []
    // With a dimension of 0 the product is 0 in any order; without, it must not overflow in any.
    var count = 1
    for (axis, dim) in dims.elements.enumerated() {
      guard let size = dim.integer, size >= 0 else { throw malformed("has \(dim) as the size of dimension \(axis)") }
      let (product, overflow) = count.multipliedReportingOverflow(by: max(size, 1))
      guard !overflow else { throw malformed("has more values than 63 bits can count") }
      shape.append(size)
      count = product
    }
    if shape.contains(0) { count = 0 }
    guard let range = entry["data_offsets"], range.count == 2, case let bounds = Array(range.elements), bounds.count == 2,
      let begin = bounds[0].integer, let end = bounds[1].integer, begin >= 0, begin <= end
    else { throw malformed("has no \"data_offsets\" that are two ascending integers") }
    guard end <= dataSize else {
      throw .truncated(file: file, field: "the data of tensor \"\(name)\"", needed: UInt64(end), available: dataSize)
    }
    if let bits = bitsOfTypes[type] {
      let (needed, overflow) = count.multipliedReportingOverflow(by: bits)
      guard !overflow, needed % 8 == 0, needed / 8 == end - begin else {
        throw malformed("has \(end - begin) bytes of data, which is not what \(shape) values of \(type) take")
      }
    }
    return SafetensorsTensor(name: name, type: type, shape: shape, offset: dataStart + begin, byteCount: end - begin)
  }

  /// Bits of a value, of the types in the format's description; the bytes of others cannot be checked.
  private static let bitsOfTypes: [String: Int] = [
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "I16": 16, "U16": 16,
    "F16": 16,
    "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64,
  ]
}
