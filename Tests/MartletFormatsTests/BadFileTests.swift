// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Files that are wrong, by hand and by chance: each gives an error that names the field, never a trap.

import Foundation
import MartletCore
import MartletFormats
import MartletTestSupport
import Testing

/// Bytes of a file in the making: files are written field by field, so that any of them can be wrong.
private struct Field {
  var bytes: [UInt8]
  /// Whether zeros go before it up to the next multiple of 32.
  var isAligned = false

  init(_ bytes: [UInt8], isAligned: Bool = false) {
    self.bytes = bytes
    self.isAligned = isAligned
  }

  private init<T: FixedWidthInteger>(_ value: T) { bytes = withUnsafeBytes(of: value.littleEndian) { Array($0) } }

  static func u8(_ value: UInt8) -> Field { Field(value) }
  static func u32(_ value: UInt32) -> Field { Field(value) }
  static func u64(_ value: UInt64) -> Field { Field(value) }
  static func text(_ text: String) -> Field { Field(Field(UInt64(text.utf8.count)).bytes + Array(text.utf8)) }

  /// A line of the tensor table.
  static func tensor(_ name: String, _ dims: [UInt64], rank: UInt32? = nil, type: UInt32 = 0, offset: UInt64 = 0) -> Field {
    let fields = [text(name), u32(rank ?? UInt32(dims.count))] + dims.map { u64($0) } + [u32(type), u64(offset)]
    return Field(fields.flatMap(\.bytes))
  }

  /// The tensors' data: `count` zeros.
  static func data(_ count: Int) -> Field { Field([UInt8](repeating: 0, count: count), isAligned: true) }
}

private func file(version: UInt32 = 3, tensors: UInt64 = 0, metadata: UInt64 = 0, _ fields: Field...) -> [UInt8] {
  var bytes = Array("GGUF".utf8)
  for field in [.u32(version), .u64(tensors), .u64(metadata)] + fields {
    while field.isAligned && bytes.count % 32 != 0 { bytes.append(0) }
    bytes += field.bytes
  }
  return bytes
}

struct BadFile: CustomTestStringConvertible, Sendable {
  var testDescription: String
  var bytes: [UInt8]
  var error: GGUFError

  init(_ what: String, _ bytes: [UInt8], _ error: GGUFError) {
    testDescription = what
    self.bytes = bytes
    self.error = error
  }
}

