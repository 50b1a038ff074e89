// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletLibc
import MartletAttention
import MartletCore
import MartletKVCache

/// The laws of attention, as plain functions of a backend and devices: each runs requests in two ways that must not differ.
public enum AttentionLaws {
  /// Every law, asked one after another.
  public static func all(_ setting: LawSetting) -> [LawResult] { table.compactMap { $0.ask(setting) } }

  /// Each law by a short name; nil of one that is none of the backend's.
  static let table: [(name: String, ask: @Sendable (LawSetting) -> LawResult?)] = [
    ("independence", { independence($0) }), ("custom chunks", { customChunks($0) }), ("page permutation", { pagePermutation($0) }),
    ("split consistency", { splitConsistency($0) }), ("long splits", { longSplits($0) }), ("merge folding", { mergeFolding($0) }),
    ("queries alone", { queriesAlone($0) }), ("saturation", { saturation($0) }), ("graphs", { graphs($0) }),
    ("shared prefix", { sharedPrefix($0) }), ("plans", { plans($0) }),
  ]

  /// A request's rows and what the cache stores have the same bits alone or among others, whole or in chunks, whatever the pages, the threads,
  /// the workers, the drafts and the form of input.
  public static func independence(_ setting: LawSetting) -> LawResult {
    .of("rows depend on nothing but their request", setting) { result in
      let plain = try LawRun().run(setting)
      for (id, length) in LawRun.prompts {
        let count = plain.rows[0][id]?.logSumExp.count ?? 0
        result.expect(count == (length + LawRun.generated) * 6, "request \(id) has \(count) log-sum-exps")
      }
      var variations: [(String, LawRun)] = [
        ("alone", LawRun(isTogether: false)),
        ("in chunks of 16", LawRun(chunk: 16)),
        ("in chunks of 64", LawRun(chunk: 64)),
        ("in chunks of 7, alone", LawRun(chunk: 7, isTogether: false)),
        ("in pages of 16", LawRun(pageSize: 16)),
        ("in pages of 64, chunks of 16", LawRun(pageSize: 64, chunk: 16)),
        ("separate inputs", LawRun(input: .separate)),
        ("three drafts a step", LawRun(drafts: 3)),
        ("planned for 8 workers", LawRun(workers: 8)),
      ]
      for device in setting.devices.indices.dropFirst() {
        variations.append(("on \(setting.devices[device].summary)", LawRun(device: device, workers: 2)))
      }
      for (what, run) in variations { result.expectSameBits(plain, try run.run(setting), what) }
    }
  }

  /// The same under custom bits: a row's numbers depend on what it sees, not on how many keys the request has by then.
  public static func customChunks(_ setting: LawSetting) -> LawResult {
    .of("rows under custom bits may come in chunks", setting) { result in
      let specs = Array(try LawRun.specs(setting, on: setting.devices[0])[..<1])
      let count = 300
      let requests = [[1: LawRun.rows(specs[0], 1, count: count)]]
      func run(chunk: Int) throws -> LawRun.Outcome {
        var options = AttentionHarness.Options(
          cache: KVCacheConfig(dataType: setting.kvType, pageSize: .tokens(16)), maxSequenceLength: count, maxSequences: 1)
        options.masks = [.custom]
        let harness = try AttentionHarness(setting.backend, specs, requests: requests, on: setting.devices[0], options)
        harness.mask = .custom
        // All keys before a query but every third, so that rows see few, many and half of them.
        harness.bits = { _, first, queries, length in
          CustomAttentionMask(queryLength: queries, keyLength: length) { $1 <= first + $0 && ($1 % 3 != 1 || $1 == first + $0) }
        }
        for start in stride(from: 0, to: count, by: chunk) { try harness.step([.context(1, min(chunk, count - start))]) }
        return LawRun.Outcome(rows: harness.rows, contents: [[1: try harness.contents(layer: 0, of: 1)].compactMapValues { $0 }])
      }
      let whole = try run(chunk: count)
      for chunk in [16, 64, 100] { result.expectSameBits(whole, try run(chunk: chunk), "in chunks of \(chunk)") }
    }
  }

