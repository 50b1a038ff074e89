// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// One arithmetic for every row: a request's outputs have the same bits in any company, chunking, page size and number of threads.

import MartletAttention
import MartletCPU
import MartletCore
import MartletKVCache
import Testing

@Suite("One arithmetic for every row")
struct OneArithmeticTests {
  static let backends = ["VANILLA", "TRTLLM", "FLASHINFER"]

  /// How the same requests are run.
  struct Run {
    var pageSize = 32
    var chunk = 512
    var threads = 1
    var workers = 1
    var together = true
    var form = InputForm.fused
    var drafts = 1
    var pageOrder: UInt64?
  }

  /// Prompt lengths of the requests, by id; each then generates ten tokens.
  private static let prompts = [1: 70, 2: 33, 3: 131, 4: 1]
  private static let generated = 10

  private func specs(_ device: CPUDevice) throws -> [AttentionLayerSpec] {
    let weight = try device.makeTensor(Shape(64), .f32)
    for dim in 0..<64 { weight.unsafeHostPointer(to: Float.self)![dim] = 1 + Float(dim % 7) / 16 }
    let norm = HeadNorm(weight: weight, epsilon: 1e-6)
    return [
      AttentionLayerSpec(
        layerIndex: 0, numHeads: 6, headDim: 64, numKVHeads: 2, positionalEmbedding: PositionalEmbeddingParams(RopeParams(dim: 64)),
        queryNorm: norm, keyNorm: norm),
      AttentionLayerSpec(
        layerIndex: 1, numHeads: 6, headDim: 64, numKVHeads: 2, window: 40,
        positionalEmbedding: PositionalEmbeddingParams(RopeParams(dim: 64, theta: 500_000))),
    ]
  }

  private func outputs(_ backend: String, _ run: Run, type: DataType, prompts: [Int: Int] = prompts) throws -> [[Int: [[Float]]]] {
    let groups = run.together ? [prompts.keys.sorted()] : prompts.keys.sorted().map { [$0] }
    var result: [[Int: [[Float]]]] = [[:], [:]]
    let most = prompts.values.max()! + Self.generated
    for group in groups {
      let bench = try AttentionRuntime(
        backend, specs(CPUDevice(threads: 1)),
        cache: KVCacheConfig(dataType: type, pageSize: .tokens(run.pageSize), maxSequenceLength: most, maxSequences: 8),
        maxTokens: prompts.values.reduce(0, +), threads: run.threads, workers: run.workers)
      bench.form = run.form
      if let seed = run.pageOrder { bench.scramblePages(seed: seed) }
      var remaining = prompts.filter { group.contains($0.key) }
      var generated = Dictionary(uniqueKeysWithValues: group.map { ($0, 0) })
      while true {
        // Whoever still has a prompt reads a chunk of it, everyone else generates: mixed batches as they come.
        var contexts: [Piece] = []
        var generations: [Piece] = []
        for id in group {
          if let left = remaining[id], left > 0 {
            let count = min(left, run.chunk)
            contexts.append(.context(id, count))
            remaining[id] = left - count
          } else if generated[id]! < Self.generated {
            let count = min(run.drafts, Self.generated - generated[id]!)
            generations.append(.generation(id, count))
            generated[id]! += count
          }
        }
        if contexts.isEmpty && generations.isEmpty { break }
        try bench.step(contexts + generations)
        try bench.manager?.checkIntegrity()
      }
      for layer in 0..<2 { result[layer].merge(bench.outputs[layer]) { $1 } }
    }
    return result
  }

  private func expectSameBits(_ a: [[Int: [[Float]]]], _ b: [[Int: [[Float]]]], _ what: String) {
    for layer in a.indices {
      for (id, rows) in a[layer] {
        let others = b[layer][id] ?? []
        #expect(rows.count == others.count)
        let different = zip(rows, others).enumerated().filter { $1.0.map(\.bitPattern) != $1.1.map(\.bitPattern) }.map(\.offset)
        #expect(different.isEmpty, "\(what): layer \(layer), request \(id), positions \(different)")
      }
    }
  }

