// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// A context-free grammar over lexemes, as a graph: each rule begins at a node, and following its edges reads what the rule derives.
///
/// A lexeme is a regular expression over bytes. Nothing says how long a lexeme must be: where it may end or go on, both are followed. So the
/// grammar's language is what the grammar says, without a rule like "the longest lexeme wins".
struct Grammar: Sendable {
  typealias NodeID = Int32
  typealias RuleID = Int32

  enum Node: Sendable {
    /// Reads a text of the expression.
    case lexeme(ExpressionTable.ID, then: NodeID)
    /// Goes on at any of the nodes.
    case split([NodeID])
    /// Reads what the rule derives.
    case call(RuleID, then: NodeID)
    /// Reads what the rule derives, so often; nil for no bound.
    case loop(RuleID, minimum: Int32, maximum: Int32?, then: NodeID)
    /// The rule ends here.
    case end
    /// Nothing can be read from here.
    case dead
  }

  var nodes: [Node] = [.end, .dead]
  /// Of each rule: the node at which it begins.
  var starts: [NodeID] = []
  /// Of each rule: what to call it in messages.
  var names: [String] = []
  var root: RuleID = 0

  static var end: NodeID { 0 }
  static var dead: NodeID { 1 }

  mutating func add(_ node: Node) -> NodeID {
    nodes.append(node)
    return NodeID(nodes.count - 1)
  }

  /// A rule whose start is set later.
  mutating func declareRule(_ name: String) -> RuleID {
    starts.append(Self.dead)
    names.append(name)
    return RuleID(starts.count - 1)
  }

  mutating func lexeme(_ expression: ExpressionTable.ID, then next: NodeID) -> NodeID {
    if expression == ExpressionTable.nothing || next == Self.dead { return Self.dead }
    return expression == ExpressionTable.empty ? next : add(.lexeme(expression, then: next))
  }

  mutating func call(_ rule: RuleID, then next: NodeID) -> NodeID { next == Self.dead ? next : add(.call(rule, then: next)) }

  mutating func split(_ nodes: [NodeID]) -> NodeID {
    let alive = nodes.filter { $0 != Self.dead }
    if alive.isEmpty { return Self.dead }
    return alive.count == 1 ? alive[0] : add(.split(alive))
  }

  mutating func loop(_ rule: RuleID, minimum: Int, maximum: Int?, then next: NodeID) -> NodeID {
    if maximum == 0 || next == Self.dead { return next }
    return add(.loop(rule, minimum: Int32(clamping: minimum), maximum: maximum.map { Int32(clamping: $0) }, then: next))
  }
}
