// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletAttention
import MartletCore
import MartletKVCache

/// One of TensorRT-LLM's tests: layers, a batch of one step over cached prefixes, and how it is run.
struct OriginalScenario: Sendable {
  /// One sequence of the batch, in order: contexts first.
  struct Sequence: Sendable {
    /// Keys in the cache before the step.
    var cached: Int
    var queries: Int
    /// Keys of the step; nil = as many as queries.
    var newKeys: Int?
    var isContext: Bool

    var keys: Int { cached + (newKeys ?? queries) }
  }

  var name: String
  var specs: [AttentionLayerSpec]
  var kvType: DataType
  var pageSize: Int
  var sequences: [Sequence]
  var mask = AttentionMask.causal
  var isCross = false
  /// Whether the step runs on metadata for captured graphs too, with two dummies more than requests, and must give the same bits.
  var comparesGraph = false
  /// Whether each half of the batch must give the same bits as the whole.
  var comparesHalves = false
  var seed: UInt64

  /// What a layer's cases share: the truth of a sample of rows.
  struct Truth: Sendable {
    /// `[layer]`.
    var scenarios: [ConformanceScenario]
    var goldens: [QueryRounding: [Golden]]
    var rows: Int
    var rowsCompared: Int
  }

  private var maxSequenceLength: Int { (sequences.map(\.keys).max()! + 4 + 63) / 64 * 64 }

  /// - Parameter roundings: of queries, that backends use.
  func truth(_ roundings: Set<QueryRounding>) -> Truth {
    let scenarios = specs.map { spec in
      let scales = spec.quantConfig?.kvScales ?? KVScales()
      let layer = ReferenceLayer(spec, kvType: kvType, kvScales: scales, maxSequenceLength: maxSequenceLength)
      // Queries are numbered from the first that is computed: those of a cached prefix are never asked for, and are zeros.
      let steps = [
        sequences.enumerated().map {
          AttentionHarness.Piece(id: $0, newTokens: firstQuery($1) + $1.queries, newKVTokens: $1.keys, isContext: true)
        }
      ]
      var scenario = ConformanceScenario(
        layer: layer, requests: [:], steps: steps, mask: mask, isCross: isCross, maxSequenceLength: maxSequenceLength,
        seed: seed &+ UInt64(spec.layerIndex))
      for (id, sequence) in sequences.enumerated() {
        let first = firstQuery(sequence)
        let positions =
          isCross && spec.positionalEmbedding != nil ? (0..<sequence.queries).map { RequestRows.Position(repeating: $0) } : nil
        var rows = scenario.drawRows(id, queries: sequence.queries, keys: sequence.keys, firstQuery: first, positions: positions)
        rows.q = Array(repeating: 0, count: first * spec.queryWidth) + rows.q
        scenario.requests[id] = rows
      }
      return scenario
    }
    var goldens: [QueryRounding: [Golden]] = [:]
    for rounding in roundings {
      goldens[rounding] = scenarios.map { scenario in
        Golden(scenario, rounding: rounding) { isSampled($0, $1) }
      }
    }
    let sampled = sequences.enumerated().map { id, sequence in
      (0..<firstQuery(sequence) + sequence.queries).count { isSampled(id, $0) }
    }
    return Truth(
      scenarios: scenarios, goldens: goldens, rows: specs.count * sequences.reduce(0) { $0 + $1.queries },
      rowsCompared: specs.count * sampled.reduce(0, +))
  }

  /// In self attention a query's number is its cache position.
  private func firstQuery(_ sequence: Sequence) -> Int { isCross ? 0 : sequence.cached }

  /// Of a long context the first and the last rows and some between; of others all.
  private func isSampled(_ id: Int, _ query: Int) -> Bool {
    let sequence = sequences[id]
    let row = query - firstQuery(sequence)
    if row < 0 { return false }
    if sequence.queries <= 32 || row < 2 || row >= sequence.queries - 8 { return true }
    var random = SeededNumbers(seed: seed, id, query)
    return random.next() % UInt64(sequence.queries) < 10
  }

