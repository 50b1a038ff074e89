// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Choosing a backend by name, hearing in words what it cannot do, and adding one's own.

import MartletAttention
import MartletCPU
import MartletCore
import MartletKVCache
import Testing

@Suite("Attention backends")
struct AttentionBackendTests {
  private func context(_ pageSize: KVCacheConfig.PageSize = .tokens(32), type: DataType = .bf16) throws -> AttentionContext {
    AttentionContext(
      device: try CPUDevice(threads: 1),
      kvCache: KVCacheConfig(dataType: type, pageSize: pageSize),
      maxNumRequests: 2, maxNumTokens: 64, maxSequenceLength: 128)
  }

  @Test("are found by name in any case, and unknown names list the known ones")
  func registry() throws {
    let registry = AttentionBackendRegistry.builtIn
    #expect(try registry.backend(named: "trtllm") == TrtllmAttention.self)
    #expect(try registry.backend(named: "FlashInfer") == FlashInferAttention.self)
    #expect(try registry.backend(named: "Vanilla") == VanillaAttention.self)
    let error = #expect(throws: AttentionError.self) { try registry.backend(named: "FLASH") }
    #expect("\(error!)" == "attention backend \"FLASH\" is unknown (known: TRTLLM, FLASHINFER, VANILLA)")
    let extended = registry.adding(DoublingAttention.self)
    #expect(try extended.backend(named: "doubling") == DoublingAttention.self)
    #expect(registry.names == ["TRTLLM", "FLASHINFER", "VANILLA"])
    #expect(extended.adding(DoublingAttention.self).names == ["TRTLLM", "FLASHINFER", "VANILLA", "Doubling"])
  }

  @Test("say in words what they cannot serve, before anything is made")
  func obstacles() throws {
    func trtllm(_ spec: AttentionLayerSpec, _ context: AttentionContext) -> String {
      TrtllmAttention.obstacles(to: spec, in: context).joined(separator: "; ")
    }
    let plain = AttentionLayerSpec(layerIndex: 5, numHeads: 4, headDim: 64, numKVHeads: 2)
    var odd = plain
    odd.headDim = 63
    #expect(trtllm(plain, try context()).isEmpty)
    #expect(trtllm(odd, try context()).contains("multiple of 2, not 63"))
    for backend in [TrtllmAttention.self, FlashInferAttention.self] as [any AttentionBackend.Type] {
      #expect(backend.obstacles(to: plain, in: try context(.linear)).joined().contains("not a linear cache"))
    }
    #expect(trtllm(plain, try context(.tokens(8))).contains("at least 16 tokens, not 8"))
    #expect(FlashInferAttention.obstacles(to: plain, in: try context(.tokens(1))).isEmpty)
    let noCache = AttentionContext(device: try CPUDevice(threads: 1), kvCache: nil, maxNumRequests: 1, maxNumTokens: 1)
    for backend in AttentionBackendRegistry.builtIn.backends {
      #expect(backend.obstacles(to: plain, in: noCache).isEmpty, "\(backend.name) runs without a cache")
    }
    let error = #expect(throws: AttentionError.self) { try AttentionLayer(plain, backend: TrtllmAttention.self, in: try context(.linear)) }
    #expect("\(error!)".contains("TRTLLM cannot serve layer 5") && "\(error!)".contains("linear"))

    let row = try CPUDevice(threads: 1).makeTensor(Shape(1, 4), .f32)
    for (change, word) in [
      ({ $0.scale = 0 }, "scale of scores must be above 0, not 0"), ({ $0.scale = -1 }, "scale of scores"),
      ({ $0.scale = .nan }, "scale of scores"), ({ $0.softCap = 0 }, "soft cap must be above 0"), ({ $0.softCap = .nan }, "soft cap"),
      ({ $0.sinks = row }, "one f32 for each of 4 heads"),
      ({ $0.positionalEmbedding = PositionalEmbeddingParams(RopeParams(dim: 128)) }, "128 rotated dims"),
      ({ $0.positionalEmbedding = PositionalEmbeddingParams(RopeParams(dim: 63)) }, "even number"),
      ({ $0.quantConfig = QuantConfig(kvCacheDataType: .i32) }, "i32"),
      ({ $0.quantConfig = QuantConfig(fp8Inputs: true) }, "FP8 inputs go with an e4m3 cache"),
    ] as [((inout AttentionLayerSpec) -> Void, String)] {
      var spec = plain
      change(&spec)
      #expect(VanillaAttention.obstacles(to: spec, in: try context()).joined().contains(word))
      #expect(trtllm(spec, try context()).contains(word))
      #expect(FlashInferAttention.obstacles(to: spec, in: try context()).joined().contains(word))
    }
    #expect(VanillaAttention.obstacles(to: plain, in: try context(.linear)).isEmpty)
  }

