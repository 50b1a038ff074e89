// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Why a file's model cannot be served. What is wrong with the file itself is a `GGUFError` or a `CheckpointError`.
public enum ModelError: Error, Sendable, Hashable, CustomStringConvertible {
  case unknownArchitecture(String, known: [String])
  /// A setting of `config.json` that is needed.
  case missingSetting(String)
  /// A setting of `config.json` that this build does not know.
  case unknownSetting(String, value: String)
  /// A metadata value that contradicts itself, others, or what this build computes.
  case invalid(key: String, value: String, reason: String)
  /// A tensor that this build's formula of the architecture does not use: the result would be wrong without it.
  case unusedTensor(name: String, architecture: String)

  public var description: String {
    switch self {
    case .unknownArchitecture(let name, let known):
      "the architecture \"\(name)\" is unknown (known: \(known.joined(separator: ", "))); convert it to one of these, or add it to the package (see Adding-a-model.md)"
    case .missingSetting(let name): "config.json has no \"\(name)\", which is needed; take the model's own config.json"
    case .unknownSetting(let name, let value):
      "config.json says \(name) = \(value), which this build does not know: it may change what the model computes; "
        + "take the line out if it does not, or convert the model to GGUF"
    case .invalid(let key, let value, let reason): "the file says \(key) = \(value): \(reason)"
    case .unusedTensor(let name, let architecture):
      "the file has a tensor \"\(name)\", which \"\(architecture)\" as this build computes it does not use; the model is another variant"
    }
  }
}
