// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// What stands after `is`.
struct Test: Sendable {
  typealias Body = @Sendable (Evaluator, Value, Value) throws(TemplateError) -> Bool

  /// What a test takes beside the value: nothing, one by place or name, or one by place alone, as Python's operators do.
  enum Operand: Sendable { case none, named(String), placed }

  let name: String
  let operand: Operand
  /// Of the value and the operand, which is none where the test takes nothing.
  let body: Body

  func callAsFunction(_ evaluator: Evaluator, _ value: Value, _ arguments: Arguments) throws(TemplateError) -> Bool {
    let values =
      switch operand {
      case .none: try arguments.bound(to: name, [])
      case .named(let parameter): try arguments.bound(to: name, [parameter], required: 1)
      case .placed: try arguments.placed(name, ["operand"], required: 1)
      }
    return try body(evaluator, value, values.first.flatMap { $0 } ?? Value.none)
  }
}

enum Tests {
  static let all: [String: Test] = {
    var all: [String: Test] = [:]
    func add(_ name: String, _ operand: Test.Operand = .none, body: @escaping Test.Body) {
      all[name] = Test(name: name, operand: operand, body: body)
    }
    func add(_ names: String..., comparison: Comparison) {
      for name in names {
        all[name] = Test(name: name, operand: .placed) { (evaluator, value, operand) throws(TemplateError) in
          try comparison.apply(value, operand, evaluator)
        }
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
    add("divisibleby", .named("num")) { (evaluator, value, number) throws(TemplateError) in
      try BinaryOperator.remainder.apply(value, number, evaluator) == .int(0)
    }
    add("lower") { (evaluator, value, _) throws(TemplateError) in
      let text = try value.written(evaluator)
      return text.isCased && text.lowercased == text
    }
    add("upper") { (evaluator, value, _) throws(TemplateError) in
      let text = try value.written(evaluator)
      return text.isCased && text.uppercased == text
    }
    add("sameas", .named("other")) { (_, value, other) throws(TemplateError) in value.isSame(as: other) }
    add("in", .named("seq")) { (evaluator, value, sequence) throws(TemplateError) in try sequence.contains(value, evaluator) }
    add("eq", "equalto", "==", comparison: .equal)
    add("ne", "!=", comparison: .notEqual)
    add("gt", "greaterthan", ">", comparison: .greater)
    add("ge", ">=", comparison: .greaterOrEqual)
    add("lt", "lessthan", "<", comparison: .less)
    add("le", "<=", comparison: .lessOrEqual)
    return all
  }()
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
