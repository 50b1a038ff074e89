// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Logging
import MartletKVCache
import MartletTokenizers
import Metrics

/// schedule → prepare → forward → sample → update: everything a server does is this loop over steps.
///
/// One thread runs it and owns everything in it; the inbox and the streams of the answers are its only edges.
final class EngineLoop {
  private let inbox: Inbox
  private let runner: ModelRunner
  private let tokenizer: any Tokenizer
  private let logger: Logger?
  private let meters: EngineMeters?
  private var scheduler: Scheduler
  private var sampler = Sampler()
  private var adjustedRow = AdjustedRow()
  private var plan = StepPlan()
  private var mail = Inbox.Mail()
  /// Entries of the plan whose next token this step gives.
  private var sampled: [StepPlan.Entry] = []

  init(inbox: Inbox, runner: ModelRunner, scheduler: Scheduler, tokenizer: any Tokenizer, logger: Logger?, meters: EngineMeters?) {
    self.inbox = inbox
    self.runner = runner
    self.scheduler = scheduler
    self.tokenizer = tokenizer
    self.logger = logger
    self.meters = meters
  }

  /// Steps until the inbox is closed and nothing is left to do.
  func run() {
    do {
      while true {
        inbox.collect(into: &mail, waiting: scheduler.isIdle)
        let cancelled = drain()
        if scheduler.isIdle {
          publish(cancelled: cancelled)
          if mail.isClosed { break }
        } else {
          try step(cancelled: cancelled)
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

  /// Takes in what the inbox had. Returns how many requests were cancelled.
  private func drain() -> Int {
    for submission in mail.submissions {
      let purpose: Request.Purpose =
        switch submission.purpose {
        case .generation(let sampling, let continuation): .generation(AnswerWriter(sampling, continuation, tokenizer: tokenizer))
        case .scoring(let continuation): .scoring(ScoreWriter(continuation, count: submission.prompt.count))
        }
      scheduler.submit(Request(id: submission.id, prompt: submission.prompt, maxLength: submission.maxLength, purpose: purpose))
    }
    var cancelled = 0
    for id in mail.cancellations {
      guard let request = scheduler.remove(id) else { continue }
      cancelled += 1
      switch request.purpose {
      case .generation(let writer): writer.cancel()
      case .scoring(let writer): writer.fail(CancellationError())
      }
    }
    mail.submissions.removeAll(keepingCapacity: true)
    return cancelled
  }

  // MARK: The step

  private func step(cancelled: Int) throws {
    scheduler.schedule(into: &plan)
    runner.beginStep(isDecode: plan.numContexts == 0)
    var promptTokens = 0
    for (index, entry) in plan.entries.enumerated() {
      let request = entry.request
      let isContext = index < plan.numContexts
      if isContext { promptTokens += entry.count }
      runner.add(
        request.id, tokens: request.tokens[request.computed..<request.computed + entry.count], cachedTokens: request.computed,
        promptLength: request.promptLength, isContext: isContext)
    }
    try runner.forward()
    for entry in plan.entries {
      if entry.request.needsPromptRows { score(entry) }
    }
    scheduler.commit(plan)
    let finished = sample()
    meters?.count(plan, promptTokens: promptTokens, generatedTokens: sampled.count)
    publish(cancelled: cancelled, promptTokens: promptTokens, finished: finished)
  }

  /// Gives every request whose tokens are all computed its next token. Returns how many requests ended.
  private func sample() -> Int {
    sampled.removeAll(keepingCapacity: true)
    var finished = 0
    for entry in plan.entries where entry.request.remaining == 0 {
      switch entry.request.purpose {
      case .generation: sampled.append(entry)
      case .scoring(let writer):
        writer.finish()
        scheduler.remove(entry.request.id)
        finished += 1
      }
    }
    runner.withLogits(count: sampled.count, row: { sampled[$0].start + sampled[$0].count - 1 }) { index, logits in
      let request = sampled[index].request
      guard case .generation(let writer) = request.purpose else { return }
      if choose(for: request, writer, logits) {
        scheduler.remove(request.id)
        finished += 1
      }
    }
    return finished
  }

  /// Returns whether the request ended.
  private func choose(for request: Request, _ writer: AnswerWriter, _ logits: Span<Float>) -> Bool {
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
      return true
    }
    let logprob = writer.sampling.logprobs.map { sampler.logprob(of: token, in: logits, top: $0) }
    request.append(token)
    return writer.write(token, logprob, isFull: request.tokens.count >= request.maxLength)
  }

  /// What the prompt's tokens after the entry's own are worth, as many rows at a time as the runner has memory for.
  private func score(_ entry: StepPlan.Entry) {
    let request = entry.request
    let first = request.computed
    let count = min(entry.count, request.promptLength - 1 - first)  // the last token has none after it
    var done = 0
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

  /// Nothing can be computed any more: everybody who waits is told why.
  private func fail(_ error: any Error) {
    inbox.end(.stopped("\(error)"))
    for request in scheduler.running + scheduler.waiting {
      switch request.purpose {
      case .generation(let writer): writer.fail(error)
      case .scoring(let writer): writer.fail(error)
      }
    }
  }

  private func publish(cancelled: Int, promptTokens: Int = 0, finished: Int = 0) {
    let cache = runner.cache
    inbox.publish { statistics in
      for pool in statistics.pools.indices {
        statistics.pools[pool].freePages = cache.freePages(pool: pool)
        statistics.pools[pool].heldPages = cache.heldPages(pool: pool)
      }
      statistics.waitingRequests = scheduler.waiting.count
      statistics.runningRequests = scheduler.running.count
      statistics.cancelledRequests += cancelled
      if plan.isEmpty { return }
      statistics.steps += 1
      statistics.lastContexts = plan.numContexts
      statistics.lastGenerations = plan.entries.count - plan.numContexts
      statistics.lastTokens = plan.numTokens
      statistics.promptTokens += promptTokens
      statistics.generatedTokens += sampled.count
      statistics.finishedRequests += finished
    }
    plan.removeAll()
  }
}

/// The engine's counters in the application's metrics system.
struct EngineMeters {
  private let steps: Counter
  private let promptTokens: Counter
  private let generatedTokens: Counter

  init(_ factory: any MetricsFactory) {
    steps = Counter(label: "martlet_steps_total", dimensions: [], factory: factory)
    promptTokens = Counter(label: "martlet_prompt_tokens_total", dimensions: [], factory: factory)
    generatedTokens = Counter(label: "martlet_generated_tokens_total", dimensions: [], factory: factory)
  }

  func count(_ plan: StepPlan, promptTokens: Int, generatedTokens: Int) {
    steps.increment()
    self.promptTokens.increment(by: promptTokens)
    self.generatedTokens.increment(by: generatedTokens)
  }
}
