// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Dispatch
import Foundation
import Synchronization

/// A `LineEditor` at a terminal: reads bytes from standard input and draws on standard error.
///
/// However the program ends, other than by a crash, the terminal is as it was found: `close()` gives it back, and so do the signals that end the
/// program.
///
/// Not checked by the compiler is only that the signal sources, which nobody touches after `init`, may be kept here.
final class TerminalEditor: @unchecked Sendable {
  private let modes: TerminalModes
  private let historyFile: HistoryFile?
  private let state: Mutex<State>
  /// A byte in it wakes the reader: "r" to draw anew, "c" as if Ctrl-C had been typed.
  private let wakePipe: (read: Int32, write: Int32)
  private let signals: [any DispatchSourceSignal]

  private struct State {
    var editor: LineEditor
    var decoder = KeyDecoder()
    /// Keys that were typed ahead.
    var keys: [Key] = []
    /// What is on the screen: the columns of its rows, where the cursor is in them, and which row of the layout is the first.
    var drawn: [Int] = []
    var cursor = ScreenLayout.Place(row: 0, column: 0)
    var top = 0
    var hasComplained = false
  }

  /// What a line became.
  enum Event: Sendable {
    case line(String)
    /// Ctrl-C where there was nothing to clear.
    case interrupt
    case end
  }

  /// nil where there is no terminal that can be drawn on.
  init?(historyFile: HistoryFile?, commands: [String]) {
    let terminal = ProcessInfo.processInfo.environment["TERM"] ?? ""
    guard isatty(0) == 1, isatty(2) == 1, !["", "dumb", "unknown"].contains(terminal), let modes = TerminalModes() else { return nil }
    var ends: [Int32] = [0, 0]
    guard pipe(&ends) == 0 else { return nil }
    for end in ends {
      _ = fcntl(end, F_SETFL, O_NONBLOCK)
      _ = fcntl(end, F_SETFD, FD_CLOEXEC)
    }
    self.modes = modes
    self.historyFile = historyFile
    wakePipe = (ends[0], ends[1])
    state = Mutex(State(editor: LineEditor(history: historyFile?.read() ?? LineHistory(), commands: commands)))
    // Where nobody reads any more, writing is an error that is handled, and not the end at once with the terminal as it is.
    signal(SIGPIPE, SIG_IGN)
    let wakeUp = ends[1]
    let redraws = [SIGWINCH, SIGCONT].map { number in
      let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
      source.setEventHandler {
        modes.reapply()
        Self.wake(wakeUp, "r")
      }
      return source
    }
    // Ctrl-Z during an answer comes from the terminal, and while a line is edited from the reader: both end up here.
    signal(SIGTSTP, SIG_IGN)
    let stop = DispatchSource.makeSignalSource(signal: SIGTSTP, queue: .global())
    stop.setEventHandler {
      modes.stop(by: SIGTSTP)
      Self.wake(wakeUp, "r")
    }
    let endings = [SIGTERM, SIGHUP, SIGQUIT].map { number in
      signal(number, SIG_IGN)
      let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
      source.setEventHandler {
        modes.set(.original)
        _exit(128 + number)
      }
      return source
    }
    signals = redraws + [stop] + endings
    for source in signals { source.resume() }
  }

  /// Gives the terminal back.
  func close() { modes.set(.original) }

  /// As if Ctrl-C had been typed.
  func interrupt() { Self.wake(wakePipe.write, "c") }

  /// Forgets what was typed ahead.
  func dropTypeAhead() {
    tcflush(0, TCIFLUSH)
    state.withLock {
      $0.keys = []
      $0.decoder = KeyDecoder()
    }
  }

  private static func wake(_ file: Int32, _ word: Unicode.Scalar) {
    var byte = UInt8(ascii: word)
    _ = write(file, &byte, 1)
  }

