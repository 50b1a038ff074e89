// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Logging
import Martlet
import MartletCPU
import MartletTestSupport
import Metrics
import MetricsTestKit
import Synchronization
import Testing

/// Who may wait, and whose turn it is.
@Suite("Admission", .timeLimit(.minutes(45)))
struct AdmissionTests {
  private static let endless = SamplingParams(ignoresEndTokens: true)

  // MARK: Limits

  @Test("refuses requests above the limit of those that wait, all of a call or none, and takes them when there is room again")
  func requestLimit() async throws {
    let llm = try Tiny.endless(seed: 51, maxBatchSize: 1, maxWaitingRequests: 3)
    let running = try llm.generate("runs", sampling: Self.endless)
    _ = try await Tiny.statistics(of: llm) { $0.runningRequests == 1 && $0.waitingRequests == 0 }
    let waiting = try llm.generate(["a", "b"], sampling: Self.endless)
    #expect(throws: LLMError.overloaded(requests: 2, waitingRequests: 2, limit: 3)) {
      try llm.generate(["c", "d"], sampling: Self.endless)
    }
    let tooMany = #expect(throws: LLMError.self) { try llm.generate("many", sampling: Self.endless, count: 4) }
    #expect(tooMany?.code == .exceedsWaitingLimit && tooMany?.property == "maxWaitingRequests")
    let last = try llm.generate("e", sampling: Self.endless)
    let error = #expect(throws: LLMError.self) { try llm.generate("f", sampling: Self.endless) }
    #expect(error?.code == .overloaded && "\(error!)".contains("maxWaitingRequests"))
    await #expect(throws: LLMError.self) { try await llm.score([1, 2, 3]) }
    #expect(llm.statistics.waitingRequests == 3)

