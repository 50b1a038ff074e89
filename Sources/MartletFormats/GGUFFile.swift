// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// A GGUF file (versions 2 and 3, little endian): metadata and tensors, read where they lie.
///
/// Opening maps the file read-only and checks all of it except the values of tensors: every field, count, size and range. Afterwards nothing can
/// run past the end. No array is copied and no weight is read, so that opening takes milliseconds for any size. A file that is not valid gives a
/// ``GGUFError`` that names the field; memory taken is in proportion to the bytes that the file really has.
///
/// ```swift
/// let file = try GGUFFile(path: "model.gguf")
/// let layers = try file.integer("llama.block_count")
/// let up = try file.weight("blk.0.ffn_up.weight", rows: 1536, columns: 576)
/// ```
///
/// The format is described in `docs/gguf.md` of the ggml project.
public final class GGUFFile: Sendable {
  /// The path it was opened with; nil for bytes in memory.
  public let path: String?
  /// The format's version: 2 or 3.
  public let version: UInt32
  /// The keys of the metadata, in the file's order.
  public let metadataKeys: [String]
  /// The tensors, in the file's order.
  public let tensors: [GGUFTensor]
  /// Tensors begin at multiples of this: `general.alignment`, or 32.
  public let alignment: Int

  let file: FileBytes
  private let values: [String: GGUFValue]
  /// Keys whose strings are not UTF-8, so that ``value(_:)`` shows them repaired.
  let repairedKeys: Set<String>
  private let tensorIndices: [String: Int]

  /// Maps and checks the file at `path`.
  public convenience init(path: String) throws(GGUFError) {
    let file: FileBytes
    do { file = try FileBytes(path: path) } catch { throw .cannotOpen(path: path, reason: error.reason) }
    do { try self.init(file, path: path) } catch { throw error.of(path: path) }
  }

  /// Checks a file that is in memory; the bytes are copied.
  public convenience init(bytes: [UInt8]) throws(GGUFError) {
    try self.init(FileBytes(copying: bytes), path: nil)
  }

  private init(_ file: FileBytes, path: String?) throws(GGUFError) {
    self.file = file
    self.path = path
    var cursor = ByteCursor(file.bytes)
    version = try Self.readVersion(at: &cursor)
    let tensorCount = try cursor.read(UInt64.self, "the tensor count")
    let metadataCount = try cursor.read(UInt64.self, "the metadata count")
    // A value takes at least its key's length, one byte of key, its type and one byte; a tensor its name, dimensions, type and offset.
    try cursor.require(metadataCount, of: 8 + 1 + 4 + 1, "the metadata, \(metadataCount) values,")
    try cursor.require(tensorCount, of: 8 + 1 + 4 + 8 + 4 + 8, "the tensor table, \(tensorCount) tensors,")
    (metadataKeys, values, repairedKeys) = try Self.readMetadata(Int(metadataCount), file, at: &cursor)
    alignment = try Self.alignment(values["general.alignment"])
    tensors = try Self.readTensors(Int(tensorCount), alignment: alignment, at: &cursor)
    var indices = [String: Int](minimumCapacity: tensors.count)
    for (index, tensor) in tensors.enumerated() {
      guard indices.updateValue(index, forKey: tensor.name) == nil else {
        throw .malformed(field: "tensor \"\(tensor.name)\"", problem: "is listed twice")
      }
    }
    tensorIndices = indices
  }

  /// Bytes of the file.
  public var byteCount: Int { file.bytes.count }

  /// The value of a metadata key, in whatever type the file has; nil without one.
  public func value(_ key: String) -> GGUFValue? { values[key] }

  /// The tensor of that name; nil without one.
  public func tensor(_ name: String) -> GGUFTensor? { tensorIndices[name].map { tensors[$0] } }
}

// MARK: - Reading the header

extension GGUFFile {
  private static func readVersion(at cursor: inout ByteCursor) throws(GGUFError) -> UInt32 {
    let magic = try cursor.take(4, "the magic number")
    guard magic.elementsEqual("GGUF".utf8) else {
      let isText = magic.allSatisfy { $0 >= 0x20 && $0 < 0x7F }
      let found = isText ? "\"\(String(decoding: magic, as: UTF8.self))\"" : "the bytes \(Array(magic))"
      throw .notGGUF(found: found)
    }
    let version = try cursor.read(UInt32.self, "the version")
    if version == 2 || version == 3 { return version }
    if version != 0 && version & 0xFFFF == 0 { throw .bigEndian(version: version) }
    throw .unsupportedVersion(version)
  }

  private static func readMetadata(
    _ count: Int, _ file: FileBytes, at cursor: inout ByteCursor
  ) throws(GGUFError) -> ([String], [String: GGUFValue], Set<String>) {
    var keys: [String] = []
    var repaired: Set<String> = []
    var values: [String: GGUFValue] = [:]
    for index in 0..<count {
      let key = try readName(at: &cursor, field: "metadata key \(index)")
      let field = "metadata \"\(key)\""
      let code = try cursor.read(UInt32.self, "the type of \(field)")
      guard let type = GGUFValueType(rawValue: code) else {
        throw .malformed(field: field, problem: "has the unknown type \(code)")
      }
      let start = cursor.offset
      let value = try GGUFValue(type, file, at: &cursor, field: field)
      if type == .string {
        var string = ByteCursor(file.bytes, at: start)
        if String(validating: try string.takeString(field), as: UTF8.self) == nil { repaired.insert(key) }
      }
      guard values.updateValue(value, forKey: key) == nil else { throw .malformed(field: field, problem: "is listed twice") }
      keys.append(key)
    }
    return (keys, values, repaired)
  }

