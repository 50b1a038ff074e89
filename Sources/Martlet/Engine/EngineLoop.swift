// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import DequeModule
package import Logging
import MartletCore
import MartletKVCache
package import MartletTokenizers

/// schedule → prepare → forward → sample → update: everything a server does is this loop over steps.
///
/// One thread runs it and owns everything in it; the inbox and the streams of the answers are its only edges.
package final class EngineLoop {
  private let inbox: Inbox
  private let runner: ModelRunner
  private let tokenizer: any Tokenizer
  private let logger: Logger?
  private let meters: EngineMeters?
  private let clock: EngineClock
  private var scheduler: Scheduler
  private var sampler = Sampler()
  private var adjustedRow = AdjustedRow()
  private var plan = StepPlan()
  private var mail = Inbox.Mail()
  /// Entries of the plan whose next token this step gives.
  private var sampled: [StepPlan.Entry] = []
  /// Tokens that this step gave.
  private var generatedTokens = 0
  /// The most pages of each pool that requests held at one time.
  private var mostHeldPages: [Int]
  /// How requests ended since the numbers were published.
  private var ends: [EngineStatistics.End] = []
  /// When the first of the requests' deadlines is over, if not before; nil without deadlines.
  private var nextDeadline: Duration?
  /// Ids of the requests whose time is over.
  private var late: [Int] = []
  /// When the turn began, what its model and its sampling took, and when the last of them ended.
  private var turnBegan = Duration.zero
  private var turnModelTime = Duration.zero
  private var turnSamplingTime = Duration.zero
  private var mark = Duration.zero
  private var stepTime = EngineStatistics.Times()
  private var modelTime = EngineStatistics.Times()
  private var samplingTime = EngineStatistics.Times()
  private var overheadTime = EngineStatistics.Times()
  private var timeToFirstToken = EngineStatistics.Times()
  private var interTokenTime = EngineStatistics.Times()

  package init(
    inbox: Inbox, runner: ModelRunner, scheduler: Scheduler, tokenizer: any Tokenizer, logger: Logger?, meters: EngineMeters?,
    clock: EngineClock
  ) {
    self.inbox = inbox
    self.runner = runner
    self.scheduler = scheduler
    self.tokenizer = tokenizer
    self.logger = logger
    self.meters = meters
    self.clock = clock
    mostHeldPages = Array(repeating: 0, count: runner.cache.poolCount)
  }

  /// Steps until the inbox is closed and nothing is left to do.
  func run() {
    do {
      while try turn() {}
      logger?.debug("the engine has ended")
      inbox.end(.stopped("it was shut down"))
    } catch {
      logger?.error("the engine stops", metadata: ["error": "\(error)"])
      fail(error)
    }
  }

  /// Takes in what arrived, waiting for it where there is nothing to do, and runs a step if there is now.
  ///
  /// Where every request generates and its reader keeps up, it allocates nothing: what grows does so by doubling, and keeps its memory.
  /// - Returns: false once the inbox is closed and nothing is left to do.
  package func turn() throws -> Bool {
    let isIdle = scheduler.isIdle
    inbox.collect(into: &mail, waiting: isIdle)
    if isIdle { turnBegan = clock.now }
    drain()
    expire()
    if scheduler.isIdle {
      publish()
      return !mail.isClosed
    }
    try step()
    return true
  }

  // MARK: Arrivals

  /// Takes in what the inbox had.
  private func drain() {
    for submission in mail.submissions {
      let purpose: Request.Purpose
      var deadline: Duration?
      switch submission.purpose {
      case .generation(let sampling, let channel):
        purpose = .generation(AnswerWriter(sampling, channel, tokenizer: tokenizer))
        deadline = sampling.timeout.map { submission.submitted + $0 }
      case .scoring(let continuation): purpose = .scoring(ScoreWriter(continuation, count: submission.prompt.count))
      }
      if let deadline { nextDeadline = min(nextDeadline ?? deadline, deadline) }
      scheduler.submit(
        Request(
          id: submission.id, prompt: submission.prompt, maxLength: submission.maxLength, purpose: purpose, submitted: submission.submitted,
          deadline: deadline))
    }
    for id in mail.cancellations { end(id, .cancelled) }
    mail.submissions.removeAll(keepingCapacity: true)
  }

  /// Ends the requests whose time is over.
  private func expire() {
    guard let first = nextDeadline else { return }
    let now = clock.now
    if now < first { return }
    nextDeadline = nil
    late.removeAll(keepingCapacity: true)
    for request in scheduler.running { check(request, at: now) }
    for request in scheduler.waiting { check(request, at: now) }
    for id in late { end(id, .deadline) }
  }

  private func check(_ request: Request, at now: Duration) {
    guard let deadline = request.deadline else { return }
    if deadline <= now { late.append(request.id) } else { nextDeadline = min(nextDeadline ?? deadline, deadline) }
  }

  /// Takes a request out, wherever it is, and tells its reader; nothing happens where it has ended.
  private func end(_ id: Int, _ reason: FinishReason) {
    guard let request = scheduler.remove(id) else { return }
    switch request.purpose {
    case .generation(let writer):
      writer.cachedPromptTokens = request.cachedPromptTokens
      writer.pauses = request.pauses
      writer.end(reason)
    case .scoring(let writer): writer.fail(CancellationError())
    }
    note(EngineStatistics.End(reason))
  }

  // MARK: The step

  private func step() throws {
    let began = clock.now
    turnModelTime = .zero
    turnSamplingTime = .zero
    let pausesBefore = scheduler.pauses
    let cachedBefore = scheduler.cachedPromptTokens
    scheduler.schedule(into: &plan)
    for pool in mostHeldPages.indices { mostHeldPages[pool] = max(mostHeldPages[pool], runner.cache.heldPages(pool: pool)) }
    runner.beginStep(isDecode: plan.numContexts == 0)
    var promptTokens = 0
    for (index, entry) in plan.entries.enumerated() {
      let request = entry.request
      let isContext = index < plan.numContexts
      if isContext { promptTokens += entry.count }
      runner.add(
        request.id, tokens: request.tokens[request.computed..<request.computed + entry.count], cachedTokens: request.computed,
        promptLength: request.contextLength, isContext: isContext)
    }
    mark = clock.now
    try runner.forward()
    for entry in plan.entries {
      if entry.request.needsPromptRows { score(entry) }
    }
    turnModelTime += lap()
    scheduler.commit(plan)
    sample()
    let ended = clock.now
    stepTime.add(ended - began)
    modelTime.add(turnModelTime)
    samplingTime.add(turnSamplingTime)
    overheadTime.add(ended - turnBegan - turnModelTime - turnSamplingTime)
    turnBegan = ended  // what follows, until the next step, is the next turn's
    meters?.step(tokens: plan.numTokens, promptTokens: promptTokens, generatedTokens: generatedTokens, time: ended - began)
    meters?.admitted(cachedPromptTokens: scheduler.cachedPromptTokens - cachedBefore, pauses: scheduler.pauses - pausesBefore)
    publish(promptTokens: promptTokens)
  }

  /// The time since the last mark, which now is here.
  private func lap() -> Duration {
    let last = mark
    mark = clock.now
    return mark - last
  }

  /// Gives every request whose tokens are all computed its next token.
  private func sample() {
    sampled.removeAll(keepingCapacity: true)
    generatedTokens = 0
    for entry in plan.entries {
      if let failure = entry.request.failure {
        scheduler.remove(entry.request.id)
        note(.failed)
        switch entry.request.purpose {
        case .generation(let writer): writer.fail(failure)
        case .scoring(let writer): writer.fail(failure)
        }
        continue
      }
      guard entry.request.remaining == 0 else { continue }
      switch entry.request.purpose {
      case .generation: sampled.append(entry)
      case .scoring(let writer):
        writer.finish()
        scheduler.remove(entry.request.id)
        note(.scored)
      }
    }
    mark = clock.now
    runner.withLogits(count: sampled.count, row: { sampled[$0].start + sampled[$0].count - 1 }) { index, logits in
      if index == 0 { turnModelTime += lap() } else { mark = clock.now }
      let request = sampled[index].request
      guard case .generation(let writer) = request.purpose else { return }
      if let end = choose(for: request, writer, logits) {
        scheduler.remove(request.id)
        note(end)
      }
    }
  }

  /// Returns how the request ended, if it did.
  private func choose(for request: Request, _ writer: AnswerWriter, _ logits: Span<Float>) -> EngineStatistics.End? {
    let index = request.tokens.count - request.promptLength
    let token =
      writer.adjustment == nil
      ? sampler.sample(logits, writer.sampling, tokenIndex: index)
      : adjustedRow.with(
        logits, adjusting: { writer.adjustment?.apply(to: &$0, tokens: request.tokens, promptLength: request.promptLength) }
      ) {
        sampler.sample($0, writer.sampling, tokenIndex: index)
      }
    let logprob = token.flatMap { token in writer.sampling.logprobs.map { sampler.logprob(of: token, in: logits, top: $0) } }
    turnSamplingTime += lap()
    guard let token else {
      writer.fail(notFinite(index))
      return .failed
    }
    request.append(token)
    generatedTokens += 1
    writer.cachedPromptTokens = request.cachedPromptTokens
    writer.pauses = request.pauses
    take(timeOf: request, at: mark)
    return writer.write(token, logprob, isFull: request.tokens.count >= request.maxLength).map(EngineStatistics.End.init)
  }

  /// Measures how long the request's new token took.
  private func take(timeOf request: Request, at now: Duration) {
    if let last = request.lastTokenTime {
      interTokenTime.add(now - last)
      meters?.nextToken(after: now - last)
    } else {
      timeToFirstToken.add(now - request.submitted)
      meters?.firstToken(after: now - request.submitted)
    }
    request.lastTokenTime = now
  }

  /// The error for logits that are no numbers: a token of the answer, or of a text that is scored.
  private func notFinite(_ tokenIndex: Int) -> LLMError {
    // Of the types that a cache may have, float16 alone makes infinities of what a model can say: bfloat16 reaches as far as float32, e4m3 saturates.
    let type = runner.cache.config.dataType
    return type == .f16 ? .cacheOverflow(tokenIndex: tokenIndex, dataType: type) : .notFinite(tokenIndex: tokenIndex)
  }

  /// What the prompt's tokens after the entry's own are worth, as many rows at a time as the runner has memory for.
  private func score(_ entry: StepPlan.Entry) {
    let request = entry.request
    let first = request.computed
    let count = min(entry.count, request.promptLength - 1 - first)  // the last token has none after it
    var done = min(count, max(0, request.promptRowsWritten - first))  // after a pause, tokens come again that were scored before
    while done < count {
      let start = done
      let rows = min(runner.maxLogitRows, count - start)
      runner.withLogits(count: rows, row: { entry.start + start + $0 }) { index, logits in
        let next = first + start + index + 1
        let token = Int(request.tokens[next])
        switch request.purpose {
        case .scoring(let writer):
          let logprob = Float(Double(logits[token]) - LogitRow.logSumExp(logits)), best = LogitRow.argmax(logits)
          if logprob.isNaN || best == nil { request.failure = request.failure ?? notFinite(next) }
          writer.write(TokenScore(logprob: logprob, best: best ?? -1))
        case .generation(let writer):
          let logprob = sampler.logprob(of: token, in: logits, top: writer.sampling.promptLogprobs ?? 0)
          if logprob.logprob.isNaN || LogitRow.argmax(logits) == nil { request.failure = request.failure ?? notFinite(next) }
          writer.writePrompt(logprob, at: next)
        }
      }
      done += rows
    }
  }

  // MARK: The end

  /// Nothing can be computed any more: everybody who waits is told why, and every page returns.
  private func fail(_ error: any Error) {
    plan.removeAll()  // a step that failed is none
    for request in scheduler.running + scheduler.waiting {
      scheduler.remove(request.id)
      note(.failed)
      switch request.purpose {
      case .generation(let writer): writer.fail(error)
      case .scoring(let writer): writer.fail(error)
      }
    }
    publish()
    inbox.end(.stopped("\(error)"))
  }

  private func note(_ end: EngineStatistics.End) {
    ends.append(end)
    meters?.end(end)
  }

  private func publish(promptTokens: Int = 0) {
    let cache = runner.cache
    meters?.requests(running: scheduler.running.count, waiting: scheduler.waiting.count)
    for pool in 0..<cache.poolCount {
      meters?.pages(
        pool: pool, free: cache.freePages(pool: pool), cached: cache.cachedPages(pool: pool), held: cache.heldPages(pool: pool))
    }
    inbox.publish { statistics in
      for pool in statistics.pools.indices {
        statistics.pools[pool].freePages = cache.freePages(pool: pool)
        statistics.pools[pool].cachedPages = cache.cachedPages(pool: pool)
        statistics.pools[pool].heldPages = cache.heldPages(pool: pool)
        statistics.pools[pool].mostHeldPages = mostHeldPages[pool]
      }
      statistics.waitingRequests = scheduler.waiting.count
      statistics.runningRequests = scheduler.running.count
      statistics.admittedPromptTokens = scheduler.admittedPromptTokens
      statistics.cachedPromptTokens = scheduler.cachedPromptTokens
      statistics.pauses = scheduler.pauses
      for end in ends { statistics.ended[end, default: 0] += 1 }
      statistics.stepTime = stepTime
      statistics.modelTime = modelTime
      statistics.samplingTime = samplingTime
      statistics.overheadTime = overheadTime
      statistics.timeToFirstToken = timeToFirstToken
      statistics.interTokenTime = interTokenTime
      if plan.isEmpty { return }
      statistics.steps += 1
      statistics.lastContexts = plan.numContexts
      statistics.lastGenerations = plan.entries.count - plan.numContexts
      statistics.lastTokens = plan.numTokens
      statistics.promptTokens += promptTokens
      statistics.generatedTokens += generatedTokens
    }
    plan.removeAll()
    ends.removeAll(keepingCapacity: true)
  }
}