    waiting[0].cancel()
    #expect(try await waiting[0].output().finishReason == .cancelled)
    let late = try llm.generate("g", sampling: Self.endless)
    for generation in [running, waiting[1], last, late] { generation.cancel() }
    await llm.shutdown()
    #expect(llm.statistics.ended == [.cancelled: 5] && llm.statistics.waitingRequests == 0)
  }

  @Test("refuses prompts above the limit of tokens that wait")
  func tokenLimit() async throws {
    let llm = try Tiny.endless(seed: 51, maxBatchSize: 1, maxWaitingTokens: 100)
    let running = try llm.generate("runs", sampling: Self.endless)
    _ = try await Tiny.statistics(of: llm) { $0.runningRequests == 1 && $0.waitingRequests == 0 }
    let waiting = try llm.generate(.tokenIDs(Tiny.prompt(60, seed: 1)), sampling: Self.endless)
    #expect(llm.statistics.waitingTokens == 60)
    #expect(throws: LLMError.overloaded(tokens: 41, waitingTokens: 60, limit: 100)) {
      try llm.generate(.tokenIDs(Tiny.prompt(41, seed: 1)), sampling: Self.endless)
    }
    let tooLong = #expect(throws: LLMError.self) { try llm.generate(.tokenIDs(Tiny.prompt(101, seed: 1)), sampling: Self.endless) }
    #expect(tooLong?.code == .exceedsWaitingLimit)
    let fits = try llm.generate(.tokenIDs(Tiny.prompt(40, seed: 1)), sampling: Self.endless)
    for generation in [running, waiting, fits] { generation.cancel() }
    await llm.shutdown()
  }

  @Test("counts what waits from the submission on, before the engine has seen it, in the statistics and the metrics")
  func inbox() async throws {
    let metrics = TestMetrics()
    let llm = try Tiny.endless(seed: 51, maxBatchSize: 1, metricsFactory: metrics)
    let generations = try (0..<16).map { try llm.generate("number \($0)", sampling: Self.endless) }
    let now = llm.statistics
    #expect(now.waitingRequests + now.runningRequests == 16)
    _ = try await Tiny.statistics(of: llm) { $0.runningRequests == 1 && $0.steps > 1 }
    #expect(try metrics.expectGauge("martlet_waiting_requests").lastValue == 15)
    for generation in generations { generation.cancel() }
    await llm.shutdown()
    #expect(try metrics.expectGauge("martlet_waiting_requests").lastValue == 0)
  }

  @Test("must let a request arrive", arguments: ["maxWaitingRequests", "maxWaitingTokens"])
  func validation(option: String) {
    #expect {
      try Tiny.llm(
        TinyModel(.llama, seed: 51), maxWaitingRequests: option == "maxWaitingRequests" ? 0 : nil,
        maxWaitingTokens: option == "maxWaitingTokens" ? 0 : nil)
    } throws: { "\($0)".contains(option) }
  }

  // MARK: Turns

  private static func request(_ id: Int, priority: Int = 0, key: String? = nil) -> Request {
    Request(
      id: id, prompt: [1], maxLength: 2, purpose: .generation(ScheduleDriver.writer(SamplingParams())), submitted: .zero, deadline: nil,
      priority: priority, fairnessKey: key)
  }

  private static func order(_ queue: WaitingQueue) -> [Int] {
    var queue = queue
    var order: [Int] = []
    while let request = queue.first {
      queue.removeFirst()
      order.append(request.id)
    }
    return order
  }

  /// Each search through all that waits would make this hundreds of millions of looks.
  @Test("of ten thousand can be taken away again in any order in little time", arguments: [false, true])
  func many(hasKeys: Bool) {
    var queue = WaitingQueue()
    let requests = (0..<10_000).map { Self.request($0, priority: $0 % 3, key: hasKeys ? "\($0)" : nil) }
    let duration = processorTime {
      for request in requests { queue.append(request) }
      for request in requests[5000...].reversed() { #expect(queue.remove(request.id) === request) }
      for _ in 0..<2500 { queue.removeFirst() }
      while let request = queue.first { #expect(queue.remove(request.id) === request) }
    }
    #expect(queue.isEmpty && queue.count == 0 && queue.remove(1) == nil)
    #expect(duration < .seconds(5), "\(duration)")
  }

  @Test("is in order of arrival where nobody says otherwise")
  func arrival() {
    var queue = WaitingQueue()
    for id in 0..<30 { queue.append(Self.request(id)) }
    #expect(Self.order(queue) == Array(0..<30))
    #expect(queue.count == 30 && queue.remove(17)?.id == 17 && queue.remove(17) == nil && queue.count == 29)
    #expect(Self.order(queue) == Array(0..<17) + Array(18..<30))
  }

  @Test("goes from key to key, and one with many requests does not keep another's waiting")
  func keys() {
    var queue = WaitingQueue()
    for id in 0..<6 { queue.append(Self.request(id, key: "a")) }
    for id in 10..<13 { queue.append(Self.request(id, key: "b")) }
    queue.append(Self.request(20))
    #expect(Self.order(queue) == [0, 10, 20, 1, 11, 2, 12, 3, 4, 5])
    // What is taken out of the middle is not a turn.
    _ = queue.remove(10)
    #expect(Self.order(queue) == [0, 11, 20, 1, 12, 2, 3, 4, 5])
  }

  @Test("is by priority, but for every eighth, which is the oldest's")
  func priorities() {
    var queue = WaitingQueue()
    for id in 0..<3 { queue.append(Self.request(id, priority: -1)) }
    for id in 10..<30 { queue.append(Self.request(id, priority: 5)) }
    queue.append(Self.request(40))
    #expect(Self.order(queue) == Array(10..<17) + [0] + Array(17..<24) + [1] + Array(24..<30) + [40] + [2])
  }

  @Test("comes before all others to what has paused, the last one that paused last")
  func paused() {
    var queue = WaitingQueue()
    queue.append(Self.request(1, priority: 9))
    queue.resume(Self.request(3))
    queue.resume(Self.request(2))
    #expect(queue.count == 3 && Self.order(queue) == [2, 3, 1])
    #expect(queue.remove(3)?.id == 3)
    #expect(Self.order(queue) == [2, 1])
  }

  @Test("comes to every request within eight admissions for each older one, whatever others' priorities and keys", arguments: 0..<50)
  func bound(seed: Int) {
    var random = SeededGenerator(seed: UInt64(seed))
    var queue = WaitingQueue()
    var due: [Int: Int] = [:]
    var admissions = 0
    var next = 0
    var live: Set<Int> = []
    var overtakings = 0
    while next < 600 || !queue.isEmpty {
      if next < 600, queue.count < 40, Bool.random(using: &random) || queue.isEmpty {
        due[next] = admissions + WaitingQueue.turnOfOldest * (queue.count + 1)
        // Most are more urgent than the first, and of ever new keys.
        let isUrgent = Int.random(in: 0..<4, using: &random) > 0
        let priority = isUrgent ? Int.random(in: 1...3, using: &random) : 0
        queue.append(Self.request(next, priority: priority, key: isUrgent ? String(next) : "old"))
        live.insert(next)
        next += 1
      } else if let request = queue.first {
        queue.removeFirst()
        admissions += 1
        #expect(admissions <= due[request.id]!, "seed \(seed), request \(request.id)")
        if live.min() != request.id { overtakings += 1 }
        live.remove(request.id)
      }
    }
    #expect(admissions == 600 && overtakings > 100)
  }

  @Test("goes round among users in a running engine too")
  func engine() async throws {
    let ended = Mutex<[String]>([])
    var logger = Logger(label: "test") { _ in
      Recorder { _, message, metadata in
        if message == "a request ended", let name = metadata["request"] { ended.withLock { $0.append("\(name)") } }
      }
    }
    logger.logLevel = .debug
    let llm = try Tiny.endless(seed: 51, maxBatchSize: 1, logger: logger)
    let sampling = SamplingParams(maxTokens: 4, ignoresEndTokens: true)
    let block = try llm.generate("block", sampling: Self.endless, options: RequestOptions(id: "block"))
    _ = try await Tiny.statistics(of: llm) { $0.runningRequests == 1 && $0.waitingRequests == 0 }
    func ask(_ name: String, key: String, priority: Int = 0) throws -> Generation {
      try llm.generate("\(name)", sampling: sampling, options: RequestOptions(id: name, priority: priority, fairnessKey: key))
    }
    let waiting =
      try (0..<3).map { try ask("many \($0)", key: "many") } + [ask("one", key: "one"), ask("urgent", key: "many", priority: 1)]
    block.cancel()
    for generation in waiting { _ = try await generation.output() }
    #expect(ended.withLock { $0 } == ["block", "urgent", "many 0", "one", "many 1", "many 2"])
  }
}
