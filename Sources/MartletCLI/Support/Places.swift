// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation

/// Folders of the person who runs the program, as the XDG base directory specification has them.
enum Places {
  /// Of models: `MARTLET_CACHE`, or `martlet` in the user's cache folder.
  static func models() -> String { value("MARTLET_CACHE") ?? folder("XDG_CACHE_HOME", "/.cache") + "/martlet" }

  /// Of what should outlive the program but is no document.
  static func state() -> String { folder("XDG_STATE_HOME", "/.local/state") + "/martlet" }

  /// A relative path is no valid value, the specification says, and is passed over.
  private static func folder(_ name: String, _ standard: String) -> String {
    value(name).flatMap { $0.hasPrefix("/") ? $0 : nil } ?? NSHomeDirectory() + standard
  }

  static func value(_ name: String) -> String? { ProcessInfo.processInfo.environment[name].flatMap { $0.isEmpty ? nil : $0 } }
}
