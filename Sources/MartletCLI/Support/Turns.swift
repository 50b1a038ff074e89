// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Dispatch
import Synchronization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#elseif canImport(Darwin)
  import Darwin
#endif

/// What comes from the person at the other end: lines of standard input, and interrupts (Ctrl-C).
///
/// An interrupt while something runs cancels that and nothing else; while a line is awaited it is an event like a line. Make one in a process,
/// and no other handler of the signal: a second source for a signal that was ignored again never hears of it.
final class Turns {
  enum Event: Sendable {
    case line(String)
    /// A line that is not UTF-8.
    case unreadable
    case interrupt
    case end
  }

  private let reader = DispatchQueue(label: "martlet.standard-input")
  private let signals: any DispatchSourceSignal
  private let events: AsyncStream<Event>.Continuation
  let stream: AsyncStream<Event>
  private let running: Running

  /// What an interrupt cancels now.
  private final class Running: Sendable {
    let cancel = Mutex<(@Sendable () -> Void)?>(nil)
  }

  init() {
    (stream, events) = AsyncStream.makeStream(of: Event.self)
    running = Running()
    signal(SIGINT, SIG_IGN)
    signals = DispatchSource.makeSignalSource(signal: SIGINT, queue: .global())
    signals.setEventHandler { [running, events] in
      if let cancel = running.cancel.withLock({ $0 }) { cancel() } else { events.yield(.interrupt) }
    }
    signals.resume()
  }

  /// Asks for one line; it comes as an event.
  func readLine() { reader.async { [events] in events.yield(Self.nextLine()) } }

  /// From now on an interrupt calls `cancel`; nil makes it an event again.
  func interrupts(_ cancel: (@Sendable () -> Void)?) { running.cancel.withLock { $0 = cancel } }

  /// Byte by byte, so that nothing is taken beyond the line; a terminal and a pipe give lines, so this is not slow where it matters.
  private static func nextLine() -> Event {
    var bytes: [UInt8] = []
    while true {
      var byte: UInt8 = 0
      let count = read(0, &byte, 1)
      if count < 0 && errno == EINTR { continue }
      if count <= 0 && bytes.isEmpty { return .end }
      if count <= 0 || byte == UInt8(ascii: "\n") { break }
      bytes.append(byte)
    }
    if bytes.last == UInt8(ascii: "\r") { bytes.removeLast() }
    return String(validating: bytes, as: UTF8.self).map(Event.line) ?? .unreadable
  }
}
