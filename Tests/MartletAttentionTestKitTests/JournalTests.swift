// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// A failed precondition ends a process, not the kit: what was found before stays, what ended it has failed, and the rest is run.

import CMartletLibc
import MartletAttention
import MartletAttentionTestKit
import MartletCPU
import MartletCore
import Synchronization
import Testing

@Suite("A verification's journal", .serialized)
struct JournalTests {
  /// A file that is not there yet.
  private func path(_ name: String = #function) -> String {
    let folder = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
    let path = "\(folder)/martlet-journal-\(getpid())-\(name.prefix { $0 != "(" })"
    unlink(path)
    return path
  }

  @Test("lets the kit go on behind a cell that ended its process")
  func resuming() async throws {
    let path = path()
    defer { unlink(path) }
    let ended = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) { [path = path as String] in
      EndsOnce.remaining.withLock { $0 = 40 }
      _ = try await verificationOfOne().run(journal: VerificationJournal(path: path))
    }
    #expect(String(decoding: try #require(ended).standardErrorContent, as: UTF8.self).contains("a forward too many"))
    let whole = try await verificationOfOne().run()
    let resumed = try await verificationOfOne().run(journal: VerificationJournal(path: path))
    #expect(resumed.cells.map(\.example) == whole.cells.map(\.example))
    // Cells from the file are what they are when they are run; one is not.
    let differing = zip(resumed.cells, whole.cells).filter { "\($0)" != "\($1)" }
    #expect(differing.count == 1 && resumed.failedCells.count == 1)
    #expect(resumed.failedCells.first?.verdict == .failed(["ended the process: standard error says why"]))
    #expect(resumed.laws.map(\.description) == whole.laws.map(\.description))
    // Another time everything comes from the file: a forward would end this process.
    EndsOnce.remaining.withLock { $0 = 1 }
    defer { EndsOnce.remaining.withLock { $0 = nil } }
    var steps = 0
    let again = try await verificationOfOne().run(journal: VerificationJournal(path: path)) { _ in steps += 1 }
    #expect(steps == 0)
    #expect(again.cells.map(\.description) == resumed.cells.map(\.description))
    #expect(again.laws.map(\.description) == resumed.laws.map(\.description))
    #expect(again.unserved == resumed.unserved)
  }

  @Test("is refused by another verification, and where its file cannot be")
  func mismatch() async throws {
    let path = path()
    defer { unlink(path) }
    var verification = try verificationOfOne()
    verification.subjects = []
    _ = try await verification.run(journal: VerificationJournal(path: path))
    verification.seed = 2
    let error = await #expect(throws: VerificationError.self) { try await verification.run(journal: VerificationJournal(path: path)) }
    #expect(error?.code == .journalMismatch && error?.description.contains("seed 1") == true)
    #expect(throws: VerificationError.self) { try VerificationJournal(path: "/nowhere/at/all") }
  }

  @Test("gets the sentence of the precondition, and processes until one comes to its end")
  func supervision() throws {
    let path = path()
    defer { unlink(path) }
    // A program that is ended in its first part by a precondition and in its second by a signal, and then comes to its end.
    let script = """
      touch "$1"
      case $(grep -c broke "$1") in
      0) printf 'began\\tfirst\\n' >> "$1"; echo "Kernels/K.swift:7: Fatal error: page 3 of 2: is the table stale?" >&2; kill -TRAP $$ ;;
      1) printf 'began\\tsecond\\n' >> "$1"; kill -SEGV $$ ;;
      2) printf 'began\\tthird\\nended\\tthird\\tpassed\\t0\\n' >> "$1"; exit 3 ;;
      esac
      """
    var processes: [Int32] = []
    let status = try VerificationJournal.supervise(["-c", script, "sh", path], of: "/bin/sh", journal: path) { processes.append($0) }
    #expect(status == 3 && Set(processes).count == 3)
    let journal = try #require(contents(path))
    #expect(journal.contains("broke\tfirst\tpage 3 of 2: is the table stale?\n"))
    #expect(journal.contains("broke\tsecond\tsignal 11\n"))
  }

  @Test("does not begin again what ended outside of all parts, nor what somebody ended")
  func strangers() throws {
    let path = path()
    defer { unlink(path) }
    var count = 0
    #expect(try VerificationJournal.supervise(["-c", "kill -SEGV $$"], of: "/bin/sh", journal: path) { _ in count += 1 } == 128 + 11)
    let terminated = #"printf 'began\tfirst\n' >> "$1"; kill -TERM $$"#
    #expect(
      try VerificationJournal.supervise(["-c", terminated, "sh", path], of: "/bin/sh", journal: path) { _ in count += 1 } == 128 + 15)
    #expect(count == 2)
    // One that does not read what ended it would be begun without an end.
    let forgetful = #"printf 'began\tsecond\n' >> "$1"; kill -SEGV $$"#
    let again = #expect(throws: VerificationError.self) {
      try VerificationJournal.supervise(["-c", forgetful, "sh", path], of: "/bin/sh", journal: path)
    }
    #expect(again?.code == .journalMismatch && again?.description.contains("began second again") == true)
    let error = #expect(throws: VerificationError.self) { try VerificationJournal.supervise([], of: "/nowhere/at/all", journal: path) }
    #expect(error?.code == .notStarted)
  }

  private func contents(_ path: String) -> String? {
    guard let file = fopen(path, "r") else { return nil }
    defer { fclose(file) }
    var bytes = [UInt8](repeating: 0, count: 1 << 16)
    let count = fread(&bytes, 1, bytes.count, file)
    return String(decoding: bytes[..<count], as: UTF8.self)
  }
}

private func verificationOfOne() throws -> Verification {
  let device = try CPUDevice(threads: 1)
  var verification = Verification(
    [ConformanceSubject(FaultyAttention<EndsOnce>.self)], on: ConformanceTarget(device: device, hasBF16Dots: false), lawDevices: [device],
    concurrency: 2)
  verification.strength = .kvTypes
  return verification
}
