// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletAttention
import MartletCore
import MartletKVCache

/// Requests that read their prompts and generate, run in one of many ways that must not matter.
struct LawRun {
  var pageSize = 32
  /// The most prompt tokens of a request in a step.
  var chunk = 512
  /// Which of the setting's devices.
  var device = 0
  var workers = 1
  /// Whether all requests run in one batch, or each alone.
  var isTogether = true
  var input = ConformanceCase.Input.fused
  /// Tokens of a generation step.
  var drafts = 1
  /// Sequences that take and give back pages before, so that the requests' pages lie elsewhere.
  var shuffles = false

  /// What is left of a run.
  struct Outcome {
    /// `[layer][request]`.
    var rows: [[Int: AttentionHarness.Rows]]
    /// `[layer][request]`, at the request's end.
    var contents: [[Int: KVContents]]
  }

  /// Prompt lengths by id.
  static let prompts = [1: 70, 2: 33, 3: 131, 4: 1]
  static let generated = 10

  /// Two layers: every key with norm and rotation, and a window; and one of latent attention, where the backend serves it.
  static func specs(_ setting: LawSetting, on device: any Device) throws -> [AttentionLayerSpec] {
    let latent = AttentionLayerSpec(
      layerIndex: 2, numHeads: 6, mla: MLAParams(kvLoraRank: 80, qkNopeHeadDim: 32, qkRopeHeadDim: 16, vHeadDim: 32),
      quantConfig: setting.kvType == .f8e4m3 ? QuantConfig(kvScales: KVScales(key: 0.0231, value: 0.0231)) : nil, rope: RopeParams(dim: 16))
    let serves = setting.backend.capabilities(on: device).contains(.latentAttention)
    return try plainSpecs(setting.kvType, on: device) + (serves ? [latent] : [])
  }

  private static func plainSpecs(_ kvType: DataType, on device: any Device) throws -> [AttentionLayerSpec] {
    let host = try device.makeHostBuffer(of: Float.self, count: 64)
    for dim in 0..<64 { host[dim] = 1 + Float(dim % 7) / 16 }
    let weight = try device.makeTensor(Shape(64), .f32)
    let queue = device.makeQueue()
    queue.copy(host, count: 64, to: weight)
    queue.wait()
    let norm = HeadNorm(weight: weight, epsilon: 1e-6)
    let scales = kvType == .f8e4m3 ? KVScales(key: 0.0231, value: 0.0173) : KVScales()
    return [
      AttentionLayerSpec(
        layerIndex: 0, numHeads: 6, headDim: 64, numKVHeads: 2, quantConfig: QuantConfig(kvScales: scales),
        positionalEmbedding: PositionalEmbeddingParams(RopeParams(dim: 64)), queryNorm: norm, keyNorm: norm),
      AttentionLayerSpec(
        layerIndex: 1, numHeads: 6, headDim: 64, numKVHeads: 2, window: 40, quantConfig: QuantConfig(kvScales: scales),
        positionalEmbedding: PositionalEmbeddingParams(RopeParams(dim: 64, theta: 500_000))),
    ]
  }

  /// A request's rows, the same wherever it runs.
  static func rows(_ spec: AttentionLayerSpec, _ id: Int, count: Int) -> RequestRows {
    var rows = RequestRows(q: [], k: [], v: [])
    for token in 0..<count {
      var random = SeededNumbers(seed: 17, spec.layerIndex, id, token)
      rows.q += random.normals(spec.queryWidth)
      rows.k += random.normals(spec.keyWidth)
      rows.v += random.normals(spec.valueWidth)
    }
    return rows
  }

  func run(_ setting: LawSetting, prompts: [Int: Int] = prompts) throws -> Outcome {
    let groups = isTogether ? [prompts.keys.sorted()] : prompts.keys.sorted().map { [$0] }
    let device = setting.devices[device]
    let most = (prompts.values.max() ?? 1) + Self.generated
    let specs = try Self.specs(setting, on: device)
    var outcome = Outcome(rows: specs.map { _ in [:] }, contents: specs.map { _ in [:] })
    let requests = specs.map { spec in
      Dictionary(uniqueKeysWithValues: prompts.map { ($0, Self.rows(spec, $0, count: $1 + Self.generated)) })
    }
    for group in groups {
      var options = AttentionHarness.Options(
        cache: KVCacheConfig(dataType: setting.kvType, pageSize: .tokens(pageSize)), maxSequenceLength: most, maxSequences: 8)
      options.maxNumTokens = prompts.values.reduce(prompts.count, +)
      options.workerCount = workers
      options.input = input
      let harness = try AttentionHarness(setting.backend, specs, requests: requests, on: device, options)
      if shuffles, let manager = harness.manager { try shuffle(manager) }
      try run(group, harness, prompts)
      for layer in specs.indices {
        outcome.rows[layer].merge(harness.rows[layer]) { $1 }
        for id in group { outcome.contents[layer][id] = try harness.contents(layer: layer, of: id) }
      }
    }
    return outcome
  }

