// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// The way into the loop, and the loop's last look at itself: what any thread may touch.
///
/// Submissions and cancellations wait here until the loop collects them at the top of its next step; where it has nothing to do, it sleeps here.
package final class Inbox: Sendable {
  /// What the loop collects.
  struct Mail {
    var submissions: [Submission] = []
    var cancellations: [Int] = []
    var isClosed = false
  }

  private struct State {
    var mail = Mail()
    var nextID = 0
    var endReason: LLMError?
    var endWaiters: [CheckedContinuation<Void, Never>] = []
    var statistics: EngineStatistics
  }

  private let state: Guarded<State>

  package init(statistics: EngineStatistics) { state = Guarded(State(statistics: statistics)) }

  // MARK: Any thread

  /// Numbers for new requests.
  package func makeID() -> Int {
    state.withLock { state in
      defer { state.nextID += 1 }
      return state.nextID
    }
  }

  /// Hands in requests, all at once.
  /// - Throws: ``LLMError/stopped(_:)`` where the loop takes none any more.
  package func submit(_ submissions: [Submission]) throws(LLMError) {
    try state.withLock { (state) throws(LLMError) in
      if let endReason = state.endReason { throw endReason }
      if state.mail.isClosed { throw LLMError.stopped("it was shut down") }
      state.mail.submissions += submissions
    }
    state.signal()
  }

  /// Ends a request before the next step; nothing happens where it has ended.
  func cancel(_ id: Int) {
    state.withLock { if $0.endReason == nil { $0.mail.cancellations.append(id) } }
    state.signal()
  }

  /// Takes no more; the loop ends when it has finished what it has.
  package func close() {
    state.withLock { $0.mail.isClosed = true }
    state.signal()
  }

  /// Returns when the loop has ended.
  func waitForEnd() async {
    await withCheckedContinuation { continuation in
      let hasEnded = state.withLock { state in
        if state.endReason == nil { state.endWaiters.append(continuation) }
        return state.endReason != nil
      }
      if hasEnded { continuation.resume() }
    }
  }

  package var statistics: EngineStatistics {
    state.withLock { state in
      var copy = state.statistics
      copy.pools = copy.pools.map { $0 }  // of its own, so that the loop goes on writing to its own in place
      return copy
    }
  }

  // MARK: The loop's thread

  /// Exchanges `collected`, emptied, for what has arrived; sleeps until something arrives if `waiting`.
  func collect(into collected: inout Mail, waiting: Bool) {
    collected.submissions.removeAll(keepingCapacity: true)
    collected.cancellations.removeAll(keepingCapacity: true)
    state.wait(until: { !waiting || !$0.mail.submissions.isEmpty || !$0.mail.cancellations.isEmpty || $0.mail.isClosed }) { state in
      swap(&collected.submissions, &state.mail.submissions)
      swap(&collected.cancellations, &state.mail.cancellations)
      collected.isClosed = state.mail.isClosed
    }
  }

  /// Lets everybody see the loop's numbers.
  func publish(_ update: (inout EngineStatistics) -> Void) { state.withLock { update(&$0.statistics) } }

  /// The loop has ended: whoever waits is told, whatever came too late is refused.
  func end(_ reason: LLMError) {
    let (late, waiters) = state.withLock { state in
      state.endReason = reason
      defer {
        state.mail.submissions.removeAll()
        state.endWaiters.removeAll()
      }
      return (state.mail.submissions, state.endWaiters)
    }
    for submission in late { submission.fail(reason) }
    for waiter in waiters { waiter.resume() }
  }
}
