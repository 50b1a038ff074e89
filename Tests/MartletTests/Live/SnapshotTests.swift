// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import Martlet
import MartletKVCache
import MartletTestSupport
import Synchronization
import Testing

/// When two readers' snapshots were taken.
private final class Times: Sendable {
  private let state = Mutex<[[Double]]>([[], []])

  func add(_ time: Double, of reader: Int) { state.withLock { $0[reader].append(time) } }
  var times: [[Double]] { state.withLock { $0 } }
}

/// What snapshots of the engine say, against what was asked of it and what its statistics say.
@Suite(.timeLimit(.minutes(45)))
struct SnapshotTests {
  private static let endless = SamplingParams(ignoresEndTokens: true)

  /// The first snapshot that satisfies `condition`, of 600 at most.
  private static func snapshot(
    of llm: LLM, showsText: Bool = false, when condition: (EngineSnapshot) -> Bool = { _ in true }
  ) async throws -> EngineSnapshot {
    var last: EngineSnapshot?
    var looks = 0
    for await snapshot in llm.snapshots(showsText: showsText) {
      last = snapshot
      looks += 1
      if condition(snapshot) || looks == 600 { break }
    }
    return try #require(last)
  }

  /// What holds of every snapshot.
  private static func check(_ snapshot: EngineSnapshot) {
    for pool in snapshot.pools {
      func count(_ kinds: EngineSnapshot.PageKind...) -> Int { pool.runs.reduce(0) { kinds.contains($1.kind) ? $0 + $1.count : $0 } }
      #expect(pool.free + pool.kept + pool.held == pool.pages)
      #expect(count(.free) == pool.free && count(.kept) == pool.kept && count(.held, .shared) == pool.held)
      #expect(pool.runs.allSatisfy { $0.count > 0 && ($0.request >= 0) == ($0.kind == .held || $0.kind == .shared) })
      #expect(zip(pool.runs, pool.runs.dropFirst()).allSatisfy { ($0.kind, $0.request) != ($1.kind, $1.request) })
    }
    for (index, pool) in snapshot.pools.enumerated() {
      // A page that one request holds alone is that request's; one that several hold counts for each of them.
      let held = snapshot.requests.reduce(0) { $0 + $1.pages[index] }
      #expect(held >= pool.held)
      for request in snapshot.requests {
        let alone = pool.runs.reduce(0) { $1.kind == .held && $1.request == request.number ? $0 + $1.count : $0 }
        #expect(alone <= request.pages[index])
      }
    }
    #expect(
      snapshot.requests.count + snapshot.requestsLeftOut == snapshot.runningRequests + snapshot.waitingRequests + snapshot.pausedRequests)
    #expect(snapshot.prefixTree.nodes.count <= EngineSnapshot.mostNodes)
    for (index, node) in snapshot.prefixTree.nodes.enumerated() { #expect(node.parent < index && node.tokens > 0 && node.idleSeconds >= 0) }
    for (step, next) in zip(snapshot.steps, snapshot.steps.dropFirst()) {
      #expect(next.number == step.number + 1 && next.start >= step.start + step.modelTime)
    }
  }

