// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import DequeModule
import MartletKVCache
import MartletTokenizers

/// Gathers what snapshots tell, on the engine's thread, while somebody looks.
struct SnapshotGatherer {
  /// The last ones.
  private var steps: Deque<EngineSnapshot.Step> = []

  /// The unit in which the cache is told the time.
  static func milliseconds(_ time: Duration) -> Int {
    Int(time.components.seconds) * 1000 + Int(time.components.attoseconds / 1_000_000_000_000_000)
  }

  private static func seconds(_ time: Duration) -> Double { time / .seconds(1) }

  /// Takes down a step that has just ended.
  mutating func add(_ plan: StepPlan, promptTokens: Int, _ clock: StepClock) {
    if steps.count == EngineSnapshot.mostSteps { steps.removeFirst() }
    steps.append(
      EngineSnapshot.Step(
        number: clock.stepCount - 1, start: Self.seconds(clock.stepBegan), contextRequests: plan.numContexts, contextTokens: promptTokens,
        generationRequests: plan.entries.count - plan.numContexts, modelTime: Self.seconds(clock.turnModelTime),
        samplingTime: Self.seconds(clock.turnSamplingTime), overheadTime: Self.seconds(clock.turnOverheadTime)))
  }

  /// - Parameters:
  ///   - statistics: as they are published.
  ///   - tokenizer: nil where requests do not show their prompts.
  func snapshot(
    at now: Duration, _ scheduler: Scheduler, _ cache: KVCacheManager, _ statistics: EngineStatistics, isRunning: Bool,
    tokenizer: (any Tokenizer)?
  ) -> EngineSnapshot {
    let running = scheduler.running.map(\.id)
    let paused = scheduler.waiting.pausedRequests
    let pausedTokens = paused.reduce(0) { $0 + $1.tokens.count }
    let requests = scheduler.running.count + scheduler.waiting.count
    let shown = show(scheduler, cache, at: now, tokenizer)
    let (nodes, isCut) = cache.prefixNodes(limit: EngineSnapshot.mostNodes)
    return EngineSnapshot(
      time: Self.seconds(now), model: nil, isRunning: isRunning, maxBatchSize: scheduler.maxBatchSize, maxNumTokens: scheduler.maxNumTokens,
      maxSequenceLength: cache.maxSequenceLength, waitingRequests: scheduler.waiting.count - paused.count,
      waitingTokens: scheduler.waiting.tokenCount - pausedTokens, runningRequests: running.count, pausedRequests: paused.count,
      totals: EngineSnapshot.Totals(
        steps: statistics.steps, promptTokens: statistics.promptTokens, cachedPromptTokens: statistics.cachedPromptTokens,
        generatedTokens: statistics.generatedTokens, pauses: statistics.pauses,
        requests: statistics.ended.values.reduce(0, +) + requests),
      pools: (0..<cache.poolCount).map { pool in
        EngineSnapshot.Pool(
          pageSize: cache.pageSize, pageBytes: cache.bytesPerPage(pool: pool), window: cache.window(pool: pool),
          pages: cache.pageCount(pool: pool), free: cache.freePages(pool: pool), kept: cache.cachedPages(pool: pool),
          held: cache.heldPages(pool: pool), runs: cache.pageRuns(pool: pool, sequences: running).map(EngineSnapshot.Run.init))
      },
      prefixTree: EngineSnapshot.Tree(
        nodes: nodes.map { node in
          let idle = node.letGo.map { max(0, Double(Self.milliseconds(now) - $0) / 1000) } ?? 0
          return EngineSnapshot.Node(
            parent: node.parent, tokens: node.tokens, pages: node.pages, holders: node.holders, idleSeconds: idle, retention: node.retention
          )
        }, isCut: isCut),
      steps: Array(steps), requests: shown, requestsLeftOut: requests - shown.count)
  }

  private func show(
    _ scheduler: Scheduler, _ cache: KVCacheManager, at now: Duration, _ tokenizer: (any Tokenizer)?
  ) -> [EngineSnapshot.Request] {
    var shown: [EngineSnapshot.Request] = []
    func show(_ request: Request, _ state: EngineSnapshot.RequestState, _ obstacle: EngineSnapshot.Obstacle?, holdsPages: Bool) {
      shown.append(
        EngineSnapshot.Request(
          number: request.id, id: request.name, state: state, waitsFor: obstacle, priority: request.priority,
          promptTokens: request.promptLength, cachedPromptTokens: request.cachedPromptTokens ?? 0,
          computedPromptTokens: min(request.computed, request.promptLength),
          generatedTokens: request.tokens.count - request.promptLength,
          pages: (0..<cache.poolCount).map { holdsPages ? cache.heldPages(pool: $0, by: request.id) : 0 },
          age: Self.seconds(now - request.submitted),
          timeToFirstToken: request.firstTokenTime.map { Self.seconds($0 - request.submitted) }, pauses: request.pauses,
          text: tokenizer.map { request.beginning(EngineSnapshot.mostCharacters, $0) }))
    }
    for request in scheduler.running.prefix(EngineSnapshot.mostRequests) {
      show(request, request.isGenerating ? .generating : .reading, nil, holdsPages: true)
    }
    let obstacle = scheduler.obstacle
    for request in scheduler.waiting.pausedRequests.prefix(EngineSnapshot.mostRequests - shown.count) {
      show(request, .paused, obstacle, holdsPages: false)
    }
    for request in scheduler.waiting.arrivedRequests.prefix(EngineSnapshot.mostRequests - shown.count) {
      show(request, .waiting, obstacle, holdsPages: false)
    }
    return shown
  }
}

extension EngineSnapshot.Run {
  fileprivate init(_ run: KVPageRun) {
    let kind: EngineSnapshot.PageKind =
      switch run.state {
      case .free: .free
      case .held: .held
      case .shared: .shared
      case .kept: .kept
      }
    self.init(count: run.count, kind: kind, request: run.holder)
  }
}
