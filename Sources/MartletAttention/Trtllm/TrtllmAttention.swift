// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore
import MartletKVCache

/// The default and fastest backend: packed pages, and two kernel calls per layer.
///
/// `append` takes one fused QKV input through q/k norm, rotation, rounding and the store into pages in one pass; `attend` reads packed pages
/// with all query heads of a key/value head as the rows of one tile. The work was planned in `TrtllmMetadata.prepare()`.
public final class TrtllmAttention: AttentionBackend {
  /// Holds one work plan for each distinct layer shape and mask.
  public typealias Metadata = TrtllmMetadata

  public static let name = "TRTLLM"

  private let layer: AttentionLayerSpec
  private let kernels: any AttentionKernels
  private let rope: RopeTable?
  private let causalKey: AttentionPlanKey
  private let fullKey: AttentionPlanKey

  public static func capabilities(on device: any Device) -> AttentionCapabilities { [.fusedQKV, .fusedRoPE, .fusedHeadNorm] }

  public static func obstacles(to layer: AttentionLayerSpec, in context: AttentionContext) -> [String] {
    var reasons = layer.generalObstacles(in: context)
    guard let cache = context.kvCache else {
      return reasons + ["it needs a key/value cache; choose VANILLA for models without one"]
    }
    if cache.pageSize == .linear { reasons.append("it reads pages, not a linear cache; give a page size, or choose VANILLA") }
    let pageSize = context.pageSize
    if cache.pageSize != .linear && pageSize < 16 {
      reasons.append("its pages hold at least 16 tokens, not \(pageSize); raise the page size")
    }
    if layer.softCap != nil { reasons.append("its kernels have no soft cap; choose VANILLA") }
    if layer.sinks != nil { reasons.append("its kernels have no attention sinks; choose VANILLA") }
    if layer.positionalEmbedding?.kind == .deferred { reasons.append("it caches rotated keys only; choose VANILLA for deferred rotation") }
    let type = context.kvDataType(of: layer)
    let group = 4 / type.byteCount
    if layer.headDim % group != 0 {
      reasons.append("packed pages of \(type) need a head dimension that is a multiple of \(group), not \(layer.headDim)")
    }
    if !reasons.isEmpty { return reasons }
    return context.device.attentionKernels.obstacles(layout: kvLayout(for: layer, in: context), numHeads: layer.numHeads)
  }

  public static func kvLayout(for layer: AttentionLayerSpec, in context: AttentionContext) -> KVLayout {
    .packed(
      dataType: context.kvDataType(of: layer), pageSize: context.pageSize, numKVHeads: layer.numKVHeads, headDim: layer.headDim,
      valueHeadDim: layer.valueHeadDim)
  }

  public init(_ layer: AttentionLayerSpec, in context: AttentionContext) throws {
    self.layer = layer
    kernels = context.device.attentionKernels
    rope = try layer.positionalEmbedding.map { try context.ropeTable($0) }
    causalKey = AttentionPlanKey(layer, mask: .causal)
    fullKey = AttentionPlanKey(layer, mask: .full)
  }

  public func forward(
    _ inputs: AttentionInputs, metadata: TrtllmMetadata, output: AttentionOutput, on queue: any DeviceQueue
  ) throws {
    let key = inputs.mask == .full ? fullKey : causalKey
    guard inputs.mask != .custom else {
      throw AttentionError.invalidStep("the TRTLLM backend has no custom masks; choose VANILLA")
    }
    guard let work = metadata.work(key) else {
      throw AttentionError.invalidStep("no plan for the mask \(inputs.mask); name it in AttentionMetadata.Setup.masks")
    }
    let cache = metadata.cache(ofLayer: layer.layerIndex)
    let queries: Tensor
    switch inputs.form {
    case .fused(let fusedQKV):
      queries = try metadata.workspace(.queries, columns: layer.queryWidth)
      kernels.append(
        AppendArguments(
          numHeads: layer.numHeads, headDim: layer.headDim, query: HeadInput(fusedQKV), queries: queries,
          keys: HeadInput(fusedQKV, column: layer.queryWidth), values: HeadInput(fusedQKV, column: layer.queryWidth + layer.keyWidth),
          queryNorm: layer.queryNorm, keyNorm: layer.keyNorm, rope: rope, ragged: metadata.ragged, cache: cache),
        on: queue)
    case .queriesOnly(let finished): queries = finished
    case .separate: preconditionFailure("the TRTLLM backend takes one fused QKV input; AttentionLayer joins separate ones")
    }
    kernels.attend(
      AttendArguments(
        numHeads: layer.numHeads, queries: queries, output: output.values, logSumExp: output.logSumExp, scale: layer.scale, mask: key.mask,
        ragged: metadata.ragged, cache: cache, work: work),
      on: queue)
  }
}
