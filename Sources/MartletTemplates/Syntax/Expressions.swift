// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// A node that has a value. Nodes are immutable and shared by all renderings.
protocol Expression: AnyObject, Sendable {
  /// Nodes inside each other, this one included.
  var depth: Int { get }
  func evaluate(_ evaluator: Evaluator) throws(TemplateError) -> Value
}

/// What is written in the program.
final class TextLiteral: Expression {
  let text: Text
  var depth: Int { 1 }
  init(_ text: Text) { self.text = text }
  func evaluate(_ evaluator: Evaluator) throws(TemplateError) -> Value {
    try evaluator.spend()
    return .string(text)
  }
}

final class Constant: Expression {
  enum Kind: Sendable {
    case none
    case bool(Bool)
    case int(Int)
    case largeInt(LargeInteger)
    case float(Double)
  }

  let kind: Kind
  var depth: Int { 1 }
  init(_ kind: Kind) { self.kind = kind }

  func evaluate(_ evaluator: Evaluator) throws(TemplateError) -> Value {
    try evaluator.spend()
    return switch kind {
    case .none: .none
    case .bool(let value): .bool(value)
    case .int(let value): .int(value)
    case .largeInt(let value): .largeInt(value)
    case .float(let value): .float(value)
    }
  }
}

final class Variable: Expression {
  let name: Name
  var depth: Int { 1 }
  init(_ name: Name) { self.name = name }
  func evaluate(_ evaluator: Evaluator) throws(TemplateError) -> Value {
    try evaluator.spend()
    return evaluator.lookUp(name)
  }
}

/// `[a, b]` and `(a, b)`.
final class Listing: Expression {
  let isTuple: Bool
  let elements: [any Expression]
  let depth: Int

  init(_ elements: [any Expression], isTuple: Bool) {
    self.elements = elements
    self.isTuple = isTuple
    depth = (elements.map(\.depth).max() ?? 0) + 1
  }

  func evaluate(_ evaluator: Evaluator) throws(TemplateError) -> Value {
    try evaluator.spend()
    var values: [Value] = []
    values.reserveCapacity(elements.count)
    for element in elements { values.append(try element.evaluate(evaluator)) }
    let result = try Elements(values, evaluator)
    return isTuple ? .tuple(result) : .list(result)
  }
}

/// `{a: b}`
final class DictionaryLiteral: Expression {
  let pairs: [(any Expression, any Expression)]
  let depth: Int

  init(_ pairs: [(any Expression, any Expression)]) {
    self.pairs = pairs
    depth = (pairs.map { max($0.0.depth, $0.1.depth) }.max() ?? 0) + 1
  }

  func evaluate(_ evaluator: Evaluator) throws(TemplateError) -> Value {
    try evaluator.spend()
    var values: [(Value, Value)] = []
    for (key, value) in pairs {
      let key = try evaluator.key(key.evaluate(evaluator))
      values.append((key, try value.evaluate(evaluator)))
    }
    return .dict(try ValueDictionary(values, evaluator))
  }
}

/// `a + b - c`, and the other binary operators: a chain of one rank, from left to right.
final class Arithmetic: Expression {
  let first: any Expression
  let rest: [(BinaryOperator, any Expression)]
  let depth: Int

  init(_ first: any Expression, _ rest: [(BinaryOperator, any Expression)]) {
    self.first = first
    self.rest = rest
    depth = max(first.depth, rest.map(\.1.depth).max() ?? 0) + 1
  }

  func evaluate(_ evaluator: Evaluator) throws(TemplateError) -> Value {
    var result = try first.evaluate(evaluator)
    var isOwned = false
    for (operation, operand) in rest {
      try evaluator.spend()
      let right = try operand.evaluate(evaluator)
      if operation == .add, case .string(var text) = result, case .string(let other) = right, !text.isMarkup, !other.isMarkup {
        // The common case in place: from the second sum on the text has one owner.
        result = .none
        try evaluator.spend(bytes: other.count + (isOwned ? 0 : text.count))
        isOwned = true
        text.append(other)
        result = .string(text)
      } else {
        result = try operation.apply(result, right, evaluator)
      }
    }
    return result
  }
}

/// `a ~ b ~ c`
final class Concatenation: Expression {
  let parts: [any Expression]
  let depth: Int

  init(_ parts: [any Expression]) {
    self.parts = parts
    depth = (parts.map(\.depth).max() ?? 0) + 1
  }

  func evaluate(_ evaluator: Evaluator) throws(TemplateError) -> Value {
    var text = Text()
    for part in parts {
      try evaluator.spend()
      let written = try part.evaluate(evaluator).written(evaluator)
      try evaluator.spend(bytes: written.count)
      text.append(written)
    }
    text.isMarkup = false
    return .string(text)
  }
}

/// `a < b <= c`: all must hold, and what is left of the first that does not is not looked at.
final class ComparisonChain: Expression {
  let first: any Expression
  let rest: [(Comparison, any Expression)]
  let depth: Int