  @Test(arguments: TinyModel.Architecture.allCases, CapacityPolicy.allCases)
  func `every page is free, held or kept, in every snapshot of a crowd`(
    architecture: TinyModel.Architecture, policy: CapacityPolicy
  ) async throws {
    let model = TinyModel(architecture, seed: 91)
    let bytesPerToken = model.numLayers * model.numKVHeads * model.headDim * 2 * 2
    let llm = try Tiny.llm(
      model, budget: .bytes(600 * bytesPerToken), context: 200, maxBatchSize: 6, maxNumTokens: 32, capacityPolicy: policy)
    let common = Tiny.prompt(48, seed: 1)
    let prompts = (0..<60).map { Prompt.tokenIDs((($0 % 2 == 0) ? common : []) + Tiny.prompt(20 + $0 % 5, seed: UInt64($0))) }
    async let done: Void = {
      for generation in try llm.generate(prompts, sampling: SamplingParams(maxTokens: 60, ignoresEndTokens: true)) {
        _ = try await generation.output()
      }
    }()
    var (looks, lastStep) = (0, -1)
    for await snapshot in llm.snapshots() {
      Self.check(snapshot)
      if let first = snapshot.steps.first { #expect(first.number > lastStep) }
      lastStep = snapshot.steps.last?.number ?? lastStep
      looks += 1
      if snapshot.totals.requests == 60, snapshot.runningRequests + snapshot.waitingRequests + snapshot.pausedRequests == 0 { break }
    }
    try await done
    #expect(looks > 1)
    let (last, statistics) = (try await Self.snapshot(of: llm), llm.statistics)
    #expect(last.pools.map(\.free) == statistics.pools.map(\.freePages) && last.pools.map(\.kept) == statistics.pools.map(\.cachedPages))
    #expect(last.pools.map(\.pages) == statistics.pools.map(\.totalPages) && last.pools.map(\.window) == statistics.pools.map(\.window))
    #expect(last.totals.steps == statistics.steps && lastStep == statistics.steps - 1 && last.totals.pauses == statistics.pauses)
    #expect(last.totals.generatedTokens == 3600 && last.totals.promptTokens == statistics.promptTokens)
    #expect(last.totals.cachedPromptTokens == statistics.cachedPromptTokens && last.requests.isEmpty)
  }

  @Test func `requests that begin alike are seen to hold the same pages`() async throws {
    let llm = try Tiny.endless(seed: 92, maxBatchSize: 2)
    let common = Tiny.prompt(128, seed: 3)
    let first = try llm.generate(.tokenIDs(common + [1]), sampling: Self.endless, options: RequestOptions(id: "first"))
    _ = try await Self.snapshot(of: llm) { $0.requests.first?.state == .generating }
    let second = try llm.generate(.tokenIDs(common + [2]), sampling: Self.endless, options: RequestOptions(id: "second"))
    let seen = try await Self.snapshot(of: llm) { $0.requests.count == 2 && $0.requests.allSatisfy { $0.state == .generating } }
    Self.check(seen)
    #expect(seen.requests.map(\.id) == ["first", "second"])
    // Four pages of 32 tokens.
    #expect(seen.pools[0].runs.filter { $0.kind == .shared }.reduce(0) { $0 + $1.count } == 4)
    #expect(seen.pools[0].runs.allSatisfy { $0.kind != .shared || $0.request == seen.requests[0].number })
    #expect(seen.requests.reduce(0) { $0 + $1.pages[0] } == seen.pools[0].held + 4)
    let trunk = try #require(seen.prefixTree.nodes.first)
    #expect(trunk.parent == -1 && trunk.tokens == 128 && trunk.pages == 4 && trunk.holders == 2 && trunk.idleSeconds == 0)
    #expect(seen.prefixTree.nodes.dropFirst().allSatisfy { $0.parent == 0 && $0.holders == 1 })
    #expect(seen.requests[1].cachedPromptTokens == 128 && seen.requests[1].computedPromptTokens == 129)
    first.cancel()
    second.cancel()
  }

  @Test func `what waits says for what, and what runs whether it reads or generates`() async throws {
    let model = TinyModel(.llama, seed: 93) { $0.contextLength = 65_536 }
    let llm = try Tiny.llm(model, context: 65_536, maxBatchSize: 2, maxNumTokens: 16, chunkSize: 8)
    let long = try llm.generate(.tokenIDs(Tiny.prompt(60_000, seed: 4)), sampling: Self.endless)
    let short = try llm.generate("short", sampling: Self.endless)
    _ = try await Self.snapshot(of: llm) { $0.runningRequests == 2 }
    let late = try llm.generate("late", sampling: Self.endless, options: RequestOptions(priority: 3))
    let seen = try await Self.snapshot(of: llm) { $0.requests.count == 3 && $0.requests[1].generatedTokens > 0 }
    Self.check(seen)
    #expect(seen.requests.map(\.state) == [.reading, .generating, .waiting] && seen.requests.map(\.waitsFor) == [nil, nil, .batch])
    #expect(
      seen.requests[0].computedPromptTokens < 60_000 && seen.requests[0].timeToFirstToken == nil && seen.requests[0].generatedTokens == 0)
    #expect(seen.requests[1].generatedTokens > 0 && (seen.requests[1].timeToFirstToken ?? -1) >= 0)
    #expect(seen.requests[2].priority == 3 && seen.requests[2].pages == [0] && seen.waitingRequests == 1 && seen.waitingTokens == 4)
    #expect(seen.runningRequests == 2 && seen.pausedRequests == 0 && seen.maxBatchSize == 2 && seen.maxSequenceLength == 65_536)
    for generation in [long, short, late] { generation.cancel() }
  }

