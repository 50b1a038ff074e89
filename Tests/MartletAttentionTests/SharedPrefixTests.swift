// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// A shared prefix, read once for all who share it, changes no bit of anybody's output.

import MartletAttention
import MartletCore
import MartletKVCache
import Testing

@Suite("A shared prefix")
struct SharedPrefixTests {
  @Test("gives every request the bits that it has alone, with cascades and without", arguments: [DataType.bf16, .f32, .i8, .f8e4m3])
  func cascades(type: DataType) throws {
    // Requests 2…6 begin like request 1: 1088 tokens, 34 pages of 32, two whole chunks.
    let shared = 1088
    let ids = [2, 3, 4, 5, 6]
    func bench(_ backend: String) throws -> AttentionRuntime {
      let specs = [nil, 2000, 300].enumerated().map { index, window in
        AttentionLayerSpec(layerIndex: index, numHeads: 6, headDim: 32, numKVHeads: 2, window: window)
      }
      let config = KVCacheConfig(dataType: type, pageSize: .tokens(32))
      return try AttentionRuntime(backend, specs, cache: config, maxSequenceLength: 1400, maxSequences: 6, maxTokens: 1200, workers: 2)
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