  /// Blocks until a line is entered, and longer: the terminal then is one that waits.
  func readLine() -> Event {
    guard awaitForeground() else { return .end }
    modes.set(.editing)
    defer { modes.set(.waiting) }
    state.withLock {
      $0.editor.reset()
      Self.forget(&$0)
      Self.draw(&$0)
    }
    var new: [UInt8] = []
    while true {
      let (event, patience) = state.withLock { handle(new, in: &$0) }
      if let event { return event }
      new = []
      switch wait(milliseconds: patience) {
      case .bytes(let bytes): new = bytes
      case .silence: state.withLock { $0.keys += $0.decoder.flush() }
      case .woken: break
      case .gone:
        TerminalModes.write("\n")
        return .end
      }
    }
  }

  /// In the background the job stops, as one that reads does, so that nothing is drawn over what another program shows.
  ///
  /// - Returns: whether it has the terminal; not where nobody could give it to it.
  private func awaitForeground() -> Bool {
    while modes.isInBackground {
      guard modes.stop(by: SIGTTIN, isForJob: true) else { return false }
    }
    return true
  }

  /// What the reader waited for.
  private enum Arrival {
    case bytes([UInt8])
    /// Nothing came in time.
    case silence
    /// There is another key.
    case woken
    /// The input ended, or the terminal was hung up.
    case gone
  }

  private func wait(milliseconds: Int32) -> Arrival {
    while true {
      var files = [pollfd(fd: 0, events: Int16(POLLIN), revents: 0), pollfd(fd: wakePipe.read, events: Int16(POLLIN), revents: 0)]
      let count = poll(&files, nfds_t(files.count), milliseconds)
      if count < 0 {
        if errno == EINTR { continue }
        return .gone
      }
      if count == 0 { return .silence }
      if files[1].revents != 0 {
        var words = [UInt8](repeating: 0, count: 64)
        let count = read(wakePipe.read, &words, words.count)
        let woken = words.prefix(max(0, count))
        if modes.isInBackground {
          guard awaitForeground() else { return .gone }
          state.withLock { Self.forget(&$0) }
        }
        // What is typed and what is signalled come in one order: the signal's key goes behind what is typed already.
        state.withLock {
          if woken.contains(UInt8(ascii: "c")) { $0.keys.append(.interrupt) }
          if woken.contains(UInt8(ascii: "r")) {
            Self.resize(&$0)
            Self.draw(&$0)
          }
        }
        if woken.contains(UInt8(ascii: "c")) { return .woken }
        continue
      }
      var bytes = [UInt8](repeating: 0, count: 4096)
      let length = read(0, &bytes, bytes.count)
      if length < 0 && (errno == EINTR || errno == EAGAIN) { continue }
      // In the background what is typed is not for this program. The terminal would stop it, but for the signals that this thread blocks.
      if length < 0 && errno == EIO && modes.isInBackground && awaitForeground() { continue }
      if length <= 0 { return .gone }
      return .bytes(Array(bytes.prefix(length)))
    }
  }

  /// - Returns: what came of the keys, and how long to wait for more, in milliseconds: -1 is for ever.
  private func handle(_ bytes: [UInt8], in state: inout State) -> (Event?, patience: Int32) {
    state.keys += state.decoder.decode(bytes)
    var isChanged = false
    while !state.keys.isEmpty {
      let outcome = state.editor.handle(state.keys.removeFirst())
      isChanged = true
      guard let outcome else { continue }
      switch outcome {
      case .entered(let text):
        Self.finish(&state)
        keep(text, &state)
        return (.line(text), 0)
      case .interrupted(let hadText):
        Self.goBelow(&state, after: "^C")
        if !hadText { return (.interrupt, 0) }
      case .ended:
        Self.finish(&state)
        return (.end, 0)
      case .clearScreen:
        TerminalModes.write("\u{1B}[H\u{1B}[2J")
        Self.forget(&state)
      case .suspended:
        Self.finish(&state)
        // All of the job, as the terminal does it. What takes the signal wakes the reader when the program goes on, and until then nothing
        // is drawn; where it is not taken, the line is back after a while.
        kill(0, SIGTSTP)
        var pipe = pollfd(fd: wakePipe.read, events: Int16(POLLIN), revents: 0)
        while poll(&pipe, 1, 2000) < 0 && errno == EINTR {}
        Self.forget(&state)
        guard awaitForeground() else { return (.end, 0) }
        // A job that came to the front while it ran was told so by no signal.
        modes.reapply()
      }
    }
    if isChanged { Self.draw(&state) }
    // The end of a paste may be long on its way, where an escape sequence comes at once.
    return (nil, state.decoder.isInPaste ? 1000 : state.decoder.isIncomplete ? 50 : -1)
  }

