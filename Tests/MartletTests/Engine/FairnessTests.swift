// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Martlet
import MartletCPU
import MartletKVCache
import MartletTestSupport
import Testing

/// What ``CapacityPolicy`` promises, of thousands of random loads on the scheduler and the cache themselves.
@Suite("The schedule", .timeLimit(.minutes(45)))
struct FairnessTests {
  private static let layers = [
    ScheduleDriver.Layers(windows: [nil], pageSize: 4), ScheduleDriver.Layers(windows: [nil, 24], pageSize: 8),
    ScheduleDriver.Layers(windows: [12, nil, 12, 40], pageSize: 4), ScheduleDriver.Layers(windows: [16], pageSize: 16),
  ]

  /// Prompts that begin alike, so that they meet in the cache.
  private static func prompt(_ beginnings: [[Int32]], maxLength: Int, _ random: inout SeededGenerator) -> [Int32] {
    let length = Int.random(in: 1...maxLength, using: &random)
    let shared = beginnings.randomElement(using: &random)!.prefix(Int.random(in: 0..<length, using: &random))
    return shared + (shared.count..<length).map { _ in Int32.random(in: 0..<256, using: &random) }
  }

  private struct Counts {
    var sets = 0, requests = 0, pauses = 0, cancelled = 0
    /// The most of its bound that a request took, and the most pages in use of those there are.
    var slowest = 0.0, fullest = 0.0
    var reused = 0
  }

