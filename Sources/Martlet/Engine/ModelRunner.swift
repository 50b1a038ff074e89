// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

package import MartletAttention
import MartletCore
package import MartletKVCache
package import MartletModels

/// Runs one step on the device: prepare, forward, logits of chosen rows.
///
/// All its memory is made once, for the largest step. Steps of generations alone, which is what most steps are, run on a metadata of their own
/// whose buffers are those a graph would capture: the same addresses in every step.
package final class ModelRunner {
  package let model: any LanguageModel
  package let cache: KVCacheManager
  package let maxLogitRows: Int
  /// For steps with contexts.
  private let mixedMetadata: AttentionMetadata
  /// For steps of one token of each request.
  private let decodeMetadata: AttentionMetadata
  /// The one that this step runs on.
  package private(set) var metadata: AttentionMetadata
  private let queue: any DeviceQueue
  private let tokensOnHost: HostBuffer<Int32>
  private let tokens: Tensor
  /// Of models with positions of three axes: those of the step, `[3, maxNumTokens]`.
  private let positions: (host: HostBuffer<Int32>, device: Tensor)?
  /// Whether a request of the step has positions that are not its tokens' numbers.
  private var hasOwnPositions = false
  private let rowsOnHost: HostBuffer<Int32>
  private let rows: Tensor
  /// `[maxLogitRows, vocabularySize]`.
  private let logits: Tensor
  /// Where the host cannot reach the device's memory.
  private let logitsOnHost: HostBuffer<Float>?
  private var tokenCount = 0
  private var hidden: Tensor?
  /// Where the model counts what its experts compute; empty where the host cannot read it.
  private let expertLoads: [Tensor]
  /// The counts as they were last added somewhere: they wrap around.
  private var addedLoads: [[Int32]]

  package init(model: any LanguageModel, cache: KVCacheManager, context: AttentionContext, maxLogitRows: Int) throws {
    let device = context.device
    self.model = model
    self.cache = cache
    self.maxLogitRows = maxLogitRows
    queue = cache.queue  // pages that were copied before the step are read after that
    guard let layer = model.attention.first else { throw LLMError.unusableModel("it has no attention layers") }
    mixedMetadata = try layer.makeMetadata(
      AttentionMetadata.Setup(context: context, layers: model.attention.map(\.spec), kvCacheManager: cache, queue: queue))
    decodeMetadata = try mixedMetadata.makeCUDAGraphMetadata(maxBatchSize: context.maxNumRequests)
    metadata = mixedMetadata
    tokensOnHost = try device.makeHostBuffer(of: Int32.self, count: context.maxNumTokens)
    tokens = try device.makeTensor(Shape(context.maxNumTokens), .i32)
    positions =
      model.takesTokenPositions
      ? (
        try device.makeHostBuffer(of: Int32.self, count: 3 * context.maxNumTokens),
        try device.makeTensor(Shape(3, context.maxNumTokens), .i32)
      ) : nil
    rowsOnHost = try device.makeHostBuffer(of: Int32.self, count: maxLogitRows)
    rows = try device.makeTensor(Shape(maxLogitRows), .i32)
    let loads = model.expertLoads
    expertLoads = loads.allSatisfy { $0.buffer.hostAddress != nil } ? loads : []
    addedLoads = expertLoads.map { Array(repeating: 0, count: $0.count) }
    let vocabularySize = model.configuration.vocabularySize
    logits = try device.makeTensor(Shape(maxLogitRows, vocabularySize), .f32)
    logitsOnHost =
      logits.buffer.hostAddress == nil ? try device.makeHostBuffer(of: Float.self, count: maxLogitRows * vocabularySize) : nil
  }

  /// Begins a step without requests.
  /// - Parameter isDecode: whether all that will come are generations of one token.
  /// - Throws: what failed on the device since somebody waited.
  package func beginStep(isDecode: Bool) throws {
    // A step without logits ended without waiting, and its copies may still read the memory that is filled now.
    try queue.finish()
    metadata = isDecode ? decodeMetadata : mixedMetadata
    metadata.removeAllRequests()
    tokenCount = 0
    hasOwnPositions = false
  }

  /// Appends a request to the step: contexts first. The cache must have its pages.
  package func add(
    _ id: Int, tokens: ArraySlice<Int32>, cachedTokens: Int, positions own: PlacedPrompt? = nil, promptLength: Int, isContext: Bool
  ) {
    metadata.addRequest(id, newTokens: tokens.count, cachedTokens: cachedTokens, promptLength: promptLength, isContext: isContext)
    if let positions {
      hasOwnPositions = hasOwnPositions || own != nil
      let columns = positions.device.shape[1]
      for index in 0..<tokens.count {
        let token = cachedTokens + index
        for axis in 0..<3 { positions.host[axis * columns + tokenCount + index] = own?.position(of: token, axis: axis) ?? Int32(token) }
      }
    }
    for token in tokens {
      tokensOnHost[tokenCount] = token
      tokenCount += 1
    }
  }

  /// Prepares and runs the step.
  package func forward() throws {
    if hasOwnPositions, let positions {
      queue.copy(positions.host, count: positions.host.count, to: positions.device)
      metadata.positionIDs = positions.device
    }
    try metadata.prepare()
    queue.copy(tokensOnHost, count: tokenCount, to: tokens)
    hidden = try model.forward(tokens: tokens.prefix(tokenCount), metadata: metadata, on: queue)
  }

  /// Adds what each expert of each layer has computed since the last call.
  /// - Parameter counts: for each layer those of its experts; empty before the first call.
  package func addExpertTokens(to counts: inout [[Int]]) {
    if addedLoads.isEmpty { return }
    if counts.isEmpty { counts = addedLoads.map { Array(repeating: 0, count: $0.count) } }
    for (layer, load) in expertLoads.enumerated() {
      guard let values = load.unsafeHostPointer(to: Int32.self) else { continue }
      for expert in values.indices where values[expert] != addedLoads[layer][expert] {
        counts[layer][expert] += Int(UInt32(bitPattern: values[expert] &- addedLoads[layer][expert]))
        addedLoads[layer][expert] = values[expert]
      }
    }
  }

  /// Computes the logits of rows (tokens of the step) and calls `body` with each: its place in `rows`, and its values.
  /// - Throws: what failed on the device in this step, and what `body` throws.
  /// - Precondition: at most ``maxLogitRows`` rows, each a token of the step that ``forward()`` ran.
  package func withLogits(
    count: Int, row: (Int) -> Int, _ body: (Int, Span<Float>) throws -> Void
  ) throws {
    guard count > 0 else { return }
    guard let hidden else { fatalError("logits were asked for before a step") }
    enforce(count <= maxLogitRows, "\(count) rows of logits, at most \(maxLogitRows)")
    for index in 0..<count { rowsOnHost[index] = Int32(row(index)) }
    queue.copy(rowsOnHost, count: count, to: rows)
    let output = logits.prefix(count)
    model.logits(of: hidden, rows: rows.prefix(count), output: output, on: queue)
    if let logitsOnHost { queue.copy(output, to: logitsOnHost) }
    try queue.finish()
    let width = model.configuration.vocabularySize
    guard let values = logitsOnHost?.unsafeStorage ?? output.unsafeHostPointer(to: Float.self) else {
      fatalError("logits that the host cannot reach were not copied")
    }
    for index in 0..<count {
      let row = UnsafeBufferPointer(rebasing: values[index * width..<(index + 1) * width])
      try body(index, row.span)
    }
  }
}
