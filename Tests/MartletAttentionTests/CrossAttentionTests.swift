// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Cross attention against float64: a decoder's queries over an encoder's keys, which come once and stay.

import MartletAttention
import MartletCPU
import MartletCore
import MartletKVCache
import Testing

@Suite("Cross attention")
struct CrossAttentionTests {
  /// Encoder lengths by decoder request; the encoder of request id has the rows of request id + 100.
  private static let encoders = [1: 70, 2: 33]
  private static let maxLength = 128

  private func tensor(_ device: CPUDevice, _ rows: [[Float]], _ columns: Range<Int>) throws -> Tensor {
    let tensor = try device.makeTensor(Shape(rows.count, columns.count), .f32)
    for (index, value) in rows.flatMap({ $0[columns] }).enumerated() { tensor.unsafeHostPointer(to: Float.self)![index] = value }
    return tensor
  }

  @Test(
    "computes every query over every key of its encoder, with a cache and without one", arguments: AttentionBackendRegistry.builtIn.names,
    [DataType.f32, .bf16, .i8, nil])
  func truth(backend: String, type: DataType?) throws {
    let device = try CPUDevice(threads: 1)
    let config = type.map { KVCacheConfig(dataType: $0, pageSize: .tokens(16)) }
    let context = AttentionContext(
      device: device, kvCache: config, maxNumRequests: 2, maxNumTokens: 16, maxSequenceLength: Self.maxLength, workerCount: 2)
    let spec = AttentionLayerSpec(
      layerIndex: 0, numHeads: 4, headDim: 32, numKVHeads: 2, positionalEmbedding: PositionalEmbeddingParams(RopeParams(dim: 32)))
    let layer = try AttentionLayer(spec, backend: AttentionBackendRegistry.builtIn.backend(named: backend), in: context)
    let manager = config == nil ? nil : try KVCacheManager(layers: [layer.kvLayerSpec], in: context)
    let queue = device.makeQueue()
    let metadata = try layer.makeMetadata(
      AttentionMetadata.Setup(
        context: context, layers: [spec], kvCacheManager: manager, maxNumKVTokens: 110, isCross: true, queue: queue))
    let pairDots = backend != "VANILLA" && (type == .bf16 || type == .i8) && device.instructionSet.name.contains("bf16")
    func row(_ id: Int, _ position: Int) -> [Float] { AttentionRuntime.row(layer: 0, id: id, position: position, width: spec.fusedWidth) }
    let reference = ReferenceAttention(
      spec, maxSequenceLength: Self.maxLength, queryType: pairDots ? .bf16 : .f32, isVisible: { _, _ in true })

    /// One step: so many queries of each request from a position on, with the encoder's keys or without.
    func step(_ queries: [(id: Int, first: Int, count: Int)], bringsEncoder: Bool) throws {
      metadata.removeAllRequests()
      let positions = try device.makeTensor(Shape(queries.reduce(0) { $0 + $1.count }), .i32)
      var keyRows: [[Float]] = []
      var queryRows: [[Float]] = []
      for (id, first, count) in queries {
        let encoder = Self.encoders[id]!
        if let manager, bringsEncoder { #expect(manager.addSequence(id) && manager.extend(id, to: encoder)) }
        metadata.addRequest(
          id, newTokens: count, newKVTokens: bringsEncoder ? encoder : 0, cachedTokens: bringsEncoder ? 0 : encoder, promptLength: 3,
          isContext: bringsEncoder)
        if bringsEncoder { keyRows += (0..<encoder).map { row(id + 100, $0) } }
        for position in first..<first + count {
          positions.unsafeHostPointer(to: Int32.self)![queryRows.count] = Int32(position)
          queryRows.append(row(id, position))
        }
      }
      metadata.positionIDs = positions
      try metadata.prepare()
      let q = try tensor(device, queryRows, 0..<spec.queryWidth)
      var inputs = AttentionInputs(queries: q, mask: .full)
      if bringsEncoder {
        let k = try tensor(device, keyRows, spec.queryWidth..<spec.queryWidth + spec.keyWidth)
        let v = try tensor(device, keyRows, spec.queryWidth + spec.keyWidth..<spec.fusedWidth)
        inputs = AttentionInputs(q: q, k: k, v: v, mask: .full)
      }
      let output = try device.makeTensor(Shape(queryRows.count, spec.outputWidth), .f32)
      try layer.forward(inputs, metadata: metadata, output: AttentionOutput(values: output), on: queue)
      queue.wait()
      var token = 0
      for (id, first, count) in queries {
        let encoder = Self.encoders[id]!
        var keys = (0..<encoder).map { reference.keys(id: id + 100, position: $0) }
        var values = (0..<encoder).map { reference.values(id: id + 100, position: $0) }
        if let manager {
          let stored = try manager.read(layer: 0, request: id, on: queue)
          func heads(_ flat: [Float], _ position: Int) -> [[Double]] {
            (0..<2).map { head in (0..<32).map { Double(flat[(position * 2 + head) * 32 + $0]) } }
          }
          // As stored: rounded, and rotated by their own positions.
          let step = type == .i8 ? 0.02 : type == .bf16 ? 0.008 * 4 : 1e-5
          for position in 0..<encoder {
            #expect(zip(heads(stored.keys, position).joined(), keys[position].joined()).allSatisfy { abs($0 - $1) <= step })
          }
          keys = (0..<encoder).map { heads(stored.keys, $0) }
          values = (0..<encoder).map { heads(stored.values, $0) }
        }
        for position in first..<first + count {
          let truth = reference.attend(id: id, position: position, keys: keys, values: values)
          // As in AttentionTruthTests: float32 sums, or probabilities rounded to bf16.
          #expect(distance(output.rows(token..<token + 1).floats, truth.output) < (pairDots ? 7e-3 : 5e-5), "request \(id) at \(position)")
          token += 1
        }
      }
      if let manager { for (id, _, _) in queries { manager.computed(id, upTo: Self.encoders[id]!) } }
    }
    try step([(1, 0, 3), (2, 0, 1)], bringsEncoder: true)
    if manager == nil { return }
    // More queries than one, too, and more than there could be in a causal order of their own.
    try step([(1, 3, 1), (2, 1, 1)], bringsEncoder: false)
    try step([(2, 2, 5), (1, 4, 9)], bringsEncoder: false)
  }
}
