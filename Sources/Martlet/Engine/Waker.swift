// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#elseif canImport(Darwin)
  import Darwin
#endif

/// Wakes readers on a thread of its own, so that the engine's does not: to schedule a task, the runtime takes memory (twice for each with
/// libdispatch on Linux) and, where a thread must be woken for it, calls the system.
///
/// A mutex guards what is mutable: that is what makes it `Sendable`.
package final class Waker: @unchecked Sendable {
  typealias Reader = CheckedContinuation<Void, any Error>

  private let mutex: UnsafeMutablePointer<pthread_mutex_t>
  private let arrival: UnsafeMutablePointer<pthread_cond_t>
  private var due: [Reader] = []
  private var isClosed = false

  package init() {
    mutex = .allocate(capacity: 1)
    arrival = .allocate(capacity: 1)
    let failure = pthread_mutex_init(mutex, nil) | pthread_cond_init(arrival, nil)
    precondition(failure == 0, "the system refuses a mutex: \(failure)")
    due.reserveCapacity(Self.reservedReaders)
  }

  /// More readers at one time make the array grow, amortised.
  private static let reservedReaders = 64

  deinit {
    pthread_cond_destroy(arrival)
    pthread_mutex_destroy(mutex)
    arrival.deallocate()
    mutex.deallocate()
  }

  /// Starts the thread, which lives until ``close()``.
  /// - Throws: ``LLMError/stopped(_:)`` where the system refuses one.
  package func start() throws(LLMError) { try LoopThread.run { self.run() } }

  /// Wakes a reader soon; after ``close()``, at once.
  func wake(_ reader: Reader) {
    pthread_mutex_lock(mutex)
    let isLate = isClosed
    if !isLate {
      due.append(reader)
      pthread_cond_signal(arrival)
    }
    pthread_mutex_unlock(mutex)
    if isLate { reader.resume() }
  }

  /// Ends the thread when it has woken whom it was told to.
  package func close() {
    pthread_mutex_lock(mutex)
    isClosed = true
    pthread_cond_signal(arrival)
    pthread_mutex_unlock(mutex)
  }

  private func run() {
    var readers: [Reader] = []
    readers.reserveCapacity(Self.reservedReaders)
    var isLast = false
    while !isLast {
      pthread_mutex_lock(mutex)
      while due.isEmpty && !isClosed { pthread_cond_wait(arrival, mutex) }
      swap(&due, &readers)
      isLast = isClosed
      pthread_mutex_unlock(mutex)
      for reader in readers { reader.resume() }
      readers.removeAll(keepingCapacity: true)
    }
  }
}