  @Test("refuse another backend's metadata by name")
  func foreignMetadata() throws {
    let context = try context()
    let spec = AttentionLayerSpec(layerIndex: 0, numHeads: 4, headDim: 64)
    let layer = try AttentionLayer(spec, backend: VanillaAttention.self, in: context)
    let metadata = try AttentionMetadata(AttentionMetadata.Setup(context: context, layers: [spec], kvCacheManager: nil))
    metadata.addRequest(0, newTokens: 1, cachedTokens: 0, promptLength: 1, isContext: true)
    try metadata.prepare()
    let q = try context.device.makeTensor(Shape(1, spec.fusedWidth), .f32)
    let error = #expect(throws: AttentionError.self) { try layer.forward(q: q, metadata: metadata, on: context.device.makeQueue()) }
    #expect(error == .foreignMetadata(backend: "VANILLA", expected: "VanillaMetadata", found: "AttentionMetadata"))
  }

  @Test("with queries alone read what the cache holds", arguments: AttentionBackendRegistry.builtIn.names)
  func queriesOnly(backend: String) throws {
    let spec = AttentionLayerSpec(
      layerIndex: 0, numHeads: 4, headDim: 64, numKVHeads: 2, positionalEmbedding: PositionalEmbeddingParams(RopeParams(dim: 64)))
    let bench = try AttentionRuntime(
      backend, [spec], cache: KVCacheConfig(dataType: .f32, pageSize: .tokens(16)), maxSequenceLength: 64, maxSequences: 1)
    bench.describe([.context(1, 21)])
    try bench.metadata.prepare()
    let all = try bench.device.makeTensor(Shape(21, spec.fusedWidth), .f32)
    for position in 0..<21 {
      for (column, value) in AttentionRuntime.row(layer: 0, id: 1, position: position, width: spec.fusedWidth).enumerated() {
        all.unsafeHostPointer(to: Float.self)![position * spec.fusedWidth + column] = value
      }
    }
    let layer = bench.layers[0]
    let first = try layer.forward(q: all, metadata: bench.metadata, on: bench.queue)
    let queries = try bench.device.makeTensor(Shape(21, spec.queryWidth), .f32)
    for position in 0..<21 {
      for column in 0..<spec.queryWidth {
        queries.unsafeHostPointer(to: Float.self)![position * spec.queryWidth + column] =
          all.unsafeHostPointer(to: Float.self)![position * spec.fusedWidth + column]
      }
    }
    let before = try bench.manager!.read(layer: 0, request: 1, on: bench.queue)
    let second = try layer.forward(q: queries, metadata: bench.metadata, on: bench.queue)
    func bits(_ tensor: Tensor) -> [UInt32] { tensor.unsafeHostPointer(to: Float.self)!.map(\.bitPattern) }
    #expect(bits(first) == bits(second))
    #expect(try bench.manager!.read(layer: 0, request: 1, on: bench.queue) == before)
  }

  @Test("of one's own are a class and one line")
  func ownBackend() throws {
    let context = try context(type: .f32)
    let spec = AttentionLayerSpec(layerIndex: 0, numHeads: 2, headDim: 16)
    let type = try AttentionBackendRegistry.builtIn.adding(DoublingAttention.self).backend(named: "DOUBLING")
    let layer = try AttentionLayer(spec, backend: type, in: context)
    let metadata = try layer.makeMetadata(AttentionMetadata.Setup(context: context, layers: [spec], kvCacheManager: nil))
    metadata.addRequest(0, newTokens: 2, cachedTokens: 0, promptLength: 2, isContext: true)
    try metadata.prepare()
    let qkv = try context.device.makeTensor(Shape(2, spec.fusedWidth), .f32)
    for index in 0..<qkv.count { qkv.unsafeHostPointer(to: Float.self)![index] = Float(index) }
    let output = try layer.forward(q: qkv, metadata: metadata, on: context.device.makeQueue())
    // Values are the last 32 columns of 96.
    let expected = [64..<96, 160..<192].joined().map { Float(2 * $0) }
    #expect(Array(output.unsafeHostPointer(to: Float.self)!) == expected)
  }

