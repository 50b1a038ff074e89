// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// How JSON that follows a schema is written, and what is made of keywords that say nothing certain.
public struct JSONSchemaOptions: Sendable, Hashable {
  /// White space between the tokens of JSON.
  public enum Whitespace: Sendable, Hashable {
    /// None.
    case compact
    /// Up to so many spaces, tabs and line ends in a row.
    case flexible(maximum: Int)
  }

  /// What is done with a `format` that is not among those that are held (``JSONSchemaOptions`` lists them).
  public enum UnknownFormats: Sendable, Hashable {
    /// The schema is refused.
    case refuse
    /// Any string is allowed, as the specification has it by default; the keyword is among ``CompiledGrammar/annotations``.
    case annotate
  }

  /// Default: none.
  public var whitespace = Whitespace.compact
  /// Default: refuse. Held are `date-time`, `date`, `time`, `duration`, `email`, `hostname`, `ipv4`, `ipv6`, `uuid`, `uri`, `uri-reference` and `json-pointer`.
  public var unknownFormats = UnknownFormats.refuse
  /// Whether an integer may be written as "1.0", which JSON Schema counts as one. Default: no, since many readers do not.
  public var integersMayHaveZeroFraction = false

  public init() {}
}
