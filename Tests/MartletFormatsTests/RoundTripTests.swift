// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// What the writer puts into a file is what the reader finds.

import MartletCore
import MartletFormats
import Testing

@Suite struct RoundTripTests {
  @Test(arguments: [UInt32(2), 3]) func `every type of metadata comes back as it was written`(version: UInt32) throws {
    var writer = GGUFWriter()
    writer.version = version
    writer.add("u8", .uint8(200))
    writer.add("i8", .int8(-100))
    writer.add("u16", .uint16(60000))
    writer.add("i16", .int16(-30000))
    writer.add("u32", .uint32(4_000_000_000))
    writer.add("i32", .int32(-2_000_000_000))
    writer.add("u64", .uint64(1 << 40))
    writer.add("i64", .int64(-(1 << 40)))
    writer.add("f32", .float32(1e-6))
    writer.add("f64", .float64(0.1))
    writer.add("yes", .bool(true))
    writer.add("no", .bool(false))
    writer.add("text", .string("naïve 😀\0end"))
    writer.add("empty", .string(""))
    let file = try GGUFFile(bytes: writer.bytes())

    #expect(file.version == version)
    #expect(file.metadataKeys == ["u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64", "yes", "no", "text", "empty"])
    let integers = ["u8": 200, "i8": -100, "u16": 60000, "i16": -30000, "u32": 4_000_000_000, "i32": -2_000_000_000]
    for (key, value) in integers { #expect(try file.integer(key) == value, "\(key)") }
    #expect(try file.integer("u64") == 1 << 40)
    #expect(try file.integer("i64") == -(1 << 40))
    #expect(try file.float("f32") == 1e-6)
    #expect(try file.float("f64") == 0.1)
    #expect(try file.bool("yes") && !file.bool("no"))
    #expect(try file.string("text") == "naïve 😀\0end")
    #expect(try file.string("empty") == "")
    #expect(file.tensors.isEmpty && file.path == nil && file.alignment == 32)
  }

  @Test func `arrays of numbers, strings and arrays can be read whole and by index`() throws {
    var writer = GGUFWriter()
    let words = (0..<1000).map { "word \($0) " + String(repeating: "é", count: $0 % 7) }
    writer.add("words", strings: words)
    writer.add("scores", floats: (0..<1000).map { Float($0) / 3 })
    writer.add("types", int32s: (0..<1000).map { Int32($0) - 500 })
    writer.add("flags", .array(.bool, (0..<100).map { .bool($0 % 3 == 0) }))
    writer.add("doubles", .array(.float64, [.float64(0.5), .float64(1e300)]))
    writer.add("none", .array(.string, []))
    writer.add("nested", .array(.array, (0..<200).map { .array(.uint16, [.uint16($0), .uint16($0 * 2)]) }))
    let file = try GGUFFile(bytes: writer.bytes())

    let array = try file.array("words")
    #expect(array.elementType == .string && array.count == 1000)
    #expect(array.strings() == words)
    for index in [0, 1, 63, 64, 65, 127, 128, 500, 999] {
      guard case .string(let word) = array[index] else { throw Unexpected() }
      #expect(word == words[index])
    }
    var visited: [String] = []
    array.forEachString { index, bytes in
      #expect(index == visited.count)
      visited.append(bytes.withUnsafeBufferPointer { String(decoding: $0, as: UTF8.self) })
    }
    #expect(visited == words)

    #expect(try file.array("scores").floats() == (0..<1000).map { Float($0) / 3 })
    #expect(try file.array("scores")[999].float == 333)
    #expect(try file.array("types").integers() == (0..<1000).map { $0 - 500 })
    #expect(try file.array("flags").bools() == (0..<100).map { $0 % 3 == 0 })
    #expect(try file.array("doubles").floats() == [0.5, .infinity])
    #expect(try file.array("none").strings() == [])
    for index in [0, 63, 64, 199] {
      guard case .array(let inner) = try file.array("nested")[index] else { throw Unexpected() }
      #expect(inner.integers() == [index, index * 2])
    }
    // Asked for as something else, an array is nothing rather than something converted.
    #expect(array.integers() == nil && array.floats() == nil && array.bools() == nil)
    #expect(try file.array("types").strings() == nil && file.array("types").floats() == nil)
  }

  @Test(arguments: [8, 32, 4096]) func `tensors come back with their shape, place and bytes`(alignment: Int) throws {
    var writer = GGUFWriter()
    writer.alignment = alignment
    let values = (0..<21).map { Float($0) / 8 - 1 }
    writer.addTensor("matrix", shape: [3, 7], floats: values)
    writer.addTensor("norm", shape: [5], floats: [1, 2, 3, 4, 5])
    writer.addTensor("codes", type: GGUFTensorType(.q4_0), shape: [2, 64], bytes: (0..<72).map { UInt8($0) })
    let file = try GGUFFile(bytes: writer.bytes())

    #expect(file.alignment == alignment)
    #expect(file.tensors.map(\.name) == ["matrix", "norm", "codes"])
    #expect(file.tensors.allSatisfy { $0.offset % alignment == 0 })
    let matrix = try #require(file.tensor("matrix"))
    #expect(matrix.dims == [7, 3] && matrix.shape == [3, 7] && matrix.count == 21 && matrix.byteCount == 84)
    #expect(try file.floats("matrix") == values)
    #expect(try file.floats("norm", count: 5) == [1, 2, 3, 4, 5])
    let codes = try file.weight("codes", rows: 2, columns: 64)
    #expect(codes.format == .q4_0 && codes.rows == 2 && codes.columns == 64 && codes.name == "codes")
    #expect(Array(codes.bytes) == (0..<72).map { UInt8($0) })
    #expect(file.tensor("other") == nil)
  }

  @Test func `halves and bfloat16 widen exactly`() throws {
    var writer = GGUFWriter()
    // 1, −2, 65504, 2⁻²⁴ as IEEE halves; 1, −2, 3.140625, 2¹⁰⁰ as bfloat16.
    writer.addTensor("half", type: GGUFTensorType(.f16), shape: [4], bytes: [0x00, 0x3C, 0x00, 0xC0, 0xFF, 0x7B, 0x01, 0x00])
    writer.addTensor("bf16", type: GGUFTensorType(.bf16), shape: [4], bytes: [0x80, 0x3F, 0x00, 0xC0, 0x49, 0x40, 0x80, 0x71])
    let file = try GGUFFile(bytes: writer.bytes())
    #expect(try file.floats("half") == [1, -2, 65504, 0x1p-24])
    #expect(try file.floats("bf16") == [1, -2, 3.140625, 0x1p100])
  }

  @Test func `a weight outlives the file object it came from`() throws {
    func makeWeight() throws -> Weight {
      var writer = GGUFWriter()
      writer.addTensor("w", shape: [1000, 100], floats: (0..<100_000).map(Float.init))
      return try GGUFFile(bytes: writer.bytes()).weight("w")
    }
    let weight = try makeWeight()
    withExtendedLifetime(weight) { #expect(weight.bytes.loadUnaligned(fromByteOffset: 4 * 99_999, as: Float.self) == 99_999) }
  }

  /// llama.cpp keeps what multiplies a matrix of NVFP4 beside it, for a tensor of three dims one for each matrix.
  @Test func `NVFP4 comes with its factors, and others without`() throws {
    func file(_ factors: [String: [Float]]) throws -> GGUFFile {
      var writer = GGUFWriter()
      for (name, shape) in [("a.weight", [2, 64]), ("experts.weight", [3, 2, 64])] {
        writer.addTensor(name, type: GGUFTensorType(.nvfp4), shape: shape, bytes: [UInt8](repeating: 7, count: shape.reduce(36, *) / 64))
      }
      writer.addTensor("b.weight", shape: [2, 64], floats: [Float](repeating: 1, count: 128))
      for (name, values) in factors { writer.addTensor(name, shape: [values.count], floats: values) }
      return try GGUFFile(bytes: writer.bytes())
    }
    func factors(_ weight: Weight) -> [Float]? {
      guard case .floats(let values, weight.rows, weight.columns) = weight.scales else { return nil }
      return values
    }
    let whole = try file(["a.scale": [0.5], "experts.scale": [1, 2, 3], "b.scale": [4]])
    #expect(try factors(whole.weight("a.weight", rows: 2, columns: 64)) == [0.5])
    #expect(try whole.weights("experts.weight", count: 3, rows: 2, columns: 64).map(factors) == [[1], [2], [3]])
    #expect(try whole.weight("b.weight").isContiguous)
    let plain = try file([:])
    #expect(try plain.weight("a.weight").isContiguous)
    #expect(try plain.weights("experts.weight", count: 3, rows: 2, columns: 64).allSatisfy(\.isContiguous))
    let wrong = try file(["a.scale": [1, 2], "experts.scale": [1]])
    #expect(throws: GGUFError.wrongShape(tensor: "a.scale", found: [2], expected: "1 values")) { try wrong.weight("a.weight") }
    #expect(throws: GGUFError.wrongShape(tensor: "experts.scale", found: [1], expected: "3 values")) {
      try wrong.weights("experts.weight", count: 3, rows: 2, columns: 64)
    }
  }

  @Test func `the table of tensor types agrees with the weight formats`() throws {
    for format in GGUFTensorType.readableFormats {
      let type = GGUFTensorType(format)
      #expect(type.name == format.rawValue && type.weightFormat == format)
      // One row of one block: the file's size rule and the weight's must be the same.
      var writer = GGUFWriter()
      let bytes = [UInt8](repeating: 7, count: format.blockByteCount)
      writer.addTensor("w", type: type, shape: [1, format.blockSize], bytes: bytes)
      let weight = try GGUFFile(bytes: writer.bytes()).weight("w")
      withExtendedLifetime(weight) { #expect(Array(weight.bytes) == bytes) }
    }
    #expect(GGUFTensorType(code: 17).name == "IQ2_XS" && GGUFTensorType(code: 17).weightFormat == nil)
    #expect(GGUFTensorType(code: 999).name == "type 999")
  }

  @Test func `a file on disk reads as the same bytes in memory do`() throws {
    var writer = GGUFWriter()
    writer.add("general.architecture", .string("tiny"))
    writer.addTensor("w", shape: [2, 4], floats: [1, 2, 3, 4, 5, 6, 7, 8])
    let path = try TemporaryPath()
    try writer.write(toPath: path.string)
    let file = try GGUFFile(path: path.string)
    #expect(file.path == path.string && file.byteCount == writer.bytes().count)
    #expect(try file.string("general.architecture") == "tiny")
    #expect(try file.floats("w") == [1, 2, 3, 4, 5, 6, 7, 8])
  }
}

struct Unexpected: Error {}
