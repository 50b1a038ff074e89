// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletAttention
public import MartletCore

/// One architecture: what files call it, how Hugging Face's directories of it are read, and how its model is made.
///
/// Most are decoders that differ from the common formula in a few places, and their file says in which: ``DecoderArchitecture``. An architecture with
/// a formula of its own conforms to this protocol, and writes a ``LanguageModel``.
///
/// Nothing in it is the package's own: a ``ModelRegistry`` takes an architecture from anywhere.
public protocol ModelArchitecture: SendableMetatype {
  /// `general.architecture` of the GGUF files that it reads, and the prefix of their keys.
  static var name: String { get }

  /// How Hugging Face's directories are read, one translation for each `model_type`; none by default.
  static var checkpoints: [CheckpointTranslation] { get }

  /// The attention layers that a source's model has, without loading its large weights.
  ///
  /// - Parameter device: holds the small tensors that are part of a layer, such as the norms of query and key heads.
  static func attentionLayers(of source: any ModelSource, on device: any Device) throws -> [AttentionLayerSpec]

  /// Bytes of memory that a source's model makes for layers with experts and layers of latent attention, besides weights and the cache, known before a large weight is read. 0 by default.
  static func workingByteCount(of source: any ModelSource, maxNumTokens: Int, on device: any Device) throws -> Int

  /// Loads the model, to write text.
  static func load(_ source: any ModelSource, in context: ModelContext) throws -> any LanguageModel

  /// Loads the model without its output matrix, to answer with vectors; by default it cannot.
  static func load(_ source: any ModelSource, pooling: Pooling, in context: ModelContext) throws -> any EmbeddingModel
}

extension ModelArchitecture {
  public static var checkpoints: [CheckpointTranslation] { [] }

  public static func load(_ source: any ModelSource, pooling: Pooling, in context: ModelContext) throws -> any EmbeddingModel {
    throw ModelError.makesNoVectors(architecture: name)
  }

  public static func workingByteCount(of source: any ModelSource, maxNumTokens: Int, on device: any Device) throws -> Int { 0 }
}

/// An architecture that is a ``DecoderModel``: what is its own is said by ``describe(_:)``, and everything else is there.
///
/// ```swift
/// public enum Qwen2: DecoderArchitecture {
///   public static let name = "qwen2"
///
///   public static func describe(_ reader: inout DecoderReader) throws -> DecoderDescription {
///     let rope = try reader.rope(), windows = try reader.windows()
///     return try DecoderDescription(reader.configuration) { layer in
///       DecoderLayer(attention: try reader.attention(layer, window: windows[layer], rope: rope), biases: .queryKeyValue)
///     }
///   }
/// }
/// ```
public protocol DecoderArchitecture: ModelArchitecture {
  /// In what the model differs from the formula of ``DecoderModel``.
  ///
  /// - Throws: what the reader throws, or `reader.invalid(_:_:_:)` for a setting that this architecture does not compute.
  static func describe(_ reader: inout DecoderReader) throws -> DecoderDescription
}

extension DecoderArchitecture {
  public static func attentionLayers(of source: any ModelSource, on device: any Device) throws -> [AttentionLayerSpec] {
    var reader = try DecoderReader(source, loader: WeightLoader(source, architecture: name, on: device))
    return try describe(&reader).layers.map(\.attention)
  }

  public static func workingByteCount(of source: any ModelSource, maxNumTokens: Int, on device: any Device) throws -> Int {
    var reader = try DecoderReader(source, loader: WeightLoader(source, architecture: name, on: device))
    let description = try describe(&reader)
    let latent = description.layers.lazy.compactMap { layer in
      layer.attention.mla.map { LatentMemory.byteCount($0, numHeads: layer.attention.numHeads, maxNumTokens: maxNumTokens) }
    }.first
    return ExpertMemory.byteCount(description.experts, hiddenSize: description.configuration.hiddenSize, maxNumTokens: maxNumTokens)
      + (latent ?? 0)
  }

  public static func load(_ source: any ModelSource, in context: ModelContext) throws -> any LanguageModel {
    var reader = try DecoderReader(source, loader: WeightLoader(source, architecture: name, in: context))
    let description = try describe(&reader)
    guard description.mask == .causal else { throw ModelError.writesNoText(architecture: name) }
    return try DecoderModel(description, &reader.loader, in: context)
  }

  public static func load(_ source: any ModelSource, pooling: Pooling, in context: ModelContext) throws -> any EmbeddingModel {
    var reader = try DecoderReader(source, loader: WeightLoader(source, architecture: name, in: context))
    let description = try describe(&reader)
    return try DecoderModel(description, &reader.loader, pooling: pooling, in: context)
  }
}
