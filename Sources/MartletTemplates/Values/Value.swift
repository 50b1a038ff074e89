// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// What an expression gives: Python's values, as far as a template can tell.
///
/// Lists and dictionaries never change, because the sandbox forbids it, so they can be shared; namespaces and loops are the only objects with
/// a state.
enum Value {
  case undefined(Missing)
  case none
  case bool(Bool)
  case int(Int)
  /// Beyond 64 bits, and only there.
  case largeInt(LargeInteger)
  case float(Double)
  case string(Text)
  case list(Elements)
  case tuple(Elements)
  case dict(ValueDictionary)
  case range(IntegerRange)
  case view(DictionaryView)
  /// Python's generator: read once.
  case generator(Generator)
  case namespace(Namespace)
  case loop(Loop)
  case callable(Callable)

  static func text(_ string: String) -> Value { .string(Text(string)) }
  static func list(_ values: [Value], _ evaluator: Evaluator) throws(TemplateError) -> Value {
    .list(try Elements(values, evaluator))
  }
}

/// Why there is no value, for the error of who uses it.
final class Missing {
  private enum Reason {
    case message(String, TemplateError.Code)
    case name(String)
    case attribute(Text, ofType: String)
  }

  private let reason: Reason

  init(_ message: String, code: TemplateError.Code = .undefined) { reason = .message(message, code) }
  init(name: String) { reason = .name(name) }
  init(_ owner: Value, lacks name: Value) {
    var type = "None"
    if case .none = owner {} else { type = owner.typeName + " object" }
    if case .string(let name) = name {
      reason = .attribute(name, ofType: type)
    } else {
      reason = .message("\(type) has no element \(name.shortDescription)", .undefined)
    }
  }

  /// Put into words only here: most of what is missing is only asked whether it is there.
  var error: TemplateError {
    switch reason {
    case .message(let message, let code): TemplateError(code, message)
    case .name(let name): TemplateError(.undefined, "'\(name)' is undefined")
    case .attribute(let name, let type): TemplateError(.undefined, "'\(type)' has no attribute '\(name.string)'")
    }
  }
}

/// The elements of a list or a tuple.
final class Elements {
  let values: [Value]
  /// Lists and dictionaries inside each other, this one included.
  let depth: Int
  /// Of a tuple whose elements are attributes too.
  var names: [String] = []

  /// - Throws: where lists nest too deep: they could not be compared, written or given back without an end to the stack.
  init(_ values: [Value], _ evaluator: Evaluator) throws(TemplateError) {
    self.values = values
    depth = try Elements.depth(of: values)
    try evaluator.spend(elements: values.count)
  }

  /// Of values that hold no others.
  init(_ texts: [Value]) {
    values = texts
    depth = 1
  }

  static func depth(of values: some Sequence<Value>) throws(TemplateError) -> Int {
    var depth = 0
    for value in values { depth = max(depth, value.depth) }
    guard depth < TemplateLimits.maximumValueDepth else { throw TemplateLimits.valuesNestTooDeep }
    return depth + 1
  }
}

/// A dictionary in the order of its keys.
final class ValueDictionary {
  let keys: [Value]
  let values: [Value]
  let depth: Int
  /// From 8 keys on.
  private let places: [Value: Int]

  /// Of equal keys the last value counts, at the place of the first.
  init(_ pairs: [(Value, Value)], _ evaluator: Evaluator) throws(TemplateError) {
    var keys: [Value] = []
    var values: [Value] = []
    keys.reserveCapacity(pairs.count)
    values.reserveCapacity(pairs.count)
    var places: [Value: Int] = [:]
    for (key, value) in pairs {
      let place: Int?
      if pairs.count < 8 {
        place = keys.firstIndex { $0 == key }
      } else {
        place = places[key]
        if place == nil { places[key] = keys.count }
      }
      if let place {
        values[place] = value
      } else {
        keys.append(key)
        values.append(value)
      }
    }
    self.keys = keys
    self.values = values
    self.places = places
    depth = try Elements.depth(of: values)
    try evaluator.spend(elements: pairs.count * 2)
  }

  var count: Int { keys.count }

  subscript(key: Value) -> Value? { place(of: key).map { values[$0] } }

  subscript(key: Text) -> Value? {
    if places.isEmpty {
      for (index, candidate) in keys.enumerated() {
        if case .string(let text) = candidate, text.bytes == key.bytes { return values[index] }
      }
      return nil
    }
    return places[.string(key)].map { values[$0] }
  }

  func place(of key: Value) -> Int? { places.isEmpty ? keys.firstIndex { $0 == key } : places[key] }

