// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// The sizes that every decoder and encoder has, read from `<architecture>.…` keys and checked against each other.
public struct ModelConfiguration: Sendable, Hashable, Codable {
  /// `general.architecture`: the prefix of the keys.
  public var architecture: String
  /// `general.name`; empty where the file has none.
  public var name: String
  /// The most tokens of a sequence that the model was trained for.
  public var contextLength: Int
  public var vocabularySize: Int
  public var numLayers: Int
  /// Values of a hidden state.
  public var hiddenSize: Int
  /// Values between the two products of the feed-forward layer.
  public var feedForwardSize: Int
  public var numHeads: Int
  public var numKVHeads: Int
  /// Dims of a query or key head.
  public var headDim: Int
  /// Dims of a value head.
  public var valueHeadDim: Int
  public var normEpsilon: Float

  private enum CodingKeys: String, CodingKey {
    case architecture, name
    case contextLength = "context_length"
    case vocabularySize = "vocabulary_size"
    case numLayers = "layers"
    case hiddenSize = "hidden_size"
    case feedForwardSize = "feed_forward_size"
    case numHeads = "heads"
    case numKVHeads = "kv_heads"
    case headDim = "head_dim"
    case valueHeadDim = "value_head_dim"
    case normEpsilon = "norm_epsilon"
  }

  /// The most that a size may be. Far above any model, and products of two of them stay far below `Int.max`.
  static let largestSize = 1 << 24

  /// - Parameter layersDiffer: whether a size may be a list of different values, one for each layer: then the largest is taken.
  /// - Throws: the source's error, or ``ModelError`` naming the key.
  public init(_ source: any ModelSource, layersDiffer: Bool = false) throws {
    // Tensors that may be missing would be taken for missing.
    if let parts = try source.integer(ifPresent: partCountKey), parts > 1 {
      throw source.invalid(partCountKey, parts, "this is one file of several; a GGUFCheckpoint opens all of them")
    }
    let architecture = try source.string("general.architecture")
    func key(_ suffix: String) -> String { "\(architecture).\(suffix)" }
    func size(_ suffix: String, default fallback: Int? = nil) throws -> Int {
      let name = key(suffix)
      let stated = try source.isList(name) ? uniform(name) : source.integer(ifPresent: name)
      guard let value = stated ?? fallback else { throw source.missingKey(name) }
      guard value >= 1 && value <= Self.largestSize else {
        throw source.invalid(name, value, "it must be within 1…\(Self.largestSize)")
      }
      return value
    }
    /// Some converters write a size of layers as a list with one value for each layer.
    func uniform(_ name: String) throws -> Int? {
      guard let values = try source.integerList(ifPresent: name) else { return nil }
      let layers = try source.integer(ifPresent: key("block_count"))
      if layersDiffer, values.count == layers, let largest = values.max() { return largest }
      guard let first = values.first, values.count == layers, values.allSatisfy({ $0 == first }) else {
        throw source.invalid(
          name, values.count > 8 ? "a list of \(values.count)" : "\(values)",
          "this build computes all \(layers.map(String.init) ?? "") layers alike: a list must have one value, once for each of them")
      }
      return first
    }
    self.architecture = architecture
    name = try source.string(ifPresent: "general.name") ?? ""
    contextLength = try size("context_length")
    numLayers = try size("block_count")
    // Before anything is made for each layer: every one has tensors.
    guard numLayers <= source.modelTensors.count else {
      throw source.invalid(key("block_count"), numLayers, "there are \(source.modelTensors.count) tensors in all")
    }
    hiddenSize = try size("embedding_length")
    feedForwardSize = try size("feed_forward_length")
    numHeads = try size("attention.head_count")
    numKVHeads = try size("attention.head_count_kv", default: numHeads)
    guard numHeads % numKVHeads == 0 else {
      throw source.invalid(key("attention.head_count_kv"), numKVHeads, "it must divide the \(numHeads) query heads")
    }
    if try source.integer(ifPresent: key("attention.key_length")) == nil && hiddenSize % numHeads != 0 {
      throw source.invalid(
        key("attention.head_count"), numHeads, "it does not divide embedding_length = \(hiddenSize), and there is no attention.key_length")
    }
    headDim = try size("attention.key_length", default: max(hiddenSize / numHeads, 1))
    valueHeadDim = try size("attention.value_length", default: headDim)
    // Of LayerNorm it has another name.
    let epsilon = try source.float(ifPresent: key("attention.layer_norm_epsilon"))
    normEpsilon = try epsilon ?? source.float(key("attention.layer_norm_rms_epsilon"))
    guard normEpsilon >= 0 && normEpsilon < 1 else {
      throw source.invalid(
        key(epsilon == nil ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon"), normEpsilon, "it must be within 0..<1")
    }
    // GGUF's `vocab_size` is only said: what tokens there are, its tokenizer and the rows say.
    vocabularySize = try source.weight("token_embd.weight", rows: nil, columns: hiddenSize).rows
  }
}
