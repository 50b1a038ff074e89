// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// The engine's time: how long it has been since it started, by the clock of its configuration.
package struct EngineClock: Sendable {
  private let elapsed: @Sendable () -> Duration

  package init<C: Clock<Duration>>(_ clock: C) {
    let start = clock.now
    elapsed = { start.duration(to: clock.now) }
  }

  var now: Duration { elapsed() }
}
