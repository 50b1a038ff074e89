// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// How a statement ends.
enum Flow {
  case normal, breaksLoop, continuesLoop
}

protocol Statement: AnyObject, Sendable {
  var depth: Int { get }
  func run(_ evaluator: Evaluator) throws(TemplateError) -> Flow
}

/// Statements one after the other.
final class Block: Statement {
  let statements: [any Statement]
  let depth: Int

  init(_ statements: [any Statement]) {
    self.statements = statements
    depth = (statements.map(\.depth).max() ?? 0) + 1
  }

  func run(_ evaluator: Evaluator) throws(TemplateError) -> Flow {
    for statement in statements {
      let flow = try statement.run(evaluator)
      if flow != .normal { return flow }
    }
    return .normal
  }
}

/// Text outside of tags.
final class PlainText: Statement {
  let text: Text
  var depth: Int { 1 }
  init(_ text: Text) { self.text = text }

  func run(_ evaluator: Evaluator) throws(TemplateError) -> Flow {
    try evaluator.spend()
    try evaluator.write(text)
    return .normal
  }
}

/// `{{ … }}`
final class Output: Statement {
  let value: any Expression
  let position: Position
  let depth: Int

  init(_ value: any Expression, _ position: Position) {
    self.value = value
    self.position = position
    depth = value.depth + 1
  }

  func run(_ evaluator: Evaluator) throws(TemplateError) -> Flow {
    evaluator.position = position
    let value = try value.evaluate(evaluator)
    try evaluator.write(value.written(evaluator))
    return .normal
  }
}

final class If: Statement {
  let branches: [(condition: any Expression, body: Block, position: Position)]
  let alternative: Block?
  let depth: Int

  init(_ branches: [(condition: any Expression, body: Block, position: Position)], else alternative: Block?) {
    self.branches = branches
    self.alternative = alternative
    depth = max(branches.map { max($0.condition.depth, $0.body.depth) }.max() ?? 0, alternative?.depth ?? 0) + 1
  }

  func run(_ evaluator: Evaluator) throws(TemplateError) -> Flow {
    for branch in branches {
      evaluator.position = branch.position
      if try branch.condition.evaluate(evaluator).isTrue { return try branch.body.run(evaluator) }
    }
    return try alternative?.run(evaluator) ?? .normal
  }
}

/// What `set` and `for` give a value to.
indirect enum Target: Sendable {
  case name(Name)
  /// `set ns.attribute = …`
  case attribute(Name, Text)
  case tuple([Target])

  /// The variables that it sets.
  var names: [String] {
    switch self {
    case .name(let name): [name.text]
    case .attribute: []
    case .tuple(let targets): targets.flatMap(\.names)
    }
  }

  func assign(_ value: Value, _ evaluator: Evaluator) throws(TemplateError) {
    switch self {
    case .name(let name): evaluator.set(name, value)
    case .attribute(let name, let attribute):
      guard case .namespace(let namespace) = evaluator.lookUp(name) else {
        throw .runtime("cannot assign attribute on non-namespace object")
      }
      try namespace.set(attribute, value)
    case .tuple(let targets):
      if case .undefined(let missing) = value { throw missing.error }
      let values = try value.elements(evaluator)
      guard values.count == targets.count else {
        throw .value(
          values.count < targets.count
            ? "not enough values to unpack (expected \(targets.count), got \(values.count))"
            : "too many values to unpack (expected \(targets.count))")
      }
      for (target, value) in zip(targets, values) { try target.assign(value, evaluator) }
    }
  }
}

final class Assignment: Statement {
  let target: Target
  let value: any Expression
  let position: Position
  let depth: Int

  init(_ target: Target, _ value: any Expression, _ position: Position) {
    self.target = target
    self.value = value
    self.position = position
    depth = value.depth + 1
  }

  func run(_ evaluator: Evaluator) throws(TemplateError) -> Flow {
    evaluator.position = position
    try target.assign(value.evaluate(evaluator), evaluator)
    return .normal
  }
}

