// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

extension CompiledGrammar {
  /// The form of texts that match a regular expression (ECMA-262's, on Unicode characters) as a whole, whether or not it has anchors.
  public init(regex: String, limits: GrammarLimits = GrammarLimits()) throws(GrammarError) {
    try limits.check(source: regex)
    var table = ExpressionTable(maximumCount: limits.numExpressions, maximumSteps: limits.numCompileSteps)
    var builder = PatternBuilder(.utf8)
    let expression = try builder.whole(try builder.parse(regex), &table)
    var grammar = Grammar()
    grammar.root = grammar.declareRule("root")
    grammar.starts[0] = grammar.lexeme(expression, then: Grammar.end)
    try self.init(grammar, table, limits)
  }
}

extension GrammarLimits {
  func check(source: String) throws(GrammarError) {
    guard source.utf8.count <= sourceByteCount else {
      throw .limit("the form's text has \(source.utf8.count) bytes, which is more than \(sourceByteCount): make it shorter")
    }
  }
}