  /// Runs the scenario on a backend.
  func run(_ subject: ConformanceSubject, _ truth: Truth, on target: ConformanceTarget) -> ScenarioResult {
    let tolerance = ConformanceSubject.tolerance(kvType)
    var result = ScenarioResult(name: name, backend: subject.name, kvType: kvType, verdict: .passed, tolerance: tolerance)
    let rounding = subject.rounding(ConformanceCase(backend: subject.name, kvType: kvType), on: target)
    var problems: [String] = []
    do {
      // A slow backend is spared the rows of long contexts that nobody looks at: their keys are written into its cache.
      let whole = try step(subject, truth, Array(sequences.indices), on: target, mostRows: subject.isSlow && mask == .causal ? 16 : nil)
      for (layer, scenario) in truth.scenarios.enumerated() {
        var comparison = Comparison(scenario, tolerance: tolerance)
        for (id, golden) in truth.goldens[rounding]![layer].requests.sorted(by: { $0.key < $1.key }) {
          comparison.compare(id, whole.rows[layer][id], with: golden, firstQuery: whole.firstQueries[id]!)
          if let contents = whole.contents[layer][id] { comparison.compareStored(id, contents, with: golden) }
        }
        comparison.finish()
        problems += comparison.problems.map { "layer \(scenario.layer.spec.layerIndex): \($0)" }
        result.largestError = max(result.largestError, comparison.largestError)
      }
      if comparesGraph {
        let graph = try step(subject, truth, Array(sequences.indices), on: target, isGraph: true)
        problems += differences(whole.rows, graph.rows, "on graph metadata")
      }
      if comparesHalves {
        // As the original cuts it: each half has a context and a generation.
        for parity in 0..<2 {
          let half = try step(subject, truth, sequences.indices.filter { $0 % 2 == parity }, on: target)
          problems += differences(half.rows, whole.rows, "half \(parity)")
        }
      }
      result.rows = whole.rows.reduce(0) { $0 + $1.values.reduce(0) { $0 + $1.logSumExp.count } } / max(1, specs[0].numHeads)
      result.rowsCompared = min(truth.rowsCompared, result.rows)
      if !problems.isEmpty { result.verdict = .failed(problems) }
    } catch let error as AttentionError where error.code == .obstacles {
      result.verdict =
        subject.obstacles == nil ? .refused(error.reasons) : .failed(["refused unexpectedly: " + error.reasons.joined(separator: "; ")])
    } catch {
      result.verdict = .failed(["threw: \(error)"])
    }
    return result
  }

  private func differences(_ a: [[Int: AttentionHarness.Rows]], _ b: [[Int: AttentionHarness.Rows]], _ what: String) -> [String] {
    a.indices.flatMap { layer in
      a[layer].sorted { $0.key < $1.key }.compactMap { id, rows in
        let other = b[layer][id] ?? AttentionHarness.Rows()
        return rows.hasSameBits(as: other)
          ? nil : "\(what): layer \(specs[layer].layerIndex), sequence \(id): \(rows.firstDifference(from: other))"
      }
    }
  }

  private func step(
    _ subject: ConformanceSubject, _ truth: Truth, _ ids: [Int], on target: ConformanceTarget, isGraph: Bool = false, mostRows: Int? = nil
  ) throws -> (rows: [[Int: AttentionHarness.Rows]], contents: [[Int: KVContents]], firstQueries: [Int: Int]) {
    var options = AttentionHarness.Options(
      cache: KVCacheConfig(dataType: kvType, pageSize: .tokens(pageSize)),
      maxSequenceLength: (maxSequenceLength + pageSize - 1) / pageSize * pageSize, maxSequences: sequences.count + 1)
    options.maxNumRequests = sequences.count + 2
    options.maxNumTokens = max(sequences.reduce(0) { $0 + $1.queries }, options.maxNumRequests)
    if isCross { options.maxNumKVTokens = max(1, sequences.reduce(0) { $0 + $1.keys - $1.cached }) }
    options.workerCount = target.workerCount
    options.masks = [mask]
    options.isCross = isCross
    options.input = isCross ? .separate : .fused
    let harness = try AttentionHarness(subject.backend, specs, requests: truth.scenarios.map(\.requests), on: target.device, options)
    harness.mask = mask
    var pieces: [AttentionHarness.Piece] = []
    var firstQueries: [Int: Int] = [:]
    for id in ids {
      let sequence = sequences[id]
      // Keys that lie in the cache before: the prefix, and of a long context what is spared.
      let spared = isCross ? 0 : mostRows.map { max(0, sequence.queries - $0) } ?? 0
      let cached = sequence.cached + spared
      let queries = firstQuery(sequence) + spared
      firstQueries[id] = queries
      if cached > 0 {
        let goldens = truth.goldens.first!.value
        try harness.fill(
          id, keys: cached, queries: queries, stored: goldens.map { ($0.requests[id]!.storedKeys, $0.requests[id]!.storedValues) })
      }
      pieces.append(
        AttentionHarness.Piece(
          id: id, newTokens: sequence.queries - spared, newKVTokens: isCross ? sequence.keys - sequence.cached : nil,
          isContext: sequence.isContext))
    }
    if isGraph { try harness.useGraphMetadata(maxBatchSize: ids.count + 2) }
    var contents: [[Int: KVContents]] = specs.map { _ in [:] }
    try harness.step(pieces) {
      for layer in specs.indices { for id in ids { contents[layer][id] = try harness.contents(layer: layer, of: id) } }
    }
    return (harness.rows, contents, firstQueries)
  }
}
