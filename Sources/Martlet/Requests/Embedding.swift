// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// The vector of a text.
public struct Embedding: Sendable, Hashable {
  /// As many as the model makes (``LLM/embeddingSize``), or as were asked for.
  public let values: [Float]
  /// Tokens of the text, with those that were put around it.
  public let tokenCount: Int

  public init(values: [Float], tokenCount: Int) {
    self.values = values
    self.tokenCount = tokenCount
  }
}

/// What is asked of vectors.
public struct EmbeddingOptions: Sendable, Hashable {
  /// The first so many values of a vector, for models that were trained for it (Matryoshka); brought to length 1 again where the model's vectors have it.
  /// nil: all.
  public var dimensions: Int?
  /// Whether a text that is too long for the model loses its end; otherwise it is an error.
  public var truncates: Bool
  /// What log lines call the request; nil: its number.
  public var id: String?

  public init(dimensions: Int? = nil, truncates: Bool = false, id: String? = nil) {
    self.dimensions = dimensions
    self.truncates = truncates
    self.id = id
  }
}
