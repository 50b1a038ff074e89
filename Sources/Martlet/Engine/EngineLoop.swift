// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import DequeModule
package import Logging
import MartletCore
import MartletGrammar
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
  private let observer: (any StepObserver)?
  private var scheduler: Scheduler
  private var clock: StepClock
  private var pacer: StepPacer
  private var sampler = Sampler()
  private var adjustedRow = AdjustedRow()
  /// What the form of an answer allows: memory that is made for the first that has one, and kept.
  private var allowed = TokenMask(numTokens: 0)
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
  /// Those of them whose readers are still to be told: once the numbers are published.
  private var endings: [Ending] = []
  /// When the first of the requests' deadlines is over, if not before; nil without deadlines.
  private var nextDeadline: Duration?
  /// What is gathered of the steps; nil while nobody looks.
  private var gatherer: SnapshotGatherer?
  /// Ids of the requests whose time is over.
  private var late: [Int] = []

  /// An answer or a score that is at its end.
  private struct Ending {
    var request: Request
    /// nil where it ended as it should.
    var failure: (any Error)?
  }

  package init(
    inbox: Inbox, runner: ModelRunner, scheduler: Scheduler, tokenizer: any Tokenizer, logger: Logger?, meters: EngineMeters?,
    clock: EngineClock, targetStepTime: Duration? = nil, observer: (any StepObserver)? = nil
  ) {
    self.inbox = inbox
    self.runner = runner
    self.scheduler = scheduler
    self.tokenizer = tokenizer
    self.logger = logger
    self.meters = meters
    self.observer = observer
    self.clock = StepClock(clock)
    pacer = StepPacer(target: targetStepTime, most: scheduler.maxNumTokens)
    mostHeldPages = Array(repeating: 0, count: runner.cache.poolCount)
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

  /// Takes in what arrived, waiting for it where there is nothing to do, and runs a step if there is now.
  ///
  /// Where every request generates and its reader keeps up, it allocates nothing: what grows does so by doubling, and keeps its memory. An answer of a
  /// form may: what the form allows is found out as answers come to it.
  /// - Returns: false once the inbox is closed and nothing is left to do.
  package func turn() throws -> Bool {
    let isIdle = scheduler.isIdle
    inbox.collect(into: &mail, waiting: isIdle)
    if isIdle { clock.wake() }
    drain()
    expire()
    if mail.isOver { fail(LLMError.stopped("it was shut down before the answer was whole")) }
    if scheduler.isIdle || !endings.isEmpty { publish() }
    if mail.isWatched || gatherer != nil { look() }
    if scheduler.isIdle { return !mail.isClosed }
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
        purpose = .generation(
          AnswerWriter(
            sampling, channel, tokenizer: tokenizer, logitsProcessor: submission.options.logitsProcessor, constraint: submission.constraint)
        )
        deadline = sampling.timeout.map { submission.submitted + $0 }
      case .scoring(let continuation): purpose = .scoring(ScoreWriter(continuation, count: submission.prompt.count))
      case .embedding: fatalError("vectors are asked of an engine that writes text")
      }
      if let deadline { nextDeadline = min(nextDeadline ?? deadline, deadline) }
      scheduler.submit(
        Request(
          id: submission.id, prompt: submission.prompt, positions: submission.positions, maxLength: submission.maxLength, purpose: purpose,
          submitted: submission.submitted, deadline: deadline, name: submission.name, priority: submission.options.priority,
          fairnessKey: submission.options.fairnessKey,
          metadata: submission.options.metadata))
      logger?.debug(
        "a request came",
        metadata: Self.metadata(
          submission.options.metadata, ["request": "\(submission.name)", "prompt_tokens": "\(submission.prompt.count)"])
      )
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
    scheduler.waiting.forEach { check($0, at: now) }
    for id in late { end(id, .deadline) }
  }

  private func check(_ request: Request, at now: Duration) {
    guard let deadline = request.deadline else { return }
    if deadline <= now { late.append(request.id) } else { nextDeadline = min(nextDeadline ?? deadline, deadline) }
  }

  /// Takes a request out, wherever it is; nothing happens where it has ended.
  private func end(_ id: Int, _ reason: FinishReason) {
    guard let request = scheduler.remove(id) else { return }
    var failure: (any Error)?
    switch request.purpose {
    case .generation(let writer):
      writer.cachedPromptTokens = request.cachedPromptTokens
      writer.pauses = request.pauses
      writer.end(reason)
    case .scoring: failure = CancellationError()
    }
    note(EngineStatistics.End(reason), of: request, failure)
  }

  // MARK: The step

  private func step() throws {
    clock.beginStep()
    observer?.stepBegins()
    runner.cache.noteTime(SnapshotGatherer.milliseconds(clock.stepBegan))
    let pausesBefore = scheduler.pauses
    let cachedBefore = scheduler.cachedPromptTokens
    pacer.prepare(waitingTokens: scheduler.promptTokensToCompute)
    scheduler.schedule(into: &plan, promptTokensBesideGenerations: pacer.promptTokens)
    inbox.queued(scheduler.queued)
    for pool in mostHeldPages.indices { mostHeldPages[pool] = max(mostHeldPages[pool], runner.cache.heldPages(pool: pool)) }
    try runner.beginStep(isDecode: plan.numContexts == 0)
    var promptTokens = 0
    for (index, entry) in plan.entries.enumerated() {
      let request = entry.request
      let isContext = index < plan.numContexts
      if isContext {
        promptTokens += entry.count
        request.began = request.began ?? clock.stepBegan
      }
      runner.add(
        request.id, tokens: request.tokens[request.computed..<request.computed + entry.count], cachedTokens: request.computed,
        positions: request.positions, promptLength: request.contextLength, isContext: isContext)
    }
    clock.start()
    try runner.forward()
    for entry in plan.entries {
      if entry.request.needsPromptRows { try score(entry) }
    }
    clock.endModelPart()
    scheduler.commit(plan)
    try sample()
    let time = clock.endStep()
    observer?.stepEnds(contexts: plan.numContexts, generations: plan.entries.count - plan.numContexts, tokens: plan.numTokens)
    pacer.took(time, promptTokens: promptTokens)
    meters?.step(tokens: plan.numTokens, promptTokens: promptTokens, generatedTokens: generatedTokens, time: time)
    meters?.admitted(cachedPromptTokens: scheduler.cachedPromptTokens - cachedBefore, pauses: scheduler.pauses - pausesBefore)
    gatherer?.add(plan, promptTokens: promptTokens, clock)
    publish(promptTokens: promptTokens)
  }

  /// Begins and ends to gather what snapshots tell of the steps, and takes the one that somebody waits for. The numbers are published.
  private func look() {
    if !mail.isWatched {
      gatherer = nil
      return
    }
    if gatherer == nil { gatherer = SnapshotGatherer() }
    // Whoever asked while the one before was taken got that one.
    guard mail.wantsSnapshot, inbox.desk.isAsked, let gatherer else { return }
    let showsText = inbox.desk.wantsText
    let now = clock.now
    let snapshot = gatherer.snapshot(
      at: now, scheduler, runner.cache, inbox.statistics, isRunning: !mail.isClosed, tokenizer: showsText ? tokenizer : nil)
    inbox.desk.deliver(snapshot, time: now, showsText: showsText)
  }

  /// Gives every request whose tokens are all computed its next token.
  private func sample() throws {
    sampled.removeAll(keepingCapacity: true)
    generatedTokens = 0
    for entry in plan.entries {
      if let failure = entry.request.failure {
        scheduler.remove(entry.request.id)
        note(.failed, of: entry.request, failure)
        continue
      }
      guard entry.request.remaining == 0 else { continue }
      switch entry.request.purpose {
      case .generation: sampled.append(entry)
      case .scoring:
        scheduler.remove(entry.request.id)
        note(.scored, of: entry.request)
      }
    }
    clock.start()
    try runner.withLogits(count: sampled.count, row: { sampled[$0].start + sampled[$0].count - 1 }) { index, logits in
      if index == 0 { clock.endModelPart() } else { clock.start() }
      let request = sampled[index].request
      guard case .generation(let writer) = request.purpose else { return }
      observer?.samplingBegins()
      choose(for: request, writer, logits)
      observer?.samplingEnds()
    }
  }

  private func choose(for request: Request, _ writer: AnswerWriter, _ logits: Span<Float>) {
    let index = request.tokens.count - request.promptLength
    let token: Int
    do throws(LLMError) { token = try nextToken(of: request, writer, logits, index) } catch {
      clock.endSamplingPart()
      scheduler.remove(request.id)
      note(.failed, of: request, error)
      return
    }
    let logprob = writer.sampling.logprobs.map { sampler.logprob(of: token, in: logits, top: $0) }
    clock.endSamplingPart()
    request.append(token)
    generatedTokens += 1
    writer.cachedPromptTokens = request.cachedPromptTokens
    writer.pauses = request.pauses
    clock.token(of: request, meters)
    if let reason = writer.write(token, logprob, isFull: request.tokens.count >= request.maxLength) {
      scheduler.remove(request.id)
      note(EngineStatistics.End(reason), of: request)
    }
  }

  /// The token at place `index` of the answer. Where that has a form, it goes on by the token.
  private func nextToken(of request: Request, _ writer: AnswerWriter, _ logits: Span<Float>, _ index: Int) throws(LLMError) -> Int {
    if writer.adjustment == nil && writer.logitsProcessor == nil && writer.form == nil {
      guard let token = sampler.sample(logits, writer.sampling, tokenIndex: index) else { throw notFinite(index) }
      return token
    }
    do throws(GrammarError) {
      let token = try adjustedRow.with(
        logits,
        adjusting: { (row) throws(GrammarError) in
          writer.adjustment?.apply(to: &row, tokens: request.tokens, promptLength: request.promptLength)
          writer.logitsProcessor?(&row, LogitsContext(tokenIDs: request.tokens, promptTokenCount: request.promptLength))
          try writer.form?.forbid(in: &row, mask: &allowed)
        }
      ) {
        sampler.sample($0, writer.sampling, tokenIndex: index)
      }
      if let token {
        try writer.form?.follow(token)
        return token
      }
    } catch { throw .formFailed(tokenIndex: index, error) }
    // A row that was broken before is no fault of the form.
    throw writer.form == nil || LogitRow.argmax(logits) == nil ? notFinite(index) : .nothingAllowed(tokenIndex: index)
  }

  /// The error for logits that are no numbers: a token of the answer, or of a text that is scored.
  private func notFinite(_ tokenIndex: Int) -> LLMError {
    // Of the types that a cache may have, float16 alone makes infinities of what a model can say: bfloat16 reaches as far as float32, e4m3 saturates.
    let type = runner.cache.config.dataType
    return type == .f16 ? .cacheOverflow(tokenIndex: tokenIndex, dataType: type) : .notFinite(tokenIndex: tokenIndex)
  }

  /// What the prompt's tokens after the entry's own are worth, as many rows at a time as the runner has memory for.
  private func score(_ entry: StepPlan.Entry) throws {
    let request = entry.request
    let first = request.computed
    let count = min(entry.count, request.promptLength - 1 - first)  // the last token has none after it
    var done = min(count, max(0, request.promptRowsWritten - first))  // after a pause, tokens come again that were scored before
    while done < count {
      let start = done
      let rows = min(runner.maxLogitRows, count - start)
      try runner.withLogits(count: rows, row: { entry.start + start + $0 }) { index, logits in
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

  /// Whatever has not ended ends with an error, and every page returns.
  private func fail(_ error: any Error) {
    plan.removeAll()  // a step that failed is none
    while let request = scheduler.running.last ?? scheduler.waiting.first {
      scheduler.remove(request.id)
      note(.failed, of: request, error)
    }
    publish()
  }

  /// Takes down that a request is at its end. Its reader is told when the numbers are published, so that whoever reads an answer's end finds it counted.
  private func note(_ end: EngineStatistics.End, of request: Request, _ failure: (any Error)? = nil) {
    ends.append(end)
    endings.append(Ending(request: request, failure: failure))
    meters?.end(end, of: request)
    logger?.debug(
      "a request ended",
      metadata: Self.metadata(
        request.metadata,
        [
          "request": "\(request.name)", "end": "\(end.rawValue)", "prompt_tokens": "\(request.promptLength)",
          "cached_tokens": "\(request.cachedPromptTokens ?? 0)", "tokens": "\(request.tokens.count - request.promptLength)",
          "time": "\(clock.now - request.submitted)",
        ]))
    if let failure, end == .failed {
      logger?.warning("a request failed", metadata: Self.metadata(request.metadata, ["request": "\(request.name)", "error": "\(failure)"]))
    }
  }

  /// What the engine says of a request, and what the service does.
  private static func metadata(_ given: [String: String], _ own: Logger.Metadata) -> Logger.Metadata {
    own.merging(given.mapValues { "\($0)" }) { own, _ in own }
  }

  /// Lets everybody see the numbers, then tells the readers whose requests have ended.
  private func publish(promptTokens: Int = 0) {
    let cache = runner.cache
    let waiting = inbox.queued(scheduler.queued)
    meters?.requests(running: scheduler.running.count, waiting: waiting)
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
      statistics.runningRequests = scheduler.running.count
      statistics.admittedPromptTokens = scheduler.admittedPromptTokens
      statistics.cachedPromptTokens = scheduler.cachedPromptTokens
      statistics.pauses = scheduler.pauses
      for end in ends { statistics.ended[end, default: 0] += 1 }
      clock.write(to: &statistics)
      if plan.isEmpty { return }
      statistics.steps += 1
      statistics.lastContexts = plan.numContexts
      statistics.lastGenerations = plan.entries.count - plan.numContexts
      statistics.lastTokens = plan.numTokens
      statistics.promptTokens += promptTokens
      statistics.generatedTokens += generatedTokens
      runner.addExpertTokens(to: &statistics.expertTokens)
    }
    plan.removeAll()
    ends.removeAll(keepingCapacity: true)
    for ending in endings {
      switch (ending.request.purpose, ending.failure) {
      case (.generation(let writer), let failure?): writer.fail(failure)
      case (.generation(let writer), nil): writer.deliver()
      case (.scoring(let writer), let failure?): writer.fail(failure)
      case (.scoring(let writer), nil): writer.finish()
      }
    }
    endings.removeAll(keepingCapacity: true)
  }
}
