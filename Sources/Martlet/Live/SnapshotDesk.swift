// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Where readers ask for snapshots and the loop hands them out: what any thread may touch.
///
/// A reader whose time has come asks, which wakes the loop; all who have asked until then get the snapshot that it takes. Whoever comes soon after
/// gets the same one, so that there is at least ``EngineSnapshots/leastInterval`` between two.
package final class SnapshotDesk: Sendable {
  struct Taken: Sendable {
    var snapshot: EngineSnapshot
    /// From 1 on.
    var number: Int
    var time: Duration
    var showsText: Bool
  }

  /// What a reader wants.
  struct Request: Sendable {
    /// The number of the snapshot that it had last; 0 before the first.
    var seen: Int
    /// When it wants the next.
    var due: Duration
    var showsText: Bool
  }

  private struct Asker {
    var request: Request
    var continuation: CheckedContinuation<Taken?, Never>
    /// Whether it waits for the loop, and not for its time.
    var hasAsked = false
    var sleeper: Task<Void, Never>?
  }

  private struct State {
    var readers = 0
    /// Those of them that want text.
    var textReaders = 0
    var askers: [Int: Asker] = [:]
    var nextAsker = 0
    var latest: Taken?
    var count = 0
    var hasEnded = false
  }

  /// What becomes of one who asks.
  private enum Answer {
    case taken(Taken?)
    case ask
    case wait(Duration)
  }

  private let state = Guarded(State())
  /// Tells the loop whether anybody looks, and whether somebody has asked.
  private let tell: @Sendable (_ isWatched: Bool, _ isWanted: Bool) -> Void

  init(tell: @escaping @Sendable (_ isWatched: Bool, _ isWanted: Bool) -> Void) { self.tell = tell }

  // MARK: Readers

  /// How many snapshots were taken.
  var count: Int { state.withLock { $0.count } }

  func enter(showsText: Bool) {
    // Told under the lock, so that the last word is the right one.
    state.withLock { state in
      state.readers += 1
      if showsText { state.textReaders += 1 }
      tell(true, false)
    }
  }

  func leave(showsText: Bool) {
    state.withLock { state in
      state.readers -= 1
      if showsText { state.textReaders -= 1 }
      if state.readers > 0 { return }
      state.latest = nil
      tell(false, false)
    }
  }

  /// - Returns: nil at the engine's end, and where the surrounding task is cancelled.
  func next(_ request: Request, clock: EngineClock, isolation: isolated (any Actor)?) async -> Taken? {
    let id = state.withLock { state in
      state.nextAsker += 1
      return state.nextAsker
    }
    return await withTaskCancellationHandler {
      await withCheckedContinuation(isolation: isolation) { continuation in
        state.withLock { $0.askers[id] = Asker(request: request, continuation: continuation) }
        if Task.isCancelled { resume(id, nil) } else { proceed(id, clock) }
      }
    } onCancel: {
      resume(id, nil)
    }
  }

  /// Gives the asker what there is for it, asks the loop, or sleeps until it is time to.
  private func proceed(_ id: Int, _ clock: EngineClock) {
    let now = clock.now
    let answer = state.withLock { state -> Answer? in
      guard let asker = state.askers[id] else { return nil }
      let answer = Self.answer(to: asker.request, state, at: now)
      if case .ask = answer {
        state.askers[id]?.hasAsked = true
        tell(true, true)
      }
      return answer
    }
    switch answer {
    case nil, .ask: break
    case .taken(let taken): resume(id, taken)
    case .wait(let duration):
      let sleeper = Task { [weak self] in
        // A sleep that is cut short means that nobody waits for it any more.
        if (try? await clock.sleep(for: duration)) != nil { self?.proceed(id, clock) }
      }
      let isLate = state.withLock { state in
        state.askers[id]?.sleeper = sleeper
        return state.askers[id] == nil
      }
      if isLate { sleeper.cancel() }
    }
  }

  private static func answer(to request: Request, _ state: State, at now: Duration) -> Answer {
    if state.hasEnded { return .taken(nil) }
    if now < request.due { return .wait(request.due - now) }
    guard let latest = state.latest else { return .ask }
    let age = now - latest.time
    if age >= EngineSnapshots.leastInterval { return .ask }
    if latest.number != request.seen, latest.showsText || !request.showsText { return .taken(latest) }
    return .wait(EngineSnapshots.leastInterval - age)
  }

  private func resume(_ id: Int, _ taken: Taken?) {
    guard let asker = state.withLock({ $0.askers.removeValue(forKey: id) }) else { return }
    asker.sleeper?.cancel()
    asker.continuation.resume(returning: taken)
  }

  // MARK: The loop

  /// Whether anybody waits for a snapshot.
  var isAsked: Bool { state.withLock { $0.askers.values.contains { $0.hasAsked } } }

  /// Whether any reader wants text.
  var wantsText: Bool { state.withLock { $0.textReaders > 0 } }

  /// Hands a snapshot to all who have asked.
  func deliver(_ snapshot: EngineSnapshot, time: Duration, showsText: Bool) {
    let (taken, askers) = state.withLock { state in
      state.count += 1
      let taken = Taken(snapshot: snapshot, number: state.count, time: time, showsText: showsText)
      if state.readers > 0 { state.latest = taken }
      let askers = state.askers.filter { $0.value.hasAsked }
      for id in askers.keys { state.askers[id] = nil }
      return (taken, askers)
    }
    for asker in askers.values {
      asker.sleeper?.cancel()
      asker.continuation.resume(returning: taken)
    }
  }

  /// Nothing follows.
  func end() {
    let askers = state.withLock { state in
      state.hasEnded = true
      state.latest = nil
      defer { state.askers = [:] }
      return state.askers
    }
    for asker in askers.values {
      asker.sleeper?.cancel()
      asker.continuation.resume(returning: nil)
    }
  }
}
