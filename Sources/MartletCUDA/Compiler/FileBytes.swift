// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletLibc

/// Small files, read and written whole.
enum FileBytes {
  /// Why the system refused.
  struct Failure: Error {
    let reason: String

    init() { reason = String(cString: strerror(martlet_errno())) }
  }

  /// The file's bytes; nil where there is none or it cannot be read.
  static func read(_ path: String) -> [UInt8]? {
    let file = martlet_open_for_reading(path)
    guard file >= 0 else { return nil }
    defer { close(file) }
    var status = stat()
    guard fstat(file, &status) == 0, martlet_is_regular_file(&status) else { return nil }
    var bytes = [UInt8](repeating: 0, count: Int(status.st_size)), count = 0
    while count < bytes.count {
      let more = bytes.withUnsafeMutableBytes { CMartletLibc.read(file, $0.baseAddress! + count, $0.count - count) }
      if more <= 0 { return nil }
      count += more
    }
    return bytes
  }

  /// Writes a file that is there whole or not at all, whoever writes it at the same time: under another name first, which is then made its own.
  static func write(_ bytes: [UInt8], to path: String) throws(Failure) {
    var temporary = Array("\(path).XXXXXX".utf8CString)
    let file = mkstemp(&temporary)
    guard file >= 0 else { throw Failure() }
    var count = 0, failure: Failure?
    while count < bytes.count && failure == nil {
      let more = bytes.withUnsafeBytes { CMartletLibc.write(file, $0.baseAddress! + count, $0.count - count) }
      if more < 0 { failure = Failure() } else { count += more }
    }
    if close(file) != 0 && failure == nil { failure = Failure() }
    if failure == nil && rename(temporary, path) != 0 { failure = Failure() }
    if let failure {
      unlink(temporary)
      throw failure
    }
  }

  /// Makes a folder, and those above it that are not there.
  static func makeFolder(_ path: String) throws(Failure) {
    if access(path, F_OK) == 0 || mkdir(path, 0o777) == 0 { return }
    if martlet_errno() == ENOENT, let slash = path.lastIndex(of: "/"), slash != path.startIndex {
      try makeFolder(String(path[..<slash]))
      if mkdir(path, 0o777) == 0 { return }
    }
    // Another process may have made it.
    if martlet_errno() != EEXIST { throw Failure() }
  }

  /// The names of what lies in a folder; none where it is not there.
  static func names(in folder: String) -> [String] {
    guard let directory = opendir(folder) else { return [] }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
      names.append(
        withUnsafePointer(to: &entry.pointee.d_name) {
          $0.withMemoryRebound(to: CChar.self, capacity: MemoryLayout.size(ofValue: entry.pointee.d_name)) { String(cString: $0) }
        })
    }
    return names
  }
}
