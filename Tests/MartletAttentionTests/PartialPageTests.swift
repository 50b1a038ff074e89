// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// A copied page has tokens of another request after those that agree. They change no bit, whatever they are.

import MartletAttention
import MartletCore
import MartletKVCache
import Testing

@Suite("A copied page")
struct PartialPageTests {
  private static let pageSize = 16

  @Test(
    "gives every request the bits that it has alone, though its last tokens are not numbers",
    arguments: ["TRTLLM", "FLASHINFER", "VANILLA"], [DataType.f32, .f16, .bf16, .f8e4m3, .i8])
  func stale(backend: String, type: DataType) throws {
    func bench() throws -> AttentionRuntime {
      let specs = [nil, 20, 3, 1].enumerated().map { index, window in
        AttentionLayerSpec(layerIndex: index, numHeads: 4, headDim: 32, numKVHeads: 2, window: window)
      }
      let config = KVCacheConfig(dataType: type, pageSize: .tokens(Self.pageSize))
      return try AttentionRuntime(backend, specs, cache: config, maxSequenceLength: 96, maxSequences: 2, maxTokens: 96)
    }
    let copying = try bench()
    let plain = try bench()
    let whole = 2 * Self.pageSize
    for agreeing in 1..<Self.pageSize {
      // Tokens of their own for each, so that nothing else is in the cache that begins alike.
      let (source, id) = (2 * agreeing, 2 * agreeing + 1)
      let tokens = (0..<whole + Self.pageSize).map { Int32(1000 * agreeing + $0) }
      let parted = whole + agreeing
      // In turn what is no number, and numbers that are large.
      let stale: Float = [.nan, .infinity, -1e30][agreeing % 3]
      copying.poison = { $0 == source && $1 >= parted ? stale : nil }
      copying.tokenIDs[source] = tokens
      try copying.step([.context(source, tokens.count)])
      copying.end(source)
      #expect(copying.begin(id, tokens[..<parted] + Array(repeating: -1, count: 40), like: source) == parted)
      plain.prefixes[id] = (source, parted)
      try plain.step([.context(id, parted)])
      // Steps that end inside the page, at its end, behind it.
      for step in [[Piece.generation(id)], [.context(id, 1 + agreeing % 5)], [.generation(id, 2)], [.context(id, 20)]] {
        try copying.step(step)
        try plain.step(step)
      }
      for layer in copying.outputs.indices {
        let rows = copying.outputs[layer][id]!
        let expected = Array(plain.outputs[layer][id]!.suffix(rows.count))
        #expect(rows.count > 20 && rows.allSatisfy { $0.allSatisfy(\.isFinite) })
        let same = zip(rows, expected).allSatisfy { $0.map(\.bitPattern) == $1.map(\.bitPattern) }
        #expect(same, "layer \(layer), \(agreeing) tokens of the page")
      }
      try copying.manager!.checkIntegrity()
      copying.end(id)
      plain.end(id)
    }
  }
}
