// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// What all backends do alike where it is easy to differ: windows under other masks, foreign layouts, numbers that are none.

import MartletAttention
import MartletCPU
import MartletCore
import MartletKVCache
import Testing

@Suite("All backends agree")
struct BackendAgreementTests {
  private static let cache = KVCacheConfig(dataType: .f32, pageSize: .tokens(16))
  private static let windowed = AttentionLayerSpec(layerIndex: 0, numHeads: 4, headDim: 16, numKVHeads: 2, window: 8)

  private func runtime(_ backend: String, _ spec: AttentionLayerSpec = windowed) throws -> AttentionRuntime {
    try AttentionRuntime(backend, [spec], cache: Self.cache, maxSequenceLength: 128, maxSequences: 4, masks: [.causal, .full, .custom])
  }

  @Test("on bits within a window whose earlier pages went back")
  func bitsWithinWindow() throws {
    var results: [[[Float]]] = []
    for backend in AttentionBackendRegistry.builtIn.names {
      let runtime = try runtime(backend)
      try runtime.step([.context(1, 60)])
      runtime.mask = .custom
      runtime.isVisible = { _, query, key in key <= query && query - key < 8 && key % 3 != 1 }
      try runtime.step([.generation(1, 2)])
      results.append(Array(runtime.outputs[0][1]!.suffix(2)))
    }
    for result in results {
      for (row, expected) in zip(result, results[0]) {
        for (value, wanted) in zip(row, expected) { #expect(abs(value - wanted) < 1e-5) }
      }
    }
  }

  @Test("that keys behind a window are gone, and say so", arguments: AttentionBackendRegistry.builtIn.names)
  func behindWindow(backend: String) throws {
    for mask in [AttentionMask.full, .custom] {
      let runtime = try runtime(backend)
      try runtime.step([.context(1, 60)])
      runtime.mask = mask
      if mask == .custom { runtime.isVisible = { _, query, key in key <= query } }
      let error = #expect(throws: AttentionError.self) { try runtime.step([.generation(1)]) }
      #expect("\(error!)".contains("looks at keys 0…15, which went back behind the window of 8 of layer 0"))
    }
    // Nothing went back of a prompt that comes whole.
    let runtime = try runtime(backend)
    runtime.mask = .full
    try runtime.step([.context(1, 60)])
    #expect(runtime.outputs[0][1]!.allSatisfy { $0.allSatisfy(\.isFinite) })
  }

  @Test("on a cache in the layout of another one", arguments: ["TRTLLM", "FLASHINFER"])
  func foreignLayout(backend: String) throws {
    let spec = AttentionLayerSpec(layerIndex: 0, numHeads: 4, headDim: 16, numKVHeads: 2)
    let runtime = try runtime(backend, spec)
    try runtime.step([.context(1, 20)])
    let manager = try #require(runtime.manager)
    let context = AttentionContext(device: runtime.device, kvCache: Self.cache, maxNumRequests: 4, maxNumTokens: 64, maxSequenceLength: 128)
    let vanilla = try AttentionLayer(spec, backend: VanillaAttention.self, in: context)
    #expect(vanilla.kvLayerSpec.layout != manager.layers[0].layout)
    let metadata = try vanilla.makeMetadata(AttentionMetadata.Setup(context: context, layers: [spec], kvCacheManager: manager))
    #expect(manager.extend(1, to: 21))
    metadata.addRequest(1, newTokens: 1, cachedTokens: 20, promptLength: 20, isContext: false)
    try metadata.prepare()
    let q = try runtime.device.makeTensor(Shape(1, spec.fusedWidth), .f32)
    let row = AttentionRuntime.row(layer: 0, id: 1, position: 20, width: spec.fusedWidth)
    for (column, value) in row.enumerated() { q.unsafeHostPointer(to: Float.self)![column] = value }
    let found = try vanilla.forward(q: q, metadata: metadata, on: runtime.queue).floats
    try runtime.step([.generation(1)])
    for (value, wanted) in zip(found, runtime.outputs[0][1]!.last!) { #expect(abs(value - wanted) < 1e-5) }
  }

  @Test("that a query which is no number has no answer", arguments: AttentionBackendRegistry.builtIn.names)
  func notANumber(backend: String) throws {
    let runtime = try runtime(backend)
    runtime.poison = { _, position in position == 3 ? .nan : nil }
    try runtime.step([.context(1, 4)])
    let (outputs, sums) = (runtime.outputs[0][1]!, runtime.logSumExps[0][1]!)
    for row in 0..<3 { #expect(outputs[row].allSatisfy(\.isFinite) && sums[row].allSatisfy(\.isFinite)) }
    #expect(outputs[3].allSatisfy(\.isNaN) && sums[3].allSatisfy(\.isNaN))
  }
}
