// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Dispatch
import Martlet
package import MartletCPU
import Synchronization

/// What happened in an engine's steps: a tree of steps, calls of kernels, runs of the worker pool and what each worker did of a run, all with
/// times.
///
/// It is handed to an engine, to its device and to its worker pool, and records while somebody has asked it to. Steps, calls and runs come from the
/// engine's thread; workers write each to a place of its own, which is read when the pool has joined them. To record takes some tens of
/// nanoseconds an event.
package final class StepRecorder: KernelObserver, WorkerPoolObserver, StepObserver {
  /// Nanoseconds since the recorder was made.
  package typealias Time = UInt64

  package struct Span: Sendable, Hashable {
    package var begin: Time
    package var end: Time

    package init(_ begin: Time, _ end: Time) {
      self.begin = begin
      self.end = end
    }

    package var seconds: Double { Double(end - begin) * 1e-9 }
  }

  /// What one worker did of a run, if it had a task.
  package struct Share: Sendable {
    package var worker: Int
    /// From its first task's beginning to its last one's end.
    package var span: Span
    /// Within tasks, in nanoseconds.
    package var busy: Time

    package init(worker: Int, span: Span, busy: Time) {
      self.worker = worker
      self.span = span
      self.busy = busy
    }
  }

  /// A run of the worker pool.
  package struct Run: Sendable {
    package var part: WorkerPool.RunPart
    package var taskCount: Int
    package var span: Span
    package var shares: [Share]

    package init(part: WorkerPool.RunPart, taskCount: Int, span: Span, shares: [Share]) {
      self.part = part
      self.taskCount = taskCount
      self.span = span
      self.shares = shares
    }

    /// Seconds within tasks, of all workers together.
    package var busySeconds: Double { shares.reduce(0) { $0 + Double($1.busy) * 1e-9 } }
  }

  package struct Call: Sendable {
    package var call: KernelCall
    package var span: Span
    package var runs: [Run]

    package init(call: KernelCall, span: Span, runs: [Run]) {
      self.call = call
      self.span = span
      self.runs = runs
    }
  }

  package struct Step: Sendable {
    package var span: Span
    /// Requests whose prompts it read, requests that got a token of their answers, tokens.
    package var contexts: Int
    package var generations: Int
    package var tokens: Int
    package var calls: [Call]
    /// Choices of a token, one for each request that got one.
    package var samplings: [Span]
    /// Runs of the pool outside any call.
    package var otherRuns: [Run] = []

    package init(
      span: Span, contexts: Int = 0, generations: Int = 0, tokens: Int = 0, calls: [Call] = [], samplings: [Span] = []
    ) {
      self.span = span
      self.contexts = contexts
      self.generations = generations
      self.tokens = tokens
      self.calls = calls
      self.samplings = samplings
    }
  }

  private struct State {
    var isRecording = false
    var steps: [Step] = []
    /// The step, call and run that have begun.
    var step: Step?
    var call: Call?
    var run: Run?
    var samplingBegan: Time = 0
  }

  /// Of one worker: its share of the run that goes on.
  private final class Place: Sendable {
    let share = Mutex<(begin: Time, end: Time, busy: Time, taskBegan: Time)>((0, 0, 0, 0))
  }

  private let origin = DispatchTime.now().uptimeNanoseconds
  private let state = Mutex(State())
  private let places: [Place]

  /// - Parameter workerCount: of the pool that it is handed to.
  package init(workerCount: Int) {
    places = (0..<workerCount).map { _ in Place() }
  }

  private var now: Time { DispatchTime.now().uptimeNanoseconds - origin }

  /// Begins to record, with the next step.
  package func start() {
    state.withLock { state in
      state.steps.removeAll(keepingCapacity: true)
      state.isRecording = true
    }
  }

  /// - Returns: the steps that ended since ``start()``.
  package func stop() -> [Step] {
    state.withLock { state in
      state.isRecording = false
      defer { state.steps = [] }
      return state.steps
    }
  }

  // MARK: What it is told

  package func stepBegins() {
    let now = now
    state.withLock { state in
      if state.isRecording { state.step = Step(span: Span(now, now)) }
    }
  }

  package func stepEnds(contexts: Int, generations: Int, tokens: Int) {
    let now = now
    state.withLock { state in
      guard var step = state.step else { return }
      state.step = nil
      step.span.end = now
      step.contexts = contexts
      step.generations = generations
      step.tokens = tokens
      if state.isRecording { state.steps.append(step) }
    }
  }

  package func samplingBegins() {
    let now = now
    state.withLock { $0.samplingBegan = now }
  }

  package func samplingEnds() {
    let now = now
    state.withLock { $0.step?.samplings.append(Span($0.samplingBegan, now)) }
  }

  package func callBegins(_ call: KernelCall) {
    let now = now
    state.withLock { state in
      if state.step != nil { state.call = Call(call: call, span: Span(now, now), runs: []) }
    }
  }

  package func callEnds() {
    let now = now
    state.withLock { state in
      guard var call = state.call else { return }
      state.call = nil
      call.span.end = now
      state.step?.calls.append(call)
    }
  }

  package func runBegins(taskCount: Int, part: WorkerPool.RunPart) {
    let now = now
    // The workers of the run before have left.
    for place in places { place.share.withLock { $0 = (0, 0, 0, 0) } }
    state.withLock { state in
      if state.step != nil { state.run = Run(part: part, taskCount: taskCount, span: Span(now, now), shares: []) }
    }
  }

  package func taskBegins(worker: Int) {
    let now = now
    places[worker].share.withLock { share in
      share.taskBegan = now
      if share.begin == 0 { share.begin = now }
    }
  }

  package func taskEnds(worker: Int) {
    let now = now
    places[worker].share.withLock { share in
      share.busy += now - share.taskBegan
      share.end = now
    }
  }

  package func runEnds() {
    let now = now
    state.withLock { state in
      guard var run = state.run else { return }
      state.run = nil
      run.span.end = now
      for (worker, place) in places.enumerated() {
        let share = place.share.withLock { $0 }
        if share.end > 0 { run.shares.append(Share(worker: worker, span: Span(share.begin, share.end), busy: share.busy)) }
      }
      if state.call == nil { state.step?.otherRuns.append(run) } else { state.call?.runs.append(run) }
    }
  }
}
