// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore
import MartletKVCache

/// FlashInfer's contract: pages in its layouts (HND or NHD) and compressed page tables, a plan for each distinct layer shape, then for each
/// layer an append to the pages and attention in chunks whose states are merged.
///
/// Chunks lie at absolute positions, so a row's result does not depend on the plan. Where requests share a prefix, chunks of it are read once
/// for all of them (a cascade). Rotation, q/k norm and quantisation are part of the append; output is float32, which ``AttentionLayer`` rounds
/// where a layer wants e4m3.
public final class FlashInferAttention: AttentionBackend {
  /// Holds the compressed tables and the plans.
  public typealias Metadata = FlashInferMetadata

  /// The order of a page's elements.
  public enum Layout: Sendable, Hashable, CaseIterable {
    /// `[token][head][dim]`.
    case nhd
    /// `[head][token][dim]`.
    case hnd
  }

  public static let name = "FLASHINFER"

  private let attention: PagedAttention

  public static func capabilities(on device: any Device) -> AttentionCapabilities {
    [.fusedQKV, .fusedRoPE, .fusedHeadNorm, .latentAttention, .mrope]
  }

  public static func obstacles(to layer: AttentionLayerSpec, in context: AttentionContext) -> [String] {
    PagedAttention.obstacles(to: layer, layout: { kvLayout(for: layer, in: context) }, in: context)
  }

  public static func kvLayout(for layer: AttentionLayerSpec, in context: AttentionContext) -> KVLayout {
    layout(layer, context.kvDataType(of: layer), pageSize: context.kvCache == nil ? context.stepPageSize : context.pageSize, in: context)
  }

  static func layout(_ layer: AttentionLayerSpec, _ dataType: DataType, pageSize: Int, in context: AttentionContext) -> KVLayout {
    if let latent = layer.latentLayout(dataType, pageSize: pageSize) { return latent }
    let (heads, dim, valueDim) = (layer.numKVHeads, layer.headDim, layer.valueHeadDim)
    return switch context.flashInferLayout {
    case .nhd: .nhd(dataType: dataType, pageSize: pageSize, numKVHeads: heads, headDim: dim, valueHeadDim: valueDim)
    case .hnd: .hnd(dataType: dataType, pageSize: pageSize, numKVHeads: heads, headDim: dim, valueHeadDim: valueDim)
    }
  }

  public init(_ layer: AttentionLayerSpec, in context: AttentionContext) throws {
    attention = try PagedAttention(layer, in: context)
  }

  public func forward(
    _ inputs: AttentionInputs, metadata: FlashInferMetadata, output: AttentionOutput, on queue: any DeviceQueue
  ) throws {
    let layer = attention.layer
    guard let work = metadata.work(for: layer, mask: inputs.mask) else {
      throw AttentionError.invalidStep("no plan for the mask \(inputs.mask); name it in AttentionMetadata.Setup.masks")
    }
    let queries = try appendPagedKVCache(inputs, metadata: metadata, on: queue)
    attention.attend(
      queries, mask: inputs.mask, outputScale: inputs.outputScale, cache: metadata.cache(ofLayer: layer.layerIndex), work: work,
      metadata: metadata, output: output, on: queue)
  }

  /// Appends the step's keys and values to the layer's pages, normalised, rotated and quantised, and finishes its queries.
  ///
  /// A token's place is its entry in `batchIndices` and `positions`. The kernels are handed the metadata's `raggedKV`, which holds the same
  /// places, and skip dummies by their length.
  /// - Returns: the queries that attention reads, `[numTokens, numHeads·headDim]`.
  func appendPagedKVCache(
    _ inputs: AttentionInputs, metadata: FlashInferMetadata, on queue: any DeviceQueue
  ) throws -> Tensor {
    try attention.append(
      attention.inputs(inputs, metadata), tokens: metadata.raggedKV, cache: metadata.cache(ofLayer: attention.layer.layerIndex),
      metadata: metadata, on: queue)
  }
}
