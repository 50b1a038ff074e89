// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// Brings a layer's inputs into the form that its backend takes, in the metadata's workspace; the caller's tensors are never written.
///
/// A backend that fuses QKV gets `.fused`, another `.separate`. Queries that come alone reach every backend normalised and rotated.
struct AttentionInputAdapter {
  let spec: AttentionLayerSpec
  let joins: Bool
  let normalises: Bool
  let rotates: Bool

  init(_ spec: AttentionLayerSpec, capabilities: AttentionCapabilities) {
    self.spec = spec
    joins = capabilities.contains(.fusedQKV)
    normalises = !capabilities.contains(.fusedHeadNorm) && (spec.queryNorm != nil || spec.keyNorm != nil)
    rotates = !capabilities.contains(.fusedRoPE) && spec.positionalEmbedding != nil
  }

  /// Whether every step needs the host to touch the inputs.
  var computesOnHost: Bool { normalises || rotates }

  func adapt(
    _ inputs: AttentionInputs, rope: RopeTable?, metadata: AttentionMetadata, on queue: any DeviceQueue
  ) throws -> AttentionInputs {
    let numTokens = metadata.numTokens
    var adapted = inputs
    switch inputs.form {
    case .queriesOnly(let q): adapted.form = .queriesOnly(try finish(q, column: 0, rope, metadata, queue))
    case .fused(let qkv) where !inputs.updatesCache: adapted.form = .queriesOnly(try finish(qkv, column: 0, rope, metadata, queue))
    case .separate(let q, _, _) where !inputs.updatesCache: adapted.form = .queriesOnly(try finish(q, column: 0, rope, metadata, queue))
    case .fused(let qkv):
      if joins && !computesOnHost {
        check(qkv, columns: spec.fusedWidth, numTokens)
      } else if joins {
        let fused = try metadata.workspace(.fusedQKV, columns: spec.fusedWidth)
        write(
          q: (qkv, 0), k: (qkv, spec.queryWidth), v: (qkv, spec.queryWidth + spec.keyWidth), q: (fused, 0), k: (fused, spec.queryWidth),
          v: (fused, spec.queryWidth + spec.keyWidth), rope, metadata, queue)
        adapted.form = .fused(fused)
      } else {
        adapted.form = try separate(
          q: (qkv, 0), k: (qkv, spec.queryWidth), v: (qkv, spec.queryWidth + spec.keyWidth), rope, metadata, queue)
      }
    case .separate(let q, let k, let v):
      if joins {
        let fused = try metadata.workspace(.fusedQKV, columns: spec.fusedWidth)
        write(
          q: (q, 0), k: (k, 0), v: (v, 0), q: (fused, 0), k: (fused, spec.queryWidth), v: (fused, spec.queryWidth + spec.keyWidth), rope,
          metadata, queue)
        adapted.form = .fused(fused)
      } else if computesOnHost {
        adapted.form = try separate(q: (q, 0), k: (k, 0), v: (v, 0), rope, metadata, queue)
      } else {
        check(q, columns: spec.queryWidth, numTokens)
        check(k, columns: spec.keyWidth, numTokens)
        check(v, columns: spec.valueWidth, numTokens)
      }
    }
    return adapted
  }
}

extension AttentionInputAdapter {
  /// A tensor and the column at which heads begin in it.
  private typealias Place = (tensor: Tensor, column: Int)

  /// Queries that come alone, normalised and rotated.
  private func finish(
    _ q: Tensor, column: Int, _ rope: RopeTable?, _ metadata: AttentionMetadata, _ queue: any DeviceQueue
  ) throws -> Tensor {
    if spec.queryNorm == nil && rope == nil && q.shape[q.shape.rank - 1] == spec.queryWidth { return q }
    queue.wait()
    let result = try metadata.workspace(.queries, columns: spec.queryWidth)
    let target = rows((result, 0), spec.numHeads, spec.headDim, metadata)
    target.copy(from: rows((q, column), spec.numHeads, spec.headDim, metadata))
    if let norm = spec.queryNorm { target.normalise(norm) }
    if let rope { rotate(target, rope, metadata) }
    return result
  }

  private func separate(
    q: Place, k: Place, v: Place, _ rope: RopeTable?, _ metadata: AttentionMetadata, _ queue: any DeviceQueue
  ) throws -> AttentionInputs.Form {
    let queries = try metadata.workspace(.queries, columns: spec.queryWidth)
    let keys = try metadata.workspace(.keys, columns: spec.keyWidth)
    let values = try metadata.workspace(.values, columns: spec.valueWidth)
    write(q: q, k: k, v: v, q: (queries, 0), k: (keys, 0), v: (values, 0), rope, metadata, queue)
    return .separate(q: queries, k: keys, v: values)
  }

  /// Copies q, k and v from where they are to where they are wanted, and does there what the backend does not.
  private func write(
    q sourceQ: Place, k sourceK: Place, v sourceV: Place, q targetQ: Place, k targetK: Place, v targetV: Place, _ rope: RopeTable?,
    _ metadata: AttentionMetadata, _ queue: any DeviceQueue
  ) {
    queue.wait()
    let q = rows(targetQ, spec.numHeads, spec.headDim, metadata)
    let k = rows(targetK, spec.numKVHeads, spec.headDim, metadata)
    let v = rows(targetV, spec.numKVHeads, spec.valueHeadDim, metadata)
    q.copy(from: rows(sourceQ, spec.numHeads, spec.headDim, metadata))
    k.copy(from: rows(sourceK, spec.numKVHeads, spec.headDim, metadata))
    v.copy(from: rows(sourceV, spec.numKVHeads, spec.valueHeadDim, metadata))
    if normalises {
      if let norm = spec.queryNorm { q.normalise(norm) }
      if let norm = spec.keyNorm { k.normalise(norm) }
    }
    if rotates, let rope {
      rotate(q, rope, metadata)
      // Deferred keys are cached as they are and rotated when they are read.
      if spec.positionalEmbedding?.kind == .rope { rotate(k, rope, metadata) }
    }
  }

  private func rotate(_ rows: HeadRows, _ rope: RopeTable, _ metadata: AttentionMetadata) {
    guard let positions = metadata.ragged.positionIDs.unsafeHostPointer(to: Int32.self)?.baseAddress else {
      preconditionFailure("the host cannot reach the positions of the step")
    }
    rows.rotate(rope, positions: UnsafePointer(positions))
  }

  private func rows(_ place: Place, _ numHeads: Int, _ headDim: Int, _ metadata: AttentionMetadata) -> HeadRows {
    HeadRows(place.tensor, column: place.column, numTokens: metadata.numTokens, numHeads: numHeads, headDim: headDim)
  }

  private func check(_ tensor: Tensor, columns: Int, _ numTokens: Int) {
    precondition(
      tensor.dataType == .f32 && tensor.shape[tensor.shape.rank - 1] == columns && tensor.count >= numTokens * columns,
      "layer \(spec.layerIndex): an input of \(tensor.shape) \(tensor.dataType) where [\(numTokens), \(columns)] f32 is wanted")
  }
}
