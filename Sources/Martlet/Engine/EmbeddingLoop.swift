// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import DequeModule
package import Logging

/// The loop of a model that answers with vectors: collect, fill a step with the texts that came first, run it, hand the vectors out.
///
/// As with ``EngineLoop``, one thread runs it and owns everything in it. A text is read whole in one step and leaves nothing behind, so that there is no
/// schedule to make: texts go in the order in which they came.
package final class EmbeddingLoop {
  private let inbox: Inbox
  private let runner: EmbeddingRunner
  private let maxSequenceLength: Int
  private let logger: Logger?
  private let meters: EngineMeters?
  private var clock: StepClock
  private var mail = Inbox.Mail()
  private var waiting: Deque<Submission> = []
  /// Those of the step that runs.
  private var running: [Submission] = []
  private var ended: [EngineStatistics.End: Int] = [:]

  package init(
    inbox: Inbox, runner: EmbeddingRunner, maxSequenceLength: Int, logger: Logger?, meters: EngineMeters?, clock: EngineClock
  ) {
    self.inbox = inbox
    self.runner = runner
    self.maxSequenceLength = maxSequenceLength
    self.logger = logger
    self.meters = meters
    self.clock = StepClock(clock)
  }

  /// Steps until the inbox is closed and nothing is left to do.
  /// - Returns: why it ended, and whether that is a failure.
  func run() -> (reason: LLMError, isFailure: Bool) {
    do {
      while try turn() {}
      logger?.debug("the engine has ended")
      return (.stopped("it was shut down"), false)
    } catch {
      logger?.error("the engine stops", metadata: ["error": "\(error)"])
      fail(error)
      return (.stopped("\(error)"), true)
    }
  }

  /// - Returns: false once the inbox is closed and nothing is left to do.
  private func turn() throws -> Bool {
    let isIdle = waiting.isEmpty
    inbox.collect(into: &mail, waiting: isIdle)
    if isIdle { clock.wake() }
    for submission in mail.submissions {
      logger?.debug("a request came", metadata: ["request": "\(submission.name)", "prompt_tokens": "\(submission.prompt.count)"])
      waiting.append(submission)
    }
    mail.submissions.removeAll(keepingCapacity: true)
    if !mail.cancellations.isEmpty {
      let cancelled = Set(mail.cancellations)
      end(waiting.filter { cancelled.contains($0.id) }, .cancelled, CancellationError())
      waiting.removeAll { cancelled.contains($0.id) }
    }
    if mail.isOver { fail(LLMError.stopped("it was shut down before the answer was whole")) }
    publish()
    look()
    if waiting.isEmpty { return !mail.isClosed }
    try step()
    return true
  }

  private func step() throws {
    clock.beginStep()
    try runner.beginStep()
    running.removeAll(keepingCapacity: true)
    var tokens = 0
    while let next = waiting.first, runner.hasRoom(for: next.prompt.count) {
      runner.add(next.id, tokens: next.prompt)
      tokens += next.prompt.count
      running.append(next)
      waiting.removeFirst()
    }
    clock.start()
    try runner.forward()
    clock.endModelPart()
    let vectors = running.indices.map { runner.vector($0) }
    let time = clock.endStep()
    meters?.step(tokens: tokens, promptTokens: tokens, generatedTokens: 0, time: time)
    for vector in vectors { note(vector.allSatisfy(\.isFinite) ? .embedded : .failed) }
    let count = running.count
    publish(steps: 1, texts: count, tokens: tokens)
    // Who is told last finds its numbers published.
    for (submission, vector) in zip(running, vectors) {
      guard case .embedding(let reply, let index) = submission.purpose else { continue }
      if vector.allSatisfy(\.isFinite) { reply.deliver(vector, at: index) } else { reply.fail(LLMError.vectorNotFinite) }
      logger?.debug(
        "a request ended",
        metadata: [
          "request": "\(submission.name)", "end": "embedded", "prompt_tokens": "\(submission.prompt.count)",
          "time": "\(clock.now - submission.submitted)",
        ])
    }
    running.removeAll(keepingCapacity: true)
  }

  private func note(_ end: EngineStatistics.End) {
    ended[end, default: 0] += 1
    meters?.end(end)
  }

  private func end(_ submissions: some Sequence<Submission>, _ end: EngineStatistics.End, _ error: any Error) {
    for submission in submissions {
      note(end)
      submission.fail(error)
    }
  }

  /// Whatever has not ended ends with an error.
  private func fail(_ error: any Error) {
    end(running, .failed, error)
    end(waiting, .failed, error)
    running.removeAll()
    waiting.removeAll()
    publish()
  }

  private func publish(steps: Int = 0, texts: Int = 0, tokens: Int = 0) {
    var queued = Inbox.Waiting()
    queued.add(waiting)
    let count = inbox.queued(queued)
    meters?.requests(running: 0, waiting: count)
    inbox.publish { statistics in
      statistics.ended = ended
      clock.write(to: &statistics)
      if steps == 0 { return }
      statistics.steps += steps
      statistics.lastContexts = texts
      statistics.lastGenerations = 0
      statistics.lastTokens = tokens
      statistics.promptTokens += tokens
    }
  }

  /// Hands out the snapshot that somebody waits for: there are no pages and no prefixes to show.
  private func look() {
    guard mail.wantsSnapshot, inbox.desk.isAsked else { return }
    let statistics = inbox.statistics, now = clock.now
    inbox.desk.deliver(
      EngineSnapshot(
        time: now / .seconds(1), model: nil, isRunning: !mail.isClosed, maxBatchSize: runner.maxNumRequests,
        maxNumTokens: runner.maxNumTokens,
        maxSequenceLength: maxSequenceLength, waitingRequests: waiting.count, waitingTokens: waiting.reduce(0) { $0 + $1.prompt.count },
        runningRequests: 0, pausedRequests: 0,
        totals: EngineSnapshot.Totals(
          steps: statistics.steps, promptTokens: statistics.promptTokens, cachedPromptTokens: 0, generatedTokens: 0, pauses: 0,
          requests: ended.values.reduce(0, +) + waiting.count),
        pools: [], prefixTree: EngineSnapshot.Tree(nodes: [], isCut: false), steps: [], requests: [], requestsLeftOut: waiting.count),
      time: now, showsText: inbox.desk.wantsText)
  }
}
