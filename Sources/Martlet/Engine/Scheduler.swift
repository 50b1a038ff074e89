// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore
package import MartletKVCache

/// Decides which tokens of which requests the next step computes.
///
/// Two questions, one after the other. *Capacity* (``CapacityPolicy``): which requests are admitted, in the order of a ``WaitingQueue``, and
/// whether one has to pause. *Micro-batch*: every admitted request gets one token if it is generating; what is left of `maxNumTokens`, or of
/// the step's time (``StepPacer``), goes to prompts, in order of admission, at most a chunk each.
///
/// A generation that is admitted begins with the longest prefix that the cache has of its tokens. A paused one gives up its pages and goes
/// to the front of the queue; its tokens so far are then computed again like a prompt, which the prefix cache makes short where its pages are
/// still there. Pauses go from the last admitted backwards, and who paused is admitted before all others, so that the order of admission stays, and
/// the request admitted first of those that run is never paused: it alone fits, or it would have been refused at submission. So each request is
/// at some time that one, and ends: within Σ ⌈n / c⌉ + a steps (``CapacityPolicy`` says of what).
package struct Scheduler {
  package let maxBatchSize: Int
  package let maxNumTokens: Int
  /// The most tokens of one prompt in one step.
  package let chunkSize: Int
  let capacityPolicy: CapacityPolicy
  private let cache: KVCacheManager
  package private(set) var waiting = WaitingQueue()
  /// In order of admission.
  package private(set) var running: [Request] = []
  /// Pages promised to running requests, per pool; none under `maxUtilization`.
  private var promised: [Int]
  /// Since the engine started: how often a request was paused, how many prompt tokens were admitted, and how many of those were cached.
  package private(set) var pauses = 0
  package private(set) var admittedPromptTokens = 0
  package private(set) var cachedPromptTokens = 0

  package init(maxBatchSize: Int, maxNumTokens: Int, chunkSize: Int, capacityPolicy: CapacityPolicy, cache: KVCacheManager) {
    self.maxBatchSize = maxBatchSize
    self.maxNumTokens = maxNumTokens
    self.chunkSize = min(chunkSize, maxNumTokens)
    self.capacityPolicy = capacityPolicy
    self.cache = cache
    promised = Array(repeating: 0, count: cache.poolCount)
    running.reserveCapacity(maxBatchSize)
  }

  var isIdle: Bool { waiting.isEmpty && running.isEmpty }

  package mutating func submit(_ request: Request) { waiting.append(request) }

  /// Requests that wait here.
  var queued: Inbox.Waiting { Inbox.Waiting(requests: waiting.count, tokens: waiting.tokenCount) }

  /// Prompt tokens that longer steps would compute sooner: of requests that run, and of those that wait here while there is room for one, whatever
  /// the cache may have of theirs. A queue behind a full batch waits for answers to end, which longer steps delay.
  package var promptTokensToCompute: Int {
    var count = running.count < maxBatchSize ? waiting.tokenCount : 0
    for request in running where !request.isGenerating { count += request.remaining }
    return count
  }

  /// Fills `plan` and gives its requests their pages.
  /// - Parameter promptTokensBesideGenerations: the most prompt tokens of a step in which somebody generates, at least 1.
  package mutating func schedule(into plan: inout StepPlan, promptTokensBesideGenerations limit: Int = .max) {
    plan.removeAll()
    let generations = running.count { $0.isGenerating }
    var budget = maxNumTokens - generations
    if generations > 0 { budget = min(budget, limit) }
    let pausesBefore = pauses
    var index = 0
    // The oldest first: where pages are short, those that came last pause.
    while index < running.count {
      let request = running[index]
      request.planned = request.isGenerating ? 1 : min(request.remaining, chunkSize, budget)
      if !request.isGenerating { budget -= request.planned }
      if !reserve(request) { break }
      index += 1
    }
    while budget > 0, pauses == pausesBefore, let next = waiting.first, admit(next) {
      waiting.removeFirst()
      next.planned = min(next.remaining, chunkSize, budget)
      budget -= next.planned
      let isThere = reserve(next)
      enforce(isThere, "request \(next.id) was admitted without pages for its first step")
    }
    for request in running where !request.isGenerating && request.planned > 0 { plan.append(request, count: request.planned) }
    plan.numContexts = plan.entries.count
    for request in running where request.isGenerating { plan.append(request, count: 1) }
  }

  /// Gives the request the pages that its part of the step takes, pausing those that were admitted later where pages are short.
  /// - Returns: false where the request itself was paused, because none was admitted later.
  private mutating func reserve(_ request: Request) -> Bool {
    while !cache.extend(request.id, to: request.computed + request.planned) {
      enforce(capacityPolicy == .maxUtilization, "request \(request.id) was promised pages that are not there")
      enforce(running.count > 1, "request \(request.id) does not fit alone and should have been refused")
      let paused = running.removeLast()
      removeFromCache(paused)
      paused.pause()
      waiting.resume(paused)
      pauses += 1
      if paused === request { return false }
    }
    return true
  }

  /// Why the request whose turn it is has to wait, and the others behind it; nil where it may begin.
  var obstacle: EngineSnapshot.Obstacle? { waiting.first.flatMap { obstacle(to: $0) } }

  private func obstacle(to request: Request) -> EngineSnapshot.Obstacle? {
    if running.count == maxBatchSize { return .batch }
    if capacityPolicy == .guaranteedNoEvict {
      for pool in promised.indices where promised[pool] + pages(of: request, pool) > cache.pageCount(pool: pool) { return .pages }
    }
    // Only the pages of its next step will be taken, but a prompt whose end does not fit would pause half-way.
    if capacityPolicy == .maxUtilization,
      !cache.hasRoom(for: request.tokens, reusing: !request.computesWholePrompt, chunk: chunkSize)
    {
      return .pages
    }
    return nil
  }

  private mutating func admit(_ request: Request) -> Bool {
    if obstacle(to: request) != nil { return false }
    guard let reused = addToCache(request) else { return false }
    request.begin()
    request.computed = reused
    if capacityPolicy == .guaranteedNoEvict {
      for pool in promised.indices { promised[pool] += pages(of: request, pool) }
    }
    if request.cachedPromptTokens == nil {
      request.cachedPromptTokens = reused
      admittedPromptTokens += request.promptLength
      cachedPromptTokens += reused
    }
    running.append(request)
    return true
  }

  /// Returns how many of its tokens were cached; nil where the cache takes no further sequence.
  private func addToCache(_ request: Request) -> Int? {
    // Every token's logits are wanted of a scored text, so every token is computed; and keys at places of their own are nobody else's.
    if request.computesWholePrompt { return cache.addSequence(request.id, retention: request.cacheRetention) ? 0 : nil }
    return cache.addSequence(request.id, tokens: request.tokens, retention: request.cacheRetention)
  }

  private func removeFromCache(_ request: Request) {
    if request.positions == nil { cache.remove(request.id, tokens: request.tokens) } else { cache.remove(request.id) }
  }

  private func pages(of request: Request, _ pool: Int) -> Int {
    cache.peakPages(length: request.mostCached, chunk: chunkSize, pool: pool)
  }

  /// Says that the plan's tokens are computed: full pages can be reused, pages behind windows return.
  package func commit(_ plan: StepPlan) {
    for entry in plan.entries {
      entry.request.computed += entry.count
      let (id, length) = (entry.request.id, entry.request.computed)
      if entry.request.positions == nil {
        cache.computed(id, upTo: length, tokens: entry.request.tokens)
      } else {
        // Not remembered: others with these tokens have other keys.
        cache.computed(id, upTo: length)
      }
    }
  }

  /// Takes a request out, wherever it is; its pages are free at once.
  /// - Returns: the request; nil if it is not here (any more).
  @discardableResult
  package mutating func remove(_ id: Int) -> Request? {
    if let index = running.firstIndex(where: { $0.id == id }) {
      let request = running.remove(at: index)
      if capacityPolicy == .guaranteedNoEvict {
        for pool in promised.indices { promised[pool] -= pages(of: request, pool) }
      }
      removeFromCache(request)
      return request
    }
    return waiting.remove(id)
  }
}
