// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletCore
import MartletFormats
import MartletTestSupport
import Testing

@Suite("Safetensors")
struct SafetensorsTests {
  /// A file of this header text and so many bytes of data, which count up.
  static func file(_ header: String, dataSize: Int, length: UInt64? = nil) -> [UInt8] {
    let text = Array(header.utf8)
    return withUnsafeBytes(of: (length ?? UInt64(text.count)).littleEndian) { Array($0) } + text + (0..<dataSize).map { UInt8($0 & 0xFF) }
  }

  static let valid = file(
    """
    {"__metadata__": {"format": "pt"},
     "b": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [8, 20]},
     "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
     "scalar": {"dtype": "F16", "shape": [], "data_offsets": [20, 22]},
     "none": {"dtype": "F16", "shape": [0, 7], "data_offsets": [22, 22]},
     "codes": {"dtype": "F4", "shape": [6], "data_offsets": [22, 25]},
     "new": {"dtype": "Q9", "shape": [2], "data_offsets": [25, 26]}}
    """, dataSize: 26)

  @Test("tensors are read where they lie, in the order of their bytes")
  func reading() throws {
    let file = try SafetensorsFile(bytes: Self.valid)
    #expect(file.tensors.map(\.name) == ["a", "b", "scalar", "none", "codes", "new"])
    #expect(file.tensor("b")?.shape == [2, 3] && file.tensor("b")?.type == "BF16" && file.tensor("scalar")?.count == 1)
    let floats = try file.floats("a")
    #expect(floats.map(\.bitPattern) == [0x0302_0100, 0x0706_0504])
    let weight = try file.weight("b", rows: 2, columns: 3)
    #expect(weight.format == .bf16 && Array(weight.bytes) == Array(8..<20))
    #expect(try file.floats("b", count: 6)[1].bitPattern == 0x0B0A_0000)
    #expect(throws: CheckpointError.missingTensor("c")) { try file.weight("c") }
    #expect(throws: CheckpointError.wrongShape(tensor: "b", found: [2, 3], expected: "[3, 2]")) {
      try file.weight("b", rows: 3, columns: 2)
    }
    #expect(throws: CheckpointError.wrongShape(tensor: "a", found: [2], expected: "a matrix")) { try file.weight("a") }
    #expect(throws: CheckpointError.wrongShape(tensor: "a", found: [2], expected: "3 values")) { try file.floats("a", count: 3) }
    let unreadable = CheckpointError.unreadableFormat(tensor: "codes", format: "F4", readable: ["F32", "F16", "BF16", "F8_E4M3"])
    #expect(throws: unreadable) { try file.weight("codes") }
    #expect(throws: unreadable) { try file.floats("codes") }
  }

  private static func entry(_ fields: String, dataSize: Int = 8) -> [UInt8] { file("{\"t\": {\(fields)}}", dataSize: dataSize) }

  /// What is wrong, the bytes, and what the message must say.
  static let bad: [(String, [UInt8], String)] = [
    ("nothing", [], "the length of the header needs 8 bytes"),
    ("seven bytes", Array(valid.prefix(7)), "the length of the header needs 8 bytes"),
    ("a header cut short", Array(valid.prefix(100)), "the header needs"),
    ("a header longer than the file", file("{}", dataSize: 0, length: 3), "the header needs 3 bytes"),
    ("a header of 2^64 - 1 bytes", file("{}", dataSize: 0, length: .max), "18446744073709551615, more than"),
    ("no JSON", file("{\"t\": ", dataSize: 0), "the header cannot be read"),
    ("JSON that is no object", file("[1]", dataSize: 0), "not an object"),
    ("a name that stands twice", file(#"{"t": {}, "t": {}}"#, dataSize: 0), "the key \"t\" twice"),
    ("an entry that is no object", file("{\"t\": 3}", dataSize: 0), "no \"dtype\""),
    ("no type", entry(#""shape": [2], "data_offsets": [0, 8]"#), "no \"dtype\""),
    ("a type that is a number", entry(#""dtype": 5, "shape": [2], "data_offsets": [0, 8]"#), "no \"dtype\""),
    ("no shape", entry(#""dtype": "F32", "data_offsets": [0, 8]"#), "no \"shape\""),
    ("a negative size", entry(#""dtype": "F32", "shape": [-2], "data_offsets": [0, 8]"#), "-2 as the size of dimension 0"),
    ("a fractional size", entry(#""dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]"#), "2.0 as the size of dimension 0"),
    ("a size beyond 63 bits", entry(#""dtype": "F32", "shape": [18446744073709551616], "data_offsets": [0, 8]"#), "as the size"),
    ("a product beyond 63 bits", entry(#""dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 8]"#), "63 bits"),
    ("bits beyond 63 bits", entry(#""dtype": "F32", "shape": [1152921504606846976], "data_offsets": [0, 8]"#), "which is not what"),
    ("nine dimensions", entry(#""dtype": "F32", "shape": [1,1,1,1,1,1,1,1,2], "data_offsets": [0, 8]"#), "9 dimensions"),
    ("no range", entry(#""dtype": "F32", "shape": [2]"#), "no \"data_offsets\""),
    ("a range of one", entry(#""dtype": "F32", "shape": [2], "data_offsets": [0]"#), "no \"data_offsets\""),
    ("a range of three", entry(#""dtype": "F32", "shape": [2], "data_offsets": [0, 4, 8]"#), "no \"data_offsets\""),
    ("a descending range", entry(#""dtype": "F32", "shape": [2], "data_offsets": [8, 0]"#), "no \"data_offsets\""),
    ("a negative range", entry(#""dtype": "F32", "shape": [2], "data_offsets": [-8, 0]"#), "no \"data_offsets\""),
    ("a range that is an object", entry(#""dtype": "F32", "shape": [2], "data_offsets": {"a": 0, "b": 8}"#), "no \"data_offsets\""),
    ("a range past the end", entry(#""dtype": "F32", "shape": [4], "data_offsets": [0, 16]"#), "the data of tensor \"t\" needs 16 bytes"),
    ("a size that the type and shape do not take", entry(#""dtype": "F32", "shape": [3], "data_offsets": [0, 8]"#), "has 8 bytes of data"),
    ("half a byte", entry(#""dtype": "F4", "shape": [3], "data_offsets": [0, 1]"#, dataSize: 1), "has 1 bytes of data"),
    ("a gap before the first", entry(#""dtype": "F32", "shape": [1], "data_offsets": [4, 8]"#), "leaves a gap"),
    ("bytes that no tensor has", entry(#""dtype": "F32", "shape": [1], "data_offsets": [0, 4]"#), "has 8 bytes, of which tensors take 4"),
    ("an unknown field", entry(#""dtype": "F32", "shape": [2], "data_offsets": [0, 8], "x": 1"#), "an unknown field \"x\""),
    (
      "two tensors that overlap",
      file(
        #"{"s": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "t": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}"#,
        dataSize: 12), "tensor \"t\" overlaps"
    ),
    ("metadata that is no object of strings", file(#"{"__metadata__": {"n": 1}}"#, dataSize: 0), "__metadata__ is not"),
    (
      "names that differ in Unicode's composition only",
      file(
        "{\"\u{E9}\": {\"dtype\": \"U8\", \"shape\": [1], \"data_offsets\": [0, 1]}, \"e\u{301}\": {\"dtype\": \"U8\", \"shape\": [1], \"data_offsets\": [1, 2]}}",
        dataSize: 2), "different Unicode forms"
    ),
  ]

  @Test("a file that is wrong gives an error that names the field", arguments: bad.indices)
  func badFiles(_ index: Int) throws {
    let (what, bytes, expected) = Self.bad[index]
    let error = #expect(throws: CheckpointError.self, "\(what)") { try SafetensorsFile(bytes: bytes) }
    #expect("\(error!)".contains(expected), "\(what): \(error!)")
  }

  @Test("every prefix of a file, and a file with bytes changed, ends in a file or an error, never in a trap")
  func mutations() throws {
    for count in 0..<Self.valid.count {
      #expect(throws: CheckpointError.self) { try SafetensorsFile(bytes: Array(Self.valid.prefix(count))) }
    }
    var generator = SeededGenerator(seed: 11)
    var opened = 0
    for _ in 0..<2000 {
      var bytes = Self.valid
      for _ in 0..<Int.random(in: 1...3, using: &generator) {
        let place = Int.random(in: 0..<bytes.count, using: &generator)
        bytes[place] =
          Bool.random(using: &generator) ? UInt8.random(in: 0...255, using: &generator) : UInt8.random(in: 48...57, using: &generator)
      }
      guard let file = try? SafetensorsFile(bytes: bytes) else { continue }
      opened += 1
      for tensor in file.tensors {
        _ = (try? file.floats(tensor.name), try? file.weight(tensor.name))
      }
    }
    #expect(opened > 20, "changes of values alone must still open: \(opened)")
  }

  @Test("a file on disk is mapped; a directory, an empty file and nothing are refused")
  func files() throws {
    let path = try TemporaryPath()
    try Data(Self.valid).write(to: URL(fileURLWithPath: path.string))
    #expect(try SafetensorsFile(path: path.string).byteCount == Self.valid.count)
    #expect(throws: CheckpointError.self) { try SafetensorsFile(path: path.string + ".missing") }
    try Data().write(to: URL(fileURLWithPath: path.string))
    #expect(throws: CheckpointError.self) { try SafetensorsFile(path: path.string) }
    #expect(throws: CheckpointError.self) { try SafetensorsFile(path: path.directory.path) }
  }
}
