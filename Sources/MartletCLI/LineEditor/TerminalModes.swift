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

  func set(_ mode: Mode) {
    current.withLock {
      $0 = mode
      apply(mode)
    }
  }

  /// Sets the mode again, after a shell has set its own: when the program goes on after a stop, in the foreground.
  func reapply() {
    current.withLock { mode in
      if mode != .original, tcgetpgrp(0) == getpgrp() { apply(mode) }
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