  @Test(arguments: CapacityPolicy.allCases)
  func `where pages are short requests wait for them, or pause`(policy: CapacityPolicy) async throws {
    let model = TinyModel(.llama, seed: 94) { $0.contextLength = 16_384 }
    let bytesPerToken = model.numLayers * model.numKVHeads * model.headDim * 2 * 2
    // Both prompts fit, and a few tokens more.
    let llm = try Tiny.llm(
      model, budget: .bytes(8000 * bytesPerToken), context: 16_384, maxBatchSize: 4, maxNumTokens: 512, capacityPolicy: policy)
    // Tokens take their time, so that the state lasts for minutes: among many tests a reader may wait long for a thread.
    let options = RequestOptions(logitsProcessor: { _, _ in usleep(40_000) })
    let generations = try (0..<2).map {
      try llm.generate(.tokenIDs(Tiny.prompt(3950, seed: UInt64($0))), sampling: Self.endless, options: options)
    }
    let state: EngineSnapshot.RequestState = policy == .maxUtilization ? .paused : .waiting
    let seen = try await Self.snapshot(of: llm) { $0.requests.last?.state == state && $0.requests.first?.state == .generating }
    Self.check(seen)
    try #require(seen.requests.map(\.state) == [.generating, state])
    #expect(seen.requests[1].waitsFor == .pages)
    #expect(seen.pausedRequests == (state == .paused ? 1 : 0) && seen.waitingRequests == 1 - seen.pausedRequests)
    #expect(seen.requests[1].pauses == seen.pausedRequests && seen.totals.pauses == seen.pausedRequests)
    for generation in generations { generation.cancel() }
  }

  @Test func `nothing is gathered while nobody looks`() async throws {
    let llm = try Tiny.llm(TinyModel(.llama, seed: 95))
    let sampling = SamplingParams(maxTokens: 20, ignoresEndTokens: true)
    _ = try await llm.generate("unseen", sampling: sampling).output()
    let snapshots = llm.snapshots()
    _ = try await llm.generate("unseen", sampling: sampling).output()
    #expect(llm.snapshotCount == 0)
    var iterator: EngineSnapshots.AsyncIterator? = snapshots.makeAsyncIterator()
    let taken = await iterator?.next()
    let first = try #require(taken)
    #expect(llm.snapshotCount == 1 && first.totals.steps == 40 && first.steps.isEmpty)
    _ = try await llm.generate("seen", sampling: sampling).output()
    let second = await iterator?.next()
    #expect(second?.steps.map(\.number) == Array(40..<60))
    iterator = nil
    let count = llm.snapshotCount
    _ = try await llm.generate("unseen", sampling: sampling).output()
    // A second reader finds nothing of what was before it.
    #expect(try await Self.snapshot(of: llm).steps.isEmpty)
    #expect(llm.snapshotCount == count + 1)
  }

  @Test func `readers share snapshots, and there are 100 ms between two, whether or not the engine has anything to do`() async throws {
    let clock = ManualClock()
    let llm = try Tiny.llm(TinyModel(.llama, seed: 96), clock: clock)
    let seen = Times()
    let readers = [100, 1].enumerated().map { index, interval in
      Task { for await snapshot in llm.snapshots(every: .milliseconds(interval)) { seen.add(snapshot.time, of: index) } }
    }
    func wait(for count: Int) async throws {
      while !seen.times.allSatisfy({ $0.count == count }) || clock.sleeperCount < 2 {
        try await Task.sleep(for: .milliseconds(1))
      }
    }
    try await wait(for: 1)
    #expect(llm.snapshotCount == 1)
    clock.advance(by: .milliseconds(99))
    try await Task.sleep(for: .milliseconds(20))
    #expect(llm.snapshotCount == 1)
    clock.advance(by: .milliseconds(1))
    try await wait(for: 2)
    #expect(llm.snapshotCount == 2 && seen.times == [[0, 0.1], [0, 0.1]])
    // One who comes late gets the last one, if it is not old.
    clock.advance(by: .milliseconds(99))
    #expect(try await Self.snapshot(of: llm).time == 0.1)
    clock.advance(by: .milliseconds(1))
    let last = try await Self.snapshot(of: llm)
    #expect(last.time == 0.2 && last.totals.steps == 0 && last.isRunning)
    try await wait(for: 3)
    #expect(llm.snapshotCount == 3 && llm.statistics.steps == 0)
    for reader in readers { reader.cancel() }
  }