  /// It does not matter which pages hold a request.
  public static func pagePermutation(_ setting: LawSetting) -> LawResult {
    .of("pages may lie anywhere", setting) { result in
      result.expectSameBits(
        try LawRun(pageSize: 16).run(setting), try LawRun(pageSize: 16, shuffles: true).run(setting), "after other sequences")
    }
  }

  /// However long rows are cut among workers, the bits are the same.
  public static func longSplits(_ setting: LawSetting) -> LawResult {
    .of("long rows may be cut anywhere", setting) { result in
      let prompts = [1: 1060, 2: 520, 3: 3]
      let plain = try LawRun(chunk: 2000).run(setting, prompts: prompts)
      result.expectSameBits(
        plain, try LawRun(chunk: 2000, device: setting.devices.count - 1, workers: 16).run(setting, prompts: prompts), "for 16 workers")
      result.expectSameBits(
        plain, try LawRun(chunk: 300, workers: 5, isTogether: false).run(setting, prompts: prompts),
        "in chunks of 300, for 5 workers, alone")
    }
  }

  /// T1 of TensorRT-LLM's tests, bit for bit: two contexts and two generations in one batch or in two halves (32 heads on 8, dim 128, contexts
  /// of 3 and 2 tokens over 30 and 40 cached, generations over 62 and 75, pages of 128).
  public static func splitConsistency(_ setting: LawSetting) -> LawResult {
    .of("a batch may be split", setting) { result in
      let past = [1: 30, 2: 40, 3: 62, 4: 75]
      let spec = AttentionLayerSpec(
        layerIndex: 0, numHeads: 32, headDim: 128, numKVHeads: 8,
        quantConfig: setting.kvType == .f8e4m3 ? QuantConfig(kvScales: KVScales(key: 0.0231, value: 0.0173)) : nil)
      let requests = [Dictionary(uniqueKeysWithValues: past.map { ($0, LawRun.rows(spec, $0, count: $1 + 3)) })]
      func run(_ steps: [[AttentionHarness.Piece]]) throws -> LawRun.Outcome {
        let options = AttentionHarness.Options(
          cache: KVCacheConfig(dataType: setting.kvType, pageSize: .tokens(128)), maxSequenceLength: 128, maxSequences: 4)
        let harness = try AttentionHarness(setting.backend, [spec], requests: requests, on: setting.devices[0], options)
        try harness.step(past.sorted { $0.key < $1.key }.map { .context($0.key, $0.value) })
        for step in steps { try harness.step(step) }
        var contents: [Int: KVContents] = [:]
        for id in past.keys { contents[id] = try harness.contents(layer: 0, of: id) }
        return LawRun.Outcome(rows: harness.rows, contents: [contents])
      }
      result.expectSameBits(
        try run([[.context(1, 3), .context(2, 2), .generation(3), .generation(4)]]),
        try run([[.context(1, 3), .generation(3)], [.context(2, 2), .generation(4)]]), "in halves")
    }
  }

