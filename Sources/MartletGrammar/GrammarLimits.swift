// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// How much a form may take before it is given up with ``GrammarError/Code/limit``.
///
/// Time is bounded by what is counted here: every step of compiling or of following an answer adds to one of these, and none takes longer than
/// the sizes allow. There is no clock, so that a form compiles on every machine or on none.
public struct GrammarLimits: Sendable, Hashable {
  /// Bytes of the text of a schema, grammar or regular expression.
  public var sourceByteCount = 8 << 20
  /// Regular expressions that compiling may make; each is some 24 bytes, and as much again to find it.
  public var numExpressions = 4_000_000
  /// Nodes of the grammar.
  public var numNodes = 1_000_000
  /// Derivatives of regular expressions that are taken while compiling, to find out what is empty: about a million a second.
  public var numCompileSteps = 2_000_000
  /// Alternatives of one value in a JSON Schema, after `allOf`, `anyOf` and the like have been multiplied out.
  public var numAlternatives = 256
  /// Bytes that the automata of one form may take while answers are followed. They are built again from nothing where it is met, and following is
  /// given up where a single step takes more.
  public var automatonByteCount = 64 << 20
  /// Bytes of masks that are kept for one form and vocabulary.
  public var maskByteCount = 32 << 20

  public init() {}
}
