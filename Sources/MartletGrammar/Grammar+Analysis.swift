// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// What is found out about a grammar before anything is read: which nodes can be left without a byte, which lead to no text, and in which order rules
// that begin at the same place are entered.

/// A grammar that is ready to be followed.
struct PreparedGrammar: Sendable {
  let nodes: [Grammar.Node]
  let starts: [Grammar.NodeID]
  let root: Grammar.RuleID
  let isNullableRule: [Bool]
  /// Of each rule: its place in an order in which a rule comes before those that its texts may begin with.
  let rank: [Int32]

  init(_ grammar: Grammar, _ expressions: inout ExpressionTable) throws(GrammarError) {
    var nodes = grammar.nodes
    Self.removeUnproductive(&nodes, grammar.starts, &expressions)
    if expressions.isExhausted { throw .limit("finding out what the form's regular expressions match takes too long: make it simpler") }
    if case .dead = nodes[Int(grammar.starts[Int(grammar.root)])] {
      throw GrammarError(.unsatisfiable, "no text at all has this form")
    }
    self.nodes = nodes
    starts = grammar.starts
    root = grammar.root
    let isNullableNode = Self.nullableNodes(nodes, starts, expressions)
    isNullableRule = starts.map { isNullableNode[Int($0)] }
    rank = try Self.rank(nodes, grammar, isNullableRule, expressions)
  }

  /// For which nodes a property holds that follows from the same property of the nodes behind them: none has it until it follows.
  private static func propagate(_ nodes: [Grammar.Node], _ starts: [Grammar.NodeID], holds: (Int, [Bool]) -> Bool) -> [Bool] {
    var answer = [Bool](repeating: false, count: nodes.count)
    var users = [[Int32]](repeating: [], count: nodes.count)
    for (index, node) in nodes.enumerated() {
      switch node {
      case .lexeme(_, let next): users[Int(next)].append(Int32(index))
      case .split(let list): for next in list { users[Int(next)].append(Int32(index)) }
      case .call(let rule, let next), .loop(let rule, _, _, let next):
        users[Int(next)].append(Int32(index))
        users[Int(starts[Int(rule)])].append(Int32(index))
      case .end, .dead: break
      }
    }
    var pending = Array(nodes.indices)
    while let index = pending.popLast() {
      guard !answer[index], holds(index, answer) else { continue }
      answer[index] = true
      pending.append(contentsOf: users[index].map { Int($0) })
    }
    return answer
  }

  private static func removeUnproductive(_ nodes: inout [Grammar.Node], _ starts: [Grammar.NodeID], _ expressions: inout ExpressionTable) {
    var isAlive = [Bool](repeating: true, count: nodes.count)
    for (index, node) in nodes.enumerated() {
      if case .lexeme(let expression, _) = node { isAlive[index] = expressions.isAlive(expression) }
    }
    let before = nodes
    let productive = propagate(nodes, starts) { index, answer in
      switch before[index] {
      case .lexeme(_, let next): isAlive[index] && answer[Int(next)]
      case .split(let list): list.contains { answer[Int($0)] }
      case .call(let rule, let next): answer[Int(next)] && answer[Int(starts[Int(rule)])]
      case .loop(let rule, let minimum, _, let next): answer[Int(next)] && (minimum == 0 || answer[Int(starts[Int(rule)])])
      case .end: true
      case .dead: false
      }
    }
    for index in nodes.indices {
      guard productive[index] else {
        nodes[index] = .dead
        continue
      }
      switch nodes[index] {
      case .split(let list): nodes[index] = .split(list.filter { productive[Int($0)] })
      case .loop(let rule, _, _, let next) where !productive[Int(starts[Int(rule)])]: nodes[index] = .split([next])
      default: break
      }
    }
  }

  private static func nullableNodes(_ nodes: [Grammar.Node], _ starts: [Grammar.NodeID], _ expressions: ExpressionTable) -> [Bool] {
    propagate(nodes, starts) { index, answer in
      switch nodes[index] {
      case .lexeme(let expression, let next): expressions.isNullable(expression) && answer[Int(next)]
      case .split(let list): list.contains { answer[Int($0)] }
      case .call(let rule, let next): answer[Int(next)] && answer[Int(starts[Int(rule)])]
      case .loop(let rule, let minimum, _, let next): answer[Int(next)] && (minimum == 0 || answer[Int(starts[Int(rule)])])
      case .end: true
      case .dead: false
      }
    }
  }

  /// Orders the rules so that each comes before those that its texts may begin with; a rule that may begin with itself has no such order.
  private static func rank(
    _ nodes: [Grammar.Node], _ grammar: Grammar, _ isNullableRule: [Bool], _ expressions: ExpressionTable
  ) throws(GrammarError) -> [Int32] {
    func successors(_ index: Int) -> [Grammar.NodeID] {
      switch nodes[index] {
      case .lexeme(let expression, let next): expressions.isNullable(expression) ? [next] : []
      case .split(let list): list
      case .call(let rule, let next): isNullableRule[Int(rule)] ? [grammar.starts[Int(rule)], next] : [grammar.starts[Int(rule)]]
      case .loop(let rule, let minimum, _, let next):
        minimum == 0 || isNullableRule[Int(rule)] ? [grammar.starts[Int(rule)], next] : [grammar.starts[Int(rule)]]
      case .end, .dead: []
      }
    }
    // Depth first without recursion; a node that is met while it is open closes a circle that reads nothing.
    enum Mark { case new, open, done }
    var marks = [Mark](repeating: .new, count: nodes.count)
    var finished: [Int32] = []
    var order = [Int32](repeating: 0, count: nodes.count)
    for root in nodes.indices where marks[root] == .new {
      var path: [(node: Int, pending: [Grammar.NodeID])] = [(root, successors(root))]
      marks[root] = .open
      while !path.isEmpty {
        guard let next = path[path.count - 1].pending.popLast() else {
          let node = path.removeLast().node
          marks[node] = .done
          order[node] = Int32(finished.count)
          finished.append(Int32(node))
          continue
        }
        switch marks[Int(next)] {
        case .done: break
        case .open:
          let circle = Set(path.suffix(from: path.lastIndex { $0.node == Int(next) }!).map { Int32($0.node) })
          let rule = grammar.starts.indices.first { circle.contains(grammar.starts[$0]) }
          throw .unsupported(
            "the rule \(rule.map { "\"\(grammar.names[$0])\"" } ?? "here") may begin with itself (left recursion): write the repeated part behind what comes first"
          )
        case .new:
          marks[Int(next)] = .open
          path.append((Int(next), successors(Int(next))))
        }
      }
    }
    return grammar.starts.map { Int32(finished.count) - order[Int($0)] }
  }
}