  /// The states of two halves of the keys fold into the state of all: o = Σ 2^lse·o / Σ 2^lse. Needs custom masks, which show the halves.
  public static func mergeFolding(_ setting: LawSetting) -> LawResult {
    .of("states of parts fold into the whole's", setting) { result in
      let spec = AttentionLayerSpec(
        layerIndex: 0, numHeads: 6, headDim: 64, numKVHeads: 2,
        quantConfig: setting.kvType == .f8e4m3 ? QuantConfig(kvScales: KVScales(key: 0.0231, value: 0.0173)) : nil)
      let count = 150
      let requests = [[1: LawRun.rows(spec, 1, count: count)]]
      func run(_ keys: Range<Int>) throws -> AttentionHarness.Rows {
        var options = AttentionHarness.Options(
          cache: KVCacheConfig(dataType: setting.kvType, pageSize: .tokens(32)), maxSequenceLength: 160, maxSequences: 2)
        options.masks = [.custom]
        let harness = try AttentionHarness(setting.backend, [spec], requests: requests, on: setting.devices[0], options)
        harness.mask = .custom
        harness.bits = { _, first, queries, length in
          CustomAttentionMask(queryLength: queries, keyLength: length) { $1 <= first + $0 && keys.contains($1) }
        }
        try harness.step([.context(1, count)])
        return harness.rows[0][1]!
      }
      let whole = try run(0..<count)
      let tolerance = 2 * ConformanceSubject.tolerance(setting.kvType)
      for cut in [1, 37, 64, 128] {
        let (low, high) = (try run(0..<cut), try run(cut..<count))
        for row in whole.logSumExp.indices {
          let largest = max(low.logSumExp[row], high.logSumExp[row])
          let weights = [low, high].map { exp2(Double($0.logSumExp[row] - largest)) }
          let sum = weights[0] + weights[1]
          let range = row * spec.valueHeadDim..<(row + 1) * spec.valueHeadDim
          var (error, squares) = (0.0, 0.0)
          for index in range {
            let folded = (weights[0] * Double(low.values[index]) + weights[1] * Double(high.values[index])) / sum
            let difference = (folded - Double(whole.values[index])).magnitude
            error = difference > error || difference.isNaN ? difference : error
            squares += folded * folded
          }
          let rms = (squares / Double(spec.valueHeadDim)).squareRoot()
          result.expect(error <= tolerance * rms, "cut at \(cut): row \(row) is off by \(Comparison.short(error / rms)) of its rms")
          let exact = Double(largest) + log2(sum)
          let sumError = (exact - Double(whole.logSumExp[row])).magnitude / max(1, exact.magnitude)
          result.expect(sumError <= tolerance, "cut at \(cut): the log-sum-exp of row \(row) is \(whole.logSumExp[row]), not \(exact)")
        }
      }
    }
  }

  /// Queries alone read what an earlier pass wrote: the same bits, and the cache is left as it was.
  public static func queriesAlone(_ setting: LawSetting) -> LawResult {
    .of("queries alone read what is cached", setting) { result in
      let specs = Array(try LawRun.specs(setting, on: setting.devices[0])[..<1])
      let count = 45
      let requests = [[1: LawRun.rows(specs[0], 1, count: count)]]
      let harness = try AttentionHarness(
        setting.backend, specs, requests: requests, on: setting.devices[0],
        AttentionHarness.Options(
          cache: KVCacheConfig(dataType: setting.kvType, pageSize: .tokens(16)), maxSequenceLength: 64, maxSequences: 1))
      var before: KVContents?
      try harness.step([.context(1, count)]) {
        before = try harness.contents(layer: 0, of: 1)
        let again = try harness.attendAgain(layer: 0, [.context(1, count)])
        result.expect(
          harness.rows[0][1]!.hasSameBits(as: again), "the second pass differs: \(harness.rows[0][1]!.firstDifference(from: again))")
      }
      let after = try harness.contents(layer: 0, of: 1)
      result.expect(before != nil && after != nil && before!.firstDifference(from: after!) == nil, "the second pass wrote to the cache")
    }
  }

