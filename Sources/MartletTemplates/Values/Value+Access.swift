// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// `a.b`, `a[b]` and `a[b:c]`. What is not there is undefined and says so when it is used.

extension Value {
  /// The attribute, else the item: `schema.items` is the method even where the dictionary has such a key.
  ///
  /// - Parameter isItem: That dictionaries are known to have nothing but an item by this name.
  func attribute(_ name: Text, isItem: Bool = false, _ evaluator: Evaluator) throws(TemplateError) -> Value {
    if case .undefined(let missing) = self { throw missing.error }
    if isItem, case .dict(let dictionary) = self { return dictionary[name] ?? .undefined(Missing(self, lacks: .string(name))) }
    if let attribute = try ownAttribute(name, evaluator) { return attribute }
    if case .dict(let dictionary) = self, let value = dictionary[name] { return value }
    return .undefined(Missing(self, lacks: .string(name)))
  }

  /// The item, else the attribute.
  func item(_ key: Value, _ evaluator: Evaluator) throws(TemplateError) -> Value {
    switch self {
    case .undefined(let missing): throw missing.error
    case .dict(let dictionary):
      try evaluator.spend(comparing: key, key)
      if key.isHashable, let value = dictionary[key] { return value }
    case .list(let elements), .tuple(let elements):
      if let index = key.integer {
        if let place = Self.place(index, elements.values.count) { return elements.values[place] }
        return .undefined(Missing(self, lacks: key))
      }
    case .string(let text):
      if let index = key.integer {
        try evaluator.spend(bytes: text.count)
        if let scalar = text.scalarRange(index) { return .string(text[scalar]) }
        return .undefined(Missing(self, lacks: key))
      }
    case .range(let range):
      if let index = key.integer {
        if let place = Self.place(index, range.count) { return .int(range[place]) }
        return .undefined(Missing(self, lacks: key))
      }
    default: break
    }
    if case .string(let name) = key, let attribute = try ownAttribute(name, evaluator) { return attribute }
    return .undefined(Missing(self, lacks: key))
  }

  private static func place(_ index: Int, _ count: Int) -> Int? {
    let place = index < 0 ? index + count : index
    return place >= 0 && place < count ? place : nil
  }

  /// A method or another attribute of the type; nil where there is none.
  private func ownAttribute(_ name: Text, _ evaluator: Evaluator) throws(TemplateError) -> Value? {
    switch self {
    case .namespace(let namespace):
      if let value = namespace[name] { return value }
    case .loop(let loop):
      if let value = try loop.attribute(name) { return value }
    case .callable(let callable):
      if let attribute = callable.attributes.first(where: { $0.0 == name.string }) { return attribute.1 }
    case .tuple(let elements):
      if let place = elements.names.firstIndex(of: name.string) { return elements.values[place] }
    case .range(let range):
      switch name.string {
      case "start": return .int(range.start)
      case "stop": return .int(range.stop)
      case "step": return .int(range.step)
      default: break
      }
    default: break
    }
    if Methods.isForbidden(self, name.string) {
      return .undefined(Missing("access to attribute '\(name.string)' of '\(typeName)' object is unsafe.", code: .security))
    }
    guard let method = Methods.find(self, name.string) else { return nil }
    let callable = Callable(name.string, .method) { [self] (evaluator, arguments) throws(TemplateError) in
      try evaluator.spend(reading: self)
      for argument in arguments.positional { try evaluator.spend(reading: argument) }
      return try method(evaluator, self, arguments)
    }
    callable.depth = depth + 1
    return .callable(callable)
  }

  func slice(_ start: Int?, _ stop: Int?, _ step: Int?, _ evaluator: Evaluator) throws(TemplateError) -> Value {
    let step = step ?? 1
    guard step != 0 else { throw .value("slice step cannot be zero") }
    switch self {
    case .undefined(let missing): throw missing.error
    case .string(let text):
      try evaluator.spend(bytes: text.count)
      let starts = text.scalarStarts
      let places = Self.places(start, stop, step, starts.count - 1)
      if step == 1 {
        guard let first = places.first, let last = places.last else { return .string(Text().asMarkup(text.isMarkup)) }
        return .string(text[starts[first]..<starts[last + 1]])
      }
      var result = Text()
      for place in places { result.append(text[starts[place]..<starts[place + 1]]) }
      return .string(result.asMarkup(text.isMarkup))
    case .list(let elements), .tuple(let elements):
      let values = Self.places(start, stop, step, elements.values.count).map { elements.values[$0] }
      let result = try Elements(values, evaluator)
      if case .list = self { return .list(result) }
      return .tuple(result)
    case .range(let range):
      let (first, end) = Self.bounds(start, stop, step, range.count)
      let (stepped, overflow) = range.step.multipliedReportingOverflow(by: step)
      guard !overflow else { throw LargeInteger.tooLarge }
      // Also of an empty slice, as Python shows its ends.
      return .range(IntegerRange(start: range[first], stop: range[end], step: stepped))
    case .dict: throw .type("unhashable type: 'slice'")
    default: throw .type("'\(typeName)' object is not subscriptable")
    }
  }

  /// The places that Python's slice takes, in their order.
  private static func places(_ start: Int?, _ stop: Int?, _ step: Int, _ count: Int) -> [Int] {
    let (first, end) = bounds(start, stop, step, count)
    if step == 1 { return Array(first..<max(first, end)) }
    return step > 0
      ? first < end ? Array(stride(from: first, to: end, by: step)) : [] : first > end ? Array(stride(from: first, to: end, by: step)) : []
  }

  /// Where Python's slice begins, and where it has ended.
  private static func bounds(_ start: Int?, _ stop: Int?, _ step: Int, _ count: Int) -> (first: Int, end: Int) {
    let (low, high) = step > 0 ? (0, count) : (-1, count - 1)
    func clamped(_ index: Int) -> Int {
      let index = index < 0 ? index.addingReportingOverflow(count).partialValue : index
      return min(max(index, low), high)
    }
    return (start.map(clamped) ?? (step > 0 ? low : high), stop.map(clamped) ?? (step > 0 ? high : low))
  }
}

extension Text {
  /// The bytes of a code point, counted from the end if the index is negative.
  fileprivate func scalarRange(_ index: Int) -> Range<Int>? {
    if index >= 0 {
      var (position, left) = (0, index)
      while position < count {
        let end = scalar(at: position).end
        if left == 0 { return position..<end }
        left -= 1
        position = end
      }
      return nil
    }
    var (end, left) = (count, -1 - index)
    while end > 0 {
      let start = scalar(before: end).start
      if left == 0 { return start..<end }
      left -= 1
      end = start
    }
    return nil
  }
}
