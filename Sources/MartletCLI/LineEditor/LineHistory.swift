// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation

/// The lines that were entered, the oldest first, bounded in number and length.
package struct LineHistory: Sendable, Hashable {
  package private(set) var entries: [String]

  package static let mostEntries = 1000
  /// In bytes; a longer text is not kept.
  package static let longestEntry = 1 << 16

  package init(_ entries: [String] = []) { self.entries = Array(entries.suffix(Self.mostEntries)) }

  /// Adds an entry, unless it is blank, too long, or the last one again.
  /// - Returns: whether it was added.
  @discardableResult
  package mutating func add(_ text: String) -> Bool {
    guard text.contains(where: { !$0.isWhitespace }), text.utf8.count <= Self.longestEntry, text != entries.last else { return false }
    entries.append(text)
    if entries.count > Self.mostEntries { entries.removeFirst(entries.count - Self.mostEntries) }
    return true
  }
}

/// Where a history outlives the program: an entry a line, a line feed in it written as `\n` and a backslash as `\\`. The file is its owner's alone.
package struct HistoryFile: Sendable {
  package let path: String

  package init(path: String) { self.path = path }

  /// What is in the file; nothing where there is none. A file that has grown to twice what is kept is cut.
  package func read() -> LineHistory {
    guard let data = FileManager.default.contents(atPath: path) else { return LineHistory() }
    // An entry takes twice its length at most. What is longer is none, and would take long to look through.
    let lines = Array(data).split(separator: UInt8(ascii: "\n")).filter { $0.count <= 2 * LineHistory.longestEntry }
    let entries = lines.suffix(LineHistory.mostEntries).map { KeyDecoder.clean(Self.decoded(String(decoding: $0, as: UTF8.self))) }
    if lines.count > 2 * LineHistory.mostEntries {
      let text = entries.map { Self.encoded($0) + "\n" }.joined()
      // Written beside and renamed, so that a line that another program adds meanwhile is lost at worst, and the file never.
      let new = path + ".new"
      unlink(new)
      if Self.append(text, to: new) == nil { rename(new, path) }
    }
    return LineHistory(entries)
  }

  /// Adds an entry, making the file and its folder where there are none.
  /// - Returns: why that did not work, in the system's words; nil where it did.
  package func add(_ entry: String) -> String? {
    let folder = (path as NSString).deletingLastPathComponent
    try? FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
    return Self.append(Self.encoded(entry) + "\n", to: path)
  }

  private static func append(_ text: String, to path: String) -> String? {
    let file = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
    guard file >= 0 else { return String(cString: strerror(errno)) }
    defer { close(file) }
    var bytes = Array(text.utf8)
    // A line that was left without its end stays a line of its own.
    var last = UInt8(ascii: "\n")
    let size = lseek(file, 0, SEEK_END)
    if size > 0, pread(file, &last, 1, size - 1) == 1, last != UInt8(ascii: "\n") { bytes.insert(UInt8(ascii: "\n"), at: 0) }
    // One write, so that programs that add at the same time do not mix their lines.
    let count = write(file, bytes, bytes.count)
    if count == bytes.count { return nil }
    if count < 0 { return String(cString: strerror(errno)) }
    // A part was written, and that is no error to the system: there is no room for the rest. Nothing of it is kept, unless another program
    // has written behind it.
    let end = lseek(file, 0, SEEK_CUR)
    if end >= count, end == lseek(file, 0, SEEK_END) { _ = ftruncate(file, end - off_t(count)) }
    return String(cString: strerror(ENOSPC))
  }

  private static func encoded(_ text: String) -> String {
    text.replacingOccurrences(of: "\\", with: "\\\\").replacingOccurrences(of: "\n", with: "\\n")
  }

  private static func decoded(_ line: String) -> String {
    var result = ""
    var isEscaped = false
    for character in line {
      if isEscaped {
        result.append(character == "n" ? "\n" : character)
        isEscaped = false
      } else if character == "\\" {
        isEscaped = true
      } else {
        result.append(character)
      }
    }
    return result
  }
}
