// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Follows texts through a grammar, byte by byte, and remembers every state that it meets.
///
/// A *thread* is one way to read what came so far: the state within a lexeme, the node behind the lexeme, and a stack of where to go on when a rule
/// ends. A *state* is the set of all threads, and whether the text may end here. Stacks share what is below: a stack is a set of *frames*, each with
/// a stack under it, so that ways that differ only in how they came here are one (as in Tomita's graph-structured stacks). All rules that are
/// entered at one place by several ways are entered once.
///
/// Everything has a number and is there once; the transition from a state by a class of bytes is looked up after the first time.
struct Automaton: Sendable {
  typealias StateID = Int32
  typealias StackID = Int32

  struct Thread: Hashable, Sendable {
    var node: Grammar.NodeID
    var lexeme: ExpressionTable.ID
    var stack: StackID
  }

  struct Frame: Hashable, Sendable {
    /// Where to go on; `root` if the text may end.
    var node: Grammar.NodeID
    /// If the rule is a loop's: how often it was read before, and `node` is the loop. Else `once`.
    var count: Int32
    var stack: StackID

    static var root: Grammar.NodeID { -1 }
    static var once: Int32 { -1 }
  }

  private struct Closure {
    var threads: [Thread]
    var isAccepting: Bool
  }

  private struct Place: Hashable {
    var node: Grammar.NodeID
    var stack: StackID
  }

  /// The state from which nothing can be read and where no text ends.
  static var dead: StateID { 0 }

  let grammar: PreparedGrammar
  var expressions: ExpressionTable
  private var stacks = ListTable()
  /// Of each state: whether the text may end, then its threads.
  private var states = ListTable()
  private var rowStarts: [Int32] = []
  private var rows: [StateID] = []
  private var closures: [Place: Closure] = [:]
  private var closureByteCount = 0
  let byteLimit: Int
  private var isOverLimit = false

  init(_ grammar: PreparedGrammar, _ expressions: ExpressionTable, byteLimit: Int) {
    self.grammar = grammar
    self.expressions = expressions
    self.byteLimit = byteLimit
    self.expressions.maximumCount = .max
    self.expressions.maximumRowByteCount = byteLimit
    allowSteps()
    _ = intern([], isAccepting: false)
  }

  /// Whether the memory or the time of a step that is allowed is used up: transitions then lead to ``dead`` and mean nothing.
  var isExhausted: Bool { isOverLimit || expressions.isExhausted }

  /// Allows some time for what comes next: about a second at most.
  mutating func allowSteps() { expressions.maximumSteps = expressions.numSteps + 1_000_000 }

  var byteCount: Int {
    expressions.byteCount + stacks.byteCount + states.byteCount + rows.count * 4 + rowStarts.count * 4 + closureByteCount
  }

  /// The state before the first byte.
  mutating func start() -> StateID {
    let bottom = stacks.intern([Frame.root, Frame.once, 0])
    let closure = closure(of: Place(node: grammar.starts[Int(grammar.root)], stack: bottom))
    return intern(closure.threads, isAccepting: closure.isAccepting)
  }

  func isAccepting(_ state: StateID) -> Bool { states.storage[states.range(state).lowerBound] != 0 }

  func threads(_ state: StateID) -> [Thread] {
    let range = states.range(state)
    return stride(from: range.lowerBound + 1, to: range.upperBound, by: 3).map {
      Thread(node: states.storage[$0], lexeme: states.storage[$0 + 1], stack: states.storage[$0 + 2])
    }
  }

  /// The state after `byte`; ``dead`` if no text of the form goes on so.
  @inline(__always)
  mutating func next(_ state: StateID, _ byte: UInt8) -> StateID {
    let start = rowStarts[Int(state)]
    if start >= 0 {
      let known = rows[Int(start) + Int(expressions.classOf[Int(byte)])]
      if known >= 0 { return known }
    }
    return computeNext(state, byte)
  }

  private mutating func computeNext(_ state: StateID, _ byte: UInt8) -> StateID {
    if isExhausted { return Self.dead }
    var result: [Thread] = []
    var isAccepting = false
    for thread in threads(state) {
      let lexeme = expressions.next(thread.lexeme, byte)
      if lexeme == ExpressionTable.nothing { continue }
      if lexeme != ExpressionTable.empty { result.append(Thread(node: thread.node, lexeme: lexeme, stack: thread.stack)) }
      if expressions.isNullable(lexeme) {
        let after = closure(of: Place(node: thread.node, stack: thread.stack))
        result.append(contentsOf: after.threads)
        isAccepting = isAccepting || after.isAccepting
      }
    }
    let next = intern(result, isAccepting: isAccepting)
    if byteCount > byteLimit { isOverLimit = true }
    if isExhausted { return Self.dead }
    if rowStarts[Int(state)] < 0 {
      rowStarts[Int(state)] = Int32(rows.count)
      rows.append(contentsOf: repeatElement(-1, count: expressions.representatives.count))
    }
    rows[Int(rowStarts[Int(state)]) + Int(expressions.classOf[Int(byte)])] = next
    return next
  }

  /// The state in which a lexeme that leads to `node` has just ended.
  mutating func state(after node: Grammar.NodeID, _ stack: StackID) -> StateID {
    let closure = closure(of: Place(node: node, stack: stack))
    return intern(closure.threads, isAccepting: closure.isAccepting)
  }

