// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

package import MartletAttention
import MartletAttentionTestKit
package import MartletCore
import MartletKVCache
import MartletModels

/// Times one layer of a backend, on any device, with a cache that is as full as the workload says.
///
/// Inputs are N(0, 1), q, k and v apart, without rotation; cached tokens hold what the backend itself wrote for one page of such numbers. Of latent
/// attention it can time all that lies between queries and values: then the products of heads are there too, with random matrices in bf16.
package final class AttentionTimer {
  /// Seconds of one run through the workload's steps.
  package struct Sample: Sendable, Hashable {
    /// Tables and plans, once a step for all layers of a model.
    package var prepare = 0.0
    /// The layer: append and attend.
    package var forward = 0.0
  }

  /// How the timer's cache and plans are made.
  package struct Options: Sendable {
    package var dataType = DataType.bf16
    package var pageSize = 32
    /// The workers that the planner is told of.
    package var workerCount = 1
    package var flashInferLayout = FlashInferAttention.Layout.hnd
    /// Of a workload of latent attention: what its heads are made of; nil times the absorbed attention alone.
    package var heads: Heads?
    /// What the timing goes by.
    package var clock: any Clock<Duration>

    package init(clock: any Clock<Duration>) { self.clock = clock }
  }

  /// The heads of latent attention.
  package struct Heads: Sendable {
    /// Dims of a query or key that carry no position, and of a value.
    package var nopeDim: Int, valueDim: Int
    package var latentPrompts: LatentPrompts
    package var activations: Activations

    package init(nopeDim: Int, valueDim: Int, latentPrompts: LatentPrompts, activations: Activations = .exact) {
      self.nopeDim = nopeDim
      self.valueDim = valueDim
      self.latentPrompts = latentPrompts
      self.activations = activations
    }
  }

  private let workload: AttentionWorkload
  private let clock: any Clock<Duration>
  private let layer: AttentionLayer
  private let heads: (run: LatentHeads, memory: LatentMemory, kernels: any TensorKernels)?
  private let manager: KVCacheManager
  private let metadata: AttentionMetadata
  private let queue: any DeviceQueue
  private let q: Tensor
  private let k: Tensor
  private let v: Tensor
  private let output: Tensor

  /// - Throws: what making a layer, a cache and a metadata throws: `AttentionError.Code.obstacles` where the backend cannot serve the shape.
  package init(
    _ backend: any AttentionBackend.Type, _ workload: AttentionWorkload, _ options: Options, on device: any Device
  ) throws {
    let requests = workload.steps.map(\.count).max() ?? 1
    let length = (max(workload.maxLength, options.pageSize) + options.pageSize - 1) / options.pageSize * options.pageSize
    let tokens = max(workload.maxNewTokens, options.pageSize)
    let spec = Self.spec(workload, options.heads)
    // Pages enough for every request, whatever their lengths: each takes its own.
    let pages = workload.steps.last?.reduce(0) { $0 + ($1.length + options.pageSize - 1) / options.pageSize } ?? 1
    var cache = KVCacheConfig(
      dataType: options.dataType, pageSize: .tokens(options.pageSize), reusesPrefixes: false)
    func context() -> AttentionContext {
      AttentionContext(
        device: device, kvCache: cache, maxNumRequests: requests, maxNumTokens: max(tokens, requests), maxSequenceLength: length,
        workerCount: options.workerCount, flashInferLayout: options.flashInferLayout)
    }
    let probe = try AttentionLayer(spec, backend: backend, in: context())
    cache.budget = .bytes(probe.kvLayerSpec.layout.pageByteCount * max(pages, length / options.pageSize))
    let context = context()
    self.workload = workload
    clock = options.clock
    heads = try options.heads.flatMap { try Self.heads($0, spec, backend, in: context) }
    layer = try heads?.run.layer ?? AttentionLayer(spec, backend: backend, in: context)
    manager = try KVCacheManager(layers: [layer.kvLayerSpec], in: context)
    queue = device.makeQueue()
    metadata = try layer.makeMetadata(
      AttentionMetadata.Setup(context: context, layers: [layer.spec], kvCacheManager: manager, queue: queue))
    q = try device.makeTensor(Shape(max(tokens, requests), spec.queryWidth), .f32)
    k = try device.makeTensor(Shape(max(tokens, requests), spec.keyWidth), .f32)
    v = try device.makeTensor(Shape(max(tokens, requests), spec.valueWidth), .f32)
    output = try device.makeTensor(Shape(max(tokens, requests), spec.outputWidth), .f32)
    for (seed, tensor) in ([q, k, v] + (heads.map { [$0.memory.queries, $0.memory.fused] } ?? [])).enumerated() {
      try fill(tensor, seed: UInt64(seed), on: device)
    }
    try fillCache(on: device, pageSize: options.pageSize)
    for (id, part) in (workload.steps.last ?? []).enumerated() {
      enforce(manager.addSequence(id) && manager.extend(id, to: part.length), "the timer's cache is too small")
    }
  }

  private static func spec(_ workload: AttentionWorkload, _ heads: Heads?) -> AttentionLayerSpec {
    guard let latentDim = workload.latentDim else {
      return AttentionLayerSpec(layerIndex: 0, numHeads: workload.numHeads, headDim: workload.headDim, numKVHeads: workload.numKVHeads)
    }
    let mla = MLAParams(
      kvLoraRank: latentDim, qkNopeHeadDim: heads?.nopeDim ?? latentDim, qkRopeHeadDim: workload.headDim - latentDim,
      vHeadDim: heads?.valueDim ?? latentDim)
    return AttentionLayerSpec(layerIndex: 0, numHeads: workload.numHeads, mla: mla, rope: nil)
  }

  /// With matrices whose values are N(0, 1 / columns), the same for every head.
  private static func heads(
    _ heads: Heads, _ spec: AttentionLayerSpec, _ backend: any AttentionBackend.Type, in context: AttentionContext
  ) throws -> (run: LatentHeads, memory: LatentMemory, kernels: any TensorKernels)? {
    guard let mla = spec.mla else { return nil }
    func matrix(_ rows: Int, _ columns: Int, seed: UInt64) throws -> Weight {
      var numbers = SeededNumbers(seed: seed)
      let host = try context.device.makeHostBuffer(of: UInt16.self, count: rows * columns)
      let scale = 1 / Float(columns).squareRoot()
      for (index, number) in numbers.normals(rows * columns).enumerated() { host[index] = BFloat16(number * scale).bitPattern }
      return Weight(
        name: "random", format: .bf16, rows: rows, columns: columns, bytes: UnsafeRawBufferPointer(host.unsafeStorage), owner: host)
    }
    let keys = try matrix(mla.kvLoraRank, mla.qkNopeHeadDim, seed: 5), values = try matrix(mla.vHeadDim, mla.kvLoraRank, seed: 6)
    let model = ModelContext(
      attention: context, attentionBackend: backend, maxLogitRows: 1, activations: heads.activations, latentPrompts: heads.latentPrompts)
    return (
      try LatentHeads(
        spec, mla, keys: Array(repeating: keys, count: spec.numHeads), values: Array(repeating: values, count: spec.numHeads), in: model),
      try LatentMemory(spec, mla, in: model), context.device.tensorKernels
    )
  }

  private var inputs: AttentionInputs { workload.latentDim == nil ? AttentionInputs(q: q, k: k, v: v) : AttentionInputs(q: q, latents: k) }

  /// A pseudo-random megabyte, again and again.
  private func fill(_ tensor: Tensor, seed: UInt64, on device: any Device) throws {
    if tensor.count == 0 { return }
    var numbers = SeededNumbers(seed: seed)
    let some = numbers.normals(1 << 18)
    let host = try device.makeHostBuffer(of: Float.self, count: tensor.count)
    for index in 0..<tensor.count { host[index] = some[index & (some.count - 1)] }
    queue.copy(host, count: tensor.count, to: tensor)
    queue.wait()
  }

  /// Lets the backend write one page, and copies it to all others.
  private func fillCache(on device: any Device, pageSize: Int) throws {
    enforce(manager.addSequence(0) && manager.extend(0, to: pageSize), "the timer's cache has no page")
    metadata.addRequest(0, newTokens: pageSize, cachedTokens: 0, promptLength: pageSize, isContext: true)
    try metadata.prepare()
    try layer.forward(inputs, metadata: metadata, output: AttentionOutput(values: output), on: queue)
    metadata.removeAllRequests()
    let bytes = manager.layout(layer: 0).pageByteCount
    let pages = manager.pages(layer: 0)
    let count = manager.pageCount(pool: 0)
    let raw = Tensor(pages.buffer, byteOffset: pages.byteOffset, shape: Shape(count, bytes), dataType: .i8)
    let row = try device.makeHostBuffer(of: Int32.self, count: manager.maxPagesPerSequence)
    manager.writePageTable(0, length: pageSize, pool: 0, into: row.unsafeStorage)
    let image = try device.makeHostBuffer(of: UInt8.self, count: bytes)
    queue.copy(raw.rows(Int(row[0])..<Int(row[0]) + 1), to: image)
    queue.wait()
    for page in 0..<count { queue.copy(image, count: bytes, to: raw.rows(page..<page + 1)) }
    queue.wait()
    manager.remove(0)
  }

  /// Runs through the steps once.
  package func run() throws -> Sample { try run(\.inputs) }

  /// The same without the append: queries alone, which read the cache.
  package func runWithoutAppend() throws -> Sample { try run { AttentionInputs(queries: $0.q) } }

  private func run(_ inputs: (AttentionTimer) -> AttentionInputs) throws -> Sample {
    var sample = Sample()
    let inputs = inputs(self)
    for step in workload.steps {
      sample.prepare += try clock.measure {
        metadata.removeAllRequests()
        // Contexts come first in a batch.
        for isContext in [true, false] {
          for (id, part) in step.enumerated() where (part.newTokens > 1) == isContext {
            metadata.addRequest(
              id, newTokens: part.newTokens, cachedTokens: part.cachedTokens, promptLength: isContext ? part.length : part.cachedTokens,
              isContext: isContext)
          }
        }
        try metadata.prepare()
      }.seconds
      sample.forward += try clock.measure {
        if let heads {
          try heads.run(metadata.numTokens, metadata: metadata, heads.memory, on: queue, heads.kernels)
          queue.wait()
          return
        }
        try layer.forward(inputs, metadata: metadata, output: AttentionOutput(values: output), on: queue)
        queue.wait()
      }.seconds
    }
    return sample
  }
}
