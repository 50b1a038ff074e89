// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Wakes readers on a thread of its own, so that the engine's does not: to schedule a task, the runtime takes memory (twice for each with
/// libdispatch on Linux) and, where a thread must be woken for it, calls the system.
package final class Waker: Sendable {
  typealias Reader = CheckedContinuation<Void, any Error>

  private struct State {
    var due: [Reader] = Waker.room()
    var isClosed = false
  }

  private let state = Guarded(State())

  package init() {}

  /// More readers at one time than this make the array grow, amortised.
  private static func room() -> [Reader] {
    var readers: [Reader] = []
    readers.reserveCapacity(64)
    return readers
  }

  /// Starts the thread, which lives until ``close()``.
  /// - Throws: ``LLMError/Code/stopped`` where the system refuses one.
  package func start() throws(LLMError) { try LoopThread.run { self.run() } }

  /// Wakes a reader soon; after ``close()``, at once.
  func wake(_ reader: Reader) {
    let isLate = state.withLock { state in
      if !state.isClosed { state.due.append(reader) }
      return state.isClosed
    }
    if isLate { reader.resume() } else { state.signal() }
  }

  /// Ends the thread when it has woken whom it was told to.
  package func close() {
    state.withLock { $0.isClosed = true }
    state.signal()
  }

  private func run() {
    var readers = Self.room()
    var isLast = false
    while !isLast {
      isLast = state.wait(until: { !$0.due.isEmpty || $0.isClosed }) { state in
        swap(&state.due, &readers)
        return state.isClosed
      }
      for reader in readers { reader.resume() }
      readers.removeAll(keepingCapacity: true)
    }
  }
}
