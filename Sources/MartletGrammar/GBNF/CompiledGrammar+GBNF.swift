// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

extension CompiledGrammar {
  /// The form that a grammar in GBNF gives; it begins with the rule `root`.
  ///
  /// Rules that do not lead back to themselves are regular expressions, and become lexemes together with what is around them. A rule that may begin with
  /// itself is refused, as llama.cpp refuses it.
  public init(gbnf: String, limits: GrammarLimits = GrammarLimits()) throws(GrammarError) {
    try limits.check(source: gbnf)
    let parser = try GBNFParser(gbnf)
    var builder = try GBNFBuilder(parser.rules, limits)
    try builder.build()
    try self.init(builder.grammar, builder.table, limits)
  }
}

private struct GBNFBuilder {
  private let rules: [(name: String, expression: GBNFParser.Expression)]
  private var numbers: [String: Int] = [:]
  var grammar = Grammar()
  var table: ExpressionTable
  private var patterns = PatternBuilder(.utf8)
  /// Of each rule: its expression, if it leads to no rule that leads back to itself.
  private var regular: [ExpressionTable.ID?]

  init(_ rules: [(name: String, expression: GBNFParser.Expression)], _ limits: GrammarLimits) throws(GrammarError) {
    self.rules = rules
    for (number, rule) in rules.enumerated() { numbers[rule.name] = number }
    guard let root = numbers["root"] else { throw GrammarError(.syntax, "grammar: there is no rule \"root\"") }
    table = ExpressionTable(maximumCount: limits.numExpressions, maximumSteps: limits.numCompileSteps)
    regular = [ExpressionTable.ID?](repeating: nil, count: rules.count)
    for rule in rules { _ = grammar.declareRule(rule.name) }
    grammar.root = Grammar.RuleID(root)
  }

  mutating func build() throws(GrammarError) {
    for number in orderOfUse() { regular[number] = expression(rules[number].expression) }
    for (number, rule) in rules.enumerated() {
      grammar.starts[number] =
        if let expression = regular[number] { grammar.lexeme(expression, then: Grammar.end) } else {
          node(rule.expression, then: Grammar.end)
        }
      guard !table.isExhausted else { throw .limit("the grammar takes too many regular expressions: make it smaller") }
    }
  }

  /// The rules, those first that others use. Without recursion, for rules may use each other in a long row.
  private func orderOfUse() -> [Int] {
    func used(_ expression: GBNFParser.Expression, _ result: inout [Int]) {
      switch expression {
      case .characters: break
      case .sequence(let list), .choice(let list): for part in list { used(part, &result) }
      case .rule(let name): result.append(numbers[name]!)
      case .repeat(let inner, _, _): used(inner, &result)
      }
    }
    let uses = rules.map { rule in
      var result: [Int] = []
      used(rule.expression, &result)
      return result
    }
    var order: [Int] = []
    var isSeen = [Bool](repeating: false, count: rules.count)
    for first in rules.indices where !isSeen[first] {
      isSeen[first] = true
      var path = [(rule: first, next: 0)]
      while let (rule, next) = path.last {
        guard next < uses[rule].count else {
          order.append(rule)
          path.removeLast()
          continue
        }
        path[path.count - 1].next += 1
        let other = uses[rule][next]
        if isSeen[other] { continue }
        isSeen[other] = true
        path.append((other, 0))
      }
    }
    return order
  }

  /// nil where a rule is used that is not regular.
  private mutating func expression(_ source: GBNFParser.Expression) -> ExpressionTable.ID? {
    switch source {
    case .characters(let set): return patterns.character(set, &table)
    case .sequence(let list):
      var parts: [ExpressionTable.ID] = []
      for part in list {
        guard let part = expression(part) else { return nil }
        parts.append(part)
      }
      return table.sequence(parts)
    case .choice(let list):
      var parts: [ExpressionTable.ID] = []
      for part in list {
        guard let part = expression(part) else { return nil }
        parts.append(part)
      }
      return table.choice(parts)
    case .rule(let name): return regular[numbers[name]!]
    case .repeat(let inner, let minimum, let maximum): return expression(inner).map { table.repeat($0, minimum, maximum) }
    }
  }

  /// The node from which the expression is read, and `next` after it. Regular parts that stand side by side are one lexeme.
  private mutating func node(_ source: GBNFParser.Expression, then next: Grammar.NodeID) -> Grammar.NodeID {
    if let expression = expression(source) { return grammar.lexeme(expression, then: next) }
    switch source {
    case .characters: return Grammar.dead  // is regular
    case .sequence(let list):
      var result = next
      var lexeme = ExpressionTable.empty
      for part in list.reversed() {
        if let expression = expression(part) {
          lexeme = table.sequence(expression, lexeme)
          continue
        }
        result = grammar.lexeme(lexeme, then: result)
        lexeme = ExpressionTable.empty
        result = node(part, then: result)
      }
      return grammar.lexeme(lexeme, then: result)
    case .choice(let list):
      var lexeme = ExpressionTable.nothing
      var nodes: [Grammar.NodeID] = []
      for part in list {
        if let expression = expression(part) { lexeme = table.choice(lexeme, expression) } else { nodes.append(node(part, then: next)) }
      }
      return grammar.split([grammar.lexeme(lexeme, then: next)] + nodes)
    case .rule(let name): return grammar.call(Grammar.RuleID(numbers[name]!), then: next)
    case .repeat(let inner, let minimum, let maximum):
      let body = grammar.declareRule("a repeated part")
      grammar.starts[Int(body)] = node(inner, then: Grammar.end)
      return grammar.loop(body, minimum: minimum, maximum: maximum, then: next)
    }
  }
}
