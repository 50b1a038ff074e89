// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Why a file's model cannot be served. What is wrong with the file itself is a `GGUFError` or a `CheckpointError`.
///
/// A program looks at ``code``, a person reads ``description``. More codes may come, so a `switch` over them has a `default`.
public struct ModelError: Error, Sendable, Hashable, CustomStringConvertible {
  /// Which failure it is.
  public struct Code: RawRepresentable, Sendable, Hashable, Codable {
    public let rawValue: String
    public init(rawValue: String) { self.rawValue = rawValue }

    /// An architecture that this build does not have.
    public static let unknownArchitecture = Code(rawValue: "unknownArchitecture")
    /// A setting of `config.json` that is needed is not there.
    public static let missingSetting = Code(rawValue: "missingSetting")
    /// A setting of `config.json` that this build does not know.
    public static let unknownSetting = Code(rawValue: "unknownSetting")
    /// A metadata value that contradicts itself, others, or what this build computes.
    public static let invalid = Code(rawValue: "invalid")
    /// A tensor that this build's formula of the architecture does not use: the result would be wrong without it.
    public static let unusedTensor = Code(rawValue: "unusedTensor")
    /// A model that answers with vectors was asked for text.
    public static let writesNoText = Code(rawValue: "writesNoText")
    /// A model that cannot answer with vectors was asked for one.
    public static let makesNoVectors = Code(rawValue: "makesNoVectors")
  }

  public let code: Code
  /// A sentence that names the thing and the way out.
  public let description: String
  /// The metadata key or the setting that it is about, as the file spells it; nil where it is about none.
  public let key: String?
  // More than four words wide: the optimiser of Swift 6.3 crashes on async callers of what throws a typed error of two to four.

  public init(_ code: Code, _ description: String, key: String? = nil) {
    self.code = code
    self.description = description
    self.key = key
  }
}

extension ModelError {
  /// ``Code/unknownArchitecture``, with the names that there are.
  public static func unknownArchitecture(_ name: String, known: [String]) -> ModelError {
    ModelError(
      .unknownArchitecture,
      "the architecture \"\(name)\" is unknown (known: \(known.joined(separator: ", "))); convert it to one of these, or add it to the package (see Adding-a-model.md)"
    )
  }

  /// ``Code/missingSetting``, with the setting's name.
  public static func missingSetting(_ name: String) -> ModelError {
    ModelError(.missingSetting, "config.json has no \"\(name)\", which is needed; take the model's own config.json", key: name)
  }

  /// ``Code/unknownSetting``, with the setting's name and value.
  public static func unknownSetting(_ name: String, value: String) -> ModelError {
    ModelError(
      .unknownSetting,
      "config.json says \(name) = \(value), which this build does not know: it may change what the model computes; "
        + "take the line out if it does not, or convert the model to GGUF", key: name)
  }

  /// ``Code/invalid``, with the key as the file spells it.
  public static func invalid(key: String, value: String, reason: String) -> ModelError {
    ModelError(.invalid, "the file says \(key) = \(value): \(reason)", key: key)
  }

  /// ``Code/writesNoText``.
  public static func writesNoText(architecture: String) -> ModelError {
    ModelError(
      .writesNoText,
      "this model (\"\(architecture)\") looks to both sides of a token: it answers with vectors and writes no text, and its files do not say by which "
        + "pooling; say one (mean, cls or last)")
  }

  /// ``Code/makesNoVectors``.
  public static func makesNoVectors(architecture: String) -> ModelError {
    ModelError(
      .makesNoVectors, "models of the architecture \"\(architecture)\" write text, and this build makes no vectors of their states")
  }

  /// ``Code/unusedTensor``.
  public static func unusedTensor(name: String, architecture: String) -> ModelError {
    ModelError(
      .unusedTensor,
      "the file has a tensor \"\(name)\", which \"\(architecture)\" as this build computes it does not use; the model is another variant")
  }
}