/// `{% set x %}…{% endset %}`, with filters or without.
final class BlockAssignment: Statement {
  let target: Target
  let filter: FilterCall?
  let body: Block
  let depth: Int

  init(_ target: Target, _ filter: FilterCall?, _ body: Block) {
    self.target = target
    self.filter = filter
    self.body = body
    depth = max(filter?.depth ?? 0, body.depth) + 1
  }

  func run(_ evaluator: Evaluator) throws(TemplateError) -> Flow {
    let (flow, value) = try FilterBlock.value(of: body, filter, evaluator)
    // Of a block that a jump leaves nothing is kept.
    if flow == .normal { try target.assign(value, evaluator) }
    return flow
  }
}

/// `{% filter upper %}…{% endfilter %}`
final class FilterBlock: Statement {
  let filter: FilterCall
  let body: Block
  let depth: Int

  init(_ filter: FilterCall, _ body: Block) {
    self.filter = filter
    self.body = body
    depth = max(filter.depth, body.depth) + 1
  }

  func run(_ evaluator: Evaluator) throws(TemplateError) -> Flow {
    let (flow, value) = try Self.value(of: body, filter, evaluator)
    if flow == .normal { try evaluator.write(value.written(evaluator)) }
    return flow
  }

  /// What the body writes, through the filter; how the body ended, which may be with a jump out of a loop around it.
  static func value(of body: Block, _ filter: FilterCall?, _ evaluator: Evaluator) throws(TemplateError) -> (Flow, Value) {
    var flow = Flow.normal
    let text = try evaluator.inFrame(evaluator.makeFrame()) { () throws(TemplateError) in
      try evaluator.capture { () throws(TemplateError) in flow = try body.run(evaluator) }
    }
    guard flow == .normal, let filter else { return (flow, .string(text)) }
    return (flow, try filter.evaluate(evaluator, .string(text)))
  }
}

/// `{% with a = b %}…{% endwith %}`: the values do not see each other.
final class With: Statement {
  let assignments: [(Target, any Expression)]
  let body: Block
  let depth: Int

  init(_ assignments: [(Target, any Expression)], _ body: Block) {
    self.assignments = assignments
    self.body = body
    depth = max(assignments.map(\.1.depth).max() ?? 0, body.depth) + 1
  }

  func run(_ evaluator: Evaluator) throws(TemplateError) -> Flow {
    try evaluator.spend()
    var values: [Value] = []
    for (_, value) in assignments { values.append(try value.evaluate(evaluator)) }
    return try evaluator.inFrame(evaluator.makeFrame()) { () throws(TemplateError) in
      for ((target, _), value) in zip(assignments, values) { try target.assign(value, evaluator) }
      return try body.run(evaluator)
    }
  }
}

final class For: Statement {
  let target: Target
  let values: any Expression
  let filter: (any Expression)?
  let body: Block
  let alternative: Block?
  let isRecursive: Bool
  let loopName: Name
  let position: Position
  let depth: Int

  init(
    _ target: Target, in values: any Expression, if filter: (any Expression)?, _ body: Block, else alternative: Block?, isRecursive: Bool,
    loopName: Name, _ position: Position
  ) {
    self.target = target
    self.values = values
    self.filter = filter
    self.body = body
    self.alternative = alternative
    self.isRecursive = isRecursive
    self.loopName = loopName
    self.position = position
    depth = max(values.depth, filter?.depth ?? 0, body.depth, alternative?.depth ?? 0) + 1
  }

  func run(_ evaluator: Evaluator) throws(TemplateError) -> Flow {
    evaluator.position = position
    try run(over: values.evaluate(evaluator), level: 0, evaluator)
    return .normal
  }

