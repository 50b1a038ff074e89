// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CExampleAttention
import MartletAttention
import MartletCore

/// An attention backend from outside the house: NHD pages of float32 or bf16, one small C kernel, one thread.
///
/// It fuses nothing, so `AttentionLayer` hands it queries, keys and values apart, normalised and rotated already. It plans nothing, so its
/// metadata only says how pages look in a step without a cache.
final class ExampleAttention: AttentionBackend {
  final class Metadata: AttentionMetadata {
    override class func stepLayout(for layer: AttentionLayerSpec, in context: AttentionContext) -> KVLayout? {
      ExampleAttention.kvLayout(for: layer, in: context)
    }
  }

  static let name = "EXAMPLE"

  private let layer: AttentionLayerSpec
  private let scores: HostBuffer<Float>

  static func capabilities(on device: any Device) -> AttentionCapabilities { [] }

  /// What the kernel cannot do is said here, in words, and nowhere else.
  static func obstacles(to layer: AttentionLayerSpec, in context: AttentionContext) -> [String] {
    var reasons: [String] = []
    let type = context.kvDataType(of: layer)
    if type != .f32 && type != .bf16 { reasons.append("it reads f32 and bf16 pages, not \(type); choose one of these") }
    if layer.positionalEmbedding?.kind == .deferred { reasons.append("it caches rotated keys only") }
    if !context.isHostAddressable { reasons.append("it computes on the host, which cannot reach the memory of \(context.device.name)") }
    return reasons
  }

  static func kvLayout(for layer: AttentionLayerSpec, in context: AttentionContext) -> KVLayout {
    .nhd(
      dataType: context.kvDataType(of: layer), pageSize: context.pageSize, numKVHeads: layer.numKVHeads, headDim: layer.headDim,
      valueHeadDim: layer.valueHeadDim)
  }

  init(_ layer: AttentionLayerSpec, in context: AttentionContext) throws {
    self.layer = layer
    scores = try context.device.makeHostBuffer(of: Float.self, count: context.maxSequenceLength)
  }

  func forward(_ inputs: AttentionInputs, metadata: Metadata, output: AttentionOutput, on queue: any DeviceQueue) throws {
    queue.wait()  // everything below runs on this thread, at once
    let cache = metadata.cache(ofLayer: layer.layerIndex)
    var pages = example_cache(
      pages: pointer(cache.pages.buffer.hostAddress.map { ($0 + cache.pages.byteOffset).assumingMemoryBound(to: UInt8.self) }),
      page_bytes: Int64(cache.layout.pageByteCount), values_offset: Int64(cache.layout.valuesByteOffset),
      page_table: elements(cache.pageTable, as: Int32.self), table_width: Int32(cache.pageTable.shape[1]),
      page_size: Int32(cache.layout.pageSize), kv_heads: Int32(layer.numKVHeads), head_dim: Int32(layer.headDim),
      value_head_dim: Int32(layer.valueHeadDim), is_bf16: cache.layout.dataType == .bf16)

    let queries: Tensor
    switch inputs.form {
    case .separate(let q, let k, let v):
      queries = q
      let appended = metadata.raggedKV
      example_append(
        &pages, elements(k, as: Float.self), elements(v, as: Float.self), elements(appended.tokenRequests, as: Int32.self),
        elements(appended.tokenPositions, as: Int32.self), elements(appended.kvLens, as: Int32.self), Int32(appended.numTokens))
    case .queriesOnly(let q): queries = q
    case .fused: preconditionFailure("EXAMPLE does not fuse QKV, so AttentionLayer splits it")
    case .latent: preconditionFailure("EXAMPLE does not serve latent attention, so AttentionLayer refuses it")
    }

    let ragged = metadata.ragged
    let bits = inputs.mask == .custom ? metadata.maskBits : nil
    var arguments = example_attend_arguments(
      queries: elements(queries, as: Float.self), output: elements(output.values, as: Float.self),
      log_sum_exp: output.logSumExp.map { elements($0, as: Float.self) }, query_indptr: elements(ragged.queryIndptr, as: Int32.self),
      kv_lens: elements(ragged.kvLens, as: Int32.self), sinks: layer.sinks.map { UnsafePointer(elements($0, as: Float.self)) },
      mask_words: bits.map { UnsafePointer(elements($0.words, as: Int32.self)) },
      mask_offsets: bits.map { UnsafePointer(elements($0.offsets, as: Int32.self)) }, requests: Int32(ragged.numRequests),
      heads: Int32(layer.numHeads), window: inputs.mask == .full ? 0 : Int32(layer.window ?? 0), scale: layer.scale,
      soft_cap: layer.softCap ?? 0, causal: inputs.mask != .full && inputs.mask != .bidirectional,
      scores: scores.unsafeStorage.baseAddress)
    example_attend(&pages, &arguments)
  }

  /// The door from a tensor to C: the host's address of its first element, which lives as long as the tensor.
  private func elements<Element: BitwiseCopyable>(_ tensor: Tensor, as type: Element.Type) -> UnsafeMutablePointer<Element> {
    pointer(tensor.unsafeHostPointer(to: type)?.baseAddress)
  }

  private func pointer<Pointee>(_ address: UnsafeMutablePointer<Pointee>?) -> UnsafeMutablePointer<Pointee> {
    guard let address else { preconditionFailure("the host cannot reach a tensor; obstacles(to:in:) should have said so") }
    return address
  }
}
