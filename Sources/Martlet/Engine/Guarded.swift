// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletLibc
import MartletCore

/// A value that is reached only while its mutex is held, and on which one thread may wait.
///
/// The system's mutex, because the thread sanitizer follows it; it does not see into `Synchronization.Mutex` here.
///
/// `@unchecked Sendable`: `value` is read and written under `mutex` only.
final class Guarded<Value>: @unchecked Sendable {
  private let mutex: UnsafeMutablePointer<pthread_mutex_t>
  private let change: UnsafeMutablePointer<pthread_cond_t>
  private var value: Value

  init(_ value: sending Value) {
    self.value = value
    mutex = .allocate(capacity: 1)
    change = .allocate(capacity: 1)
    let failure = pthread_mutex_init(mutex, nil) | pthread_cond_init(change, nil)
    enforce(failure == 0, "the system refuses a mutex: \(failure)")
  }

  deinit {
    pthread_cond_destroy(change)
    pthread_mutex_destroy(mutex)
    change.deallocate()
    mutex.deallocate()
  }

  func withLock<Result, Failure: Error>(_ body: (inout Value) throws(Failure) -> Result) throws(Failure) -> Result {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    return try body(&value)
  }

  /// Sleeps, the mutex released, until the value `isReady`; looks when ``signal()`` is called.
  func wait<Result>(until isReady: (Value) -> Bool, _ body: (inout Value) -> Result) -> Result {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    while !isReady(value) { pthread_cond_wait(change, mutex) }
    return body(&value)
  }

  /// Lets the thread that waits look again.
  func signal() { pthread_cond_signal(change) }
}
