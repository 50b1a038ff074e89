// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletLibc

/// What a verification has done so far, in a file, so that another process can go on where one was ended.
///
/// A failed precondition ends a process, and no code in it can prevent that. So each part, a cell, a law or a scenario, is written down when
/// it begins and when it has ended. A part that began and did not end is what the process ended in: the next one takes it as failed, takes the
/// results of those before from the file, and goes on behind it. ``supervise(_:of:journal:started:)`` starts these processes.
public final class VerificationJournal {
  private let path: String
  private let descriptor: Int32
  private var header: String?
  private var ended: [String: JournalEntry] = [:]
  /// Parts that a process ended in, and what is known of why.
  private var broken: [String: String] = [:]
  /// The part that began last and did not end.
  private(set) var openPart: String?

  /// Opens a journal, and makes it where there is none.
  /// - Throws: ``VerificationError/Code/journalUnusable``.
  public init(path: String) throws(VerificationError) {
    self.path = path
    descriptor = martlet_open_for_appending(path)
    guard descriptor >= 0 else { throw Self.unusable(path) }
    for line in try Self.text(descriptor, path).split(separator: "\n") {
      let fields = JournalEntry.fields(line)
      guard fields.count >= 2 else { continue }
      switch fields[0] {
      case "verification": header = fields[1]
      case "began": openPart = fields[1]
      case "ended":
        // A line that the process could not finish is one of a part that did not end.
        guard let entry = JournalEntry(fields[2...]) else { continue }
        ended[fields[1]] = entry
        openPart = nil
      case "broke":
        broken[fields[1]] = fields.count > 2 ? fields[2] : ""
        openPart = nil
      default: continue
      }
    }
  }

  deinit { close(descriptor) }

  /// Says what the journal is of.
  /// - Throws: ``VerificationError/Code/journalMismatch`` where it is of something else.
  func begin(_ header: String) throws(VerificationError) {
    if let known = self.header {
      guard known == header else {
        throw VerificationError(
          .journalMismatch, "the journal \"\(path)\" is of another verification (\(known)), not of this one (\(header)); give another file")
      }
      return
    }
    self.header = header
    try append(["verification", header])
  }

  /// Whether a part needs not be run.
  func knows(_ part: String) -> Bool { ended[part] != nil || broken[part] != nil || openPart == part }

  /// The result of a part: from the journal, or by running it between two lines.
  /// - Parameters:
  ///   - read: a result of what the journal has; nil runs the part again.
  ///   - broke: a result that says that a process ended in the part.
  func result<Result>(
    of part: String, read: (JournalEntry) -> Result?, broke: (String) -> Result, entry: (Result) -> JournalEntry, run: () -> Result
  ) throws(VerificationError) -> Result {
    if let result = ended[part].flatMap(read) { return result }
    if openPart == part { try breakOff(part, "standard error says why") }
    if let words = broken[part] { return broke("ended the process: " + words) }
    try append(["began", part])
    openPart = part
    let result = run()
    ended[part] = entry(result)
    openPart = nil
    try append(["ended", part] + entry(result).fields)
    return result
  }

  /// Says why a process ended in a part.
  func breakOff(_ part: String, _ words: String) throws(VerificationError) {
    broken[part] = words
    openPart = nil
    try append(["broke", part, words])
  }

  private func append(_ fields: [String]) throws(VerificationError) {
    var line = Array(JournalEntry.line(fields).utf8)[...]
    while !line.isEmpty {
      let count = line.withUnsafeBytes { write(descriptor, $0.baseAddress!, $0.count) }
      if count < 0 {
        if martlet_errno() == EINTR { continue }
        throw Self.unusable(path)
      }
      line = line.dropFirst(count)
    }
  }

  private static func text(_ descriptor: Int32, _ path: String) throws(VerificationError) -> String {
    var bytes: [UInt8] = []
    var piece = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      let count = piece.withUnsafeMutableBytes { read(descriptor, $0.baseAddress!, $0.count) }
      if count == 0 { return String(decoding: bytes, as: UTF8.self) }
      if count < 0 {
        if martlet_errno() == EINTR { continue }
        throw unusable(path)
      }
      bytes += piece[..<count]
    }
  }

  private static func unusable(_ path: String) -> VerificationError {
    VerificationError(.journalUnusable, "the journal \"\(path)\" cannot be read and written: \(String(cString: strerror(martlet_errno())))")
  }
}
