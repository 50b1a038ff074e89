// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore

/// How the states of a text's tokens become one vector.
///
/// Models that are made for it say how: a directory in the files of sentence-transformers (`modules.json`, `1_Pooling`), a GGUF file by
/// `<architecture>.pooling_type`. Dense layers behind the pooling are weights of the model, and come with it.
public struct Pooling: Sendable, Hashable {
  /// What one state is made of a text's: their mean, the first token's (BERT's `[CLS]`), or the last token's.
  public var method: RowPooling
  /// Whether vectors have length 1, so that a product of two is their cosine.
  public var normalizes: Bool

  public init(_ method: RowPooling, normalizes: Bool = true) {
    self.method = method
    self.normalizes = normalizes
  }

  /// What a model's files say; nil where they name none, as those of models that write text do.
  ///
  /// - Throws: ``ModelError`` for a pooling that this build does not compute, naming the setting.
  public init?(_ source: any ModelSource) throws {
    let architecture = try source.string("general.architecture")
    let key = "\(architecture).pooling_type"
    switch try source.integer(ifPresent: key) {
    case nil, 0: return nil
    case 1: method = .mean
    case 2: method = .first
    case 3: method = .last
    case let code?:
      throw source.invalid(
        key, code, "this build pools by the mean (1), the first token (2) or the last (3); 4 is a model that ranks pairs of texts")
    }
    // GGUF files do not say; what reads them gives vectors of length 1.
    normalizes = try source.bool(ifPresent: "\(architecture).pooling_normalizes") ?? true
  }
}