  @Test(arguments: ["shutdown", "deinit", "before"])
  func `they end with the engine`(end: String) async throws {
    var llm: LLM? = try Tiny.llm(TinyModel(.llama, seed: 97))
    let snapshots = try #require(llm?.snapshots(every: .seconds(1000)))
    if end == "before" { await llm?.shutdown() }
    let began = AsyncStream<Void>.makeStream()
    let reader = Task {
      var count = 0
      for await _ in snapshots {
        count += 1
        began.continuation.finish()
      }
      began.continuation.finish()
      return count
    }
    // It has had one and sleeps until the next.
    for await _ in began.stream {}
    if end == "shutdown" { await llm?.shutdown() }
    llm = nil
    #expect(await reader.value == (end == "before" ? 0 : 1))
  }

  @Test func `a cancelled reader's end at once, and nothing is gathered for it any more`() async throws {
    let llm = try Tiny.endless(seed: 98, maxBatchSize: 1)
    let generation = try llm.generate("on and on", sampling: Self.endless)
    let reader = Task {
      var count = 0
      for await _ in llm.snapshots(every: .seconds(1000)) {
        count += 1
        withUnsafeCurrentTask { $0?.cancel() }
      }
      return count
    }
    #expect(await reader.value == 1)
    let sleeping = Task {
      for await _ in llm.snapshots(every: .seconds(1000)) {}
    }
    while llm.snapshotCount < 2 { try await Task.sleep(for: .milliseconds(1)) }
    try await Task.sleep(for: .milliseconds(20))
    sleeping.cancel()
    await sleeping.value
    let (count, steps) = (llm.snapshotCount, llm.statistics.steps)
    _ = try await Tiny.statistics(of: llm) { $0.steps > steps + 200 }
    #expect(llm.snapshotCount == count)
    generation.cancel()
  }

  @Test func `texts are shown to those who ask for them, and only their beginnings`() async throws {
    let llm = try Tiny.endless(seed: 99, maxBatchSize: 1)
    let text = String(repeating: "Wie schön! ", count: 40)
    let generations = try [text, "kurz"].map { try llm.generate(.text($0), sampling: Self.endless) }
    let shown = try await Self.snapshot(of: llm, showsText: true) { $0.requests.count == 2 }
    #expect(shown.requests.map(\.text) == [String(text.prefix(200)), "kurz"])
    #expect(try await Self.snapshot(of: llm).requests.allSatisfy { $0.text == nil })
    // Also where another reader asks for them at the same time.
    var open = llm.snapshots(showsText: true).makeAsyncIterator()
    var closed = llm.snapshots().makeAsyncIterator()
    let (seen, hidden) = (await open.next(), await closed.next())
    #expect(seen?.requests.count == 2 && seen?.requests.contains { $0.text == nil } == false)
    #expect(hidden?.requests.map(\.text) == [nil, nil])
    for generation in generations { generation.cancel() }
  }

  @Test func `what is kept grows old`() async throws {
    let clock = ManualClock()
    let llm = try Tiny.llm(TinyModel(.llama, seed: 100), clock: clock)
    var sampling = SamplingParams(maxTokens: 1)
    for (seed, retention) in [(1, KVRetention.high), (2, .low)] {
      sampling.cacheRetention = retention
      _ = try await llm.generate(.tokenIDs(Tiny.prompt(40, seed: UInt64(seed))), sampling: sampling).output()
      clock.advance(by: .seconds(5))
    }
    let seen = try await Self.snapshot(of: llm)
    Self.check(seen)
    // The youngest first; two whole pages of 16 tokens and a part of one more.
    #expect(seen.prefixTree.nodes.map(\.tokens) == [40, 40] && seen.prefixTree.nodes.map(\.pages) == [3, 3])
    #expect(seen.prefixTree.nodes.map(\.idleSeconds) == [5, 10] && seen.prefixTree.nodes.map(\.retention) == [.low, .high])
    #expect(seen.prefixTree.nodes.allSatisfy { $0.parent == -1 && $0.holders == 0 } && !seen.prefixTree.isCut)
    #expect(seen.pools[0].kept == 6 && seen.pools[0].held == 0)
  }

