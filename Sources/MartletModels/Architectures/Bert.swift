// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletAttention
public import MartletCore

/// BERT (`general.architecture = bert`; arXiv 1810.04805) as models of sentence embeddings are: all-MiniLM, BGE, E5, GTE.
///
/// Its formula is that of ``EncoderModel``. It answers with a vector and writes no text. Directories may hold the pooler and the heads of what
/// the model was trained for, which nobody reads.
public enum Bert: ModelArchitecture {
  public static let name = "bert"

  public static let checkpoints = [
    CheckpointTranslation(
      modelType: "bert",
      settings: [
        .float("layer_norm_eps", as: "attention.layer_norm_epsilon"), .integer("type_vocab_size", as: "token_type_count"),
        .fixed("hidden_act", .string("gelu")), .fixed("position_embedding_type", .string("absolute")), .fixed("is_decoder", .bool(false)),
      ], tiesEmbeddings: true,
      defaults: [
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "max_position_embeddings": 512,
        "layer_norm_eps": 1e-12, "type_vocab_size": 2,
      ],
      tensors: named([
        "embeddings.word_embeddings.weight": "token_embd.weight", "embeddings.position_embeddings.weight": "position_embd.weight",
        "embeddings.token_type_embeddings.weight": "token_types.weight", "embeddings.LayerNorm": "token_embd_norm",
      ]),
      layerTensors: named([
        "attention.self.query": "attn_q", "attention.self.key": "attn_k", "attention.self.value": "attn_v",
        "attention.output.dense": "attn_output", "attention.output.LayerNorm": "attn_output_norm", "intermediate.dense": "ffn_up",
        "output.dense": "ffn_down", "output.LayerNorm": "layer_output_norm",
      ]),
      layout: CheckpointTranslation.Layout(
        root: "bert.", layers: "encoder.layer.", unread: ["pooler.", "cls.", "embeddings.position_ids", "embeddings.token_type_ids"]))
  ]

  public static func attentionLayers(of source: any ModelSource, on device: any Device) throws -> [AttentionLayerSpec] {
    try describe(source).layers
  }

  public static func load(_ source: any ModelSource, in context: ModelContext) throws -> any LanguageModel {
    throw ModelError.writesNoText(architecture: name)
  }

  public static func load(_ source: any ModelSource, pooling: Pooling, in context: ModelContext) throws -> any EmbeddingModel {
    let description = try describe(source), configuration = description.configuration
    let paddedDim = PaddedHeads.paddedDim(configuration.headDim)
    let padded = PaddedHeads(
      source: source, numHeads: configuration.numHeads, numKVHeads: configuration.numKVHeads, dim: configuration.headDim,
      paddedDim: paddedDim)
    var loader = WeightLoader(paddedDim == configuration.headDim ? source : padded, architecture: name, in: context)
    return try EncoderModel(description, &loader, pooling: pooling, in: context)
  }

  private static func describe(_ source: any ModelSource) throws -> EncoderDescription {
    let configuration = try ModelConfiguration(source)
    let key = "\(configuration.architecture).attention.causal"
    if try source.bool(ifPresent: key) == true { throw source.invalid(key, true, "BERT looks to both sides") }
    guard configuration.valueHeadDim == configuration.headDim else {
      throw source.invalid(
        "\(configuration.architecture).attention.value_length", configuration.valueHeadDim,
        "BERT's value heads are as wide as its key heads")
    }
    return EncoderDescription(
      configuration,
      layers: (0..<configuration.numLayers).map {
        AttentionLayerSpec(
          layerIndex: $0, numHeads: configuration.numHeads, headDim: PaddedHeads.paddedDim(configuration.headDim),
          numKVHeads: configuration.numKVHeads, scale: 1 / Float(configuration.headDim).squareRoot())
      })
  }

  /// A table with a name for the weight and one for the bias of each part. Files that were made with TensorFlow call those of a norm gamma and beta.
  private static func named(_ parts: [String: String]) -> [String: CheckpointTranslation.TensorName] {
    var table: [String: CheckpointTranslation.TensorName] = [:]
    for (name, target) in parts {
      if name.hasSuffix(".weight") {
        table[name] = .init(target)
        continue
      }
      for suffix in ["weight", "bias"] { table["\(name).\(suffix)"] = .init("\(target).\(suffix)") }
      if name.hasSuffix("LayerNorm") {
        table["\(name).gamma"] = .init("\(target).weight")
        table["\(name).beta"] = .init("\(target).bias")
      }
    }
    return table
  }
}