  @Test(
    "alone or among others, whole or in chunks, whatever the pages, threads and drafts", arguments: backends,
    [DataType.bf16, .f32, .f16, .f8e4m3, .i8])
  func sameBits(backend: String, type: DataType) throws {
    let plain = try outputs(backend, Run(), type: type)
    for (id, length) in Self.prompts { #expect(plain[0][id]?.count == length + Self.generated) }
    let variations: [(String, Run)] = [
      ("alone", Run(together: false)),
      ("in chunks of 16", Run(chunk: 16)),
      ("in chunks of 64", Run(chunk: 64)),
      ("in chunks of 7, alone", Run(chunk: 7, together: false)),
      ("in pages of 16", Run(pageSize: 16)),
      ("in pages of 64, chunks of 16", Run(pageSize: 64, chunk: 16)),
      ("in pages of another order", Run(pageOrder: 1)),
      ("in pages of yet another order, chunks of 16", Run(chunk: 16, pageOrder: 2)),
      ("on 2 threads", Run(threads: 2, workers: 2)),
      ("separate inputs", Run(form: .separate)),
      ("three drafts a step", Run(drafts: 3)),
    ]
    for (what, run) in variations { expectSameBits(plain, try outputs(backend, run, type: type), what) }
  }

  @Test("however the plan cuts long sequences into chunks", arguments: backends)
  func splits(backend: String) throws {
    let prompts = [1: 1100, 2: 520, 3: 3]
    let plain = try outputs(backend, Run(chunk: 2000), type: .bf16, prompts: prompts)
    expectSameBits(plain, try outputs(backend, Run(chunk: 2000, threads: 2, workers: 16), type: .bf16, prompts: prompts), "16 workers")
    expectSameBits(
      plain, try outputs(backend, Run(chunk: 300, workers: 5, together: false), type: .bf16, prompts: prompts), "5 workers, alone")
  }

  @Test("contexts and generations in one batch or in two halves", arguments: backends)
  func splitConsistency(backend: String) throws {
    // The original's shape: 32 heads on 8, dim 128, contexts of 3 and 2 tokens over 30 and 40 cached, generations over 62 and 75.
    let past = [1: 30, 2: 40, 3: 62, 4: 75]
    func run(_ steps: [[Piece]]) throws -> [Int: [[Float]]] {
      let bench = try AttentionRuntime(
        backend, [AttentionLayerSpec(layerIndex: 0, numHeads: 32, headDim: 128, numKVHeads: 8)],
        cache: KVCacheConfig(pageSize: .tokens(128), maxSequenceLength: 128, maxSequences: 4))
      try bench.step(past.sorted { $0.key < $1.key }.map { .context($0.key, $0.value) })
      for step in steps { try bench.step(step) }
      return bench.outputs[0]
    }
    let whole = try run([[.context(1, 3), .context(2, 2), .generation(3), .generation(4)]])
    let halves = try run([[.context(1, 3), .generation(3)], [.context(2, 2), .generation(4)]])
    expectSameBits([whole], [halves], "in halves")
  }

  @Test("whether a prefix is a request's own or shared with others and read once for all", arguments: [DataType.bf16, .f32, .i8, .f8e4m3])
  func cascades(type: DataType) throws {
    // Requests 2…6 begin like request 1: 1088 tokens, 34 pages of 32, two whole chunks.
    let shared = 1088
    let ids = [2, 3, 4, 5, 6]
    func bench(_ backend: String) throws -> AttentionRuntime {
      let specs = [nil, 2000, 300].enumerated().map { index, window in
        AttentionLayerSpec(layerIndex: index, numHeads: 6, headDim: 32, numKVHeads: 2, window: window)
      }
      let config = KVCacheConfig(dataType: type, pageSize: .tokens(32), maxSequenceLength: 1400, maxSequences: 6)
      return try AttentionRuntime(backend, specs, cache: config, maxTokens: 1200, workers: 2)
    }
    let steps: [[Piece]] = [
      ids.map { .context($0, 3 + $0) } + [.generation(1)], ids.map { .generation($0) } + [.generation(1, 2)],
      [.generation(1)] + ids.map { .generation($0, 1 + $0 % 3) },
    ]
    for backend in ["FLASHINFER", "TRTLLM"] {
      let together = try bench(backend)
      try together.step([.context(1, shared)])
      for id in ids { together.share(1, tokens: shared, with: id) }
      for step in steps {
        try together.step(step) {
          guard let metadata = together.metadata as? FlashInferMetadata else { return }
          let segments = together.layers.map { metadata.work(for: $0.spec, mask: .causal)!.numSegments }
          // Six requests, two heads, two chunks; a window of 300 shows nobody a whole chunk.
          #expect(segments == [24, 24, 0])
        }
        try together.manager!.checkIntegrity()
      }
      for id in [1] + ids {
        let alone = try bench(backend)
        alone.prefixes = together.prefixes
        try alone.step([.context(id, shared)])
        for step in steps { try alone.step(step.filter { $0.id == id }) }
        for layer in 0..<3 {
          let rows = together.outputs[layer][id]!
          let expected = Array(alone.outputs[layer][id]!.suffix(rows.count))
          let same = zip(rows, expected).allSatisfy { $0.map(\.bitPattern) == $1.map(\.bitPattern) }
          #expect(same, "\(backend), layer \(layer), request \(id)")
        }
      }
    }
  }
}