  @Test func `what is long is cut, and says so`() async throws {
    let waiting = try Tiny.endless(seed: 101, maxBatchSize: 2)
    let crowd = try waiting.generate("never ends", sampling: Self.endless, count: 300)
    let seen = try await Self.snapshot(of: waiting) { $0.runningRequests == 2 }
    #expect(seen.requests.count == 256 && seen.requestsLeftOut == 44 && seen.waitingRequests == 298)
    #expect(seen.requests.map(\.number) == crowd.prefix(256).compactMap { Int($0.id.prefix { $0 != "-" }) })
    for generation in crowd { generation.cancel() }

    let llm = try Tiny.llm(TinyModel(.llama, seed: 102), maxBatchSize: 64, maxNumTokens: 512)
    let prompts = (0..<520).map { Prompt.tokenIDs(Tiny.prompt(18, seed: UInt64($0))) }
    for generation in try llm.generate(prompts, sampling: SamplingParams(maxTokens: 1)) { _ = try await generation.output() }
    let tree = try await Self.snapshot(of: llm).prefixTree
    #expect(tree.isCut && tree.nodes.count == 512)
  }

  @Test func `as JSON they have every key, and are the same again`() async throws {
    let llm = try Tiny.llm(TinyModel(.gemma3, seed: 103))
    var iterator = llm.snapshots().makeAsyncIterator()
    _ = await iterator.next()
    _ = try await llm.generate(.tokenIDs(Tiny.prompt(40, seed: 1)), sampling: SamplingParams(maxTokens: 4, ignoresEndTokens: true)).output()
    let taken = await iterator.next()
    var snapshot = try #require(taken)
    let endless = try Tiny.endless(seed: 103, maxBatchSize: 1)
    let generations = try endless.generate("a", sampling: Self.endless, count: 2)
    snapshot.requests = try await Self.snapshot(of: endless) { $0.runningRequests == 1 }.requests
    for generation in generations { generation.cancel() }

    let encoder = JSONEncoder()
    encoder.keyEncodingStrategy = .convertToSnakeCase
    let data = try encoder.encode(snapshot)
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    #expect(try decoder.decode(EngineSnapshot.self, from: data) == snapshot)
    let object = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
    #expect(
      Set(object.keys) == [
        "time", "is_running", "max_batch_size", "max_num_tokens", "max_sequence_length", "waiting_requests", "waiting_tokens",
        "running_requests", "paused_requests", "totals", "pools", "prefix_tree", "steps", "requests", "requests_left_out",
      ])
    func keys(_ value: Any?) -> Set<String> { Set((value as? [String: Any] ?? [:]).keys) }
    #expect(
      keys(object["totals"]) == ["steps", "prompt_tokens", "cached_prompt_tokens", "generated_tokens", "pauses", "requests"])
    let pools = try #require(object["pools"] as? [[String: Any]])
    #expect(pools.allSatisfy { keys($0) == ["page_size", "page_bytes", "window", "pages", "free", "kept", "held", "runs"] })
    #expect(pools.count == 2 && pools.contains { $0["window"] is NSNull } && pools.contains { $0["window"] as? Int == 8 })
    #expect((pools[0]["runs"] as? [[Int]])?.allSatisfy { $0.count == 3 } == true)
    let tree = try #require(object["prefix_tree"] as? [String: Any])
    #expect(keys(tree) == ["nodes", "is_cut"] && (tree["nodes"] as? [[Double]])?.map(\.count) == [6])
    let step = try #require((object["steps"] as? [[String: Any]])?.first)
    #expect(
      keys(step) == [
        "number", "start", "context_requests", "context_tokens", "generation_requests", "model_time", "sampling_time", "overhead_time",
      ])
    let requests = try #require(object["requests"] as? [[String: Any]])
    #expect(
      keys(requests[1]) == [
        "number", "id", "state", "waits_for", "priority", "prompt_tokens", "cached_prompt_tokens", "computed_prompt_tokens",
        "generated_tokens", "pages", "age", "time_to_first_token", "pauses", "text",
      ])
    #expect(requests[0]["waits_for"] is NSNull && requests[1]["waits_for"] as? String == "batch" && requests[1]["text"] is NSNull)
  }
}
