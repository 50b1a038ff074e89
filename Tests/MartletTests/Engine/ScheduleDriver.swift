// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Martlet
import MartletCPU
import MartletCore
import MartletFormats
import MartletKVCache
import MartletTestSupport
import MartletTokenizers
import Testing

/// The engine's loop without its model: schedule, commit, a token for whoever's are all computed, removal at the end. The scheduler and the cache
/// are the real ones.
struct ScheduleDriver {
  struct Layers: Sendable {
    /// Of each layer, its window.
    var windows: [Int?]
    var pageSize: Int
  }

  let cache: KVCacheManager
  private(set) var scheduler: Scheduler
  private(set) var plan = StepPlan()
  private(set) var steps = 0
  /// In the order of arrival.
  private(set) var live: [Request] = []
  private var random: SeededGenerator
  private var nextID = 0

  /// A token for every byte.
  private static let tokenizer: any Tokenizer = {
    do { return try ModelFiles.gguf(GGUFCheckpoint(TinyModel(.llama, seed: 1).file())).makeTokenizer() } catch {
      preconditionFailure("\(error)")
    }
  }()

  /// A writer for an answer that nobody reads.
  static func writer(_ sampling: SamplingParams) -> AnswerWriter {
    AnswerWriter(sampling, ChunkChannel(waker: Waker(), abandoned: {}), tokenizer: tokenizer)
  }

  /// - Parameter tokens: how many tokens' keys and values there is memory for, all layers alike.
  init(
    layers: Layers, tokens: Int, maxSequenceLength: Int, maxBatchSize: Int, maxNumTokens: Int, chunkSize: Int, policy: CapacityPolicy,
    reusesPrefixes: Bool, seed: UInt64, device: any Device
  ) throws {
    // One head of one dim: a page's memory is of no interest here, its number is.
    let plane = KVLayout.Plane(headStride: layers.pageSize, tokenStride: 1, dimStride: 1)
    let layout = KVLayout(
      dataType: .bf16, pageSize: layers.pageSize, numKVHeads: 1, headDim: 1, valueHeadDim: 1, keys: plane, values: plane)
    let chunkSize = min(chunkSize, maxNumTokens)
    cache = try KVCacheManager(
      layers: layers.windows.map { KVLayerSpec(layout: layout, window: $0) },
      config: KVCacheConfig(
        pageSize: .tokens(layers.pageSize), budget: .bytes(tokens * layers.windows.count * 4), reusesPrefixes: reusesPrefixes),
      maxSequenceLength: maxSequenceLength, maxSequences: maxBatchSize, maxTokensPerStep: chunkSize, on: device)
    scheduler = Scheduler(
      maxBatchSize: maxBatchSize, maxNumTokens: maxNumTokens, chunkSize: chunkSize, capacityPolicy: policy, cache: cache)
    random = SeededGenerator(seed: seed)
  }

  /// The fewest tokens of its context that the oldest request gets in a step.
  var leastChunk: Int { min(scheduler.chunkSize, scheduler.maxNumTokens - scheduler.maxBatchSize + 1, StepPacer.leastTokens) }

  /// The steps that a request needs once it is the oldest.
  func steps(of request: Request) -> Int {
    (request.maxLength + leastChunk - 1) / leastChunk + request.maxLength - request.promptLength
  }

  /// - Returns: nil where the request can never fit, as the engine refuses it.
  mutating func submit(prompt: [Int32], maxTokens: Int, priority: Int = 0, key: String? = nil) -> Request? {
    let length = prompt.count + maxTokens
    guard cache.obstacle(toLength: Request.mostCached(maxLength: length), chunk: scheduler.chunkSize) == nil else { return nil }
    let sampling = SamplingParams(maxTokens: maxTokens, ignoresEndTokens: true)
    let request = Request(
      id: nextID, prompt: prompt, maxLength: length,
      purpose: .generation(Self.writer(sampling)),
      submitted: .zero, deadline: nil, priority: priority, fairnessKey: key)
    nextID += 1
    scheduler.submit(request)
    live.append(request)
    return request
  }

  /// - Returns: the requests that ended.
  mutating func step() -> [Request] {
    // As little as the pacer may give beside generations, or more.
    scheduler.schedule(into: &plan, promptTokensBesideGenerations: Int.random(in: StepPacer.leastTokens...64, using: &random))
    steps += 1
    scheduler.commit(plan)
    var ended: [Request] = []
    for entry in plan.entries where entry.request.remaining == 0 {
      entry.request.append(Int.random(in: 0..<256, using: &random))
      if entry.request.tokens.count >= entry.request.maxLength {
        scheduler.remove(entry.request.id)
        ended.append(entry.request)
      }
    }
    if !ended.isEmpty { live.removeAll { request in ended.contains { $0 === request } } }
    return ended
  }

  mutating func cancel(_ request: Request) {
    scheduler.remove(request.id)
    live.removeAll { $0 === request }
  }
}