  /// The state with these threads: the same node and lexeme on several stacks is one thread on all of them.
  mutating func intern(_ unordered: [Thread], isAccepting: Bool) -> StateID {
    var threads = unordered
    if threads.count > 1 {
      threads.sort { ($0.node, $0.lexeme, $0.stack) < ($1.node, $1.lexeme, $1.stack) }
      var kept: [Thread] = []
      for thread in threads {
        guard let last = kept.last, last.node == thread.node, last.lexeme == thread.lexeme else {
          kept.append(thread)
          continue
        }
        if last.stack != thread.stack { kept[kept.count - 1].stack = stack(frames(last.stack) + frames(thread.stack)) }
      }
      threads = kept
    }
    var list: [Int32] = [isAccepting ? 1 : 0]
    list.reserveCapacity(1 + 3 * threads.count)
    for thread in threads {
      list.append(thread.node)
      list.append(thread.lexeme)
      list.append(thread.stack)
    }
    let state = states.intern(list)
    if Int(state) == rowStarts.count { rowStarts.append(-1) }
    return state
  }

  // MARK: Between lexemes

  private func frames(_ stack: StackID) -> [Frame] {
    let range = stacks.range(stack)
    return stride(from: range.lowerBound, to: range.upperBound, by: 3).map {
      Frame(node: stacks.storage[$0], count: stacks.storage[$0 + 1], stack: stacks.storage[$0 + 2])
    }
  }

  private mutating func stack(_ frames: [Frame]) -> StackID {
    let sorted = Set(frames).sorted { ($0.node, $0.count, $0.stack) < ($1.node, $1.count, $1.stack) }
    return stacks.intern(sorted.flatMap { [$0.node, $0.count, $0.stack] })
  }

  /// All threads that begin at a place without a byte.
  ///
  /// First what is left is left: where rules end, their stacks say where it goes on. Then rules are entered, those first that others may begin with;
  /// since no rule begins with itself, all ways into a rule are known when it is entered. A rule that can be read without a byte is both entered
  /// and stepped over, so that nothing ends that was entered at the same place.
  private mutating func closure(of place: Place) -> Closure {
    if let known = closures[place] { return known }
    var result = Closure(threads: [], isAccepting: false)
    var entered: [Grammar.RuleID: [Frame]] = [:]
    var seen: Set<Place> = [place]
    var pending = [place]
    while let place = pending.popLast() {
      let isAtEnd = read(place, &result, &pending, &seen, &entered)
      guard isAtEnd else { continue }
      for frame in frames(place.stack) {
        if frame.node == Frame.root {
          result.isAccepting = true
        } else if frame.count != Frame.once, case .loop(let rule, let minimum, let maximum, let next) = grammar.nodes[Int(frame.node)] {
          let count = frame.count + 1
          if count >= minimum || grammar.isNullableRule[Int(rule)] { visit(Place(node: next, stack: frame.stack), &pending, &seen) }
          if maximum.map({ count < $0 }) ?? true {
            // Without a bound above, it does not matter how often the rule was read beyond the bound below.
            let kept = maximum == nil ? min(count, minimum) : count
            entered[rule, default: []].append(Frame(node: frame.node, count: kept, stack: frame.stack))
          }
        } else {
          visit(Place(node: frame.node, stack: frame.stack), &pending, &seen)
        }
      }
    }
    while let rule = entered.keys.min(by: { grammar.rank[Int($0)] < grammar.rank[Int($1)] }) {
      let place = Place(node: grammar.starts[Int(rule)], stack: stack(entered.removeValue(forKey: rule)!))
      var inside: Set<Place> = [place]
      pending = [place]
      while let place = pending.popLast() { _ = read(place, &result, &pending, &inside, &entered) }
    }
    closures[place] = result
    closureByteCount += 96 + result.threads.count * MemoryLayout<Thread>.stride
    return result
  }

  private func visit(_ place: Place, _ pending: inout [Place], _ seen: inout Set<Place>) {
    if seen.insert(place).inserted { pending.append(place) }
  }

  /// Goes on at a node; true if it is the end of its rule.
  private mutating func read(
    _ place: Place, _ result: inout Closure, _ pending: inout [Place], _ seen: inout Set<Place>, _ entered: inout [Grammar.RuleID: [Frame]]
  ) -> Bool {
    switch grammar.nodes[Int(place.node)] {
    case .lexeme(let expression, let next):
      result.threads.append(Thread(node: next, lexeme: expression, stack: place.stack))
      if expressions.isNullable(expression) { visit(Place(node: next, stack: place.stack), &pending, &seen) }
    case .split(let list):
      for next in list.reversed() { visit(Place(node: next, stack: place.stack), &pending, &seen) }
    case .call(let rule, let next):
      // A rule that is the last thing of another goes on where that one does: right recursion needs no stack.
      let isLast = if case .end = grammar.nodes[Int(next)] { true } else { false }
      entered[rule, default: []].append(
        contentsOf: isLast ? frames(place.stack) : [Frame(node: next, count: Frame.once, stack: place.stack)])
      if grammar.isNullableRule[Int(rule)] { visit(Place(node: next, stack: place.stack), &pending, &seen) }
    case .loop(let rule, let minimum, _, let next):
      entered[rule, default: []].append(Frame(node: place.node, count: 0, stack: place.stack))
      if minimum == 0 || grammar.isNullableRule[Int(rule)] { visit(Place(node: next, stack: place.stack), &pending, &seen) }
    case .end: return true
    case .dead: break
    }
    return false
  }

  // MARK: What must come

  /// The bytes with which a text may go on from `state`.
  mutating func firstBytes(_ state: StateID) -> ByteSet {
    var result = ByteSet()
    for thread in threads(state) { result = result.union(expressions.firstBytes(thread.lexeme)) }
    return result
  }
}
