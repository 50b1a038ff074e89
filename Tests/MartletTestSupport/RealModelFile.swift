// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import Martlet

/// The files of real models, for tests: those that `martlet pull` puts into the cache.
///
/// A model that is not there is pulled, so that the tests need nothing but themselves; a pull that fails is a failed test, never a skip.
package enum RealModelFile {
  /// As on the command line: `MARTLET_CACHE`, or `martlet` in the user's cache folder.
  package static var directory: String {
    let environment = ProcessInfo.processInfo.environment
    func value(_ name: String) -> String? { environment[name].flatMap { $0.isEmpty ? nil : $0 } }
    return value("MARTLET_CACHE") ?? (value("XDG_CACHE_HOME") ?? NSHomeDirectory() + "/.cache") + "/martlet"
  }

  /// The path of a known model's file.
  package static func path(_ name: String) async throws -> String {
    try await ModelStore(directory: directory).path(of: name)
  }
}
