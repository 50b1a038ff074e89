// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

package import MartletAttention
package import MartletCore

/// The heads of a layer of latent attention, between its queries and latents and its values: absorbed, and expanded for the contexts that are long enough
/// (`LatentPrompts`).
///
/// The layer appends every row's latent and attends to the rows that are absorbed. Of an expanded context it then reads the latents back, as stored.
package struct LatentHeads {
  package let layer: AttentionLayer
  /// W_ukᵀ `[kvLoraRank, qkNopeHeadDim]` of each head.
  let absorbedKeys: [any PreparedWeight]
  /// W_uv `[vHeadDim, kvLoraRank]` of each head.
  let absorbedValues: [any PreparedWeight]
  /// W_uk `[qkNopeHeadDim, kvLoraRank]`, the heads of a group stacked; empty where all is absorbed.
  let expandedKeys: [any PreparedWeight]

  /// - Parameters:
  ///   - keys: W_ukᵀ of each head.
  ///   - values: W_uv of each head.
  package init(_ spec: AttentionLayerSpec, _ mla: MLAParams, keys: [Weight], values: [Weight], in context: ModelContext) throws {
    var spec = spec
    spec.unattendedContextLength = context.latentPrompts.leastExpandedTokens(mla)
    layer = try AttentionLayer(spec, backend: context.attentionBackend, in: context.attention)
    func prepare(_ weights: [Weight]) throws -> any PreparedWeight {
      try context.device.prepare(weights, activations: context.activations)
    }
    let absorbedKeys = try keys.map { try prepare([$0]) }
    self.absorbedKeys = absorbedKeys
    absorbedValues = try values.map { try prepare([$0]) }
    if spec.unattendedContextLength == nil {
      expandedKeys = []
    } else {
      let group = LatentExpansion.Sizes(spec, mla, in: context.attention).groupHeads
      expandedKeys = try stride(from: 0, to: keys.count, by: group).map { first in
        try prepare(
          (first..<first + group).map { head in
            try keys[head].transposed() ?? Self.floats(of: absorbedKeys[head], name: keys[head].name, on: context.device).transposed()!
          })
      }
    }
  }

  /// The values of a matrix of blocks, which cannot be transposed as they are.
  private static func floats(of weight: any PreparedWeight, name: String, on device: any Device) throws -> Weight {
    let queue = device.makeQueue()
    let rows = try device.makeHostBuffer(of: Int32.self, count: weight.rows)
    for row in 0..<weight.rows { rows[row] = Int32(row) }
    let indices = try device.makeTensor(Shape(weight.rows), .i32)
    let values = try device.makeTensor(Shape(weight.rows, weight.columns), .f32)
    queue.copy(rows, count: weight.rows, to: indices)
    device.tensorKernels.embed(tokens: indices, weight: weight, scale: 1, output: values, on: queue)
    let host = try device.makeHostBuffer(of: Float.self, count: values.count)
    queue.copy(values, to: host)
    queue.wait()
    return Weight(
      name: name, format: .f32, rows: weight.rows, columns: weight.columns, bytes: UnsafeRawBufferPointer(host.unsafeStorage), owner: host)
  }

  /// From the queries and the latents of `n` rows in the memory, `queries` and the last columns of `fused`, to `values` there.
  package func callAsFunction(
    _ n: Int, metadata: AttentionMetadata, _ memory: LatentMemory, on queue: any DeviceQueue, _ kernels: any TensorKernels
  ) throws {
    guard let mla = layer.spec.mla else { fatalError("latent attention without its sizes") }
    let heads = layer.spec.numHeads, rank = mla.kvLoraRank, nope = mla.qkNopeHeadDim, rope = mla.qkRopeHeadDim, v = mla.vHeadDim
    let width = mla.headDim, queryWidth = heads * (nope + rope), fusedWidth = (heads + 1) * width
    let queries = memory.queries.rows(n, columns: queryWidth), fused = memory.fused.rows(n, columns: fusedWidth)
    let attended = memory.attended.rows(n, columns: heads * rank), values = memory.values.rows(n, columns: heads * v)
    // Only these rows are absorbed.
    let m = forEachAbsorbedRun(n, metadata) { _, _ in }
    let byHead = memory.byHead.rows(heads * m, columns: nope), absorbed = memory.absorbed.rows(heads * m, columns: rank)
    let expanded = memory.expanded.rows(heads * m, columns: v)

    func copy(_ source: HeadPlace, _ target: HeadPlace, rows: Range<Int>, width: Int) {
      kernels.copyHeads(source, to: target, rows: rows.count, heads: heads, width: width, on: queue)
    }
    func inQueries(_ row: Int, _ column: Int) -> HeadPlace {
      HeadPlace(queries, column: row * queryWidth + column, rowStride: queryWidth, headStride: nope + rope)
    }
    func inFused(_ row: Int, _ column: Int) -> HeadPlace {
      HeadPlace(fused, column: row * fusedWidth + column, rowStride: fusedWidth, headStride: width)
    }
    func byRow(_ tensor: Tensor, _ row: Int, width: Int) -> HeadPlace {
      HeadPlace(tensor, column: row * heads * width, rowStride: heads * width, headStride: width)
    }
    func headMajor(_ tensor: Tensor, _ row: Int, width: Int) -> HeadPlace {
      HeadPlace(tensor, column: row * width, rowStride: width, headStride: m * width)
    }

    if m > 0 {
      forEachAbsorbedRun(n, metadata) { copy(inQueries($0.lowerBound, 0), headMajor(byHead, $1, width: nope), rows: $0, width: nope) }
      kernels.headProduct(byHead, absorbedKeys, output: absorbed, on: queue)
      forEachAbsorbedRun(n, metadata) { rows, place in
        copy(headMajor(absorbed, place, width: rank), inFused(rows.lowerBound, 0), rows: rows, width: rank)
        copy(inQueries(rows.lowerBound, nope), inFused(rows.lowerBound, rank), rows: rows, width: rope)
      }
    }
    try layer.forward(AttentionInputs(fusedQKV: fused), metadata: metadata, output: AttentionOutput(values: attended), on: queue)
    if m > 0 {
      forEachAbsorbedRun(n, metadata) {
        copy(byRow(attended, $0.lowerBound, width: rank), headMajor(absorbed, $1, width: rank), rows: $0, width: rank)
      }
      kernels.headProduct(absorbed, absorbedValues, output: expanded, on: queue)
      forEachAbsorbedRun(n, metadata) {
        copy(headMajor(expanded, $1, width: v), byRow(values, $0.lowerBound, width: v), rows: $0, width: v)
      }
    }
    for sequence in 0..<metadata.numContexts where metadata.isUnattended(sequence, in: layer.spec) {
      guard let expansion = memory.expansion else { fatalError("a context to expand, and no memory for it") }
      try expansion.attend(self, sequence, of: metadata, queries: queries, into: values, on: queue, kernels)
    }
  }

  /// Calls `body` with each run of rows that no context has which is expanded, and with the place of the run among these rows alone.
  /// - Returns: how many such rows there are.
  @discardableResult
  private func forEachAbsorbedRun(_ n: Int, _ metadata: AttentionMetadata, _ body: (Range<Int>, Int) -> Void) -> Int {
    var first = 0, place = 0
    func run(upTo end: Int) {
      if first >= end { return }
      body(first..<end, place)
      place += end - first
    }
    for sequence in 0..<metadata.numContexts where metadata.isUnattended(sequence, in: layer.spec) {
      run(upTo: Int(metadata.queryIndptr[sequence]))
      first = Int(metadata.queryIndptr[sequence + 1])
    }
    run(upTo: n)
    return place
  }
}
