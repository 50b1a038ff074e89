// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore

/// One way of computing attention: one object per layer, made with the model, called once per layer and step.
///
/// ``forward(_:metadata:output:on:)`` appends the step's keys and values to the cache *and* attends, in one call. What can be planned for all
/// layers at once belongs in the backend's `Metadata`.
///
/// Every backend keeps the same rules, which the test kit checks:
/// - a sequence's key/value length is what was cached plus the step's new tokens; page tables count the new tokens already;
/// - with a cache, keys and values are read only as stored (rounded), this step's tokens included;
/// - masks, windows, soft caps and sinks mean what ``AttentionLayerSpec`` and ``AttentionMask`` say;
/// - a row's result depends on that row alone: not on the batch, the chunking, the page size or the number of threads.
///
/// ## Conforming
/// Say in ``capabilities(on:)`` what the backend fuses; ``AttentionLayer`` does the rest before it calls `forward`: it splits or joins QKV,
/// normalises and rotates. Say in ``obstacles(to:in:)`` what the backend cannot serve; nothing may fail later that could be told there.
/// Then add the type to an ``AttentionBackendRegistry``.
public protocol AttentionBackend: AnyObject, SendableMetatype {
  /// What the backend prepares once per step.
  associatedtype Metadata: AttentionMetadata

  /// The name it is chosen by, in any case: "VANILLA", "TRTLLM".
  static var name: String { get }

  /// What the backend itself does in one pass on this device.
  static func capabilities(on device: any Device) -> AttentionCapabilities

  /// Why this backend cannot serve this layer here, in words that name the way out; empty when it can. Asked at construction.
  static func obstacles(to layer: AttentionLayerSpec, in context: AttentionContext) -> [String]

  /// The page layout that the backend wants for this layer.
  static func kvLayout(for layer: AttentionLayerSpec, in context: AttentionContext) -> KVLayout

  /// - Precondition: ``obstacles(to:in:)`` is empty.
  init(_ layer: AttentionLayerSpec, in context: AttentionContext) throws

  /// Appends the step's keys and values to the layer's pages and writes the attention of the step's queries to `output`.
  /// - Precondition: `metadata` was prepared for this step, and the layer is one of its layers.
  func forward(_ inputs: AttentionInputs, metadata: Metadata, output: AttentionOutput, on queue: any DeviceQueue) throws
}

extension AttentionBackend {
  /// Spells the arguments as TensorRT-LLM does.
  public init(
    layerIndex: Int, numHeads: Int, headDim: Int, numKVHeads: Int? = nil, quantConfig: QuantConfig? = nil,
    positionalEmbedding: PositionalEmbeddingParams? = nil, in context: AttentionContext
  ) throws {
    try self.init(
      AttentionLayerSpec(
        layerIndex: layerIndex, numHeads: numHeads, headDim: headDim, numKVHeads: numKVHeads, quantConfig: quantConfig,
        positionalEmbedding: positionalEmbedding),
      in: context)
  }
}
