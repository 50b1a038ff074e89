// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation

/// What the system says of this process's memory.
enum ProcessMemory {
  /// The most bytes that were ever resident at one time (`VmHWM` of Linux's `/proc/self/status`); nil where the system does not say it there.
  static func peakResidentByteCount() -> Int? {
    guard let status = try? String(contentsOfFile: "/proc/self/status", encoding: .utf8) else { return nil }
    return peakResidentByteCount(status: status)
  }

  static func peakResidentByteCount(status: String) -> Int? {
    guard let line = status.split(separator: "\n").first(where: { $0.hasPrefix("VmHWM:") }) else { return nil }
    let words = line.split(whereSeparator: \.isWhitespace)
    guard words.count == 3, words[2] == "kB", let kibibytes = Int(words[1]) else { return nil }
    return kibibytes << 10
  }

  /// Lets the peak begin anew at what is resident now; nothing happens where the system has no such thing.
  static func resetPeak() { try? Data("5".utf8).write(to: URL(fileURLWithPath: "/proc/self/clear_refs")) }
}
