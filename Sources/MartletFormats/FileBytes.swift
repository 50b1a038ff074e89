// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletLibc
import MartletCore

/// The bytes of a file: a read-only map, or an exact copy in memory, released with the last reference.
///
/// `@unchecked Sendable`: nobody writes the bytes. A map shows what the file holds: a file that another program shortens while it is mapped
/// ends the process with SIGBUS when a lost page is read, as for every program that maps files.
final class FileBytes: WeightOwner, @unchecked Sendable {
  /// Why a file could not be mapped: the system's words, or ours. The readers say it in their own error.
  struct Failure: Error {
    let reason: String
  }

  let bytes: UnsafeRawBufferPointer
  private let isMapped: Bool

  /// Whether something has this path.
  static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

  /// Maps the regular file at `path`.
  init(path: String) throws(Failure) {
    func failure(_ reason: String) -> Failure { Failure(reason: reason) }
    func systemFailure() -> Failure { failure(String(cString: strerror(martlet_errno()))) }

    // A named pipe does not make us wait before fstat can refuse it.
    let descriptor = martlet_open_for_reading(path)
    guard descriptor >= 0 else { throw systemFailure() }
    defer { close(descriptor) }
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { throw systemFailure() }
    guard martlet_is_regular_file(&status) else {
      throw failure(martlet_is_directory(&status) ? "it is a directory; name the file inside it" : "it is not a regular file")
    }
    let count = Int(status.st_size)
    guard count > 0 else { throw failure("the file is empty; fetch it again") }
    guard let address = martlet_map_file(descriptor, count) else { throw systemFailure() }
    bytes = UnsafeRawBufferPointer(start: address, count: count)
    isMapped = true
  }

  /// Copies `source` to memory of exactly its size, so that a memory checker sees a read past the end. Aligned like a file's data (64 bytes).
  init(copying source: [UInt8]) {
    let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: source.count, alignment: 64)
    copy.copyBytes(from: source)
    bytes = UnsafeRawBufferPointer(copy)
    isMapped = false
  }

  /// Gives back the pages in which `part` lies, but for one that its end shares with what comes next. A copy keeps them: it has no file to read
  /// them from again.
  func releasePages(of part: UnsafeRawBufferPointer) {
    guard isMapped, let start = part.baseAddress, let base = bytes.baseAddress, start >= base, start + part.count <= base + bytes.count
    else { return }
    // A map begins a page.
    let pageSize = martlet_page_size()
    let first = (start - base) / pageSize * pageSize, reaches = start - base + part.count
    let end = reaches == bytes.count ? reaches : reaches / pageSize * pageSize
    if end > first { martlet_give_pages_back(UnsafeMutableRawPointer(mutating: base + first), end - first) }
  }

  deinit {
    if isMapped {
      munmap(UnsafeMutableRawPointer(mutating: bytes.baseAddress!), bytes.count)
    } else {
      bytes.deallocate()
    }
  }
}