private let badFiles: [BadFile] = [
  // The header.
  BadFile("no bytes", [], .truncated(field: "the magic number", offset: 0, needed: 4, available: 0)),
  BadFile("text", Array("<html>".utf8), .notGGUF(found: "\"<htm\"")),
  BadFile("zeros", [UInt8](repeating: 0, count: 64), .notGGUF(found: "the bytes [0, 0, 0, 0]")),
  BadFile("only magic", Array("GGUF".utf8), .truncated(field: "the version", offset: 4, needed: 4, available: 0)),
  BadFile("version 1", file(version: 1), .unsupportedVersion(1)),
  BadFile("version 0", file(version: 0), .unsupportedVersion(0)),
  BadFile("big-endian", file(version: UInt32(3).byteSwapped), .bigEndian(version: 0x0300_0000)),
  BadFile(
    "header cut", Array(file().prefix(20)), .truncated(field: "the metadata count", offset: 16, needed: 8, available: 4)),
  BadFile(
    "2⁶⁴ − 1 metadata", file(metadata: .max),
    .truncated(field: "the metadata, 18446744073709551615 values,", offset: 24, needed: .max, available: 0)),
  BadFile(
    "2⁵⁰ tensors", file(tensors: 1 << 50),
    .truncated(field: "the tensor table, 1125899906842624 tensors,", offset: 24, needed: 33 << 50, available: 0)),

  // Metadata.
  BadFile(
    "key of 2⁶³ bytes", file(metadata: 1, .u64(1 << 63), .data(32)),
    .truncated(field: "metadata key 0", offset: 32, needed: 1 << 63, available: 32)),
  BadFile(
    "empty key", file(metadata: 1, .text(""), .data(32)),
    .malformed(field: "metadata key 0", problem: "is 0 bytes long, which is not within 1 to 65535")),
  BadFile(
    "key not UTF-8", file(metadata: 1, .u64(2), Field([0xC3, 0x28]), .u32(4), .u32(1)),
    .malformed(field: "metadata key 0", problem: "is not valid UTF-8")),
  BadFile(
    "unknown type", file(metadata: 1, .text("k"), .u32(13), .u64(0)),
    .malformed(field: "metadata \"k\"", problem: "has the unknown type 13")),
  BadFile(
    "value cut", file(metadata: 1, .text("k"), .u32(10), .u32(0)),
    .truncated(field: "metadata \"k\"", offset: 37, needed: 8, available: 4)),
  BadFile(
    "bool of 2", file(metadata: 1, .text("k"), .u32(7), .u8(2)),
    .malformed(field: "metadata \"k\"", problem: "is a bool that reads 2")),
  BadFile(
    "string past the end", file(metadata: 1, .text("k"), .u32(8), .u64(100)),
    .truncated(field: "metadata \"k\"", offset: 45, needed: 100, available: 0)),
  BadFile(
    "key twice", file(metadata: 2, .text("k"), .u32(4), .u32(1), .text("k"), .u32(4), .u32(1)),
    .malformed(field: "metadata \"k\"", problem: "is listed twice")),
  BadFile(
    "array of an unknown type",
    file(metadata: 1, .text("k"), .u32(9), .u32(77), .u64(0)),
    .malformed(field: "metadata \"k\"", problem: "has elements of the unknown type 77")),
  BadFile(
    "array of 2⁶¹ uint64",
    file(metadata: 1, .text("k"), .u32(9), .u32(10), .u64(1 << 61)),
    .truncated(field: "metadata \"k\", 2305843009213693952 elements of type uint64,", offset: 49, needed: .max, available: 0)),
  BadFile(
    "array of 2⁴⁰ strings",
    file(metadata: 1, .text("k"), .u32(9), .u32(8), .u64(1 << 40), .data(64)),
    .truncated(field: "metadata \"k\", 1099511627776 elements of type string,", offset: 49, needed: 8 << 40, available: 79)),
  BadFile(
    "string of an array past the end",
    file(metadata: 1, .text("k"), .u32(9), .u32(8), .u64(2), .text("a"), .u64(50)),
    .truncated(field: "metadata \"k\"[1]", offset: 66, needed: 50, available: 0)),
  BadFile(
    "bool of an array",
    file(metadata: 1, .text("k"), .u32(9), .u32(7), .u64(2), Field([1, 9])),
    .malformed(field: "metadata \"k\"", problem: "has a bool that reads 9")),
  BadFile(
    "arrays five deep",
    file(metadata: 1, .text("k"), .u32(9), .u32(9), .u64(1), .u32(9), .u64(1), .u32(9), .u64(1), .u32(9), .u64(1), .u32(0), .u64(0)),
    .malformed(field: "metadata \"k\"", problem: "nests arrays more than 4 deep")),
  BadFile(
    "an array of 2⁶³ bytes", file(metadata: 1, .text("k"), .u32(9), .u32(0), .u64(1 << 63)),
    .truncated(field: "metadata \"k\", 9223372036854775808 elements of type uint8,", offset: 49, needed: 1 << 63, available: 0)),
  BadFile(
    "an array of 2⁶³ arrays", file(metadata: 1, .text("k"), .u32(9), .u32(9), .u64(1 << 63), .data(64)),
    .truncated(field: "metadata \"k\", 9223372036854775808 elements of type array,", offset: 49, needed: .max, available: 79)),
  BadFile(
    "an array within an array that is too long",
    file(metadata: 1, .text("k"), .u32(9), .u32(9), .u64(2), .u32(0), .u64(1), .u8(0), .u32(10), .u64(1 << 32)),
    .truncated(field: "metadata \"k\", 4294967296 elements of type uint64,", offset: 74, needed: 8 << 32, available: 0)),
  BadFile(
    "a vocabulary of 2⁶³ tokens", file(metadata: 1, .text("tokenizer.ggml.tokens"), .u32(9), .u32(8), .u64(1 << 63), .data(32)),
    .truncated(
      field: "metadata \"tokenizer.ggml.tokens\", 9223372036854775808 elements of type string,", offset: 69, needed: .max, available: 59)),
  BadFile(
    "a vocabulary whose first token is the rest of the file and more",
    file(metadata: 1, .text("tokenizer.ggml.tokens"), .u32(9), .u32(8), .u64(1), .u64(.max)),
    .truncated(field: "metadata \"tokenizer.ggml.tokens\"[0]", offset: 77, needed: .max, available: 0)),
  BadFile(
    "a key longer than the format allows", file(metadata: 1, .text(String(repeating: "k", count: 65536)), .u32(4), .u32(1)),
    .malformed(field: "metadata key 0", problem: "is 65536 bytes long, which is not within 1 to 65535")),
  BadFile(
    "alignment of 3", file(metadata: 1, .text("general.alignment"), .u32(4), .u32(3)),
    .malformed(field: "metadata \"general.alignment\"", problem: "is 3, not a power of two of at least 8")),
  BadFile(
    "alignment of 4", file(metadata: 1, .text("general.alignment"), .u32(4), .u32(4)),
    .malformed(field: "metadata \"general.alignment\"", problem: "is 4, not a power of two of at least 8")),
  BadFile(
    "alignment of 2³¹", file(tensors: 1, metadata: 1, .text("general.alignment"), .u32(4), .u32(1 << 31), .tensor("w", [1]), .data(64)),
    .truncated(field: "the data of tensor \"w\" (offset 0 after the table)", offset: 1 << 31, needed: 4, available: 0)),
  BadFile(
    "an offset within an alignment of 2³¹",
    file(tensors: 1, metadata: 1, .text("general.alignment"), .u32(4), .u32(1 << 31), .tensor("w", [1], offset: 32), .data(64)),
    .malformed(field: "tensor \"w\"", problem: "lies at offset 32, not a multiple of the alignment 2147483648")),
  BadFile(
    "alignment of 24", file(metadata: 1, .text("general.alignment"), .u32(4), .u32(24)),
    .malformed(field: "metadata \"general.alignment\"", problem: "is 24, not a power of two of at least 8")),
  BadFile(
    "alignment of 0", file(metadata: 1, .text("general.alignment"), .u32(4), .u32(0)),
    .malformed(field: "metadata \"general.alignment\"", problem: "is 0, not a power of two of at least 8")),
  BadFile(
    "alignment as text", file(metadata: 1, .text("general.alignment"), .u32(8), .text("32")),
    .wrongType(key: "general.alignment", found: "string", expected: "uint32")),

  // Tensors.
  BadFile(
    "tensor table cut", Array(file(tensors: 1, .tensor("w", [1, 1])).dropLast(4)),
    .truncated(field: "the offset of tensor \"w\"", offset: 57, needed: 8, available: 4)),
  BadFile(
    "no dimensions", file(tensors: 1, .tensor("w", []), .data(64)),
    .malformed(field: "tensor \"w\"", problem: "has 0 dimensions, not 1 to 4")),
  BadFile(
    "2³¹ dimensions", file(tensors: 1, .tensor("w", [4], rank: 1 << 31), .data(64)),
    .malformed(field: "tensor \"w\"", problem: "has 2147483648 dimensions, not 1 to 4")),
  BadFile(
    "a dimension of 0", file(tensors: 1, .tensor("w", [4, 0]), .data(64)),
    .malformed(field: "tensor \"w\"", problem: "has 0 as the size of dimension 1")),
  BadFile(
    "a dimension of 2⁶³", file(tensors: 1, .tensor("w", [1 << 63]), .data(64)),
    .malformed(field: "tensor \"w\"", problem: "has 9223372036854775808 as the size of dimension 0")),
  BadFile(
    "2⁶³ tensors", file(tensors: 1 << 63, .data(64)),
    .truncated(field: "the tensor table, 9223372036854775808 tensors,", offset: 24, needed: .max, available: 72)),
  BadFile(
    "a name without a letter", file(tensors: 1, .tensor("", [4]), .data(64)),
    .malformed(field: "the name of tensor 0", problem: "is 0 bytes long, which is not within 1 to 65535")),
  BadFile(
    "a name of 2⁶³ bytes", file(tensors: 1, .u64(1 << 63), .data(64)),
    .truncated(field: "the name of tensor 0", offset: 32, needed: 1 << 63, available: 64)),
  BadFile(
    "a name that is not UTF-8", file(tensors: 1, .u64(2), Field([0xC3, 0x28]), .data(64)),
    .malformed(field: "the name of tensor 0", problem: "is not valid UTF-8")),
  BadFile(
    "5 dimensions", file(tensors: 1, .tensor("w", [1, 1, 1, 1, 1]), .data(64)),
    .malformed(field: "tensor \"w\"", problem: "has 5 dimensions, not 1 to 4")),
  BadFile(
    "a first dimension of 0", file(tensors: 1, .tensor("w", [0, 4], type: 2), .data(64)),
    .malformed(field: "tensor \"w\"", problem: "has 0 as the size of dimension 0")),
  BadFile(
    "2⁶³ values in four dimensions", file(tensors: 1, .tensor("w", [1 << 16, 1 << 16, 1 << 16, 1 << 15]), .data(64)),
    .malformed(field: "tensor \"w\"", problem: "has more values than 63 bits can count")),
  BadFile(
    "2⁶² values in blocks", file(tensors: 1, .tensor("w", [1 << 31, 1 << 31], type: 8), .data(64)),
    .truncated(field: "the data of tensor \"w\" (offset 0 after the table)", offset: 96, needed: 34 << 57, available: 64)),
  BadFile(
    "2⁶⁴ values", file(tensors: 1, .tensor("w", [1 << 32, 1 << 32]), .data(64)),
    .malformed(field: "tensor \"w\"", problem: "has more values than 63 bits can count")),
  BadFile(
    "2⁶⁴ bytes", file(tensors: 1, .tensor("w", [1 << 31, 1 << 31]), .data(64)),
    .malformed(field: "tensor \"w\"", problem: "has more bytes than 63 bits can count")),
  BadFile(
    "a row of part of a block", file(tensors: 1, .tensor("w", [33, 2], type: 2), .data(64)),
    .malformed(field: "tensor \"w\"", problem: "has rows of 33 values, which do not divide into Q4_0 blocks of 32")),
  BadFile(
    "an offset between alignments", file(tensors: 1, .tensor("w", [4], offset: 8), .data(64)),
    .malformed(field: "tensor \"w\"", problem: "lies at offset 8, not a multiple of the alignment 32")),
  BadFile(
    "data past the end", file(tensors: 1, .tensor("w", [17]), .data(64)),
    .truncated(field: "the data of tensor \"w\" (offset 0 after the table)", offset: 64, needed: 68, available: 64)),
  BadFile(
    "an offset past the end", file(tensors: 1, .tensor("w", [4], offset: 0xFFFF_FFFF_FFFF_FFE0), .data(64)),
    .truncated(
      field: "the data of tensor \"w\" (offset 18446744073709551584 after the table)", offset: 64, needed: 0xFFFF_FFFF_FFFF_FFF0,
      available: 64)),
  BadFile(
    "no data at all", file(tensors: 1, .tensor("w", [1])),
    .truncated(field: "the data of tensor \"w\" (offset 0 after the table)", offset: 64, needed: 4, available: 0)),
  BadFile(
    "an unknown type past the end", file(tensors: 1, .tensor("w", [1], type: 999)),
    .truncated(field: "the data of tensor \"w\" (offset 0 after the table)", offset: 64, needed: 1, available: 0)),
  BadFile(
    "two tensors in one place",
    file(tensors: 2, .tensor("a", [4]), .tensor("b", [4]), .data(64)),
    .malformed(field: "tensor \"b\"", problem: "overlaps tensor \"a\" at byte 96")),
  BadFile(
    "a tensor inside another",
    file(tensors: 2, .tensor("b", [4], offset: 32), .tensor("a", [16]), .data(64)),
    .malformed(field: "tensor \"b\"", problem: "overlaps tensor \"a\" at byte 128")),
  BadFile(
    "a tensor that reaches into the next by one row",
    file(tensors: 2, .tensor("a", [8, 2]), .tensor("b", [8], offset: 32), .data(64)),
    .malformed(field: "tensor \"b\"", problem: "overlaps tensor \"a\" at byte 160")),
  BadFile(
    "two of an unknown type in one place",
    file(tensors: 2, .tensor("a", [4], type: 999), .tensor("b", [4], type: 999), .data(64)),
    .malformed(field: "tensor \"b\"", problem: "overlaps tensor \"a\" at byte 96")),
  BadFile(
    "a name twice",
    file(tensors: 2, .tensor("a", [4]), .tensor("a", [4], offset: 32), .data(64)),
    .malformed(field: "tensor \"a\"", problem: "is listed twice")),
]

