// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletLibc

extension VerificationJournal {
  /// Runs a program that verifies with this journal, and again for the rest each time that a part has ended it. Blocks until it ends by itself.
  ///
  /// What the program writes on standard error is passed on; the sentence of a failed precondition among it becomes the part's. An
  /// interrupt is left to the program, as `system` does.
  /// - Parameters:
  ///   - arguments: without the program's name.
  ///   - program: its path. `/proc/self/exe` is this program.
  ///   - path: the journal's, which the program is told by its arguments.
  ///   - started: called with the id of every process.
  /// - Returns: the status with which the last process ended; 128 and its number where a signal ended it outside of all parts, or one by which
  ///   somebody else ends processes.
  /// - Throws: ``VerificationError``.
  public static func supervise(
    _ arguments: [String], of program: String = "/proc/self/exe", journal path: String, started: (Int32) -> Void = { _ in }
  ) throws(VerificationError) -> Int32 {
    martlet_ignore_interrupts(true)
    defer { martlet_ignore_interrupts(false) }
    var broken: Set<String> = []
    while true {
      let (status, ending, lastWords) = try run(program, arguments, started: started)
      if [SIGINT, SIGTERM, SIGHUP, SIGKILL].contains(ending) { return 128 + ending }
      let journal = try VerificationJournal(path: path)
      guard let part = journal.openPart else { return ending == 0 ? status : 128 + ending }
      guard broken.insert(part).inserted else {
        throw VerificationError(
          .journalMismatch, "\(program) began \(part) again, which had ended it before: does it go on from the journal at \(path)?")
      }
      try journal.breakOff(part, sentence(in: lastWords) ?? (ending == 0 ? "it exited with status \(status)" : "signal \(ending)"))
    }
  }

  private static func run(
    _ program: String, _ arguments: [String], started: (Int32) -> Void
  ) throws(VerificationError) -> (status: Int32, signal: Int32, lastWords: String) {
    func failure(_ number: Int32) -> VerificationError {
      VerificationError(.notStarted, "\(program) cannot be started: \(String(cString: strerror(number)))")
    }
    var ends: [Int32] = [0, 0]
    guard martlet_pipe(&ends) == 0 else { throw failure(martlet_errno()) }
    var strings: [UnsafeMutablePointer<CChar>?] = ([program] + arguments).map { strdup($0) } + [nil]
    var process: Int32 = 0
    let problem = martlet_spawn(program, &strings, ends[1], &process)
    for string in strings { free(string) }
    close(ends[1])
    defer { close(ends[0]) }
    guard problem == 0 else { throw failure(problem) }
    started(process)

    var tail: [UInt8] = []
    var piece = [UInt8](repeating: 0, count: 4096)
    while true {
      let count = piece.withUnsafeMutableBytes { read(ends[0], $0.baseAddress!, $0.count) }
      if count < 0 && martlet_errno() == EINTR { continue }
      if count <= 0 { break }
      piece.withUnsafeBytes { _ = write(2, $0.baseAddress!, count) }
      tail = (tail + piece[..<count]).suffix(1 << 16)
    }
    var ending: Int32 = 0
    let status = martlet_wait(process, &ending)
    return (status, ending, String(decoding: tail, as: UTF8.self))
  }

  /// What a failed precondition says of itself, of all that was written.
  static func sentence(in text: String) -> String? {
    let marks = ["Fatal error: ", "Precondition failed: ", "Assertion failed: "]
    for line in text.split(whereSeparator: \.isNewline).reversed() {
      for mark in marks {
        var rest = line[...]
        var found: Substring?
        while let start = rest.firstRange(of: mark) {
          rest = rest[start.upperBound...]
          found = rest
        }
        if let found { return String(found) }
      }
    }
    return nil
  }
}