  /// Whoever still has a prompt reads a chunk of it, everyone else generates: mixed batches as they come.
  private func run(_ group: [Int], _ harness: AttentionHarness, _ prompts: [Int: Int]) throws {
    var remaining = prompts
    var generated: [Int: Int] = [:]
    while true {
      var contexts: [AttentionHarness.Piece] = []
      var generations: [AttentionHarness.Piece] = []
      for id in group {
        let done = generated[id, default: 0]
        if let left = remaining[id], left > 0 {
          contexts.append(.context(id, min(left, chunk)))
          remaining[id] = left - min(left, chunk)
        } else if done < Self.generated {
          let count = min(drafts, Self.generated - done)
          generations.append(.generation(id, count))
          generated[id] = done + count
        }
      }
      if contexts.isEmpty && generations.isEmpty { return }
      try harness.step(contexts + generations)
      try harness.manager?.checkIntegrity()
    }
  }

  /// Hands pages out and takes them back in another order.
  private func shuffle(_ manager: KVCacheManager) throws {
    let ids = [101, 102, 103]
    for id in ids { enforce(manager.addSequence(id) && manager.extend(id, to: 40), "the laws' cache is too small") }
    for id in ids { _ = manager.extend(id, to: 75) }
    for id in [102, 101, 103] { manager.remove(id) }
  }
}

extension LawResult {
  /// Compares two runs of the same requests bit for bit: outputs, log-sum-exps, and what the cache holds in both.
  mutating func expectSameBits(_ a: LawRun.Outcome, _ b: LawRun.Outcome, _ what: String) {
    for layer in a.rows.indices {
      for (id, rows) in a.rows[layer].sorted(by: { $0.key < $1.key }) {
        let others = b.rows[layer][id] ?? AttentionHarness.Rows()
        expect(rows.hasSameBits(as: others), "\(what): layer \(layer), request \(id): \(rows.firstDifference(from: others))")
      }
      for (id, contents) in a.contents[layer].sorted(by: { $0.key < $1.key }) {
        guard let others = b.contents[layer][id] else {
          expect(false, "\(what): layer \(layer): request \(id) is not in the cache")
          continue
        }
        let position = contents.firstDifference(from: others)
        expect(position == nil, "\(what): layer \(layer), request \(id): the cache differs at position \(position ?? -1)")
      }
    }
  }
}

extension AttentionHarness.Rows {
  /// The rows after the first `count`.
  func dropping(_ count: Int, of spec: AttentionLayerSpec) -> AttentionHarness.Rows {
    var rest = AttentionHarness.Rows()
    rest.values = Array(values.dropFirst(count * spec.outputWidth))
    rest.logSumExp = Array(logSumExp.dropFirst(count * spec.numHeads))
    return rest
  }

  func hasSameBits(as other: AttentionHarness.Rows) -> Bool {
    codes == other.codes && values.count == other.values.count && logSumExp.count == other.logSumExp.count
      && zip(values, other.values).allSatisfy { $0.bitPattern == $1.bitPattern }
      && zip(logSumExp, other.logSumExp).allSatisfy { $0.bitPattern == $1.bitPattern }
  }

  func firstDifference(from other: AttentionHarness.Rows) -> String {
    if values.count != other.values.count { return "\(values.count) and \(other.values.count) outputs" }
    if let index = values.indices.first(where: { values[$0].bitPattern != other.values[$0].bitPattern }) {
      let rows = logSumExp.count
      return "output \(index) of \(values.count) (\(rows) rows and heads) is \(values[index]) and \(other.values[index])"
    }
    return "log-sum-exps or codes differ"
  }
}

extension KVContents {
  /// The first position that both hold and that differs.
  func firstDifference(from other: KVContents) -> Int? {
    let common = positions.clamped(to: other.positions)
    for position in common {
      for (mine, theirs, dims) in [(keys, other.keys, headDim), (values, other.values, valueHeadDim)] {
        let width = numKVHeads * dims
        let a = (position - positions.lowerBound) * width
        let b = (position - other.positions.lowerBound) * width
        for element in 0..<width where mine[a + element].bitPattern != theirs[b + element].bitPattern { return position }
      }
    }
    return positions.upperBound == other.positions.upperBound ? nil : common.upperBound
  }
}