  init(_ first: any Expression, _ rest: [(Comparison, any Expression)]) {
    self.first = first
    self.rest = rest
    depth = max(first.depth, rest.map(\.1.depth).max() ?? 0) + 1
  }

  func evaluate(_ evaluator: Evaluator) throws(TemplateError) -> Value {
    try evaluator.spend()
    var left = try first.evaluate(evaluator)
    for (comparison, operand) in rest {
      let right = try operand.evaluate(evaluator)
      if try !comparison.apply(left, right, evaluator) { return .bool(false) }
      left = right
    }
    return .bool(true)
  }
}

/// `a and b`, `a or b`: the operand that decides.
final class Logic: Expression {
  let isAnd: Bool
  let operands: [any Expression]
  let depth: Int

  init(_ operands: [any Expression], isAnd: Bool) {
    self.operands = operands
    self.isAnd = isAnd
    depth = (operands.map(\.depth).max() ?? 0) + 1
  }

  func evaluate(_ evaluator: Evaluator) throws(TemplateError) -> Value {
    try evaluator.spend()
    var value = Value.none
    for operand in operands {
      value = try operand.evaluate(evaluator)
      if value.isTrue != isAnd { return value }
    }
    return value
  }
}

final class Not: Expression {
  let operand: any Expression
  let depth: Int

  init(_ operand: any Expression) {
    self.operand = operand
    depth = operand.depth + 1
  }

  func evaluate(_ evaluator: Evaluator) throws(TemplateError) -> Value {
    try evaluator.spend()
    return .bool(try !operand.evaluate(evaluator).isTrue)
  }
}

/// `-a`, `+a`
final class Sign: Expression {
  let operand: any Expression
  let isNegative: Bool
  let depth: Int

  init(_ operand: any Expression, isNegative: Bool) {
    self.operand = operand
    self.isNegative = isNegative
    depth = operand.depth + 1
  }

  func evaluate(_ evaluator: Evaluator) throws(TemplateError) -> Value {
    try evaluator.spend()
    return try operand.evaluate(evaluator).negated(isNegative)
  }
}

/// `a if b else c`
final class Conditional: Expression {
  let condition: any Expression
  let value: any Expression
  let alternative: (any Expression)?
  let depth: Int

  init(if condition: any Expression, _ value: any Expression, else alternative: (any Expression)?) {
    self.condition = condition
    self.value = value
    self.alternative = alternative
    depth = max(condition.depth, value.depth, alternative?.depth ?? 0) + 1
  }

  func evaluate(_ evaluator: Evaluator) throws(TemplateError) -> Value {
    try evaluator.spend()
    if try condition.evaluate(evaluator).isTrue { return try value.evaluate(evaluator) }
    if let alternative { return try alternative.evaluate(evaluator) }
    return .undefined(Missing("the inline if-expression evaluated to false and no else section was defined."))
  }
}

/// `a.b`: the attribute, else the item.
final class Attribute: Expression {
  let owner: any Expression
  let name: Text
  /// Looked up once, as nearly all attributes are items of messages.
  private let isItem: Bool
  let depth: Int

  init(_ owner: any Expression, _ name: Text) {
    self.owner = owner
    self.name = name
    isItem = !Methods.ofDictionaries(name.string)
    depth = owner.depth + 1
  }

  func evaluate(_ evaluator: Evaluator) throws(TemplateError) -> Value {
    try evaluator.spend()
    return try owner.evaluate(evaluator).attribute(name, isItem: isItem, evaluator)
  }
}

/// `a[b]`: the item, else the attribute.
final class Item: Expression {
  let owner: any Expression
  let key: any Expression
  let depth: Int

  init(_ owner: any Expression, _ key: any Expression) {
    self.owner = owner
    self.key = key
    depth = max(owner.depth, key.depth) + 1
  }

  func evaluate(_ evaluator: Evaluator) throws(TemplateError) -> Value {
    try evaluator.spend()
    return try owner.evaluate(evaluator).item(key.evaluate(evaluator), evaluator)
  }
}

/// `a[b:c:d]`
final class Slice: Expression {
  let owner: any Expression
  let bounds: [(any Expression)?]
  let depth: Int

  init(_ owner: any Expression, _ bounds: [(any Expression)?]) {
    self.owner = owner
    self.bounds = bounds
    depth = max(owner.depth, bounds.compactMap { $0?.depth }.max() ?? 0) + 1
  }

  func evaluate(_ evaluator: Evaluator) throws(TemplateError) -> Value {
    try evaluator.spend()
    let value = try owner.evaluate(evaluator)
    var numbers: [Int?] = []
    for bound in bounds {
      switch try bound?.evaluate(evaluator) {
      case nil, .some(.none): numbers.append(nil)
      case .some(let value):
        guard let number = value.integer else {
          throw .type("slice indices must be integers or None or have an __index__ method")
        }
        numbers.append(number)
      }
    }
    return try value.slice(numbers[0], numbers[1], numbers[2], evaluator)
  }
}