  private func run(seed: UInt64, device: CPUDevice, counts: inout Counts) throws {
    var random = SeededGenerator(seed: seed)
    let context = Int.random(in: 20...120, using: &random)
    let maxBatchSize = Int.random(in: 1...12, using: &random)
    var driver = try ScheduleDriver(
      layers: Self.layers.randomElement(using: &random)!, tokens: Int.random(in: 60...400, using: &random), maxSequenceLength: context,
      maxBatchSize: maxBatchSize, maxNumTokens: maxBatchSize + Int.random(in: 0...40, using: &random),
      chunkSize: Int.random(in: 1...40, using: &random),
      policy: Int.random(in: 0..<5, using: &random) > 0 ? .maxUtilization : .guaranteedNoEvict,
      reusesPrefixes: Bool.random(using: &random), seed: seed &+ 1, device: device)
    let beginnings = (0..<2).map { _ in (0..<context).map { _ in Int32.random(in: 0..<256, using: &random) } }
    var toCome = Int.random(in: 5...30, using: &random)
    let rate = Int.random(in: 1...20, using: &random)
    /// By when, in steps, each request ends at the latest, and when it came.
    var due: [Int: (came: Int, by: Int)] = [:]
    let cancels = Int.random(in: 0..<4, using: &random) == 0
    // With priorities and keys the order of admission is another than that of arrival.
    let ranks = Int.random(in: 0..<4, using: &random) == 0
    let mostSteps = (context + driver.leastChunk - 1) / driver.leastChunk + context
    while toCome > 0 || !driver.live.isEmpty {
      while toCome > 0, Int.random(in: 0..<20, using: &random) < rate {
        toCome -= 1
        let prompt = Self.prompt(beginnings, maxLength: context - 1, &random)
        let maxTokens = Int.random(in: 1...context - prompt.count, using: &random)
        let waiting = driver.scheduler.waiting.count
        let before = driver.scheduler.running.count + WaitingQueue.turnOfOldest * (waiting + 1)
        guard
          let request = driver.submit(
            prompt: prompt, maxTokens: maxTokens, priority: ranks ? Int.random(in: -2...2, using: &random) : 0,
            key: ranks && Bool.random(using: &random) ? "\(Int.random(in: 0..<3, using: &random))" : nil)
        else { continue }
        counts.requests += 1
        let bound = ranks ? before * mostSteps : driver.live.reduce(0) { $0 + driver.steps(of: $1) }
        due[request.id] = (driver.steps, driver.steps + bound)
      }
      if cancels, Int.random(in: 0..<10, using: &random) == 0, let victim = driver.live.randomElement(using: &random) {
        driver.cancel(victim)
        counts.cancelled += 1
      }
      let oldest = ranks ? driver.scheduler.running.first : driver.live.first
      let pauses = oldest?.pauses
      let tokens = oldest.map { ($0.computed, $0.isGenerating) }
      let ended = driver.step()
      let place: Comment = "seed \(seed), step \(driver.steps)"
      #expect(oldest?.pauses == pauses, place)
      if let oldest, let (computed, wasGenerating) = tokens, oldest.remaining > 1 {
        #expect(!wasGenerating && oldest.computed - computed >= driver.leastChunk, place)
      }
      let running = driver.scheduler.running, hasRoom = running.count < driver.scheduler.maxBatchSize
      let toCompute = (hasRoom ? driver.live : running).reduce(0) { $0 + ($1.isGenerating ? 0 : $1.remaining) }
      #expect(driver.scheduler.promptTokensToCompute == toCompute, place)
      // The pages that a step holds are held after it, but for those behind windows, which only become fewer.
      for pool in 0..<driver.cache.poolCount {
        let (held, all) = (driver.cache.heldPages(pool: pool), driver.cache.pageCount(pool: pool))
        #expect(held >= 0 && held <= all, place)
        counts.fullest = max(counts.fullest, Double(held) / Double(all))
      }
      for request in ended {
        let (came, by) = try #require(due[request.id])
        #expect(driver.steps <= by, place)
        counts.pauses += request.pauses
        if !ranks { counts.slowest = max(counts.slowest, Double(driver.steps - came) / Double(by - came)) }
      }
      try #require(driver.steps < 1_000_000, place)
    }
    try driver.cache.checkIntegrity()
    for pool in 0..<driver.cache.poolCount { #expect(driver.cache.heldPages(pool: pool) == 0) }
    counts.sets += 1
    counts.reused += driver.scheduler.cachedPromptTokens
  }

  @Test("never pauses the oldest request, ends each within its bound, and uses no page that is not there", arguments: 0..<4)
  func randomLoads(part: Int) throws {
    let device = try CPUDevice(threads: 1)
    var counts = Counts()
    for seed in 0..<1000 { try run(seed: UInt64(1_000_000 * (part + 1) + seed), device: device, counts: &counts) }
    print(
      "\(counts.sets) random loads of \(counts.requests) requests: \(counts.pauses) pauses, \(counts.cancelled) cancelled, "
        + "\(counts.reused) prompt tokens reused, at most \(counts.slowest) of the bound and \(counts.fullest) of a pool")
    // The loads are such that what is claimed is put to the test.
    #expect(counts.pauses > counts.requests / 10 && counts.cancelled > 100 && counts.reused > 1000)
    #expect(counts.slowest > 0.5 && counts.fullest == 1)
  }

  @Test("ends all of 200 requests with room for a quarter of what those that run may hold", arguments: 0..<10)
  func quarter(seed: Int) throws {
    var random = SeededGenerator(seed: UInt64(seed))
    var driver = try ScheduleDriver(
      layers: Self.layers[seed % Self.layers.count], tokens: 16 * 100 / 4, maxSequenceLength: 100, maxBatchSize: 16, maxNumTokens: 64,
      chunkSize: 32, policy: .maxUtilization, reusesPrefixes: seed % 2 == 0, seed: UInt64(seed), device: CPUDevice(threads: 1))
    for _ in 0..<200 {
      let prompt = (0..<Int.random(in: 20...60, using: &random)).map { _ in Int32.random(in: 0..<256, using: &random) }
      #expect(driver.submit(prompt: prompt, maxTokens: 100 - prompt.count) != nil)
    }
    let bound = driver.live.reduce(0) { $0 + driver.steps(of: $1) }
    var ended: [Request] = []
    while !driver.live.isEmpty, driver.steps <= bound { ended += driver.step() }
    #expect(ended.count == 200 && ended.allSatisfy { $0.tokens.count == 100 })
    #expect(ended.contains { $0.pauses > 0 } && ended.first { $0.id == 0 }?.pauses == 0)
    try driver.cache.checkIntegrity()
  }

  /// The loop may take 2 % of a step. A step of SmolLM2 135M for 256 requests takes 144 ms on two idle cores with bf16 dot products. Measured
  /// there: 70 µs, 210 µs while the machine was busy; on a slower one 130 µs, and a millisecond beside the other tests. The fastest of ten
  /// rounds counts.
  @Test("of 256 requests takes less than 2 % of a step")
  func cost() throws {
    var driver = try ScheduleDriver(
      layers: ScheduleDriver.Layers(windows: [nil, 64], pageSize: 32), tokens: 256 * 512, maxSequenceLength: 512, maxBatchSize: 256,
      maxNumTokens: 512, chunkSize: 512, policy: .maxUtilization, reusesPrefixes: true, seed: 1, device: CPUDevice(threads: 1))
    for index in 0..<256 {
      #expect(driver.submit(prompt: [Int32](repeating: Int32(index), count: 2), maxTokens: 500) != nil)
    }
    _ = driver.step()
    #expect(driver.scheduler.running.count == 256)
    var best = Duration.seconds(1)
    for _ in 0..<10 {
      best = min(best, processorTime { for _ in 0..<40 { _ = driver.step() } } / 40)
    }
    print("schedule and books of 256 requests: \(best) a step")
    #expect(driver.scheduler.running.count == 256 && driver.scheduler.pauses == 0)
    #expect(best < .microseconds(2880))
  }
}
