// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Why a JSON text cannot be used.
///
/// A program looks at ``code``, a person reads ``description``. More codes may come, so a `switch` over them has a `default`.
public struct JSONError: Error, Sendable, Hashable, CustomStringConvertible {
  /// Which failure it is.
  public struct Code: RawRepresentable, Sendable, Hashable, Codable {
    public let rawValue: String
    public init(rawValue: String) { self.rawValue = rawValue }

    /// The file could not be opened or mapped; ``JSONError/reason`` is the system's.
    public static let cannotOpen = Code(rawValue: "cannotOpen")
    /// What stands at byte ``JSONError/offset`` is not what JSON (RFC 8259) or this reader's limits allow there.
    public static let malformed = Code(rawValue: "malformed")
  }

  public let code: Code
  /// A sentence that names the thing and the way out.
  public let description: String
  /// What is wrong, in words, without the place and the way out.
  public let reason: String
  /// The byte at which the text goes wrong, from 0, for ``Code/malformed``; else nil.
  public let offset: Int?

  public init(_ code: Code, _ description: String, reason: String, offset: Int? = nil) {
    self.code = code
    self.description = description
    self.reason = reason
    self.offset = offset
  }
}

extension JSONError {
  /// ``Code/cannotOpen``.
  public static func cannotOpen(path: String, reason: String) -> JSONError {
    JSONError(.cannotOpen, "JSON: cannot open \"\(path)\": \(reason)", reason: reason)
  }

  /// ``Code/malformed``.
  public static func malformed(offset: Int, problem: String) -> JSONError {
    JSONError(
      .malformed, "JSON: byte \(offset): \(problem); the text is damaged or was written wrongly: fetch it again", reason: problem,
      offset: offset)
  }
}