@Suite struct BadFileTests {
  @Test(arguments: badFiles) func `a bad file gives the error that names its field`(bad: BadFile) throws {
    #expect(throws: bad.error) { try GGUFFile(bytes: bad.bytes) }
    let error = bad.error.of(path: "a.gguf")
    #expect(error.code == bad.error.code && error.path == "a.gguf" && error.description.hasPrefix("GGUF: in \"a.gguf\": "))
    #expect(bad.error.description.hasPrefix("GGUF: "))
  }

  @Test func `what is not there or cannot be read is an error that says what to do`() throws {
    var writer = GGUFWriter()
    writer.add("text", .string("x"))
    writer.add("number", .uint64(.max))
    writer.add("list", strings: ["a"])
    writer.add("broken", .bytes([0x41, 0xFF]))
    writer.addTensor("odd", type: GGUFTensorType(code: 17), shape: [2, 256], bytes: [UInt8](repeating: 0, count: 148))
    writer.addTensor("future", type: GGUFTensorType(code: 999), shape: [3, 5], bytes: [UInt8](repeating: 0, count: 7))
    writer.addTensor("norm", shape: [4], floats: [1, 2, 3, 4])
    writer.addTensor("experts", shape: [2, 2, 2], floats: [Float](repeating: 0, count: 8))
    writer.addTensor("matrix", shape: [2, 4], floats: [Float](repeating: 0, count: 8))
    let file = try GGUFFile(bytes: writer.bytes())

    #expect(throws: GGUFError.missingKey("none")) { try file.string("none") }
    #expect(try file.string(ifPresent: "none") == nil && file.integer(ifPresent: "none") == nil)
    #expect(try file.float(ifPresent: "none") == nil && file.bool(ifPresent: "none") == nil && file.array(ifPresent: "none") == nil)
    #expect(throws: GGUFError.wrongType(key: "text", found: "string", expected: "an integer")) { try file.integer(ifPresent: "text") }
    #expect(throws: GGUFError.wrongType(key: "number", found: "uint64", expected: "an integer")) { try file.integer("number") }
    #expect(throws: GGUFError.wrongType(key: "number", found: "uint64", expected: "a floating-point number")) { try file.float("number") }
    #expect(throws: GGUFError.wrongType(key: "list", found: "array of string", expected: "a bool")) { try file.bool("list") }
    #expect(throws: GGUFError.wrongType(key: "text", found: "string", expected: "an array")) { try file.array("text") }
    #expect(throws: GGUFError.malformed(field: "metadata \"broken\"", problem: "is not valid UTF-8")) { try file.string("broken") }

    let readable = GGUFTensorType.readableFormats.map(\.rawValue)
    let unreadable = GGUFError.unreadableFormat(tensor: "odd", format: "IQ2_XS", readable: readable)
    #expect(throws: unreadable) { try file.weight("odd") }
    #expect(
      unreadable.description
        == "GGUF: tensor \"odd\" has format IQ2_XS, which this build cannot read "
        + "(reads: F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, MXFP4, NVFP4)"
    )
    #expect(throws: GGUFError.unreadableFormat(tensor: "future", format: "type 999", readable: readable)) { try file.weight("future") }
    #expect(file.tensor("future")?.byteCount == nil)
    #expect(throws: GGUFError.unreadableFormat(tensor: "odd", format: "IQ2_XS", readable: ["F32", "F16", "BF16"])) {
      try file.floats("odd")
    }
    #expect(throws: GGUFError.missingTensor("none", hint: "")) { try file.weight("none") }
    #expect(throws: GGUFError.wrongShape(tensor: "norm", found: [4], expected: "a matrix")) { try file.weight("norm") }
    #expect(throws: GGUFError.wrongShape(tensor: "experts", found: [2, 2, 2], expected: "a matrix")) { try file.weight("experts") }
    #expect(throws: GGUFError.wrongShape(tensor: "matrix", found: [2, 4], expected: "[4, 2]")) {
      try file.weight("matrix", rows: 4, columns: 2)
    }
    #expect(throws: GGUFError.wrongShape(tensor: "norm", found: [4], expected: "5 values")) { try file.floats("norm", count: 5) }
  }

  @Test func `a tensor missing from one part of a split model says so`() throws {
    var writer = GGUFWriter()
    writer.add("split.no", .uint16(1))
    writer.add("split.count", .uint16(3))
    let file = try GGUFFile(bytes: writer.bytes())
    let error = #expect(throws: GGUFError.self) { try file.weight("w") }
    #expect(error?.description.contains("it is part 2 of a model split into 3 files") == true)
  }

  @Test func `a path that cannot be mapped is an error with the path`() throws {
    func reason(_ path: String) throws -> String {
      let error = #expect(throws: GGUFError.self) { try GGUFFile(path: path) }
      let start = "GGUF: cannot open \"\(path)\": "
      guard let error, error.code == .cannotOpen, error.description.hasPrefix(start) else { throw Unexpected() }
      return String(error.description.dropFirst(start.count))
    }
    let path = try TemporaryPath()
    #expect(try reason(path.string) == "No such file or directory")
    #expect(try reason(path.directory.path).hasPrefix("it is a directory"))
    #expect(try reason("/dev/zero") == "it is not a regular file")
    try Data().write(to: URL(fileURLWithPath: path.string))
    #expect(try reason(path.string).hasPrefix("the file is empty"))
  }

  /// Every length, so every border of a field too: nothing is a whole file but the whole file.
  @Test func `a file that is cut anywhere says which field is cut, and where`() throws {
    let valid = try validFile()
    // Behind the last tensor there is only padding, which nobody misses.
    let end = try #require(GGUFFile(bytes: valid).tensors.map { $0.offset + ($0.byteCount ?? 0) }.max())
    var fields: Set<String> = []
    for length in 0..<end {
      let error = #expect(throws: GGUFError.self, "cut to \(length) of \(end) bytes") {
        try GGUFFile(bytes: Array(valid.prefix(length)))
      }
      guard let error, error.code == .truncated,
        let words = error.description.wholeMatch(of: /GGUF: (.*) at byte (\d+) needs (\d+) bytes, the file has (\d+) left: .*/),
        let offset = Int(words.2), let needed = UInt64(words.3), let available = Int(words.4)
      else {
        Issue.record("cut to \(length) bytes: \(String(describing: error))")
        continue
      }
      let field = String(words.1)
      // What is left ends at the cut, and is too little. (Tensors' data begin behind the table, maybe behind the cut.)
      #expect(available == max(length - offset, 0), "cut to \(length) bytes: \(field)")
      #expect(needed > UInt64(available), "cut to \(length) bytes: \(field)")
      fields.insert(field)
    }
    // Counts, keys, types, values, names, dimensions, offsets and data have all been missed.
    for part in [
      "the version", "the tensor count", "metadata key", "the type of", "the element count of", "the length of", "dimension",
      "the format of", "the offset of", "the data of",
    ] {
      #expect(fields.contains { $0.contains(part) }, "\(part)")
    }
  }

  @Test func `no mutation of a file makes reading it trap`() throws {
    let valid = try validFile()
    try readEverything(GGUFFile(bytes: valid))
    let seed: UInt64 = 0x6D61_7274_6C65_74
    var generator = SeededGenerator(seed: seed)
    var accepted = 0
    for _ in 0..<6000 {
      var bytes = valid
      switch Int.random(in: 0..<4, using: &generator) {
      case 0:
        bytes.removeLast(Int.random(in: 1...bytes.count, using: &generator))
      case 1:
        // A field that is a plausible lie.
        let lies: [UInt64] = [0, 1, 7, 9, 0xFF, 0xFFFF_FFFF, 1 << 31, 1 << 40, 1 << 61, 1 << 62, 1 << 63, .max, .max - 31]
        let at = Int.random(in: 0..<bytes.count - 8, using: &generator)
        withUnsafeBytes(of: lies.randomElement(using: &generator)!.littleEndian) { bytes.replaceSubrange(at..<at + 8, with: $0) }
      default:
        for _ in 0..<Int.random(in: 1...6, using: &generator) {
          bytes[Int.random(in: 0..<bytes.count, using: &generator)] = UInt8.random(in: 0...255, using: &generator)
        }
      }
      do throws(GGUFError) {
        let file = try GGUFFile(bytes: bytes)
        accepted += 1
        readEverything(file)
      } catch {
        #expect(error.description.hasPrefix("GGUF: "), "seed \(seed)")
      }
    }
    // Changed values and names leave valid files: both outcomes must have been tried.
    #expect((500..<5500).contains(accepted), "seed \(seed): \(accepted) of 6000 accepted")
  }

  /// A small file with something of everything.
  private func validFile() throws -> [UInt8] {
    var writer = GGUFWriter()
    writer.alignment = 64
    writer.add("general.architecture", .string("tiny"))
    writer.add("a.count", .uint32(3))
    writer.add("a.rate", .float32(0.5))
    writer.add("a.flag", .bool(true))
    writer.add("a.names", strings: ["", "b", "ç", "long enough"])
    writer.add("a.flags", .array(.bool, [.bool(true), .bool(false)]))
    writer.add("a.scores", floats: [0, -1, 2])
    writer.add("a.nested", .array(.array, [.array(.string, [.string("x")]), .array(.array, [.array(.int8, [.int8(1)])])]))
    writer.addTensor("w", type: GGUFTensorType(.q8_0), shape: [3, 32], bytes: [UInt8](repeating: 1, count: 102))
    writer.addTensor("n", shape: [5], floats: [1, 2, 3, 4, 5])
    writer.addTensor("x", type: GGUFTensorType(code: 17), shape: [1, 256], bytes: [UInt8](repeating: 1, count: 74))
    return writer.bytes()
  }

  /// Touches every byte that the file hands out.
  private func readEverything(_ file: GGUFFile) {
    func read(_ array: GGUFArray) {
      for index in 0..<array.count {
        if case .array(let inner) = array[index] { read(inner) }
      }
      if array.elementType == .string { array.forEachString { _, bytes in _ = bytes.count } }
      _ = (array.integers(), array.floats(), array.bools(), array.strings())
    }
    for key in file.metadataKeys {
      _ = (try? file.string(key), try? file.integer(key), try? file.float(key), try? file.bool(key))
      if let array = try? file.array(key) { read(array) }
    }
    for tensor in file.tensors {
      if let weight = try? file.weight(tensor.name) { _ = weight.bytes.reduce(0) { $0 &+ $1 } }
      _ = try? file.floats(tensor.name)
    }
  }
}