  var pairs: [(Value, Value)] { Array(zip(keys, values)) }
}

final class DictionaryView {
  enum Kind: String { case keys, values, items }

  let kind: Kind
  let dictionary: ValueDictionary

  init(_ kind: Kind, _ dictionary: ValueDictionary) {
    self.kind = kind
    self.dictionary = dictionary
  }

  func elements(_ evaluator: Evaluator) throws(TemplateError) -> [Value] {
    switch kind {
    case .keys: dictionary.keys
    case .values: dictionary.values
    case .items: try dictionary.items(evaluator)
    }
  }
}

extension ValueDictionary {
  /// Pairs as tuples.
  func items(_ evaluator: Evaluator) throws(TemplateError) -> [Value] {
    var items: [Value] = []
    items.reserveCapacity(count)
    for (key, value) in zip(keys, values) { items.append(.tuple(try Elements([key, value], evaluator))) }
    return items
  }
}

struct IntegerRange: Hashable {
  var start: Int, stop: Int, step: Int

  var count: Int {
    let (distance, overflow) = step > 0 ? stop.subtractingReportingOverflow(start) : start.subtractingReportingOverflow(stop)
    if overflow { return Int.max }
    if distance <= 0 { return 0 }
    // The magnitude of the least integer is one more than the greatest.
    return Int((UInt(distance) - 1) / step.magnitude) + 1
  }

  subscript(index: Int) -> Int { start &+ index &* step }
}

/// One pass over values that are made as they are asked for.
final class Generator {
  let name: String
  let depth: Int
  private var source: (() throws(TemplateError) -> Value?)?

  /// - Parameter inputs: What it holds: generators over generators nest like lists.
  init(
    _ name: String = "generator", over inputs: [Value], _ source: @escaping () throws(TemplateError) -> Value?
  ) throws(TemplateError) {
    self.name = name
    self.source = source
    depth = try Elements.depth(of: inputs)
  }

  func next() throws(TemplateError) -> Value? {
    guard let source else { return nil }
    if let value = try source() { return value }
    self.source = nil
    return nil
  }
}

/// An object whose attributes a program may set.
final class Namespace {
  private(set) var keys: [Text] = []
  private(set) var values: [Value] = []

  subscript(key: Text) -> Value? {
    get {
      for (index, candidate) in keys.enumerated() where candidate.bytes == key.bytes { return values[index] }
      return nil
    }
    set {
      guard let newValue else { return }
      if let place = keys.firstIndex(where: { $0.bytes == key.bytes }) {
        values[place] = newValue
      } else {
        keys.append(key)
        values.append(newValue)
      }
    }
  }

  /// What a program sets. Names that begin with an underscore are refused, as transformers does.
  func set(_ key: Text, _ value: Value) throws(TemplateError) {
    guard key.bytes.first != UInt8(ascii: "_") else {
      throw TemplateError(
        .security,
        "Chat templates cannot store underscore-prefixed attributes on a namespace, but got '\(key.string)'. Please rename the attribute.")
    }
    self[key] = value
  }

  func removeAll() {
    keys = []
    values = []
  }
}

/// A macro, a function of the environment, or a method bound to its value.
final class Callable {
  enum Kind { case function, method, macro }

  typealias Body = (Evaluator, Arguments) throws(TemplateError) -> Value

  let name: String
  let kind: Kind
  let body: Body
  /// What `macro.name` and its like give.
  var attributes: [(String, Value)] = []
  /// Of the value that a method is bound to.
  var depth = 0

  init(_ name: String, _ kind: Kind = .function, _ body: @escaping Body) {
    self.name = name
    self.kind = kind
    self.body = body
  }
}

extension Value {
  /// Python's name of the type.
  var typeName: String {
    switch self {
    case .undefined: "Undefined"
    case .none: "NoneType"
    case .bool: "bool"
    case .int, .largeInt: "int"
    case .float: "float"
    case .string(let text): text.isMarkup ? "Markup" : "str"
    case .list: "list"
    case .tuple: "tuple"
    case .dict: "dict"
    case .range: "range"
    case .view(let view): "dict_\(view.kind.rawValue)"
    case .generator(let generator): generator.name
    case .namespace: "Namespace"
    case .loop: "LoopContext"
    case .callable(let callable): callable.kind == .macro ? "Macro" : callable.kind == .method ? "builtin_function_or_method" : "function"
    }
  }

  var depth: Int {
    switch self {
    case .list(let elements), .tuple(let elements): elements.depth
    case .dict(let dictionary): dictionary.depth
    case .view(let view): view.dictionary.depth
    case .generator(let generator): generator.depth
    case .callable(let callable): callable.depth
    default: 0
    }
  }

