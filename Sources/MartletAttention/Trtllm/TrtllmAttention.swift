// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore
import MartletKVCache

/// The default and fastest backend: packed pages, and two kernel calls per layer.
///
/// `append` takes queries, keys and values, side by side or apart, through q/k norm, rotation, rounding or quantisation and the store into
/// pages in one pass; `attend` reads packed pages with all query heads of a key/value head as the rows of one tile. The work was planned in
/// `TrtllmMetadata.prepare()`. A step without a cache runs through pages of its own: one arithmetic.
public final class TrtllmAttention: AttentionBackend {
  /// Holds one work plan for each distinct layer shape and mask.
  public typealias Metadata = TrtllmMetadata

  public static let name = "TRTLLM"

  private let attention: PagedAttention

  public static func capabilities(on device: any Device) -> AttentionCapabilities {
    [
      .fusedQKV, .fusedRoPE, .fusedHeadNorm, .fp8Output, .latentAttention, .mrope,
    ]
  }

  public static func obstacles(to layer: AttentionLayerSpec, in context: AttentionContext) -> [String] {
    var reasons: [String] = []
    let type = context.kvDataType(of: layer)
    let group = 4 / type.byteCount
    if layer.mla == nil && layer.headDim % group != 0 {
      reasons.append("packed pages of \(type) need a head dimension that is a multiple of \(group), not \(layer.headDim)")
    }
    if case .tokens(let count)? = context.kvCache?.pageSize, count < 16 {
      reasons.append("its pages hold at least 16 tokens, not \(count); raise the page size")
    }
    // Only a shape that can be packed has a packed layout.
    if !reasons.isEmpty { return layer.generalObstacles(in: context) + reasons }
    return PagedAttention.obstacles(to: layer, layout: { kvLayout(for: layer, in: context) }, in: context)
  }

  public static func kvLayout(for layer: AttentionLayerSpec, in context: AttentionContext) -> KVLayout {
    let type = context.kvDataType(of: layer), pageSize = context.kvCache == nil ? context.stepPageSize : context.pageSize
    // Keys want neighbouring dims in a lane, values neighbouring tokens: what is both lies as neither wants it.
    return layer.latentLayout(type, pageSize: pageSize)
      ?? .packed(
        dataType: type, pageSize: pageSize, numKVHeads: layer.numKVHeads, headDim: layer.headDim, valueHeadDim: layer.valueHeadDim)
  }

  public init(_ layer: AttentionLayerSpec, in context: AttentionContext) throws {
    attention = try PagedAttention(layer, in: context)
  }

  public func forward(
    _ inputs: AttentionInputs, metadata: TrtllmMetadata, output: AttentionOutput, on queue: any DeviceQueue
  ) throws {
    let layer = attention.layer
    guard let work = metadata.work(AttentionPlanKey(layer, mask: inputs.mask)) else {
      throw AttentionError.invalidStep("no plan for the mask \(inputs.mask); name it in AttentionMetadata.Setup.masks")
    }
    let cache = metadata.cache(ofLayer: layer.layerIndex)
    let queries = try attention.append(
      attention.inputs(inputs, metadata), tokens: metadata.raggedKV, cache: cache, metadata: metadata, on: queue)
    attention.attend(
      queries, mask: inputs.mask, outputScale: inputs.outputScale, cache: cache, work: work, metadata: metadata, output: output, on: queue)
  }
}
