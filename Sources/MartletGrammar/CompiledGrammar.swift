// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// A form of answers, compiled: what follows answers through it and makes masks is ``GrammarConstraint``.
///
/// Immutable, and the same for every vocabulary.
public struct CompiledGrammar: Sendable {
  let grammar: PreparedGrammar
  let expressions: ExpressionTable
  let limits: GrammarLimits
  /// Where the form has something that says nothing about texts, as JSON pointers to keywords of a schema: those that the specification calls
  /// annotations and those that it does not know. Every other keyword is held.
  public internal(set) var annotations: [String] = []

  init(_ grammar: Grammar, _ expressions: consuming ExpressionTable, _ limits: GrammarLimits) throws(GrammarError) {
    if expressions.isExhausted { throw .limit("the form takes too many regular expressions: make it smaller") }
    guard grammar.nodes.count <= limits.numNodes else {
      throw .limit("the form takes \(grammar.nodes.count) nodes, which is more than \(limits.numNodes): make it smaller")
    }
    self.grammar = try PreparedGrammar(grammar, &expressions)
    if expressions.isExhausted { throw .limit("the form takes too many regular expressions: make it smaller") }
    self.expressions = expressions
    self.limits = limits
  }

  /// Bytes of memory that it takes, about.
  public var byteCount: Int { expressions.byteCount + grammar.nodes.count * 48 }
}
