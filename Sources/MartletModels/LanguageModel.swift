// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletAttention
public import MartletCore

/// A decoder-only language model: token ids in, hidden states out, logits for the rows that are asked for.
///
/// A model is made once, by its ``ModelArchitecture``, with all its working memory: a step allocates nothing. It knows neither requests nor sampling; what
/// a step is made of stands in the `AttentionMetadata`. It lives inside one loop and is not `Sendable`.
public protocol LanguageModel: AnyObject {
  var configuration: ModelConfiguration { get }

  /// The attention layers that have a cache of their own, in order: one for each layer of most models.
  var attention: [AttentionLayer] { get }

  /// Of each layer with experts, in order, int32 `[numExperts]`: how many rows each has computed, modulo 2³². Empty by default.
  var expertLoads: [Tensor] { get }

  /// Runs the step that `metadata` was prepared for and returns its hidden states.
  ///
  /// - Parameter tokens: int32 `[n]`, packed as the metadata says, n at most the context's `maxNumTokens`.
  /// - Returns: float32 `[n, hiddenSize]`, valid until the next step.
  func forward(tokens: Tensor, metadata: AttentionMetadata, on queue: any DeviceQueue) throws -> Tensor

  /// The logits of chosen rows of the hidden states that ``forward(tokens:metadata:on:)`` returned.
  ///
  /// - Parameters:
  ///   - rows: int32 `[m]`, m at most the context's `maxLogitRows`.
  ///   - output: float32 `[m, vocabularySize]`.
  func logits(of hidden: Tensor, rows: Tensor, output: Tensor, on queue: any DeviceQueue)
}

/// A model whose answer is a vector: the token ids of texts in, one vector for each text out.
///
/// A step is what the `AttentionMetadata` says, without a key/value cache, and every text in it is whole. As with a ``LanguageModel``, all working
/// memory is made with the model, and it is not `Sendable`.
public protocol EmbeddingModel: AnyObject {
  var configuration: ModelConfiguration { get }

  /// One attention layer for each layer of the model, in order.
  var attention: [AttentionLayer] { get }

  /// Which keys a token sees in every layer: what the metadata is set up for.
  var mask: AttentionMask { get }

  /// Values of a vector.
  var embeddingSize: Int { get }

  /// Runs the step that `metadata` was prepared for. What a text gets does not depend on who shares its step.
  ///
  /// - Parameters:
  ///   - tokens: int32 `[n]`, packed as the metadata says, n at most the context's `maxNumTokens`.
  ///   - output: float32 `[texts, embeddingSize]`.
  func embed(tokens: Tensor, metadata: AttentionMetadata, output: Tensor, on queue: any DeviceQueue) throws
}

extension LanguageModel {
  public var expertLoads: [Tensor] { [] }

  /// Whether heads turn by positions of three axes, which a step may bring.
  package var takesTokenPositions: Bool { attention.contains { $0.spec.positionalEmbedding?.mrope != nil } }
}

/// What a model is made with: limits, the attention backend, how products round, how latents are read, and whom to tell how far loading is.
public struct ModelContext {
  public var attention: AttentionContext
  public var attentionBackend: any AttentionBackend.Type
  /// The most rows whose logits are asked for in one call.
  public var maxLogitRows: Int
  /// How products round the rows that they multiply; one that the device has.
  public var activations: Activations
  /// In which form latent attention reads prompts. `expanded` needs a cache.
  public var latentPrompts: LatentPrompts
  /// Told the share of the weights that is loaded, 0…1; an error ends the loading.
  public var progress: ((Double) throws -> Void)?

  public init(
    attention: AttentionContext, attentionBackend: any AttentionBackend.Type, maxLogitRows: Int,
    activations: Activations = .exact, latentPrompts: LatentPrompts = .absorbed, progress: ((Double) throws -> Void)? = nil
  ) {
    self.attention = attention
    self.attentionBackend = attentionBackend
    self.maxLogitRows = maxLogitRows
    self.activations = activations
    self.latentPrompts = latentPrompts
    self.progress = progress
  }

  public var device: any Device { attention.device }
  public var maxNumTokens: Int { attention.maxNumTokens }
}

extension ModelContext {
  /// A float32 tensor of a step's working memory, whose rows belong to the step's tokens in their order. The system is asked for what an ordinary
  /// prompt uses of it (`AttentionContext.populatedTokens`).
  func makeStepTensor(_ shape: Shape) throws(DeviceError) -> Tensor {
    let tensor = try device.makeTensor(shape, .f32)
    device.populate(tensor.prefix(shape[0] * attention.populatedTokens / attention.maxNumTokens))
    return tensor
  }
}
