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
    /// Whatever has not ended ends now.
    var isOver = false
    /// Whether anybody looks at the engine, and whether somebody waits for a snapshot of it.
    var isWatched = false
    var wantsSnapshot = false
  }

  /// How much waits to begin, at the most.
  package struct Limits: Sendable {
    var requests: Int?
    var tokens: Int?

    package init(requests: Int? = nil, tokens: Int? = nil) {
      self.requests = requests
      self.tokens = tokens
    }
  }

  /// Requests that have not begun, or have paused, and their tokens.
  struct Waiting {
    var requests = 0
    var tokens = 0

    mutating func add(_ submissions: some Sequence<Submission>) {
      for submission in submissions {
        requests += 1
        tokens += submission.prompt.count
      }
    }

    static func + (a: Waiting, b: Waiting) -> Waiting { Waiting(requests: a.requests + b.requests, tokens: a.tokens + b.tokens) }
  }

  private struct State {
    var mail = Mail()
    var nextID = 0
    var endReason: LLMError?
    var isFailure = false
    var endWaiters: [CheckedContinuation<Void, Never>] = []
    var statistics: EngineStatistics
    /// What lies in the mail, and what the loop has collected of it since it last said what waits there.
    var arriving = Waiting()
    /// What waits in the loop's own queue.
    var queued = Waiting()
  }

  private let state: Guarded<State>
  let limits: Limits
  /// Where snapshots are asked for, and handed out.
  let desk: SnapshotDesk

  package init(statistics: EngineStatistics, limits: Limits = Limits()) {
    let state = Guarded(State(statistics: statistics))
    self.state = state
    self.limits = limits
    desk = SnapshotDesk { isWatched, isWanted in
      state.withLock { state in
        state.mail.isWatched = isWatched
        if isWanted { state.mail.wantsSnapshot = true }
      }
      if isWanted { state.signal() }
    }
  }

  // MARK: Any thread

  /// Numbers for new requests.
  package func makeID() -> Int {
    state.withLock { state in
      defer { state.nextID += 1 }
      return state.nextID
    }
  }

  /// Hands in requests, all at once.
  /// - Throws: ``LLMError`` where the loop takes none any more (``LLMError/Code/stopped``), or where too much waits already
  ///   (``LLMError/Code/overloaded``).
  package func submit(_ submissions: [Submission]) throws(LLMError) {
    var new = Waiting()
    new.add(submissions)
    try state.withLock { (state) throws(LLMError) in
      if let endReason = state.endReason { throw endReason }
      if state.mail.isClosed { throw LLMError.stopped("it was shut down") }
      try checkRoom(for: new, beside: state.arriving + state.queued)
      state.mail.submissions += submissions
      state.arriving = state.arriving + new
    }
    state.signal()
  }

  /// - Throws: as ``submit(_:)`` where so much could not be submitted now.
  func checkRoom(for new: Waiting) throws(LLMError) {
    try state.withLock { (state) throws(LLMError) in try checkRoom(for: new, beside: state.arriving + state.queued) }
  }

  private func checkRoom(for new: Waiting, beside waiting: Waiting) throws(LLMError) {
    if let limit = limits.requests {
      if new.requests > limit {
        throw .exceedsWaitingLimit(count: new.requests, of: "requests", limit: limit, property: "maxWaitingRequests")
      }
      if waiting.requests + new.requests > limit {
        throw .overloaded(requests: new.requests, waitingRequests: waiting.requests, limit: limit)
      }
    }
    if let limit = limits.tokens {
      if new.tokens > limit {
        throw .exceedsWaitingLimit(count: new.tokens, of: "prompt tokens", limit: limit, property: "maxWaitingTokens")
      }
      if waiting.tokens + new.tokens > limit {
        throw .overloaded(tokens: new.tokens, waitingTokens: waiting.tokens, limit: limit)
      }
    }
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

  /// Takes no more, and lets the loop end what it has before its next step.
  package func stop() {
    state.withLock {
      $0.mail.isClosed = true
      $0.mail.isOver = true
    }
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
      let waiting = state.arriving + state.queued
      copy.waitingRequests = waiting.requests
      copy.waitingTokens = waiting.tokens
      return copy
    }
  }

  var engineState: LLM.State {
    state.withLock { state in
      if let reason = state.endReason { return .ended(state.isFailure ? reason : nil) }
      return state.mail.isClosed ? .shuttingDown : .running
    }
  }

  // MARK: The loop's thread

  /// Exchanges `collected`, emptied, for what has arrived; sleeps until something arrives if `waiting`.
  func collect(into collected: inout Mail, waiting: Bool) {
    collected.submissions.removeAll(keepingCapacity: true)
    collected.cancellations.removeAll(keepingCapacity: true)
    state.wait(until: {
      !waiting || !$0.mail.submissions.isEmpty || !$0.mail.cancellations.isEmpty || $0.mail.isClosed || $0.mail.wantsSnapshot
    }) { state in
      swap(&collected.submissions, &state.mail.submissions)
      swap(&collected.cancellations, &state.mail.cancellations)
      collected.isClosed = state.mail.isClosed
      collected.isOver = state.mail.isOver
      collected.isWatched = state.mail.isWatched
      collected.wantsSnapshot = state.mail.wantsSnapshot
      state.mail.wantsSnapshot = false
    }
  }

  /// Takes down what waits in the loop's queue, with all that the loop has collected.
  /// - Returns: the requests that wait, those in the mail included.
  @discardableResult
  func queued(_ queued: Waiting) -> Int {
    state.withLock { state in
      state.queued = queued
      state.arriving = Waiting()
      state.arriving.add(state.mail.submissions)
      return (state.arriving + queued).requests
    }
  }

  /// Lets everybody see the loop's numbers.
  func publish(_ update: (inout EngineStatistics) -> Void) { state.withLock { update(&$0.statistics) } }

  /// The loop has ended: whoever waits is told, whatever came too late is refused.
  /// - Parameter isFailure: it ends for another reason than a shutdown.
  func end(_ reason: LLMError, isFailure: Bool) {
    let (late, waiters) = state.withLock { state in
      state.endReason = reason
      state.isFailure = isFailure
      state.arriving = Waiting()
      state.queued = Waiting()
      defer {
        state.mail.submissions.removeAll()
        state.endWaiters.removeAll()
      }
      return (state.mail.submissions, state.endWaiters)
    }
    for submission in late { submission.fail(reason) }
    for waiter in waiters { waiter.resume() }
    desk.end()
  }
}
