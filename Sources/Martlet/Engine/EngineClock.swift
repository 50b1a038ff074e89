// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// The engine's time: how long it has been since it started, by the clock of its configuration.
package struct EngineClock: Sendable {
  private let elapsed: @Sendable () -> Duration
  private let wait: @Sendable (Duration) async throws -> Void

  package init<C: Clock<Duration>>(_ clock: C) {
    let start = clock.now
    elapsed = { start.duration(to: clock.now) }
    wait = { try await clock.sleep(until: clock.now.advanced(by: $0), tolerance: nil) }
  }

  var now: Duration { elapsed() }

  /// Longer than thirty years is for ever, and more than some clocks can count to.
  func sleep(for duration: Duration) async throws { try await wait(min(duration, .seconds(1_000_000_000))) }
}
