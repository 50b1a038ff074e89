// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// What stands after `is`.
enum Tests {
  typealias Function = @Sendable (Evaluator, Value, Arguments) throws(TemplateError) -> Bool

  static let all: [String: Function] = {
    var all: [String: Function] = [:]
    func add(_ names: String..., test: @escaping Function) { for name in names { all[name] = test } }
    func comparison(_ comparison: Comparison) -> Function {
      { (evaluator, value, arguments) throws(TemplateError) in
        try comparison.apply(value, try operand(arguments, comparison.rawValue), evaluator)
      }
    }
    add("defined") { (_, value, _) throws(TemplateError) in !value.isUndefined }
    add("undefined") { (_, value, _) throws(TemplateError) in value.isUndefined }
    add("none") { (_, value, _) throws(TemplateError) in if case .none = value { true } else { false } }
    add("boolean") { (_, value, _) throws(TemplateError) in if case .bool = value { true } else { false } }
    add("true") { (_, value, _) throws(TemplateError) in if case .bool(true) = value { true } else { false } }
    add("false") { (_, value, _) throws(TemplateError) in if case .bool(false) = value { true } else { false } }
    add("string") { (_, value, _) throws(TemplateError) in value.text != nil }
    add("number") { (_, value, _) throws(TemplateError) in value.double != nil }
    add("integer") { (_, value, _) throws(TemplateError) in
      switch value {
      case .int, .largeInt: true
      default: false
      }
    }
    add("float") { (_, value, _) throws(TemplateError) in if case .float = value { true } else { false } }
    add("mapping") { (_, value, _) throws(TemplateError) in if case .dict = value { true } else { false } }
    add("sequence") { (_, value, _) throws(TemplateError) in
      switch value {
      case .undefined, .string, .list, .tuple, .dict, .range: true
      default: false
      }
    }
    add("iterable") { (_, value, _) throws(TemplateError) in
      switch value {
      case .undefined, .string, .list, .tuple, .dict, .range, .view, .generator, .loop: true
      default: false
      }
    }
    add("callable") { (_, value, _) throws(TemplateError) in
      switch value {
      case .undefined, .callable, .loop: true
      default: false
      }
    }
    add("escaped") { (_, value, _) throws(TemplateError) in value.text?.isMarkup ?? false }
    add("filter") { (_, value, _) throws(TemplateError) in value.text.map { Filters.all[$0.string] != nil } ?? false }
    add("test") { (_, value, _) throws(TemplateError) in value.text.map { Tests.all[$0.string] != nil } ?? false }
    add("odd") { (evaluator, value, _) throws(TemplateError) in
      try BinaryOperator.remainder.apply(value, .int(2), evaluator) == .int(1)
    }
    add("even") { (evaluator, value, _) throws(TemplateError) in
      try BinaryOperator.remainder.apply(value, .int(2), evaluator) == .int(0)
    }
    add("divisibleby") { (evaluator, value, arguments) throws(TemplateError) in
      try BinaryOperator.remainder.apply(value, try operand(arguments, "divisibleby"), evaluator) == .int(0)
    }
    add("lower") { (evaluator, value, _) throws(TemplateError) in
      let text = try value.written(evaluator)
      return text.isCased && text.lowercased == text
    }
    add("upper") { (evaluator, value, _) throws(TemplateError) in
      let text = try value.written(evaluator)
      return text.isCased && text.uppercased == text
    }
    add("sameas") { (_, value, arguments) throws(TemplateError) in value.isSame(as: try operand(arguments, "sameas")) }
    add("in") { (evaluator, value, arguments) throws(TemplateError) in
      try operand(arguments, "in").contains(value, evaluator)
    }
    add("eq", "equalto", "==", test: comparison(.equal))
    add("ne", "!=", test: comparison(.notEqual))
    add("gt", "greaterthan", ">", test: comparison(.greater))
    add("ge", ">=", test: comparison(.greaterOrEqual))
    add("lt", "lessthan", "<", test: comparison(.less))
    add("le", "<=", test: comparison(.lessOrEqual))
    return all
  }()

  private static func operand(_ arguments: Arguments, _ name: String) throws(TemplateError) -> Value {
    guard let value = arguments.positional.first ?? arguments.named.first?.value else {
      throw .type("the test '\(name)' needs an argument")
    }
    return value
  }
}

extension Text {
  var isCased: Bool { scalars.contains { $0.properties.isCased } }
}

extension Value {
  /// Python's `is`, as far as values without an identity have one.
  fileprivate func isSame(as other: Value) -> Bool {
    switch (self, other) {
    case (.list(let left), .list(let right)), (.tuple(let left), .tuple(let right)): left === right
    case (.dict(let left), .dict(let right)): left === right
    case (.bool(let left), .bool(let right)): left == right
    case (.int(let left), .int(let right)): left == right
    case (.none, .none): true
    case (.undefined, .undefined): false
    case (.bool, _), (_, .bool), (.int, _), (_, .int): false
    default: self == other
    }
  }
}
