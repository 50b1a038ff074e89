// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

extension LLM {
  /// Looks at the engine for as long as somebody iterates.
  ///
  /// ```swift
  /// for await snapshot in llm.snapshots() { print(snapshot.pools[0].held, "pages are held") }
  /// ```
  ///
  /// While nobody does, nothing is gathered, and a step costs a branch and a store more than without this. The engine's thread takes a snapshot between two
  /// steps, or woken for it where it has nothing to do, and all readers that wait for one get the same: at most one in ``EngineSnapshots/leastInterval``, whoever asks.
  ///
  /// - Parameters:
  ///   - interval: how long a reader waits from one snapshot to the next, by ``EngineConfiguration/clock``, at least
  ///     ``EngineSnapshots/leastInterval``. A step is never cut short for it.
  ///   - showsText: whether requests show the beginnings of their prompts, which nobody but their users may be meant to see.
  /// - Returns: a sequence that ends with the engine, and where the reader's task is cancelled. It does not keep the engine alive.
  public func snapshots(every interval: Duration = .milliseconds(100), showsText: Bool = false) -> EngineSnapshots {
    EngineSnapshots(desk: inbox.desk, clock: clock, interval: max(interval, EngineSnapshots.leastInterval), showsText: showsText)
  }

  /// How many snapshots the engine has gathered.
  package var snapshotCount: Int { inbox.desk.count }
}

/// Looks at an engine, one after the other: ``LLM/snapshots(every:showsText:)``.
///
/// Several tasks may iterate at one time, each at its own pace. The first snapshot comes at once. A reader that is late misses what was between; ``EngineSnapshot/steps``
/// has what it missed, as far as there is room.
public struct EngineSnapshots: AsyncSequence, Sendable {
  public typealias Element = EngineSnapshot
  public typealias Failure = Never

  /// The least time between two snapshots.
  public static let leastInterval = Duration.milliseconds(100)

  let desk: SnapshotDesk
  let clock: EngineClock
  let interval: Duration
  let showsText: Bool

  public struct AsyncIterator: AsyncIteratorProtocol {
    private let reader: SnapshotReader

    fileprivate init(_ reader: SnapshotReader) { self.reader = reader }

    public mutating func next() async -> EngineSnapshot? { await next(isolation: nil) }

    /// - Returns: nil at the engine's end, and where the surrounding task is cancelled.
    public mutating func next(isolation actor: isolated (any Actor)?) async -> EngineSnapshot? {
      await reader.next(isolation: actor)
    }
  }

  public func makeAsyncIterator() -> AsyncIterator {
    AsyncIterator(SnapshotReader(desk: desk, clock: clock, interval: interval, showsText: showsText))
  }
}

/// One who looks; the engine gathers for as long as there is one.
final class SnapshotReader: Sendable {
  private struct Seen {
    /// Which snapshot was the last, when it was taken, and the number of its last step.
    var snapshot = 0
    var time: Duration?
    var step = -1
  }

  private let desk: SnapshotDesk
  private let clock: EngineClock
  private let interval: Duration
  private let showsText: Bool
  private let seen = Guarded(Seen())

  init(desk: SnapshotDesk, clock: EngineClock, interval: Duration, showsText: Bool) {
    self.desk = desk
    self.clock = clock
    self.interval = interval
    self.showsText = showsText
    desk.enter(showsText: showsText)
  }

  deinit { desk.leave(showsText: showsText) }

  func next(isolation: isolated (any Actor)?) async -> EngineSnapshot? {
    let last = seen.withLock { $0 }
    let request = SnapshotDesk.Request(seen: last.snapshot, due: last.time.map { $0 + interval } ?? .zero, showsText: showsText)
    guard let taken = await desk.next(request, clock: clock, isolation: isolation) else { return nil }
    var snapshot = taken.snapshot
    if !showsText { for index in snapshot.requests.indices { snapshot.requests[index].text = nil } }
    snapshot.steps = snapshot.steps.filter { $0.number > last.step }
    seen.withLock { $0 = Seen(snapshot: taken.number, time: taken.time, step: snapshot.steps.last?.number ?? last.step) }
    return snapshot
  }
}
