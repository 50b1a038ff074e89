// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// What attention refuses. A backend of your own may add codes of its own.
///
/// A program looks at ``code``, a person reads ``description``. More codes may come, so a `switch` over them has a `default`.
public struct AttentionError: Error, Sendable, Hashable, CustomStringConvertible {
  /// Which failure it is.
  public struct Code: RawRepresentable, Sendable, Hashable, Codable {
    public let rawValue: String
    public init(rawValue: String) { self.rawValue = rawValue }

    /// No backend has the name.
    public static let unknownBackend = Code(rawValue: "unknownBackend")
    /// The backend cannot serve the layer here, for the ``AttentionError/reasons``.
    public static let obstacles = Code(rawValue: "obstacles")
    /// The step's metadata contradicts itself, its limits or the cache.
    public static let invalidStep = Code(rawValue: "invalidStep")
    /// A layer was given another backend's metadata.
    public static let foreignMetadata = Code(rawValue: "foreignMetadata")
    /// A tensor that does not have the shape or type that the layer needs, or one that is missing.
    public static let invalidTensor = Code(rawValue: "invalidTensor")
    /// The parameters of rotary positions cannot be used.
    public static let invalidRope = Code(rawValue: "invalidRope")
  }

  public let code: Code
  /// A sentence that names the thing and the way out.
  public let description: String
  /// The backend's reasons one by one, for ``Code/obstacles``; else empty.
  public let reasons: [String]

  public init(_ code: Code, _ description: String, reasons: [String] = []) {
    self.code = code
    self.description = description
    self.reasons = reasons
  }
}

extension AttentionError {
  /// ``Code/unknownBackend``, with the names that there are.
  public static func unknownBackend(name: String, known: [String]) -> AttentionError {
    AttentionError(.unknownBackend, "attention backend \"\(name)\" is unknown (known: \(known.joined(separator: ", ")))")
  }

  /// ``Code/obstacles``.
  public static func obstacles(backend: String, layer: Int, reasons: [String]) -> AttentionError {
    AttentionError(
      .obstacles, "attention backend \(backend) cannot serve layer \(layer): \(reasons.joined(separator: "; "))", reasons: reasons)
  }

  /// ``Code/invalidStep``.
  public static func invalidStep(_ problem: String) -> AttentionError {
    AttentionError(.invalidStep, "attention metadata: \(problem)")
  }

  /// ``Code/foreignMetadata``, with the types that were expected and found.
  public static func foreignMetadata(backend: String, expected: String, found: String) -> AttentionError {
    AttentionError(
      .foreignMetadata,
      "attention backend \(backend) was given metadata of type \(found); make it with AttentionLayer.makeMetadata, as \(expected)")
  }

  /// ``Code/invalidTensor``.
  public static func invalidTensor(layer: Int, problem: String) -> AttentionError {
    AttentionError(.invalidTensor, "attention layer \(layer): \(problem)")
  }

  /// ``Code/invalidRope``.
  public static func invalidRope(_ problem: String) -> AttentionError {
    AttentionError(.invalidRope, "rotary positions: \(problem)")
  }
}