  @Test("refuse tensors of another shape or type with an error that names the layer and both shapes", arguments: [true, false])
  func wrongTensors(isFused: Bool) throws {
    let context = try context(type: .f32)
    let spec = AttentionLayerSpec(layerIndex: 3, numHeads: 2, headDim: 16)
    // One backend reads fused inputs as they are, the other has the layer split them.
    let type = try AttentionBackendRegistry.builtIn.backend(named: isFused ? "TRTLLM" : "VANILLA")
    let layer = try AttentionLayer(spec, backend: type, in: context)
    let manager = try KVCacheManager(layers: [layer.kvLayerSpec], in: context)
    #expect(manager.addSequence(0) && manager.extend(0, to: 2))
    let metadata = try layer.makeMetadata(
      AttentionMetadata.Setup(context: context, layers: [spec], kvCacheManager: manager, queue: manager.queue))
    metadata.addRequest(0, newTokens: 2, cachedTokens: 0, promptLength: 2, isContext: true)
    try metadata.prepare()
    func tensor(_ rows: Int, _ columns: Int, _ type: DataType = .f32) throws -> Tensor {
      try context.device.makeTensor(Shape(rows, columns), type)
    }
    let q = try tensor(2, 32)
    func refused(_ words: [String], _ body: () throws -> Void) {
      let error = #expect(throws: AttentionError.self, performing: body)
      let said = error.map { "\($0)" } ?? "nothing"
      for word in ["layer 3"] + words { #expect(said.contains(word), "\(said)") }
    }
    refused(["keys without values"]) { _ = try layer.forward(q: q, k: q, metadata: metadata, on: manager.queue) }
    refused(["keys without values"]) { _ = try layer.forward(q: q, v: q, metadata: metadata, on: manager.queue) }
    refused(["input", "[1, 96]", "[2, 96]"]) { _ = try layer.forward(q: tensor(1, 96), metadata: metadata, on: manager.queue) }
    refused(["input", "[2, 96] bf16"]) { _ = try layer.forward(q: tensor(2, 96, .bf16), metadata: metadata, on: manager.queue) }
    refused(["input", "[2, 31]", "[2, 32]"]) { _ = try layer.forward(q: q, k: tensor(2, 31), v: q, metadata: metadata, on: manager.queue) }
    refused(["input", "[1, 32]", "[2, 32]"]) { _ = try layer.forward(q: q, k: q, v: tensor(1, 32), metadata: metadata, on: manager.queue) }
    let inputs = AttentionInputs(q: q, k: q, v: q)
    refused(["output", "[1, 32]", "2 tokens"]) {
      try layer.forward(inputs, metadata: metadata, output: AttentionOutput(values: tensor(1, 32)), on: manager.queue)
    }
    refused(["log-sum-exps", "2 heads"]) {
      try layer.forward(
        inputs, metadata: metadata, output: AttentionOutput(values: tensor(2, 32), logSumExp: tensor(2, 1)), on: manager.queue)
    }
    // What was refused has changed nothing: the step still runs.
    _ = try layer.forward(q: q, k: q, v: q, metadata: metadata, on: manager.queue)
  }
}

/// A backend from outside: every head's output is twice its own value.
private final class DoublingAttention: AttentionBackend {
  typealias Metadata = AttentionMetadata
  static let name = "Doubling"
  private let layer: AttentionLayerSpec

  static func capabilities(on device: any Device) -> AttentionCapabilities { [] }
  static func obstacles(to layer: AttentionLayerSpec, in context: AttentionContext) -> [String] { [] }
  static func kvLayout(for layer: AttentionLayerSpec, in context: AttentionContext) -> KVLayout {
    .hnd(
      dataType: context.kvDataType(of: layer), pageSize: context.pageSize, numKVHeads: layer.numKVHeads, headDim: layer.headDim,
      valueHeadDim: layer.valueHeadDim)
  }

  init(_ layer: AttentionLayerSpec, in context: AttentionContext) throws { self.layer = layer }

  func forward(_ inputs: AttentionInputs, metadata: AttentionMetadata, output: AttentionOutput, on queue: any DeviceQueue) throws {
    guard case .separate(_, _, let v) = inputs.form else { preconditionFailure("the layer splits fused inputs") }
    let source = v.unsafeHostPointer(to: Float.self)!
    let target = output.values.unsafeHostPointer(to: Float.self)!
    for index in 0..<metadata.numTokens * layer.outputWidth { target[index] = 2 * source[index] }
  }
}
