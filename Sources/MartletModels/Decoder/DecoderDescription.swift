// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletAttention
public import MartletCore

/// What is a decoder's own: its sizes, its layers, and by what its stream is multiplied. What is not said is as Llama has it.
public struct DecoderDescription: Sendable {
  public var configuration: ModelConfiguration
  public var layers: [DecoderLayer]
  /// Multiplies the embedding of every token.
  public var embeddingScale: Float = 1
  /// Multiplies what every block adds to the residual stream.
  public var residualScale: Float = 1
  /// Multiplies logits.
  public var logitScale: Float = 1
  /// cap · tanh(logit / cap) on scaled logits; nil = none.
  public var logitCap: Float?
  /// Which keys a token sees: causal, unless the model answers with vectors and looks to both sides.
  public var mask = AttentionMask.causal
  /// Multiplies the query of position p by 1 + β · ln(1 + ⌊p / length⌋); nil = not at all.
  public var queryScaling: QueryScaling?

  /// - Parameter layer: describes the layer of a number, 0 ..< numLayers.
  public init(_ configuration: ModelConfiguration, layer: (Int) throws -> DecoderLayer) rethrows {
    self.configuration = configuration
    layers = try (0..<configuration.numLayers).map(layer)
  }

  /// Those of the layers that have any.
  var experts: [ExpertDescription] { layers.compactMap { if case .experts(let experts) = $0.feedForward { experts } else { nil } } }
}

/// One layer of a decoder: attention, then the feed-forward block.
public struct DecoderLayer: Sendable {
  /// Heads, positions, mask, norms of heads.
  public var attention: AttentionLayerSpec
  /// Which projections have one.
  public var biases: ProjectionBiases
  public var feedForward: FeedForward
  /// Whether what a block adds is normalised before it is added (`post_attention_norm`, `post_ffw_norm`).
  public var hasPostNorms: Bool
  /// What files call the norm before the feed-forward block.
  public var feedForwardNorm = "ffn_norm"

  public init(
    attention: AttentionLayerSpec, biases: ProjectionBiases = [], feedForward: FeedForward = .gated(.silu), hasPostNorms: Bool = false
  ) {
    self.attention = attention
    self.biases = biases
    self.feedForward = feedForward
    self.hasPostNorms = hasPostNorms
  }
}

/// The projections of attention that have a bias.
public struct ProjectionBiases: OptionSet, Sendable {
  public let rawValue: Int
  public init(rawValue: Int) { self.rawValue = rawValue }

  /// Those of queries, keys and values.
  public static let queryKeyValue = ProjectionBiases(rawValue: 1)
  /// That of the output.
  public static let output = ProjectionBiases(rawValue: 2)
}

/// What stands in a layer behind attention.
public enum FeedForward: Sendable {
  /// W_down · (activation(W_gate · x) ⊙ (W_up · x)), of the configuration's `feedForwardSize`.
  case gated(GatedActivation)
  /// Several such blocks, of which a router chooses a few for each row.
  case experts(ExpertDescription)
}

/// A feed-forward block of experts.
public struct ExpertDescription: Sendable {
  public var routing: ExpertRouting
  /// Values between the two products of an expert.
  public var width: Int
  public var activation: GatedActivation
  /// The same of an expert that computes every row; nil = there is none.
  public var sharedWidth: Int?
  /// Whether a bias is added to scores for the choice (`exp_probs_b`).
  public var hasChoiceBias: Bool
  /// Whether the router and the experts' projections have biases.
  public var hasBiases = false

  public init(
    routing: ExpertRouting, width: Int, activation: GatedActivation = .silu, sharedWidth: Int? = nil, hasChoiceBias: Bool = false
  ) {
    self.routing = routing
    self.width = width
    self.activation = activation
    self.sharedWidth = sharedWidth
    self.hasChoiceBias = hasChoiceBias
  }
}

/// Queries grow with their position, so that attention stays sharp over more keys: q · (1 + β · ln(1 + ⌊position / originalLength⌋)), after rotation.
public struct QueryScaling: Sendable, Hashable {
  public var beta: Float
  public var originalLength: Int

  public init(beta: Float, originalLength: Int) {
    self.beta = beta
    self.originalLength = originalLength
  }
}
