// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// The functions that every program has: Jinja's, and the two of transformers.
enum Functions {
  typealias Function = @Sendable (Evaluator, Arguments) throws(TemplateError) -> Value

  static let all: [String: Function] = [
    "range": range, "dict": dict, "namespace": namespace, "cycler": cycler, "joiner": joiner, "lipsum": lipsum,
    "raise_exception": raiseException, "strftime_now": strftimeNow,
  ]

  /// What functions have as attributes.
  static func attributes(of name: String) -> [(String, Value)] {
    name == "dict" ? [("fromkeys", .callable(Callable("fromkeys", .method, fromKeys)))] : []
  }

  static let fromKeys: Function = { (evaluator, arguments) throws(TemplateError) in
    let values = try arguments.bound(to: "fromkeys", ["iterable", "value"], required: 1)
    var pairs: [(Value, Value)] = []
    for key in try values[0]?.elements(evaluator) ?? [] { pairs.append((try evaluator.key(key), values[1] ?? .none)) }
    return .dict(try ValueDictionary(pairs, evaluator))
  }

  private static let range: Function = { (evaluator, arguments) throws(TemplateError) in
    guard arguments.named.isEmpty else { throw .type("range() takes no keyword arguments") }
    var numbers: [Int] = []
    for value in arguments.positional {
      if case .undefined(let missing) = value { throw missing.error }
      guard let number = value.integer else { throw .type("'\(value.typeName)' object cannot be interpreted as an integer") }
      numbers.append(number)
    }
    guard (1...3).contains(numbers.count) else {
      throw .type("range expected \(numbers.isEmpty ? "at least 1 argument" : "at most 3 arguments"), got \(numbers.count)")
    }
    let range = IntegerRange(
      start: numbers.count == 1 ? 0 : numbers[0], stop: numbers.count == 1 ? numbers[0] : numbers[1],
      step: numbers.count == 3 ? numbers[2] : 1)
    guard range.step != 0 else { throw .value("range() arg 3 must not be zero") }
    guard range.count <= evaluator.limits.maximumRangeCount else {
      throw TemplateError(.limit, "Range too big. The sandbox blocks ranges larger than MAX_RANGE (\(evaluator.limits.maximumRangeCount)).")
    }
    return .range(range)
  }

  private static let dict: Function = { (evaluator, arguments) throws(TemplateError) in
    var pairs: [(Value, Value)] = []
    if let source = arguments.positional.first {
      if case .dict(let dictionary) = source {
        pairs = dictionary.pairs
      } else {
        for element in try source.elements(evaluator) {
          let pair = try element.elements(evaluator)
          guard pair.count == 2 else {
            throw .value("dictionary update sequence element has length \(pair.count); 2 is required")
          }
          pairs.append((try evaluator.key(pair[0]), pair[1]))
        }
      }
    }
    guard arguments.positional.count <= 1 else { throw .type("dict expected at most 1 argument, got \(arguments.positional.count)") }
    pairs += arguments.named.map { (.text($0.name), $0.value) }
    return .dict(try ValueDictionary(pairs, evaluator))
  }

  private static let namespace: Function = { (evaluator, arguments) throws(TemplateError) in
    let namespace = Namespace()
    try evaluator.spend(8)
    evaluator.keep(namespace)
    if let source = arguments.positional.first, case .dict(let dictionary) = try dict(evaluator, Arguments(positional: [source])) {
      guard dictionary.count <= TemplateLimits.maximumArgumentCount else {
        throw TemplateError(.limit, "a namespace with more than \(TemplateLimits.maximumArgumentCount) attributes")
      }
      for (key, value) in dictionary.pairs { if case .string(let key) = key { try namespace.set(key, value) } }
    }
    for (name, value) in arguments.named { try namespace.set(Text(name), value) }
    return .namespace(namespace)
  }

  /// A namespace with methods, which counts on.
  private static let cycler: Function = { (evaluator, arguments) throws(TemplateError) in
    let items = arguments.positional
    guard !items.isEmpty else { throw .runtime("at least one item has to be provided") }
    let cycler = Namespace()
    try evaluator.spend(8 + items.count)
    evaluator.keep(cycler)
    cycler["current"] = items[0]
    // The position in a namespace of its own, which programs do not see.
    let state = Namespace()
    evaluator.keep(state)
    state["position"] = .int(0)
    let depth = try Elements.depth(of: items)
    func method(_ name: String, _ body: @escaping Callable.Body) -> Value {
      let callable = Callable(name, .method, body)
      callable.depth = depth
      return .callable(callable)
    }
    let key: Text = "position"
    cycler["next"] = method("next") { (_, _) throws(TemplateError) in
      let position = state[key]?.integer ?? 0
      let next = (position + 1) % items.count
      state[key] = .int(next)
      cycler["current"] = items[next]
      return items[position]
    }
    cycler["reset"] = method("reset") { (_, _) throws(TemplateError) in
      state[key] = .int(0)
      cycler["current"] = items[0]
      return .none
    }
    return .namespace(cycler)
  }

  private static let joiner: Function = { (evaluator, arguments) throws(TemplateError) in
    let separator = try arguments.bound(to: "joiner", ["sep"])[0] ?? .text(", ")
    let state = Namespace()
    try evaluator.spend(8)
    evaluator.keep(state)
    let callable = Callable("joiner") { (_, _) throws(TemplateError) in
      if state["used"] != nil { return separator }
      state["used"] = .bool(true)
      return .text("")
    }
    callable.depth = try Elements.depth(of: [separator])
    return .callable(callable)
  }

  private static let lipsum: Function = { (_, _) throws(TemplateError) -> Value in
    throw .runtime("lipsum() writes random text, which no prompt should have")
  }

  private static let raiseException: Function = { (evaluator, arguments) throws(TemplateError) -> Value in
    let message = try arguments.bound(to: "raise_exception", ["message"], required: 1)[0] ?? .none
    throw TemplateError(.raised, try message.written(evaluator).string)
  }

  private static let strftimeNow: Function = { (evaluator, arguments) throws(TemplateError) in
    let format = try arguments.bound(to: "strftime_now", ["format"], required: 1)[0] ?? .none
    guard case .string(let format) = format else { throw .type("strftime() argument 1 must be str, not \(format.typeName)") }
    let text = try evaluator.now.formatted(format.string)
    try evaluator.spend(bytes: text.utf8.count)
    return .text(text)
  }
}
