// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Why a file's model cannot be served. What is wrong with the file itself is a `GGUFError`.
public enum ModelError: Error, Sendable, Hashable, CustomStringConvertible {
  case unknownArchitecture(String, known: [String])
  /// A metadata value that contradicts itself, others, or what this build computes.
  case invalid(key: String, value: String, reason: String)
  /// A tensor that this build's formula of the architecture does not use: the result would be wrong without it.
  case unusedTensor(name: String, architecture: String)

  public var description: String {
    switch self {
    case .unknownArchitecture(let name, let known):
      "the architecture \"\(name)\" is unknown (known: \(known.joined(separator: ", "))); add yours with ModelRegistry.adding"
    case .invalid(let key, let value, let reason): "the file says \(key) = \(value): \(reason)"
    case .unusedTensor(let name, let architecture):
      "the file has a tensor \"\(name)\", which \"\(architecture)\" as this build computes it does not use; the model is another variant"
    }
  }
}