  private func run(over values: Value, level: Int, _ evaluator: Evaluator) throws(TemplateError) {
    let outer = evaluator.frame
    let source = try elements(of: values, outer, evaluator)
    var recursion: ((Evaluator, Value, Int) throws(TemplateError) -> Value)?
    if isRecursive {
      recursion = { [self] (evaluator, values, level) throws(TemplateError) in
        let text = try evaluator.nest(depth) { () throws(TemplateError) in
          try evaluator.inFrame(outer) { () throws(TemplateError) in
            try evaluator.capture { () throws(TemplateError) in try run(over: values, level: level, evaluator) }
          }
        }
        return .string(text)
      }
    }
    let loop = Loop(depth0: level, recursion: recursion, source)
    // What the loop reads from may hold the frame that holds the loop.
    defer { loop.close() }
    var runsAlternative = true
    var inner = Frame(parent: outer)
    while try loop.advance() {
      try evaluator.spend()
      if inner.isKept { inner = Frame(parent: outer) } else { inner.removeAll() }
      let flow: Flow
      do {
        flow = try evaluator.inFrame(inner) { () throws(TemplateError) in
          evaluator.set(loopName, .loop(loop))
          try target.assign(loop.current, evaluator)
          return try body.run(evaluator)
        }
      } catch {
        evaluator.fail(at: loop.current)
        throw error
      }
      if flow == .breaksLoop { break }
      if flow == .normal { runsAlternative = false }
    }
    if runsAlternative, let alternative {
      try evaluator.inFrame(Frame(parent: outer)) { () throws(TemplateError) in _ = try alternative.run(evaluator) }
    }
  }

  /// What the loop goes over; a filter is asked when its element is reached.
  private func elements(
    of values: Value, _ outer: Frame, _ evaluator: Evaluator
  ) throws(TemplateError) -> () throws(TemplateError) -> Value? {
    let next = try values.iterator(evaluator)
    guard let filter else { return next }
    return { [target, unowned evaluator] () throws(TemplateError) -> Value? in
      while let value = try next() {
        try evaluator.spend()
        let passes = try evaluator.inFrame(Frame(parent: outer)) { () throws(TemplateError) in
          try target.assign(value, evaluator)
          return try filter.evaluate(evaluator).isTrue
        }
        if passes { return value }
      }
      return nil
    }
  }
}

/// `break` and `continue`
final class Jump: Statement {
  let flow: Flow
  var depth: Int { 1 }
  init(_ flow: Flow) { self.flow = flow }
  func run(_ evaluator: Evaluator) throws(TemplateError) -> Flow {
    try evaluator.spend()
    return flow
  }
}

/// What a macro, or a call block, takes.
struct Signature: Sendable {
  var parameters: [Name] = []
  /// Of the last parameters.
  var defaults: [any Expression] = []
  var usesVarargs = false
  var usesKwargs = false
  var usesCaller = false

  var depth: Int { defaults.map(\.depth).max() ?? 0 }
}

final class MacroDefinition: Statement {
  let name: Name
  let routine: Routine
  var depth: Int { routine.depth }

  init(_ name: Name, _ routine: Routine) {
    self.name = name
    self.routine = routine
  }

  func run(_ evaluator: Evaluator) throws(TemplateError) -> Flow {
    try evaluator.spend()
    evaluator.set(name, routine.callable(name.text, evaluator))
    return .normal
  }
}

/// `{% call(a) f(b) %}…{% endcall %}`
final class CallBlock: Statement {
  let call: Call
  let routine: Routine
  let depth: Int

  init(_ call: Call, _ routine: Routine) {
    self.call = call
    self.routine = routine
    depth = max(call.depth, routine.depth) + 1
  }

  func run(_ evaluator: Evaluator) throws(TemplateError) -> Flow {
    try evaluator.write(call.evaluate(evaluator, caller: routine.callable("caller", evaluator)).written(evaluator))
    return .normal
  }
}

/// `{% generation %}…{% endgeneration %}`, which marks an answer for training: its body as a call block has it.
final class Generation: Statement {
  let body: Block
  let depth: Int

  init(_ body: Block) {
    self.body = body
    depth = body.depth + 1
  }

  func run(_ evaluator: Evaluator) throws(TemplateError) -> Flow {
    try evaluator.inFrame(evaluator.makeFrame()) { () throws(TemplateError) in try body.run(evaluator) }
  }
}

