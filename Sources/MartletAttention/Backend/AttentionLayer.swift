// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore
public import MartletKVCache

/// One layer's attention as a model holds it: a backend of any kind behind one type.
///
/// It erases the backend's metadata type and does what the backend does not: it splits fused QKV, normalises, rotates, and rounds the output
/// to e4m3.
public final class AttentionLayer {
  /// The layer as the model described it.
  public let spec: AttentionLayerSpec
  /// The backend's name.
  public let backendName: String
  /// What the key/value cache must know of this layer.
  public let kvLayerSpec: KVLayerSpec

  private let device: any Device
  private let run: (AttentionInputs, AttentionMetadata, AttentionOutput, any DeviceQueue) throws -> Void
  private let metadataMaker: (AttentionMetadata.Setup) throws -> AttentionMetadata

  /// Makes the backend's object for a layer.
  /// - Throws: ``AttentionError/Code/obstacles`` where the backend cannot serve it.
  public init<Backend: AttentionBackend>(_ spec: AttentionLayerSpec, backend: Backend.Type, in context: AttentionContext) throws {
    let obstacles = Self.obstacles(to: spec, backend: backend, in: context)
    guard obstacles.isEmpty else {
      throw AttentionError.obstacles(backend: Backend.name, layer: spec.layerIndex, reasons: obstacles)
    }
    var spec = spec
    spec.quantConfig = context.quantConfig(of: spec)
    let adapter = AttentionInputAdapter(spec, capabilities: Backend.capabilities(on: context.device))
    let roundsOutput = spec.quantConfig?.fp8Output == true && !Backend.capabilities(on: context.device).contains(.fp8Output)
    let rope = try spec.positionalEmbedding.map { try context.ropeTable($0) }
    let object = try Backend(spec, in: context)
    self.spec = spec
    device = context.device
    backendName = Backend.name
    kvLayerSpec = KVLayerSpec(layout: Backend.kvLayout(for: spec, in: context), window: spec.window)
    run = { inputs, metadata, output, queue in
      guard let metadata = metadata as? Backend.Metadata else {
        throw AttentionError.foreignMetadata(
          backend: Backend.name, expected: "\(Backend.Metadata.self)", found: "\(type(of: metadata))")
      }
      let adapted = try adapter.adapt(inputs, rope: rope, metadata: metadata, on: queue)
      if !roundsOutput { return try object.forward(adapted, metadata: metadata, output: output, on: queue) }
      let values = try metadata.workspace(.output, columns: spec.outputWidth)
      try object.forward(
        adapted, metadata: metadata, output: AttentionOutput(values: values, logSumExp: output.logSumExp), on: queue)
      queue.wait()
      Self.round(values, scale: inputs.outputScale, to: output.values, metadata)
    }
    metadataMaker = { try Backend.Metadata($0) }
  }

  /// Why a backend cannot serve a layer: what it says itself, and what it would leave to others who cannot do it. Empty where it can.
  package static func obstacles(to spec: AttentionLayerSpec, backend: any AttentionBackend.Type, in context: AttentionContext) -> [String] {
    var spec = spec
    spec.quantConfig = context.quantConfig(of: spec)
    let capabilities = backend.capabilities(on: context.device)
    var obstacles = backend.obstacles(to: spec, in: context)
    if AttentionInputAdapter(spec, capabilities: capabilities).computesOnHost && !context.isHostAddressable {
      obstacles.append("it leaves rotation or q/k norm to the host, which cannot reach the memory of \(context.device.name)")
    }
    if spec.quantConfig?.fp8Output == true && !capabilities.contains(.fp8Output) && !context.isHostAddressable {
      obstacles.append("it leaves FP8 output to the host, which cannot reach the memory of \(context.device.name)")
    }
    if spec.mla != nil && !capabilities.contains(.latentAttention) {
      obstacles.append("it does not serve latent attention, whose values are part of its keys")
    }
    if spec.positionalEmbedding?.mrope != nil && capabilities.contains(.fusedRoPE) && !capabilities.contains(.mrope) {
      obstacles.append("it rotates by one position a token, not by three")
    }
    return obstacles
  }

