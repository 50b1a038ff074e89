// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Dispatch
import Foundation
import Synchronization

/// What comes from the person at the other end: what they say, a line or several at a time, and interrupts (Ctrl-C).
///
/// An interrupt while something runs cancels that and nothing else; while a line is awaited it is an event like a line. Make one in a process,
/// and no other handler of the signal: a second source for a signal that was ignored again never hears of it.
final class Turns {
  enum Event: Sendable {
    case turn(String)
    /// A turn that is not UTF-8.
    case unreadable
    case interrupt
    case end
  }

  private let reader = DispatchQueue(label: "martlet.standard-input")
  private let signals: any DispatchSourceSignal
  private let events: AsyncStream<Event>.Continuation
  let stream: AsyncStream<Event>
  private let running: Running
  /// nil where lines come from elsewhere than a terminal, or from one that nothing can be drawn on.
  private let editor: TerminalEditor?
  /// Whether a person waits for a prompt.
  let isTerminal: Bool

  /// What an interrupt cancels now.
  private final class Running: Sendable {
    let cancel = Mutex<(@Sendable () -> Void)?>(nil)
  }

  init(editor: TerminalEditor?) {
    self.editor = editor
    isTerminal = isatty(0) == 1
    (stream, events) = AsyncStream.makeStream(of: Event.self)
    running = Running()
    signal(SIGINT, SIG_IGN)
    signals = DispatchSource.makeSignalSource(signal: SIGINT, queue: .global())
    signals.setEventHandler { [running, events, editor] in
      if let cancel = running.cancel.withLock({ $0 }) {
        cancel()
        editor?.dropTypeAhead()
      } else if let editor {
        editor.interrupt()
      } else {
        events.yield(.interrupt)
      }
    }
    signals.resume()
  }

  /// Asks for what is said next; it comes as an event.
  func ask() {
    reader.async { [events, editor, isTerminal] in
      let event: Event =
        switch editor?.readLine() {
        case nil: Self.nextTurn(prompts: isTerminal)
        case .line(let line): .turn(line)
        case .interrupt: .interrupt
        case .end: .end
        }
      events.yield(event)
    }
  }

  /// Writes the prompt once more, where a line is awaited already and something was written meanwhile.
  func promptAgain() { if isTerminal { Terminal.prompt(Self.prompt) } }

  /// Whether an interrupt ends the wait for a line, so that the next must be asked for.
  var interruptEndsLine: Bool { editor != nil }

  /// From now on an interrupt calls `cancel`; nil makes it an event again.
  func interrupts(_ cancel: (@Sendable () -> Void)?) { running.cancel.withLock { $0 = cancel } }

  // MARK: Lines of a pipe or a file

  private static let prompt = "> "
  private static let continuation = ". "

  /// A line; or the lines of a block between `"""` and `"""`; or a line that ends in a backslash, and the next.
  private static func nextTurn(prompts: Bool) -> Event {
    var text = ""
    var isReadable = true
    var isFirst = true
    var isOpen = false
    while true {
      if prompts { Terminal.prompt(isFirst ? prompt : continuation) }
      guard let bytes = nextLine() else {
        // What was begun is taken as far as it goes.
        return isFirst ? .end : isReadable ? .turn(text) : .unreadable
      }
      let line = String(validating: bytes, as: UTF8.self)
      if let line { text += isFirst ? line : "\n" + line } else { isReadable = false }
      isFirst = false
      if isOpen, !TextBlock.mayEnd(with: line ?? "") { continue }
      isOpen = TextBlock(text) == .open
      if isOpen { continue }
      if text.last == "\\", text.suffix(2) != "\\\\" {
        text.removeLast()
        continue
      }
      return isReadable ? .turn(text) : .unreadable
    }
  }

  /// nil at the end. Byte by byte, so that nothing is taken beyond the line; a terminal and a pipe give lines, so this is not slow where it
  /// matters.
  private static func nextLine() -> [UInt8]? {
    var bytes: [UInt8] = []
    while true {
      var byte: UInt8 = 0
      let count = read(0, &byte, 1)
      if count < 0 && errno == EINTR { continue }
      if count <= 0 && bytes.isEmpty { return nil }
      if count <= 0 || byte == UInt8(ascii: "\n") { break }
      bytes.append(byte)
    }
    if bytes.last == UInt8(ascii: "\r") { bytes.removeLast() }
    return bytes
  }
}
