// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import Synchronization

/// What the terminal does by itself with what is typed, and how it is given back as it was found.
final class TerminalModes: Sendable {
  enum Mode: Sendable {
    /// As it was found.
    case original
    /// Every byte comes as it is typed, Ctrl-C and Ctrl-Z too; nothing is shown.
    case editing
    /// Ctrl-C and Ctrl-Z do what they do elsewhere; what else is typed waits, and is not shown in the middle of an answer.
    case waiting
  }

  private let original: termios
  private let current = Mutex(Mode.original)

  /// nil where standard input is no terminal.
  init?() {
    var original = termios()
    guard tcgetattr(0, &original) == 0 else { return nil }
    self.original = original
  }

  /// In the background the mode is only noted: the terminal is another program's then.
  func set(_ mode: Mode) {
    current.withLock {
      $0 = mode
      if !isInBackground { apply(mode) }
    }
  }

  /// Sets the mode again, after a shell has set its own: when the program goes on after a stop, in the foreground.
  func reapply() {
    current.withLock { mode in
      if mode != .original, !isInBackground { apply(mode) }
    }
  }

  /// Whether another job has the terminal. A terminal that is gone, or that controls no jobs, has no background.
  var isInBackground: Bool {
    let foreground = tcgetpgrp(0)
    return foreground >= 0 && foreground != getpgrp()
  }

  /// Stops the program by a signal's default action, with the terminal as it was found, and returns when it goes on, with the mode set again.
  ///
  /// - Parameter isForJob: whether the other programs of the job are stopped too, as the terminal does it.
  /// - Returns: false where it was not stopped and is in the background still: no shell is there that could bring it to the front.
  @discardableResult
  func stop(by number: Int32, isForJob: Bool = false) -> Bool {
    // Nobody else sets a mode while the program stops.
    current.withLock { mode in
      if mode != .original, !isInBackground { apply(.original) }
      var handled: sigaction = zeroed()
      sigaction(number, nil, &handled)
      if isForJob {
        // Not by this, which a thread could take later, when the program goes on already. Ignoring it once more drops one that waits.
        signal(number, SIG_IGN)
        kill(0, number)
        signal(number, SIG_IGN)
      }
      signal(number, SIG_DFL)
      // Threads of a dispatch queue block signals. One that its sender does not block is taken before `raise` returns.
      var signals: sigset_t = zeroed()
      var blocked: sigset_t = zeroed()
      sigemptyset(&signals)
      sigaddset(&signals, number)
      let start = ContinuousClock.now
      pthread_sigmask(SIG_UNBLOCK, &signals, &blocked)
      raise(number)
      pthread_sigmask(SIG_SETMASK, &blocked, nil)
      let time = ContinuousClock.now - start
      sigaction(number, &handled, nil)
      if mode != .original, !isInBackground { apply(mode) }
      return time > .milliseconds(1) || !isInBackground
    }
  }

  private func apply(_ mode: Mode) {
    var settings = original
    if mode != .original {
      settings.c_iflag &= ~tcflag_t(BRKINT | ICRNL | INPCK | ISTRIP | IXON)
      settings.c_lflag &= ~tcflag_t(ECHO | ICANON | IEXTEN)
      if mode == .editing { settings.c_lflag &= ~tcflag_t(ISIG) }
      withUnsafeMutableBytes(of: &settings.c_cc) {
        $0[Int(VMIN)] = 1
        $0[Int(VTIME)] = 0
      }
    }
    while tcsetattr(0, TCSADRAIN, &settings) != 0 && errno == EINTR {}
    // A terminal marks what is pasted only where it is asked to.
    Self.write(mode == .original ? "\u{1B}[?2004l" : "\u{1B}[?2004h")
  }

  /// Writes to standard error, which is the terminal.
  static func write(_ text: String) {
    var bytes = Array(text.utf8)[...]
    while !bytes.isEmpty {
      let count = bytes.withUnsafeBytes { Self.write(2, $0.baseAddress, $0.count) }
      if count < 0 {
        if errno == EINTR { continue }
        return
      }
      bytes.removeFirst(count)
    }
  }

  private static func write(_ file: Int32, _ bytes: UnsafeRawPointer?, _ count: Int) -> Int {
    #if canImport(Glibc)
    Glibc.write(file, bytes, count)
    #elseif canImport(Musl)
    Musl.write(file, bytes, count)
    #elseif canImport(Darwin)
    Darwin.write(file, bytes, count)
    #endif
  }

  /// Columns and rows of the terminal on a file; nil where it is none, or does not say.
  static func size(of file: Int32) -> (columns: Int, rows: Int)? {
    var size = winsize()
    guard ioctl(file, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return nil }
    return (Int(size.ws_col), max(1, Int(size.ws_row)))
  }
}

/// A C structure of zeros. Its initialiser belongs to whichever module the compiler met it in first, and that is not always one to import.
private func zeroed<Value>() -> Value {
  withUnsafeTemporaryAllocation(of: Value.self, capacity: 1) { memory in
    let bytes = UnsafeMutableRawBufferPointer(memory)
    for index in bytes.indices { bytes[index] = 0 }
    return memory[0]
  }
}
