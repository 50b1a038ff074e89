// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// What attention refuses.
public enum AttentionError: Error, Sendable, Hashable, CustomStringConvertible {
  case unknownBackend(name: String, known: [String])
  /// The backend cannot serve the layer here.
  case obstacles(backend: String, layer: Int, reasons: [String])
  /// The step's metadata contradicts itself, its limits or the cache.
  case invalidStep(String)
  /// A layer was given another backend's metadata.
  case foreignMetadata(backend: String, expected: String, found: String)
  /// A tensor that does not have the shape or type that the layer needs, or one that is missing.
  case invalidTensor(layer: Int, problem: String)
  /// The parameters of rotary positions cannot be used.
  case invalidRope(String)

  public var description: String {
    switch self {
    case .unknownBackend(let name, let known):
      "attention backend \"\(name)\" is unknown (known: \(known.joined(separator: ", ")))"
    case .obstacles(let backend, let layer, let reasons):
      "attention backend \(backend) cannot serve layer \(layer): \(reasons.joined(separator: "; "))"
    case .invalidStep(let problem): "attention metadata: \(problem)"
    case .foreignMetadata(let backend, let expected, let found):
      "attention backend \(backend) was given metadata of type \(found); make it with AttentionLayer.makeMetadata, as \(expected)"
    case .invalidTensor(let layer, let problem): "attention layer \(layer): \(problem)"
    case .invalidRope(let problem): "rotary positions: \(problem)"
    }
  }
}
