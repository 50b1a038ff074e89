// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import DequeModule
import MartletKVCache

/// Decides which tokens of which requests the next step computes.
///
/// Two questions, one after the other. *Capacity* (`guaranteedNoEvict`): a waiting request is admitted, first come first served, when the pages
/// that it can ever hold at one time are not promised to others; once admitted it runs to its end. *Micro-batch*: every admitted request gets
/// one token if it is generating; what is left of `maxNumTokens` goes to prompts, in order of admission, at most a chunk each.
struct Scheduler {
  let maxBatchSize: Int
  let maxNumTokens: Int
  /// The most tokens of one prompt in one step.
  let chunkSize: Int
  private let cache: KVCacheManager
  private(set) var waiting: Deque<Request> = []
  /// In order of admission.
  private(set) var running: [Request] = []
  /// Pages promised to running requests, per pool.
  private var promised: [Int]

  init(maxBatchSize: Int, maxNumTokens: Int, chunkSize: Int, cache: KVCacheManager) {
    self.maxBatchSize = maxBatchSize
    self.maxNumTokens = maxNumTokens
    self.chunkSize = min(chunkSize, maxNumTokens)
    self.cache = cache
    promised = Array(repeating: 0, count: cache.poolCount)
    running.reserveCapacity(maxBatchSize)
  }

  var isIdle: Bool { waiting.isEmpty && running.isEmpty }

  mutating func submit(_ request: Request) { waiting.append(request) }

  /// Fills `plan` and gives its requests their pages.
  mutating func schedule(into plan: inout StepPlan) {
    plan.removeAll()
    var budget = maxNumTokens - running.count { $0.isGenerating }
    for request in running where !request.isGenerating { addContext(request, to: &plan, &budget) }
    while budget > 0, let next = waiting.first, admit(next) {
      waiting.removeFirst()
      addContext(next, to: &plan, &budget)
    }
    plan.numContexts = plan.entries.count
    for request in running where request.isGenerating { plan.append(request, count: 1) }
    for entry in plan.entries {
      let fits = cache.extend(entry.request.id, to: entry.request.computed + entry.count)
      precondition(fits, "request \(entry.request.id) was promised pages that are not there")
    }
  }

  private func addContext(_ request: Request, to plan: inout StepPlan, _ budget: inout Int) {
    let count = min(request.remaining, chunkSize, budget)
    if count == 0 { return }
    plan.append(request, count: count)
    budget -= count
  }

  private mutating func admit(_ request: Request) -> Bool {
    if running.count == maxBatchSize { return false }
    for pool in promised.indices where promised[pool] + pages(of: request, pool) > cache.pageCount(pool: pool) { return false }
    guard cache.addSequence(request.id) else { return false }
    for pool in promised.indices { promised[pool] += pages(of: request, pool) }
    running.append(request)
    return true
  }

  private func pages(of request: Request, _ pool: Int) -> Int {
    cache.peakPages(length: request.mostCached, chunk: chunkSize, pool: pool)
  }

  /// Says that the plan's tokens are computed: pages behind windows return.
  func commit(_ plan: StepPlan) {
    for entry in plan.entries {
      entry.request.computed += entry.count
      cache.computed(entry.request.id, upTo: entry.request.computed)
    }
  }

  /// Takes a request out, wherever it is; its pages are free at once.
  /// - Returns: the request; nil if it is not here (any more).
  @discardableResult
  mutating func remove(_ id: Int) -> Request? {
    if let index = running.firstIndex(where: { $0.id == id }) {
      let request = running.remove(at: index)
      for pool in promised.indices { promised[pool] -= pages(of: request, pool) }
      cache.remove(id)
      return request
    }
    if let index = waiting.firstIndex(where: { $0.id == id }) { return waiting.remove(at: index) }
    return nil
  }
}