  private func keep(_ text: String, _ state: inout State) {
    guard state.editor.isKept, let historyFile, let why = historyFile.add(text), !state.hasComplained else { return }
    state.hasComplained = true
    Terminal.note("The history is not kept: \(historyFile.path) cannot be written: \(why).")
  }

  // MARK: Drawing

  /// Nothing of the line is on the screen: it is drawn from where the cursor is.
  private static func forget(_ state: inout State) {
    state.drawn = []
    state.cursor = ScreenLayout.Place(row: 0, column: 0)
    state.top = 0
  }

  /// Finds out where the cursor is after the window has another width: rows that were longer than it are several now.
  private static func resize(_ state: inout State) {
    guard let size = TerminalModes.size(of: 2), size.columns != state.editor.width else { return }
    let above = state.drawn.prefix(state.cursor.row).reduce(0) { $0 + max(1, ($1 + size.columns - 1) / size.columns) }
    state.cursor.row = above + state.cursor.column / size.columns
    state.editor.width = size.columns
  }

  /// Draws the line over what was drawn of it before.
  ///
  /// - Parameter isWhole: every row, also those that the window is too low for; else as many as fit around the cursor.
  private static func draw(_ state: inout State, isWhole: Bool = false) {
    let size = TerminalModes.size(of: 2) ?? (80, 24)
    state.editor.width = size.columns
    let layout = state.editor.layout
    let cursor = layout.places[state.editor.edited.cursor]
    var top = isWhole ? 0 : min(state.top, max(0, layout.rows.count - size.rows))
    if !isWhole { top = cursor.row < top ? cursor.row : max(top, cursor.row - size.rows + 1) }
    let rows = isWhole ? layout.rows[...] : layout.rows[top...].prefix(size.rows)
    var output = state.cursor.row > 0 ? "\u{1B}[\(state.cursor.row)A" : ""
    output += "\r\u{1B}[J" + rows.joined(separator: "\r\n") + "\r"
    let up = top + rows.count - 1 - cursor.row
    if up > 0 { output += "\u{1B}[\(up)A" }
    if cursor.column > 0 { output += "\u{1B}[\(cursor.column)C" }
    TerminalModes.write(output)
    state.top = top
    state.drawn = rows.map { $0.reduce(0) { $0 + $1.columns } }
    state.cursor = ScreenLayout.Place(row: cursor.row - top, column: cursor.column)
  }

  /// Leaves the line as it is on the screen, whole, and goes below it.
  private static func finish(_ state: inout State) {
    if state.drawn.count < state.editor.layout.rows.count {
      draw(&state, isWhole: true)
    } else {
      draw(&state)
    }
    goBelow(&state)
  }

  /// Leaves what is drawn, writes a text behind it, and goes below.
  private static func goBelow(_ state: inout State, after text: String = "") {
    let down = max(0, state.drawn.count - 1 - state.cursor.row)
    let right = state.drawn.last ?? 0
    TerminalModes.write(
      (down > 0 ? "\u{1B}[\(down)B" : "") + "\r" + (right > 0 ? "\u{1B}[\(right)C" : "") + text + "\r\n")
    forget(&state)
  }
}
