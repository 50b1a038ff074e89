// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Why a form of answers cannot be compiled, or an answer cannot be followed further: never a form that is half obeyed.
///
/// A program looks at ``code``, a person reads ``description``. More codes may come, so a `switch` over them has a `default`.
public struct GrammarError: Error, Sendable, Hashable, CustomStringConvertible {
  /// Which failure it is.
  public struct Code: RawRepresentable, Sendable, Hashable, Codable {
    /// One word.
    public let rawValue: String
    public init(rawValue: String) { self.rawValue = rawValue }

    /// The text is no JSON, no regular expression or no grammar.
    public static let syntax = Code(rawValue: "syntax")
    /// The text is right, but asks for what cannot be held exactly: it is refused rather than ignored.
    public static let unsupported = Code(rawValue: "unsupported")
    /// No text at all has the form.
    public static let unsatisfiable = Code(rawValue: "unsatisfiable")
    /// A bound of ``GrammarLimits`` was met.
    public static let limit = Code(rawValue: "limit")
  }

  /// Which failure it is.
  public let code: Code
  /// What is wrong and the way out, in words, without the place.
  public let reason: String
  /// Where: a JSON pointer such as "#/properties/age/minimum" in a schema, "line 3, column 7" in a grammar, "character 4" in a regular expression;
  /// nil where the whole is meant.
  public let place: String?

  public init(_ code: Code, _ reason: String, at place: String? = nil) {
    self.code = code
    self.reason = reason
    self.place = place
  }

  public var description: String { place.map { "\($0): \(reason)" } ?? reason }
}

extension GrammarError {
  static func unsupported(_ reason: String, at place: String? = nil) -> GrammarError { GrammarError(.unsupported, reason, at: place) }
  static func limit(_ reason: String) -> GrammarError { GrammarError(.limit, reason) }
}
