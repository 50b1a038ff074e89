// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#elseif canImport(Darwin)
  import Darwin
#endif

/// The way into the loop, and the loop's last look at itself: what any thread may touch.
///
/// Submissions and cancellations wait here until the loop collects them at the top of its next step; where it has nothing to do, it sleeps here.
///
/// `@unchecked Sendable`: every field is read and written under `mutex` only.
package final class Inbox: @unchecked Sendable {
  /// What the loop collects.
  struct Mail {
    var submissions: [Submission] = []
    var cancellations: [Int] = []
    var isClosed = false
  }

  private let mutex: UnsafeMutablePointer<pthread_mutex_t>
  private let arrival: UnsafeMutablePointer<pthread_cond_t>
  private var mail = Mail()
  private var nextID = 0
  private var endReason: LLMError?
  private var endWaiters: [CheckedContinuation<Void, Never>] = []
  private var statisticsNow: EngineStatistics

  package init(statistics: EngineStatistics) {
    statisticsNow = statistics
    mutex = .allocate(capacity: 1)
    arrival = .allocate(capacity: 1)
    let failure = pthread_mutex_init(mutex, nil) | pthread_cond_init(arrival, nil)
    precondition(failure == 0, "the system refuses a mutex: \(failure)")
  }

  deinit {
    pthread_cond_destroy(arrival)
    pthread_mutex_destroy(mutex)
    arrival.deallocate()
    mutex.deallocate()
  }

  private func locked<R, E: Error>(_ body: () throws(E) -> R) throws(E) -> R {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    return try body()
  }

  // MARK: Any thread

  /// Numbers for new requests.
  package func makeID() -> Int {
    locked {
      defer { nextID += 1 }
      return nextID
    }
  }

  /// Hands in requests, all at once.
  /// - Throws: ``LLMError/stopped(_:)`` where the loop takes none any more.
  package func submit(_ submissions: [Submission]) throws(LLMError) {
    try locked { () throws(LLMError) in
      if let endReason { throw endReason }
      if mail.isClosed { throw LLMError.stopped("it was shut down") }
      mail.submissions += submissions
      pthread_cond_signal(arrival)
    }
  }

  /// Ends a request before the next step; nothing happens where it has ended.
  func cancel(_ id: Int) {
    locked {
      if endReason != nil { return }
      mail.cancellations.append(id)
      pthread_cond_signal(arrival)
    }
  }

  /// Takes no more; the loop ends when it has finished what it has.
  package func close() {
    locked {
      mail.isClosed = true
      pthread_cond_signal(arrival)
    }
  }

  /// Returns when the loop has ended.
  func waitForEnd() async {
    await withCheckedContinuation { continuation in
      let hasEnded = locked {
        if endReason == nil { endWaiters.append(continuation) }
        return endReason != nil
      }
      if hasEnded { continuation.resume() }
    }
  }

  package var statistics: EngineStatistics {
    locked {
      var copy = statisticsNow
      copy.pools = statisticsNow.pools.map { $0 }  // of its own, so that the loop goes on writing to its own in place
      return copy
    }
  }

  // MARK: The loop's thread

  /// Exchanges `collected`, emptied, for what has arrived; sleeps until something arrives if `waiting`.
  func collect(into collected: inout Mail, waiting: Bool) {
    collected.submissions.removeAll(keepingCapacity: true)
    collected.cancellations.removeAll(keepingCapacity: true)
    locked {
      while waiting && mail.submissions.isEmpty && mail.cancellations.isEmpty && !mail.isClosed {
        pthread_cond_wait(arrival, mutex)
      }
      swap(&collected.submissions, &mail.submissions)
      swap(&collected.cancellations, &mail.cancellations)
      collected.isClosed = mail.isClosed
    }
  }

  /// Lets everybody see the loop's numbers.
  func publish(_ update: (inout EngineStatistics) -> Void) { locked { update(&statisticsNow) } }

  /// The loop has ended: whoever waits is told, whatever came too late is refused.
  func end(_ reason: LLMError) {
    let (late, waiters) = locked {
      endReason = reason
      defer {
        mail.submissions.removeAll()
        endWaiters.removeAll()
      }
      return (mail.submissions, endWaiters)
    }
    for submission in late { submission.fail(reason) }
    for waiter in waiters { waiter.resume() }
  }
}
