// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Synchronization

/// A clock whose hands a test moves.
final class ManualClock: Clock {
  struct Instant: InstantProtocol {
    var offset: Duration

    func advanced(by duration: Duration) -> Instant { Instant(offset: offset + duration) }
    func duration(to other: Instant) -> Duration { other.offset - offset }
    static func < (a: Instant, b: Instant) -> Bool { a.offset < b.offset }
  }

  private let offset = Mutex(Duration.zero)

  var now: Instant { Instant(offset: offset.withLock { $0 }) }
  var minimumResolution: Duration { .zero }

  func advance(by duration: Duration) { offset.withLock { $0 += duration } }

  /// Nothing here waits for a time.
  func sleep(until deadline: Instant, tolerance: Duration?) async throws { preconditionFailure("a manual clock wakes nobody") }
}