/// A tag that Jinja knows and that needs a loader of other templates, which transformers does not have.
final class Unloadable: Statement {
  let position: Position
  var depth: Int { 1 }
  init(_ position: Position) { self.position = position }

  func run(_ evaluator: Evaluator) throws(TemplateError) -> Flow {
    evaluator.position = position
    throw .type("no loader for this environment specified")
  }
}

/// The body of a macro, with what it takes.
final class Routine: Sendable {
  let signature: Signature
  let body: Block
  let varargs, kwargs, caller: Name
  let depth: Int

  init(_ signature: Signature, _ body: Block, varargs: Name, kwargs: Name, caller: Name) {
    self.signature = signature
    self.body = body
    self.varargs = varargs
    self.kwargs = kwargs
    self.caller = caller
    depth = max(signature.depth, body.depth) + 2
  }

  /// The routine as a value that sees what the frame that runs now sees.
  func callable(_ name: String, _ evaluator: Evaluator) -> Value {
    let home = evaluator.capturedFrame()
    let macro = Callable(name, .macro) { [self] (evaluator, arguments) throws(TemplateError) in
      let text = try evaluator.nest(depth) { () throws(TemplateError) in
        try evaluator.inFrame(Frame(parent: home)) { () throws(TemplateError) in
          try bind(arguments, to: name, evaluator)
          return try evaluator.capture { () throws(TemplateError) in _ = try body.run(evaluator) }
        }
      }
      return .string(text)
    }
    macro.attributes = [
      ("name", .text(name)), ("arguments", .tuple(parameterNames(evaluator))), ("catch_kwargs", .bool(signature.usesKwargs)),
      ("catch_varargs", .bool(signature.usesVarargs)),
      ("caller", .bool(signature.usesCaller)),
    ]
    return .callable(macro)
  }

  private func parameterNames(_ evaluator: Evaluator) -> Elements {
    Elements(signature.parameters.map { .string(Text($0.text)) })
  }

  private func bind(_ arguments: Arguments, to name: String, _ evaluator: Evaluator) throws(TemplateError) {
    let parameters = signature.parameters
    var named = arguments.named
    var caller: Value?
    if let place = named.firstIndex(where: { $0.name == "caller" }), !parameters.contains(where: { $0.text == "caller" }) {
      // A macro that takes any names takes this one among them.
      if signature.usesCaller {
        caller = named.remove(at: place).value
      } else if !signature.usesKwargs {
        throw .type("macro '\(name)' takes no keyword argument 'caller'")
      }
    }
    for (index, parameter) in parameters.enumerated() {
      let place = named.firstIndex { $0.name == parameter.text }
      if index < arguments.positional.count {
        if place != nil { throw .type("macro '\(name)' got multiple values for argument '\(parameter.text)'") }
        evaluator.set(parameter, arguments.positional[index])
      } else if let place {
        evaluator.set(parameter, named.remove(at: place).value)
      } else if index >= parameters.count - signature.defaults.count {
        evaluator.set(parameter, try signature.defaults[index - (parameters.count - signature.defaults.count)].evaluate(evaluator))
      } else {
        evaluator.set(parameter, .undefined(Missing("parameter '\(parameter.text)' was not provided")))
      }
    }
    if signature.usesCaller {
      evaluator.set(self.caller, caller ?? .undefined(Missing("No caller defined")))
    }
    let extra = arguments.positional.dropFirst(parameters.count)
    if signature.usesVarargs {
      evaluator.set(varargs, .tuple(try Elements(Array(extra), evaluator)))
    } else if !extra.isEmpty {
      throw .type("macro '\(name)' takes not more than \(parameters.count) argument(s)")
    }
    if signature.usesKwargs {
      evaluator.set(kwargs, .dict(try ValueDictionary(named.map { (.text($0.name), $0.value) }, evaluator)))
    } else if let first = named.first {
      throw .type("macro '\(name)' takes no keyword argument '\(first.name)'")
    }
  }
}