  /// A key or a tensor's name: valid UTF-8, 1 to 65535 bytes (the format's limit for keys).
  private static func readName(at cursor: inout ByteCursor, field: String) throws(GGUFError) -> String {
    let bytes = try cursor.takeString(field)
    guard !bytes.isEmpty, bytes.count <= 65535 else {
      throw .malformed(field: field, problem: "is \(bytes.count) bytes long, which is not within 1 to 65535")
    }
    guard let name = String(validating: bytes, as: UTF8.self) else { throw .malformed(field: field, problem: "is not valid UTF-8") }
    return name
  }

  private static func alignment(_ value: GGUFValue?) throws(GGUFError) -> Int {
    guard let value else { return 32 }
    let field = "metadata \"general.alignment\""
    guard case .uint32(let alignment) = value else {
      throw .wrongType(key: "general.alignment", found: value.typeDescription, expected: "uint32")
    }
    guard alignment >= 8, alignment.nonzeroBitCount == 1 else {
      throw .malformed(field: field, problem: "is \(alignment), not a power of two of at least 8")
    }
    return Int(alignment)
  }

  private static func readTensors(_ count: Int, alignment: Int, at cursor: inout ByteCursor) throws(GGUFError) -> [GGUFTensor] {
    var entries: [Entry] = []
    for index in 0..<count { entries.append(try readEntry(index, alignment: alignment, at: &cursor)) }

    // The data begin at the next multiple of the alignment after the table. A file without tensors may end before it.
    let fileSize = cursor.bytes.count
    let dataStart = (cursor.offset + alignment - 1) / alignment * alignment
    let dataSize = max(0, fileSize - dataStart)
    var tensors: [GGUFTensor] = []
    for entry in entries {
      let needed = UInt64(entry.byteCount ?? 1)  // an unknown type has an unknown size, but at least one byte
      guard entry.offset <= UInt64(dataSize), needed <= UInt64(dataSize) - entry.offset else {
        throw .truncated(
          field: "the data of tensor \"\(entry.name)\" (offset \(entry.offset) after the table)", offset: dataStart,
          needed: entry.offset.addingReportingOverflow(needed).overflow ? .max : entry.offset + needed, available: dataSize)
      }
      tensors.append(
        GGUFTensor(
          name: entry.name, type: entry.type, dims: entry.dims, offset: dataStart + Int(entry.offset), byteCount: entry.byteCount))
    }
    try checkOverlaps(tensors)
    return tensors
  }

  /// A line of the tensor table, with its offset still relative to the data.
  private struct Entry {
    var name: String
    var type: GGUFTensorType
    var dims: [Int]
    var offset: UInt64
    var byteCount: Int?
  }

  private static func readEntry(_ index: Int, alignment: Int, at cursor: inout ByteCursor) throws(GGUFError) -> Entry {
    let name = try readName(at: &cursor, field: "the name of tensor \(index)")
    let field = "tensor \"\(name)\""
    let rank = try cursor.read(UInt32.self, "the number of dimensions of \(field)")
    guard (1...4).contains(rank) else { throw .malformed(field: field, problem: "has \(rank) dimensions, not 1 to 4") }
    var dims: [Int] = []
    var count = 1
    for axis in 0..<rank {
      let size = try cursor.read(UInt64.self, "dimension \(axis) of \(field)")
      guard size > 0, let dim = Int(exactly: size) else {
        throw .malformed(field: field, problem: "has \(size) as the size of dimension \(axis)")
      }
      let (product, overflow) = count.multipliedReportingOverflow(by: dim)
      guard !overflow else { throw .malformed(field: field, problem: "has more values than 63 bits can count") }
      dims.append(dim)
      count = product
    }
    let type = GGUFTensorType(code: try cursor.read(UInt32.self, "the format of \(field)"))
    let offset = try cursor.read(UInt64.self, "the offset of \(field)")
    guard offset % UInt64(alignment) == 0 else {
      throw .malformed(field: field, problem: "lies at offset \(offset), not a multiple of the alignment \(alignment)")
    }
    var byteCount: Int?
    if let block = type.block {
      guard dims[0] % block.valueCount == 0 else {
        throw .malformed(
          field: field, problem: "has rows of \(dims[0]) values, which do not divide into \(type) blocks of \(block.valueCount)")
      }
      let (size, overflow) = (count / block.valueCount).multipliedReportingOverflow(by: block.byteCount)
      guard !overflow else { throw .malformed(field: field, problem: "has more bytes than 63 bits can count") }
      byteCount = size
    }
    return Entry(name: name, type: type, dims: dims, offset: offset, byteCount: byteCount)
  }

  private static func checkOverlaps(_ tensors: [GGUFTensor]) throws(GGUFError) {
    let inOrder = tensors.sorted { $0.offset < $1.offset }
    for (before, after) in zip(inOrder, inOrder.dropFirst()) {
      guard before.offset + (before.byteCount ?? 1) <= after.offset else {
        throw .malformed(field: "tensor \"\(after.name)\"", problem: "overlaps tensor \"\(before.name)\" at byte \(after.offset)")
      }
    }
  }
}
