// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Logging
import MartletKVCache
import MartletTokenizers

/// schedule → prepare → forward → sample → update: everything a server does is this loop over steps.
///
/// One thread runs it and owns everything in it; the inbox and the streams of the answers are its only edges.
final class EngineLoop {
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
  /// How requests ended since the numbers were published.
  private var ends: [EngineStatistics.End] = []
  /// When the first of the requests' deadlines is over, if not before; nil without deadlines.
  private var nextDeadline: Duration?
  private var stepTime = EngineStatistics.Times()
  private var timeToFirstToken = EngineStatistics.Times()
  private var interTokenTime = EngineStatistics.Times()

  init(
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
  }

  /// Steps until the inbox is closed and nothing is left to do.
  func run() {
    do {
      while true {
        inbox.collect(into: &mail, waiting: scheduler.isIdle)
        drain()
        expire()
        if scheduler.isIdle {
          publish()
          if mail.isClosed { break }
        } else {
          try step()
        }
      }
      logger?.debug("the engine has ended")
      inbox.end(.stopped("it was shut down"))
    } catch {
      logger?.error("the engine stops", metadata: ["error": "\(error)"])
      fail(error)
    }
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
    for request in scheduler.running + scheduler.waiting {
      guard let deadline = request.deadline else { continue }
      if deadline <= now { end(request.id, .deadline) } else { nextDeadline = min(nextDeadline ?? deadline, deadline) }
    }
  }

  /// Takes a request out, wherever it is, and tells its reader; nothing happens where it has ended.
  private func end(_ id: Int, _ reason: FinishReason) {
    guard let request = scheduler.remove(id) else { return }
    switch request.purpose {
    case .generation(let writer): writer.end(reason)
    case .scoring(let writer): writer.fail(CancellationError())
    }
    note(EngineStatistics.End(reason))
  }

  // MARK: The step

  private func step() throws {
    let began = clock.now
    scheduler.schedule(into: &plan)
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
    try runner.forward()
    for entry in plan.entries {
      if entry.request.needsPromptRows { score(entry) }
    }
    scheduler.commit(plan)
    sample()
    let time = clock.now - began
    stepTime.add(time)
    meters?.step(tokens: plan.numTokens, promptTokens: promptTokens, generatedTokens: generatedTokens, time: time)
    publish(promptTokens: promptTokens)
  }

  /// Gives every request whose tokens are all computed its next token.
  private func sample() {
    sampled.removeAll(keepingCapacity: true)
    generatedTokens = 0
    for entry in plan.entries where entry.request.remaining == 0 {
      switch entry.request.purpose {
      case .generation: sampled.append(entry)
      case .scoring(let writer):
        writer.finish()
        scheduler.remove(entry.request.id)
        note(.scored)
      }
    }
    runner.withLogits(count: sampled.count, row: { sampled[$0].start + sampled[$0].count - 1 }) { index, logits in
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
    guard let token else {
      writer.fail(LLMError.notFinite(tokenIndex: index))
      return .failed
    }
    let logprob = writer.sampling.logprobs.map { sampler.logprob(of: token, in: logits, top: $0) }
    request.append(token)
    generatedTokens += 1
    writer.cachedPromptTokens = request.cachedPromptTokens
    take(timeOf: request)
    return writer.write(token, logprob, isFull: request.tokens.count >= request.maxLength).map(EngineStatistics.End.init)
  }

  /// Measures how long the request's new token took.
  private func take(timeOf request: Request) {
    let now = clock.now
    if let last = request.lastTokenTime {
      interTokenTime.add(now - last)
      meters?.nextToken(after: now - last)
    } else {
      timeToFirstToken.add(now - request.submitted)
      meters?.firstToken(after: now - request.submitted)
    }
    request.lastTokenTime = now
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
          let logprob = Float(Double(logits[token]) - LogitRow.logSumExp(logits))
          writer.write(TokenScore(logprob: logprob, best: LogitRow.argmax(logits) ?? -1))
        case .generation(let writer):
          writer.writePrompt(sampler.logprob(of: token, in: logits, top: writer.sampling.promptLogprobs ?? 0), at: next)
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
    inbox.publish { statistics in
      for pool in statistics.pools.indices {
        statistics.pools[pool].freePages = cache.freePages(pool: pool)
        statistics.pools[pool].cachedPages = cache.cachedPages(pool: pool)
        statistics.pools[pool].heldPages = cache.heldPages(pool: pool)
      }
      statistics.waitingRequests = scheduler.waiting.count
      statistics.runningRequests = scheduler.running.count
      statistics.admittedPromptTokens = scheduler.admittedPromptTokens
      statistics.cachedPromptTokens = scheduler.cachedPromptTokens
      statistics.pauses = scheduler.pauses
      for end in ends { statistics.ended[end, default: 0] += 1 }
      statistics.stepTime = stepTime
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
