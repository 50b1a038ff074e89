// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore
import MartletKVCache

/// One layer over pages, as two calls of the device's kernels: what the backends that read pages have in common.
///
/// `append` takes queries, keys and values from wherever they lie, in one pass through q/k norm, rotation, rounding or quantisation and the
/// store into pages; `attend` reads the pages, by work that was planned in `prepare`.
struct PagedAttention {
  let layer: AttentionLayerSpec
  private let kernels: any AttentionKernels
  private let rope: RopeTable?
  private let quantConfig: QuantConfig

  init(_ layer: AttentionLayerSpec, in context: AttentionContext) throws {
    self.layer = layer
    kernels = context.device.attentionKernels
    rope = try layer.positionalEmbedding.map { try context.ropeTable($0) }
    quantConfig = context.quantConfig(of: layer)
  }

  /// What stands in the way of pages of this layout on the context's device.
  static func obstacles(to layer: AttentionLayerSpec, layout: () -> KVLayout, in context: AttentionContext) -> [String] {
    var reasons = layer.generalObstacles(in: context)
    if context.kvCache?.pageSize == .linear { reasons.append("it reads pages, not a linear cache; give a page size, or choose VANILLA") }
    return reasons.isEmpty ? context.device.attentionKernels.obstacles(layout: layout(), numHeads: layer.numHeads) : reasons
  }

  /// What a layer's inputs are to the kernels.
  struct Inputs {
    var query: HeadInput
    /// Keys and values to append; nil where the cache has them already.
    var new: (keys: HeadInput, values: HeadInput?)?
    /// Queries that lie as `attend` reads them; nil where they are columns of a wider tensor.
    var plainQueries: Tensor?
  }

  func inputs(_ inputs: AttentionInputs, _ metadata: AttentionMetadata) throws(AttentionError) -> Inputs {
    var result: Inputs
    switch inputs.form {
    case .fused(let qkv):
      result = Inputs(
        query: HeadInput(qkv),
        new: (
          HeadInput(qkv, column: layer.queryWidth),
          layer.mla == nil ? HeadInput(qkv, column: layer.queryWidth + layer.keyWidth) : nil
        ))
    case .separate(let q, let k, let v): result = Inputs(query: HeadInput(q), new: (HeadInput(k), HeadInput(v)), plainQueries: q)
    case .latent(let q, let latents): result = Inputs(query: HeadInput(q), new: (HeadInput(latents), nil), plainQueries: q)
    case .queriesOnly(let q): result = Inputs(query: HeadInput(q), plainQueries: q)
    }
    if !inputs.updatesCache { result.new = nil }
    if result.new == nil && !metadata.usesCache {
      throw .invalidStep("queries alone read the key/value cache, and this step has none")
    }
    return result
  }

  /// Appends the step's keys and values and returns its finished queries `[numTokens, numHeads·headDim]`.
  /// - Parameter tokens: whose keys and values are appended.
  func append(
    _ inputs: Inputs, tokens: RaggedQueries, cache: PagedKV, metadata: AttentionMetadata, on queue: any DeviceQueue
  ) throws -> Tensor {
    let plain = rope == nil && layer.queryNorm == nil ? inputs.plainQueries : nil
    let queries = try plain ?? metadata.workspace(.queries, columns: layer.queryWidth)
    // Without rotation and norm nothing is to be done to queries that lie as attend reads them.
    var arguments = AppendArguments(
      numHeads: layer.numHeads, headDim: layer.headDim, query: plain == nil ? inputs.query : nil, queries: plain == nil ? queries : nil,
      queryNorm: layer.queryNorm, keyNorm: layer.keyNorm, rope: rope, rotatesKeys: layer.positionalEmbedding?.kind == .rope,
      ragged: metadata.ragged, scales: quantConfig.kvScales)
    if metadata.isCross || inputs.new == nil {
      // Queries and keys are different tokens, or there are no keys: queries go first.
      if arguments.query != nil { kernels.append(arguments, on: queue) }
      arguments.query = nil
      arguments.queries = nil
    }
    if let new = inputs.new, tokens.numTokens > 0 {
      arguments.keys = new.keys
      arguments.values = new.values
      arguments.cache = cache
      arguments.ragged = tokens
      kernels.append(arguments, on: queue)
    }
    return queries
  }

  /// Attends from finished queries to the pages.
  func attend(
    _ queries: Tensor, mask: AttentionMask, outputScale: Float, cache: PagedKV, work: AttentionWork, metadata: AttentionMetadata,
    output: AttentionOutput, on queue: any DeviceQueue
  ) {
    kernels.attend(
      AttendArguments(
        numHeads: layer.numHeads, queries: queries, roundsQueriesToE4M3: quantConfig.fp8Inputs, output: output.values,
        outputScale: outputScale, logSumExp: output.logSumExp, scale: layer.scale, softCap: layer.softCap, sinks: layer.sinks,
        mask: MaskView(mask, window: layer.window), maskBits: mask == .custom ? metadata.maskBits : nil,
        keyRope: layer.positionalEmbedding?.kind == .deferred ? rope : nil, ragged: metadata.ragged, cache: cache,
        scales: quantConfig.kvScales, work: work),
      on: queue)
  }
}