/// `f(a, b=c, *d, **e)` without the `f`.
final class CallArguments: Sendable {
  let positional: [any Expression]
  let named: [(String, any Expression)]
  let list, dictionary: (any Expression)?
  let depth: Int

  init(
    _ positional: [any Expression], named: [(String, any Expression)] = [], list: (any Expression)? = nil,
    dictionary: (any Expression)? = nil
  ) {
    self.positional = positional
    self.named = named
    self.list = list
    self.dictionary = dictionary
    let all = positional + named.map(\.1) + [list, dictionary].compactMap { $0 }
    depth = all.map(\.depth).max() ?? 0
  }

  static let none = CallArguments([])

  func evaluate(_ evaluator: Evaluator) throws(TemplateError) -> Arguments {
    var arguments = Arguments()
    for expression in positional { arguments.positional.append(try expression.evaluate(evaluator)) }
    for (name, expression) in named { arguments.named.append((name, try expression.evaluate(evaluator))) }
    if let list { arguments.positional += try list.evaluate(evaluator).elements(evaluator) }
    if let dictionary {
      guard case .dict(let values) = try dictionary.evaluate(evaluator) else { throw .type("argument after ** must be a mapping") }
      guard arguments.named.count + values.count <= TemplateLimits.maximumArgumentCount else {
        throw TemplateError(.limit, "a call with more than \(TemplateLimits.maximumArgumentCount) named arguments")
      }
      for (key, value) in values.pairs {
        guard case .string(let name) = key else { throw .type("keywords must be strings") }
        guard arguments[name.string] == nil else { throw .type("got multiple values for keyword argument '\(name.string)'") }
        arguments.named.append((name.string, value))
      }
    }
    return arguments
  }
}

final class Call: Expression {
  let callee: any Expression
  let arguments: CallArguments
  let position: Position
  let depth: Int

  init(_ callee: any Expression, _ arguments: CallArguments, _ position: Position) {
    self.callee = callee
    self.arguments = arguments
    self.position = position
    depth = max(callee.depth, arguments.depth) + 1
  }

  func evaluate(_ evaluator: Evaluator) throws(TemplateError) -> Value { try evaluate(evaluator, caller: nil) }

  /// - Parameter caller: What a `call` block hands over.
  func evaluate(_ evaluator: Evaluator, caller: Value?) throws(TemplateError) -> Value {
    try evaluator.spend()
    let callee = try callee.evaluate(evaluator)
    var arguments = try arguments.evaluate(evaluator)
    if let caller { arguments.named.append(("caller", caller)) }
    evaluator.position = position
    return try evaluator.call(callee, arguments)
  }
}

/// `a|name(b)`. Without `a` inside of a `filter` block, which hands the value over.
final class FilterCall: Expression {
  let value: (any Expression)?
  let name: String
  /// nil where there is no such filter, which is an error only when it runs.
  let filter: Filters.Function?
  let arguments: CallArguments
  let position: Position
  let depth: Int

  init(_ value: (any Expression)?, _ name: String, _ arguments: CallArguments, _ position: Position) {
    self.value = value
    self.name = name
    filter = Filters.all[name]
    self.arguments = arguments
    self.position = position
    depth = max(value?.depth ?? 0, arguments.depth) + 1
  }

  func evaluate(_ evaluator: Evaluator) throws(TemplateError) -> Value { try evaluate(evaluator, Value.none) }

  /// - Parameter block: The text of a block, if there is no value at the filters' beginning.
  func evaluate(_ evaluator: Evaluator, _ block: Value) throws(TemplateError) -> Value {
    try evaluator.spend()
    let input: Value
    switch value {
    case let inner as FilterCall: input = try inner.evaluate(evaluator, block)
    case let value?: input = try value.evaluate(evaluator)
    case nil: input = block
    }
    guard let filter else { throw .runtime("No filter named '\(name)' found.") }
    let arguments = try arguments.evaluate(evaluator)
    evaluator.position = position
    return try evaluator.apply(filter, input, arguments)
  }
}

/// `a is name(b)`
final class TestCall: Expression {
  let value: any Expression
  let name: String
  let test: Test?
  let arguments: CallArguments
  let depth: Int

  init(_ value: any Expression, _ name: String, _ arguments: CallArguments) {
    self.value = value
    self.name = name
    test = Tests.all[name]
    self.arguments = arguments
    depth = max(value.depth, arguments.depth) + 1
  }

  func evaluate(_ evaluator: Evaluator) throws(TemplateError) -> Value {
    try evaluator.spend()
    let value = try value.evaluate(evaluator)
    guard let test else { throw .runtime("No test named '\(name)' found.") }
    try evaluator.spend(reading: value)
    return .bool(try test(evaluator, value, arguments.evaluate(evaluator)))
  }
}
