// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletCore
import MartletFormats
import MartletTestSupport
import Testing

@Suite("A model in several GGUF files")
struct GGUFCheckpointTests {
  /// A folder of three parts: metadata and `a`; `b`; `output.weight`.
  private final class Folder {
    let url = FileManager.default.temporaryDirectory.appendingPathComponent("martlet-parts-" + UUID().uuidString)
    static let tensors = [["a"], ["b"], ["output.weight"]]

    init() throws {
      try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
      for part in 0..<3 { try write(part) }
    }

    deinit { try? FileManager.default.removeItem(at: url) }

    func path(_ part: Int, count: Int = 3) -> String { url.path + String(format: "/m-%05d-of-%05d.gguf", part + 1, count) }

    func write(_ part: Int, tensors: [String]? = nil, number: Int? = nil, count: Int = 3, total: Int32 = 3, to path: String? = nil) throws {
      var writer = GGUFWriter()
      if part == 0 { writer.add("general.architecture", .string("llama")) }
      writer.add("split.no", .uint16(UInt16(number ?? part)))
      writer.add("split.count", .uint64(UInt64(count)))
      writer.add("split.tensors.count", .int32(total))
      for name in tensors ?? Self.tensors[part] { writer.addTensor(name, shape: [1, 2], floats: [Float(part), 7]) }
      try writer.write(toPath: path ?? self.path(part))
    }

    func message(path: String? = nil) -> String {
      do {
        _ = try GGUFCheckpoint(path: path ?? self.path(0))
        return "no error"
      } catch {
        return "\(error)"
      }
    }
  }

  @Test("finds the factor of a matrix of NVFP4 in another file")
  func factors() throws {
    let folder = try Folder()
    for (part, add): (Int, (inout GGUFWriter) -> Void) in [
      (0, { $0.addTensor("a.weight", type: GGUFTensorType(.nvfp4), shape: [1, 64], bytes: [UInt8](repeating: 7, count: 36)) }),
      (1, { $0.addTensor("e.weight", type: GGUFTensorType(.nvfp4), shape: [2, 1, 64], bytes: [UInt8](repeating: 7, count: 72)) }),
      (
        2,
        {
          $0.addTensor("a.scale", shape: [1], floats: [0.5])
          $0.addTensor("e.scale", shape: [2], floats: [2, 3])
        }
      ),
    ] {
      var writer = GGUFWriter()
      writer.add("split.no", .uint16(UInt16(part)))
      writer.add("split.count", .uint16(3))
      add(&writer)
      try writer.write(toPath: folder.path(part))
    }
    let checkpoint = try GGUFCheckpoint(path: folder.path(0))
    let found = try [checkpoint.weight("a.weight")] + checkpoint.weights("e.weight", count: 2, rows: 1, columns: 64)
    for (weight, factor) in zip(found, [0.5, 2, 3]) {
      guard case .floats([Float(factor)], rows: 1, columns: 64) = weight.scales else {
        Issue.record("\(String(describing: weight.scales)), not \(factor)")
        continue
      }
    }
  }

  @Test("has the tensors of all files, each where it lies")
  func reading() throws {
    let folder = try Folder()
    let model = try GGUFCheckpoint(path: folder.path(0))
    #expect(model.parts.count == 3 && model.tensors.map(\.name) == ["a", "b", "output.weight"])
    #expect(try model.first.string("general.architecture") == "llama")
    #expect(model.byteCount == model.parts.reduce(0) { $0 + $1.byteCount } && model.byteCount > model.first.byteCount)
    #expect(try model.floats("a") == [0, 7] && model.floats("b") == [1, 7] && model.floats("output.weight", count: 2) == [2, 7])
    #expect(try model.weight("output.weight", rows: 1, columns: 2).columns == 2 && model.tensor("b")?.shape == [1, 2])
    #expect(throws: GGUFError.missingTensor("c", hint: "")) { try model.weight("c") }
  }

  @Test("is opened by its first part: another one says so, and a part without its path cannot stand for the model")
  func otherParts() throws {
    let folder = try Folder()
    #expect(throws: GGUFError.laterPart(path: folder.path(2), first: folder.path(0))) { try GGUFCheckpoint(path: folder.path(2)) }
    #expect(throws: GGUFError.lonePart(part: 1, count: 3)) { try GGUFCheckpoint(GGUFFile(path: folder.path(0))) }
    try FileManager.default.copyItem(atPath: folder.path(0), toPath: folder.url.path + "/model.gguf")
    #expect(
      folder.message(path: folder.url.path + "/model.gguf").contains("is part 1 of 3 of a model, but not named so (…-00001-of-00003.gguf)"))
    try FileManager.default.copyItem(atPath: folder.path(0), toPath: folder.path(0, count: 4))
    #expect(folder.message(path: folder.path(0, count: 4)).contains("not named so"))
  }

  @Test("lacks no part, and has no damaged one")
  func missing() throws {
    let folder = try Folder()
    let last = try Data(contentsOf: URL(fileURLWithPath: folder.path(2)))
    try last.dropLast(40).write(to: URL(fileURLWithPath: folder.path(2)))
    #expect(folder.message().contains("fetch it again (in \"\(folder.path(2))\")"))
    try FileManager.default.removeItem(atPath: folder.path(2))
    #expect(throws: GGUFError.missingPart(path: folder.path(2), part: 3, count: 3)) { try GGUFCheckpoint(path: folder.path(0)) }
  }

  @Test("has parts that fit together")
  func contradictions() throws {
    let folder = try Folder()
    try folder.write(1, number: 2)
    #expect(folder.message().contains("says that it is part 3 of 3"))
    try folder.write(1, count: 4)
    #expect(folder.message().contains("says that it is part 2 of 4"))
    try folder.write(1, tensors: ["a"])
    #expect(folder.message().contains("has the tensor \"a\", which another part has, too"))
    try folder.write(1, tensors: ["b", "c"])
    #expect(folder.message().contains("all parts have 3 tensors, and they have 4"))
    try folder.write(1)
    #expect(folder.message() == "no error")
  }

  @Test("may say how many parts there are in absurd numbers")
  func absurd() throws {
    let folder = try Folder()
    try folder.write(0, count: 1 << 60)
    #expect(folder.message().contains("more than the 99999 parts"))
    try folder.write(0, number: 65535, count: 65535)
    #expect(folder.message().contains("not named so"))
    try folder.write(0, count: 99999, to: folder.path(0, count: 99999))
    #expect(folder.message(path: folder.path(0, count: 99999)).contains("part 2 of 99999 is not there"))
    // One part is the model.
    try folder.write(0, count: 1, to: folder.url.path + "/whole.gguf")
    #expect(try GGUFCheckpoint(path: folder.url.path + "/whole.gguf").tensors.count == 1)
  }
}