  /// Quantised caches saturate and never hold a NaN: with e4m3, ±1e4 and infinities become ±448 · scale; with int8 a head of zeros stays zeros.
  /// Other types hold what they are given.
  public static func saturation(_ setting: LawSetting) -> LawResult {
    .of("greatest values saturate", setting) { result in
      let scales = setting.kvType == .f8e4m3 ? KVScales(key: 0.5, value: 3.25) : KVScales()
      let spec = AttentionLayerSpec(
        layerIndex: 0, numHeads: 2, headDim: 64, numKVHeads: 1, quantConfig: QuantConfig(kvScales: scales))
      var rows = LawRun.rows(spec, 1, count: 20)
      for dim in 0..<64 {
        rows.k[3 * 64 + dim] = dim % 2 == 0 ? 1e4 : -1e4
        rows.v[3 * 64 + dim] = dim % 2 == 0 ? -1e4 : 1e4
        rows.k[5 * 64 + dim] = 0
        rows.v[5 * 64 + dim] = 0
      }
      let harness = try AttentionHarness(
        setting.backend, [spec], requests: [[1: rows]], on: setting.devices[0],
        AttentionHarness.Options(
          cache: KVCacheConfig(dataType: setting.kvType, pageSize: .tokens(16)), maxSequenceLength: 64, maxSequences: 1))
      try harness.step([.context(1, 20)])
      guard let contents = try harness.contents(layer: 0, of: 1) else { return }
      let reference = ReferenceAttention(
        ReferenceLayer(spec, kvType: setting.kvType, kvScales: scales, maxSequenceLength: 64), rows)
      for (name, stored, exact) in [
        ("key", contents.keys, reference.storedKeys), ("value", contents.values, reference.storedValues),
      ] {
        for index in stored.indices {
          result.expect(
            stored[index] == Float(exact[index]),
            "stored \(name) of position \(index / 64) dim \(index % 64) is \(stored[index]), not \(exact[index])")
        }
      }
      if setting.kvType == .f8e4m3 {
        result.expect(
          contents.keys[3 * 64] == 448 * scales.key && contents.values[3 * 64] == -448 * scales.value,
          "±1e4 are stored as \(contents.keys[3 * 64]) and \(contents.values[3 * 64])")
      }
      result.expect(!harness.rows[0][1]!.values.contains { $0.isNaN }, "an output is NaN")
    }
  }

  /// Generations on metadata for captured graphs, filled up with dummies, have the same bits as others, and rows of dummies are not written.
  public static func graphs(_ setting: LawSetting) -> LawResult {
    .of("graphs change nothing, and dummies get nothing", setting) { result in
      let specs = try LawRun.specs(setting, on: setting.devices[0])
      let prompts = [1: 70, 2: 33, 3: 5]
      let requests = specs.map { spec in
        Dictionary(uniqueKeysWithValues: prompts.map { ($0, LawRun.rows(spec, $0, count: $1 + 4)) })
      }
      func run(isGraph: Bool) throws -> LawRun.Outcome {
        let harness = try AttentionHarness(
          setting.backend, specs, requests: requests, on: setting.devices[0],
          AttentionHarness.Options(
            cache: KVCacheConfig(dataType: setting.kvType, pageSize: .tokens(16)), maxSequenceLength: 80, maxSequences: 4))
        try harness.step(prompts.sorted { $0.key < $1.key }.map { .context($0.key, $0.value) })
        if isGraph { try harness.useGraphMetadata(maxBatchSize: 5) }
        try harness.step([.generation(1), .generation(2), .generation(3)])
        try harness.step([.generation(3), .generation(1)])
        try harness.step([.generation(2)])
        if isGraph { result.expect(harness.writtenDummyRows == 0, "\(harness.writtenDummyRows) rows of dummies were written") }
        var contents: [[Int: KVContents]] = specs.map { _ in [:] }
        for layer in specs.indices { for id in prompts.keys { contents[layer][id] = try harness.contents(layer: layer, of: id) } }
        return LawRun.Outcome(rows: harness.rows, contents: contents)
      }
      result.expectSameBits(try run(isGraph: false), try run(isGraph: true), "on graph metadata")
    }
  }