  /// The type of the output: e4m3 where the layer's `QuantConfig` has FP8 output.
  public var outputDataType: DataType { spec.quantConfig?.fp8Output == true ? .f8e4m3 : .f32 }

  /// Rounds output of a backend that leaves it to the layer. Rows of dummies stay as they were.
  private static func round(_ values: Tensor, scale: Float, to output: Tensor, _ metadata: AttentionMetadata) {
    guard let source = values.unsafeHostPointer(to: Float.self), let target = output.unsafeHostPointer(to: UInt8.self) else {
      fatalError("the host cannot reach the output that it is to round")
    }
    let columns = values.shape[1]
    for sequence in 0..<metadata.numSeqs where !metadata.isDummy(sequence) {
      for index in Int(metadata.queryIndptr[sequence]) * columns..<Int(metadata.queryIndptr[sequence + 1]) * columns {
        target[index] = Float8E4M3(saturating: source[index] * scale).bitPattern
      }
    }
  }

  /// The metadata that this layer's backend wants; one serves all layers of the same backend.
  public func makeMetadata(_ setup: AttentionMetadata.Setup) throws -> AttentionMetadata { try metadataMaker(setup) }

  /// Appends the step's keys and values to the cache and attends.
  ///
  /// Inputs may have more rows than the step has tokens; the rest is ignored.
  /// - Precondition: `metadata` was prepared for this step.
  /// - Throws: ``AttentionError``, where metadata, inputs or output are not as the layer needs them.
  public func forward(
    _ inputs: AttentionInputs, metadata: AttentionMetadata, output: AttentionOutput, on queue: any DeviceQueue
  ) throws {
    func check(_ holds: Bool, _ problem: @autoclosure () -> String) throws {
      if !holds { throw AttentionError.invalidTensor(layer: spec.layerIndex, problem: problem()) }
    }
    try check(
      output.values.dataType == outputDataType && output.values.count >= metadata.numTokens * spec.outputWidth,
      "an output of \(output.values.shape) \(output.values.dataType) for \(metadata.numTokens) tokens of \(spec.outputWidth) \(outputDataType)"
    )
    if let logSumExp = output.logSumExp {
      try check(
        logSumExp.dataType == .f32 && logSumExp.count >= metadata.numTokens * spec.numHeads,
        "log-sum-exps of \(logSumExp.shape) \(logSumExp.dataType) for \(metadata.numTokens) tokens of \(spec.numHeads) heads, in f32")
    }
    try metadata.validateUse(of: inputs.mask)
    try metadata.validatePages(of: spec, under: inputs.mask)
    try run(inputs, metadata, output, queue)
  }

  /// Spells the arguments as TensorRT-LLM does, and allocates the output `[numTokens, numHeads·valueHeadDim]`: for tests and experiments.
  ///
  /// With `k` and `v`, `q` holds queries; without, a fused QKV if it is as wide as one, else queries alone, which read the cache only.
  public func forward(
    q: Tensor, k: Tensor? = nil, v: Tensor? = nil, metadata: AttentionMetadata, mask: AttentionMask = .causal, on queue: any DeviceQueue
  ) throws -> Tensor {
    let output = try device.makeTensor(Shape(metadata.numTokens, spec.outputWidth), outputDataType)
    let inputs: AttentionInputs
    if let k, let v {
      inputs = AttentionInputs(q: q, k: k, v: v, mask: mask)
    } else {
      guard k == nil && v == nil else {
        throw AttentionError.invalidTensor(
          layer: spec.layerIndex, problem: "keys without values, or values without keys; give both or none")
      }
      inputs =
        q.shape.rank > 0 && q.shape[q.shape.rank - 1] == spec.fusedWidth
        ? AttentionInputs(fusedQKV: q, mask: mask) : AttentionInputs(queries: q, mask: mask)
    }
    try forward(inputs, metadata: metadata, output: AttentionOutput(values: output), on: queue)
    return output
  }
}
