// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// EmbeddingGemma (`general.architecture = gemma-embedding`; arXiv 2509.20354).
///
/// Gemma 3 whose tokens see both sides, and whose window of w tokens is the nearest w / 2 on each. It answers with a vector: the mean of states, through
/// two dense layers. Hugging Face's directories of it are of the type `gemma3_text`, with `use_bidirectional_attention`.
public enum GemmaEmbedding: DecoderArchitecture {
  public static let name = "gemma-embedding"

  public static func describe(_ reader: inout DecoderReader) throws -> DecoderDescription {
    try Gemma3.describe(&reader, isBidirectional: true)
  }
}