  /// Requests that hold the same pages for a common prefix have the same bits as if each had its own.
  public static func sharedPrefix(_ setting: LawSetting) -> LawResult {
    .of("a shared prefix changes nothing", setting) { result in
      let specs = Array(try LawRun.specs(setting, on: setting.devices[0])[..<1])
      let spec = specs[0]
      let common = 1024
      let own = [1: 40, 2: 20, 3: 1]
      let prefix = LawRun.rows(spec, 9, count: common)
      let requests = Dictionary(
        uniqueKeysWithValues: own.map { id, count in
          let rest = LawRun.rows(spec, id, count: count + 3)
          return (id, RequestRows(q: prefix.q + rest.q, k: prefix.k + rest.k, v: prefix.v + rest.v))
        })
      func run(isShared: Bool, workers: Int) throws -> [Int: AttentionHarness.Rows] {
        var options = AttentionHarness.Options(
          cache: KVCacheConfig(dataType: setting.kvType, pageSize: .tokens(32)), maxSequenceLength: common + 64, maxSequences: 4)
        options.maxNumTokens = 3 * (common + 64)
        options.workerCount = workers
        let harness = try AttentionHarness(setting.backend, specs, requests: [requests], on: setting.devices[0], options)
        try harness.step(isShared ? [.context(1, common)] : [1, 2, 3].map { .context($0, common) })
        if isShared { for id in [2, 3] { harness.share(prefixOf: 1, tokens: common, with: id) } }
        try harness.step([1, 2, 3].map { .context($0, own[$0]!) })
        try harness.step([.generation(1), .generation(2), .generation(3)])
        try harness.step([.generation(3, 2), .generation(1)])
        try harness.manager?.checkIntegrity()
        return harness.rows[0].mapValues { $0.dropping(isShared ? 0 : common, of: spec) }.merging([1: harness.rows[0][1]!]) { $1 }
      }
      let plain = try run(isShared: false, workers: 1)
      for workers in [1, 8] {
        let shared = try run(isShared: true, workers: workers)
        for (id, rows) in plain.sorted(by: { $0.key < $1.key }) {
          let others = shared[id] ?? AttentionHarness.Rows()
          result.expect(rows.hasSameBits(as: others), "request \(id), \(workers) workers: \(rows.firstDifference(from: others))")
        }
      }
    }
  }

  /// What is planned is planned once for each distinct layer shape and step, whatever the number of layers.
  ///
  /// Asked of backends whose metadata counts plans: FLASHINFER's. nil for others.
  public static func plans(_ setting: LawSetting) -> LawResult? {
    var counts = false
    let result = LawResult.of("one plan for each layer shape and step", setting) { result in
      func layer(_ index: Int, kvHeads: Int, window: Int? = nil) -> AttentionLayerSpec {
        AttentionLayerSpec(layerIndex: index, numHeads: 8, headDim: 64, numKVHeads: kvHeads, window: window)
      }
      // Two distinct head counts and a window among five layers.
      let specs = [
        layer(0, kvHeads: 2), layer(1, kvHeads: 4), layer(2, kvHeads: 2), layer(4, kvHeads: 2, window: 20), layer(5, kvHeads: 4),
      ]
      let requests = specs.map { spec in Dictionary(uniqueKeysWithValues: [1, 2].map { ($0, LawRun.rows(spec, $0, count: 60)) }) }
      let harness = try AttentionHarness(
        setting.backend, specs, requests: requests, on: setting.devices[0],
        AttentionHarness.Options(
          cache: KVCacheConfig(dataType: setting.kvType, pageSize: .tokens(16)), maxSequenceLength: 64, maxSequences: 2))
      guard let metadata = harness.metadata as? FlashInferMetadata else { return }
      counts = true
      result.expect(metadata.planParams.count == 3, "\(metadata.planParams.count) layer shapes among 5 layers, not 3")
      for (step, pieces) in [[.context(1, 40)], [.context(2, 7), .generation(1)], [.generation(1), .generation(2)]].enumerated()
        as EnumeratedSequence<[[AttentionHarness.Piece]]>
      {
        try harness.step(pieces)
        for params in metadata.planParams {
          let count = metadata.planCount(for: params)
          result.expect(count == step + 1, "after \(step + 1) steps \(params) was planned \(count) times")
        }
      }
    }
    return counts || result.isBroken ? result : nil
  }
}
