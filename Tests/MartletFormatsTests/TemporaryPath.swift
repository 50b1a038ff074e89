// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation

/// A path in a new directory of its own, which is removed with the value.
final class TemporaryPath {
  let directory: URL
  var string: String { directory.appendingPathComponent("file.gguf").path }

  init() throws {
    directory = FileManager.default.temporaryDirectory.appendingPathComponent("martlet-" + UUID().uuidString)
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(at: directory) }
}
