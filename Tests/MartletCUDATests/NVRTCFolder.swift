// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletCUDA

/// NVRTC for tests: `nvrtc-13.5.37` in the folder of models (`MARTLET_CACHE`, or `martlet` in the user's cache folder).
///
/// It needs no GPU. Where it is not there, it is fetched with pip, as models are: what cannot be fetched is a failed test, never a skip.
enum NVRTCFolder {
  private static let version = "13.5.37"

  /// Where to look for the compiler.
  static func places() async throws -> [NVRTCPlace] { [.path(try await fetched.value)] }

  /// The folder of the library. Fetched once for all tests.
  private static let fetched = Task {
    let environment = ProcessInfo.processInfo.environment
    func value(_ name: String) -> String? { environment[name].flatMap { $0.isEmpty ? nil : $0 } }
    let cache = value("MARTLET_CACHE") ?? (value("XDG_CACHE_HOME") ?? NSHomeDirectory() + "/.cache") + "/martlet"
    let folder = "\(cache)/nvrtc-\(version)"
    if !FileManager.default.fileExists(atPath: folder) { try fetch(into: folder) }
    return folder + "/nvidia/cu13/lib"
  }

  /// Into a folder of another name first, so that one that was fetched half is not taken for a whole one.
  private static func fetch(into folder: String) throws {
    let partial = "\(folder).\(UUID().uuidString)"
    defer { try? FileManager.default.removeItem(atPath: partial) }
    let pip = Process()
    pip.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    pip.arguments = [
      "python3", "-m", "pip", "install", "--quiet", "--no-deps", "--root-user-action=ignore", "--disable-pip-version-check", "--target",
      partial, "nvidia-cuda-nvrtc==\(version)",
    ]
    pip.standardInput = FileHandle.nullDevice
    try pip.run()
    pip.waitUntilExit()
    guard pip.terminationStatus == 0 else { throw FetchError(status: pip.terminationStatus) }
    do { try FileManager.default.moveItem(atPath: partial, toPath: folder) } catch {
      // Another process may have been faster.
      if !FileManager.default.fileExists(atPath: folder) { throw error }
    }
  }

  private struct FetchError: Error, CustomStringConvertible {
    let status: Int32

    var description: String { "pip could not fetch nvidia-cuda-nvrtc \(version), which these tests need, and ended with \(status)" }
  }
}
