// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// Brings a layer's inputs into the form that its backend takes; the caller's tensors are never written.
///
/// A backend gets what came, uncopied, where it does itself what the layer wants: then q, k and v are columns of one tensor or of three, and
/// queries that come alone are unfinished. What it does not do itself (splitting, norm, rotation) is done here, on the host, in the
/// metadata's workspace.
struct AttentionInputAdapter {
  let spec: AttentionLayerSpec
  let splits: Bool
  let normalises: Bool
  let rotates: Bool

  init(_ spec: AttentionLayerSpec, capabilities: AttentionCapabilities) {
    self.spec = spec
    splits = !capabilities.contains(.fusedQKV)
    normalises = !capabilities.contains(.fusedHeadNorm) && (spec.queryNorm != nil || spec.keyNorm != nil)
    rotates = !capabilities.contains(.fusedRoPE) && spec.positionalEmbedding != nil
  }

  /// Whether every step needs the host to touch the inputs.
  var computesOnHost: Bool { normalises || rotates }

  func adapt(
    _ inputs: AttentionInputs, rope: RopeTable?, metadata: AttentionMetadata, on queue: any DeviceQueue
  ) throws -> AttentionInputs {
    var adapted = inputs
    switch inputs.form {
    case .queriesOnly(let q):
      adapted.updatesCache = false
      if computesOnHost {
        adapted.form = .queriesOnly(try finish(q, rope, metadata, queue))
      } else {
        try check(q, spec.queryWidth, metadata)
      }
    case .fused(let qkv):
      try check(qkv, spec.fusedWidth, metadata)
      if metadata.isCross {
        throw AttentionError.invalidStep(
          "cross attention has queries and keys of different tokens; give layer \(spec.layerIndex) q, k and v apart")
      }
      if !inputs.updatesCache {
        if computesOnHost || splits { adapted.form = .queriesOnly(try finish(qkv, rope, metadata, queue)) }
      } else if computesOnHost || splits {
        adapted.form = try separate(
          q: (qkv, 0), k: (qkv, spec.queryWidth), v: spec.mla == nil ? (qkv, spec.queryWidth + spec.keyWidth) : nil, rope, metadata, queue)
      }
    case .latent(let q, let latents):
      try check(q, spec.queryWidth, metadata)
      guard spec.mla != nil else {
        throw AttentionError.invalidTensor(layer: spec.layerIndex, problem: "latents for a layer that has none; give q, k and v")
      }
      if !inputs.updatesCache {
        adapted.form = .queriesOnly(computesOnHost ? try finish(q, rope, metadata, queue) : q)
        break
      }
      try check(latents, spec.keyWidth, metadata)
      if computesOnHost { adapted.form = try separate(q: (q, 0), k: (latents, 0), v: nil, rope, metadata, queue) }
    case .separate(let q, let k, let v):
      try check(q, spec.queryWidth, metadata)
      guard spec.mla == nil else {
        throw AttentionError.invalidTensor(
          layer: spec.layerIndex, problem: "keys and values for a layer of latent attention; give queries and latents")
      }
      if !inputs.updatesCache {
        adapted.form = .queriesOnly(computesOnHost ? try finish(q, rope, metadata, queue) : q)
        break
      }
      try check(k, spec.keyWidth, metadata, rows: metadata.numNewKVTokens)
      try check(v, spec.valueWidth, metadata, rows: metadata.numNewKVTokens)
      if computesOnHost { adapted.form = try separate(q: (q, 0), k: (k, 0), v: (v, 0), rope, metadata, queue) }
    }
    return adapted
  }
}

extension AttentionInputAdapter {
  /// A tensor and the column at which heads begin in it.
  private typealias Place = (tensor: Tensor, column: Int)

  /// The queries of an input that begins with them.
  private func finish(
    _ q: Tensor, _ rope: RopeTable?, _ metadata: AttentionMetadata, _ queue: any DeviceQueue
  ) throws -> Tensor {
    queue.wait()
    let result = try metadata.workspace(.queries, columns: spec.queryWidth)
    finish(queries: (q, 0), in: (result, 0), rope, metadata)
    return result
  }

  /// Copies q, k and v apart, and does there what the backend does not.
  /// - Parameter v: nil where values are part of the keys.
  private func separate(
    q: Place, k: Place, v: Place?, _ rope: RopeTable?, _ metadata: AttentionMetadata, _ queue: any DeviceQueue
  ) throws -> AttentionInputs.Form {
    queue.wait()
    let queries = try metadata.workspace(.queries, columns: spec.queryWidth)
    let keys = try metadata.workspace(.keys, columns: spec.keyWidth)
    finish(queries: q, in: (queries, 0), rope, metadata)
    let tokens = metadata.raggedKV
    let k = rows(k, spec.numKVHeads, spec.headDim, tokens)
    let targetK = rows((keys, 0), spec.numKVHeads, spec.headDim, tokens)
    targetK.copy(from: k)
    if normalises, let norm = spec.keyNorm { targetK.normalise(norm) }
    // Deferred keys are cached as they are and rotated when they are read.
    if rotates, let rope, spec.positionalEmbedding?.kind == .rope { rotate(targetK, rope, tokens) }
    guard let v else { return .latent(q: queries, latents: keys) }
    let values = try metadata.workspace(.values, columns: spec.valueWidth)
    rows((values, 0), spec.numKVHeads, spec.valueHeadDim, tokens).copy(from: rows(v, spec.numKVHeads, spec.valueHeadDim, tokens))
    return .separate(q: queries, k: keys, v: values)
  }

  private func finish(queries: Place, in target: Place, _ rope: RopeTable?, _ metadata: AttentionMetadata) {
    let target = rows(target, spec.numHeads, spec.headDim, metadata.ragged)
    target.copy(from: rows(queries, spec.numHeads, spec.headDim, metadata.ragged))
    if normalises, let norm = spec.queryNorm { target.normalise(norm) }
    if rotates, let rope { rotate(target, rope, metadata.ragged) }
  }

  private func rotate(_ rows: HeadRows, _ rope: RopeTable, _ tokens: RaggedQueries) {
    if rows.numTokens == 0 { return }
    guard let positions = tokens.positionIDs.unsafeHostPointer(to: Int32.self)?.baseAddress else {
      fatalError("the host cannot reach the positions of the step")
    }
    rows.rotate(rope, positions: UnsafePointer(positions), axisColumns: tokens.axisColumns)
  }

  private func rows(_ place: Place, _ numHeads: Int, _ headDim: Int, _ tokens: RaggedQueries) -> HeadRows {
    HeadRows(place.tensor, column: place.column, numTokens: tokens.numTokens, numHeads: numHeads, headDim: headDim)
  }

  private func check(_ tensor: Tensor, _ columns: Int, _ metadata: AttentionMetadata, rows: Int? = nil) throws {
    let rows = rows ?? metadata.numTokens
    guard tensor.dataType == .f32, tensor.shape.rank > 0, tensor.shape[tensor.shape.rank - 1] == columns, tensor.count >= rows * columns
    else {
      throw AttentionError.invalidTensor(
        layer: spec.layerIndex,
        problem: "an input of \(tensor.shape) \(tensor.dataType) where [\(rows), \(columns)] f32 is wanted")
    }
  }
}
