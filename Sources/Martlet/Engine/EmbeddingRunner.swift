// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

package import MartletAttention
import MartletCore
package import MartletModels

/// Runs one step of a model that answers with vectors: whole texts, packed, without a cache.
///
/// All its memory is made once, for the largest step.
package final class EmbeddingRunner {
  let model: any EmbeddingModel
  let maxNumTokens: Int
  let maxNumRequests: Int
  private let metadata: AttentionMetadata
  private let queue: any DeviceQueue
  private let tokensOnHost: HostBuffer<Int32>
  private let tokens: Tensor
  /// `[maxNumRequests, embeddingSize]`.
  private let output: Tensor
  /// Where the host cannot reach the device's memory.
  private let outputOnHost: HostBuffer<Float>?
  private var tokenCount = 0
  private(set) var textCount = 0

  package init(model: any EmbeddingModel, context: AttentionContext) throws {
    let device = context.device
    self.model = model
    maxNumTokens = context.maxNumTokens
    maxNumRequests = context.maxNumRequests
    queue = device.makeQueue()
    guard let layer = model.attention.first else { throw LLMError.unusableModel("it has no attention layers") }
    metadata = try layer.makeMetadata(
      AttentionMetadata.Setup(
        context: context, layers: model.attention.map(\.spec), kvCacheManager: nil, masks: [model.mask], queue: queue))
    tokensOnHost = try device.makeHostBuffer(of: Int32.self, count: context.maxNumTokens)
    tokens = try device.makeTensor(Shape(context.maxNumTokens), .i32)
    output = try device.makeTensor(Shape(context.maxNumRequests, model.embeddingSize), .f32)
    outputOnHost =
      output.buffer.hostAddress == nil
      ? try device.makeHostBuffer(of: Float.self, count: context.maxNumRequests * model.embeddingSize) : nil
  }

  /// Begins a step without texts.
  /// - Throws: what failed on the device since somebody waited.
  package func beginStep() throws {
    try queue.finish()
    metadata.removeAllRequests()
    tokenCount = 0
    textCount = 0
  }

  /// Whether a text of so many tokens has room beside those that were added.
  package func hasRoom(for count: Int) -> Bool { textCount < maxNumRequests && tokenCount + count <= maxNumTokens }

  package func add(_ id: Int, tokens: [Int32]) {
    metadata.addRequest(id, newTokens: tokens.count, cachedTokens: 0, promptLength: tokens.count, isContext: true)
    for token in tokens {
      tokensOnHost[tokenCount] = token
      tokenCount += 1
    }
    textCount += 1
  }

  /// Prepares and runs the step.
  package func forward() throws {
    try metadata.prepare()
    queue.copy(tokensOnHost, count: tokenCount, to: tokens)
    let vectors = output.prefix(textCount)
    try model.embed(tokens: tokens.prefix(tokenCount), metadata: metadata, output: vectors, on: queue)
    if let outputOnHost { queue.copy(vectors, to: outputOnHost) }
    try queue.finish()
  }

  /// The vector of a text of the step, by its place.
  package func vector(_ index: Int) -> [Float] {
    guard let values = outputOnHost?.unsafeStorage ?? output.unsafeHostPointer(to: Float.self) else {
      fatalError("vectors that the host cannot reach were not copied")
    }
    let width = model.embeddingSize
    return Array(values[index * width..<(index + 1) * width])
  }
}