  var isUndefined: Bool { if case .undefined = self { true } else { false } }

  /// As an error shows it.
  var shortDescription: String {
    switch self {
    case .none: "None"
    case .bool(let value): value ? "True" : "False"
    case .int(let value): "\(value)"
    case .float(let value): FloatText.repr(value)
    default: typeName
    }
  }

  /// Python's truth. An undefined value is false.
  var isTrue: Bool {
    switch self {
    case .undefined, .none: false
    case .bool(let value): value
    case .int(let value): value != 0
    case .largeInt: true
    case .float(let value): value != 0
    case .string(let text): !text.isEmpty
    case .list(let elements), .tuple(let elements): !elements.values.isEmpty
    case .dict(let dictionary): dictionary.count > 0
    case .range(let range): range.count > 0
    case .view(let view): view.dictionary.count > 0
    case .generator, .namespace, .loop, .callable: true
    }
  }

  /// A Boolean counts as 0 or 1.
  var integer: Int? {
    switch self {
    case .int(let value): value
    case .bool(let value): value ? 1 : 0
    default: nil
    }
  }

  var double: Double? {
    switch self {
    case .int(let value): Double(value)
    case .bool(let value): value ? 1 : 0
    case .float(let value): value
    case .largeInt(let value): value.double
    default: nil
    }
  }

  /// A whole number of any size.
  var whole: LargeInteger? {
    if case .largeInt(let value) = self { return value }
    return integer.map { LargeInteger($0) }
  }

  init(_ value: LargeInteger) throws(TemplateError) {
    if let int = value.int {
      self = .int(int)
    } else {
      guard value.limbs.count <= LargeInteger.maximumLimbCount else { throw LargeInteger.tooLarge }
      self = .largeInt(value)
    }
  }

  var text: Text? { if case .string(let text) = self { text } else { nil } }
}

// MARK: - Equality

extension Value: Hashable {
  /// Python's `==`. Numbers are equal across their types, and so are Booleans to 0 and 1.
  static func == (left: Value, right: Value) -> Bool {
    switch (left, right) {
    case (.string(let left), .string(let right)): left.bytes == right.bytes
    case (.none, .none), (.undefined, .undefined): true
    case (.int(let left), .int(let right)): left == right
    case (.list(let left), .list(let right)), (.tuple(let left), .tuple(let right)): left === right || left.values == right.values
    case (.dict(let left), .dict(let right)):
      left === right || left.count == right.count && left.pairs.allSatisfy { right[$0].map { [value = $1] in value == $0 } ?? false }
    case (.range(let left), .range(let right)):
      left.count == right.count && (left.count == 0 || left.start == right.start && (left.count == 1 || left.step == right.step))
    case (.view(let left), .view(let right)):
      left === right || left.kind != .values && left.kind == right.kind && Value.dict(left.dictionary) == .dict(right.dictionary)
    case (.generator(let left), .generator(let right)): left === right
    case (.namespace(let left), .namespace(let right)): left === right
    case (.loop(let left), .loop(let right)): left === right
    case (.callable(let left), .callable(let right)): left === right
    case (.largeInt(let left), .largeInt(let right)): left == right
    default: left.equalsNumber(right)
    }
  }

  private func equalsNumber(_ other: Value) -> Bool {
    if let left = integer, let right = other.integer { return left == right }
    switch (self, other) {
    case (.float(let left), .float(let right)): return left == right
    case (.float(let float), let whole), (let whole, .float(let float)):
      guard let integer = whole.integer else { return whole.whole != nil && LargeInteger(float) == whole.whole }
      return Int(exactly: float) == integer
    default: return false
    }
  }

  func hash(into hasher: inout Hasher) {
    switch self {
    case .string(let text): hasher.combine(text)
    case .int, .bool, .float:
      // The same for equal numbers of different types.
      if let double { hasher.combine(double == 0 ? 0 : double) }
    case .largeInt(let value):
      // Those that no floating-point number equals must differ, or many would share one place.
      let double = value.double
      if LargeInteger(double) == value { hasher.combine(double) } else { hasher.combine(value) }
    case .list(let elements), .tuple(let elements): hasher.combine(elements.values.count)
    case .dict(let dictionary): hasher.combine(dictionary.count)
    default: hasher.combine(typeName)
    }
  }

  /// Whether Python would take the value as a key.
  var isHashable: Bool {
    switch self {
    case .list, .dict, .view: false
    case .tuple(let elements): elements.values.allSatisfy(\.isHashable)
    default: true
    }
  }
}
