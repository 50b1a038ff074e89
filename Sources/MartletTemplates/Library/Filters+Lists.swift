// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Filters of lists. Those that give a generator in Jinja do so here: it can be read once, has no length, and is always true.

extension Filters {
  static let lists: [String: Function] = [
    "length": length, "count": length,
    "list": { (evaluator, value, _) throws(TemplateError) in
      try .list(value.elements(evaluator), evaluator)
    },
    "items": { (evaluator, value, _) throws(TemplateError) in
      if case .undefined = value { return .generator(try generator([]) { () throws(TemplateError) -> Value? in nil }) }
      guard case .dict(let dictionary) = value else { throw .type("Can only get item pairs from a mapping.") }
      return .generator(try generator([value], over: try dictionary.items(evaluator)))
    },
    "first": { (evaluator, value, _) throws(TemplateError) in
      try value.iterator(evaluator)() ?? .undefined(Missing("No first item, sequence was empty."))
    },
    "last": { (evaluator, value, _) throws(TemplateError) in
      if case .generator = value { throw .type("'generator' object is not reversible") }
      return try value.elements(evaluator).last ?? .undefined(Missing("No last item, sequence was empty."))
    },
    "join": join, "sum": sum, "sort": sort, "dictsort": dictsort, "unique": unique,
    "min": { (evaluator, value, arguments) throws(TemplateError) in try extreme(evaluator, value, arguments, isGreatest: false) },
    "max": { (evaluator, value, arguments) throws(TemplateError) in try extreme(evaluator, value, arguments, isGreatest: true) },
    "reverse": { (evaluator, value, _) throws(TemplateError) in
      switch value {
      case .string: return try value.slice(nil, nil, -1, evaluator)
      case .undefined: return .generator(try generator([], over: []))
      case .list, .tuple, .dict, .range, .view, .generator:
        return .generator(try generator([value], over: try value.elements(evaluator).reversed(), name: "list_reverseiterator"))
      default: throw .runtime("argument must be iterable")
      }
    },
    "batch": batch, "slice": slice, "groupby": groupby, "map": map,
    "select": select(keeps: true, byAttribute: false),
    "reject": select(keeps: false, byAttribute: false),
    "selectattr": select(keeps: true, byAttribute: true),
    "rejectattr": select(keeps: false, byAttribute: true),
  ]

  private static let length: Function = { (_, value, _) throws(TemplateError) in .int(try value.length()) }

  private static func generator(
    _ inputs: [Value], _ source: @escaping () throws(TemplateError) -> Value?
  ) throws(TemplateError) -> Generator {
    try Generator(over: inputs, source)
  }

  private static func generator(_ inputs: [Value], over values: [Value], name: String = "generator") throws(TemplateError) -> Generator {
    var index = 0
    return try Generator(name, over: inputs + values) { () throws(TemplateError) -> Value? in
      guard index < values.count else { return nil }
      index += 1
      return values[index - 1]
    }
  }

  /// What `attribute=` asks for: names and numbers with dots between.
  static func attribute(_ path: Value, _ value: Value, _ evaluator: Evaluator, fallback: Value? = nil) throws(TemplateError) -> Value {
    if let index = path.integer {
      let item = try value.item(.int(index), evaluator)
      return item.isUndefined ? fallback ?? item : item
    }
    guard case .string(let path) = path else { throw .type("an attribute must be a string or an integer, not \(path.typeName)") }
    var value = value
    for part in path.split(".", limit: -1) {
      let number = !part.isEmpty && part.bytes.allSatisfy { (0x30...0x39).contains($0) } ? Int(part.string) : nil
      value = try value.item(number.map { .int($0) } ?? .string(part), evaluator)
      if value.isUndefined, let fallback { value = fallback }
    }
    return value
  }

  /// Strings without their case, everything else as it is.
  private static func ignoringCase(_ value: Value) -> Value {
    if case .string(let text) = value { return .string(text.lowercased) }
    return value
  }

  private static let join: Function = { (evaluator, value, arguments) throws(TemplateError) in
    let values = try arguments.bound(to: "join", ["d", "attribute"])
    let separator = try values[0].map { (value) throws(TemplateError) in try value.written(evaluator).asMarkup(false) } ?? Text()
    var result = Text()
    var isFirst = true
    try value.forEach(evaluator) { (element) throws(TemplateError) in
      if !isFirst { result.append(separator) }
      isFirst = false
      var element = element
      if let path = values[1], path != .none { element = try attribute(path, element, evaluator) }
      let text = try softText(element, evaluator)
      try evaluator.spend(bytes: text.count + separator.count)
      result.append(text)
      return true
    }
    return .string(result.asMarkup(false))
  }

  private static let sum: Function = { (evaluator, value, arguments) throws(TemplateError) in
    let values = try arguments.bound(to: "sum", ["attribute", "start"])
    var total = values[1] ?? .int(0)
    if total.text != nil { throw .type("sum() can't sum strings [use ''.join(seq) instead]") }
    try value.forEach(evaluator) { (element) throws(TemplateError) in
      var element = element
      if let path = values[0], path != .none { element = try attribute(path, element, evaluator) }
      total = try BinaryOperator.add.apply(total, element, evaluator)
      return true
    }
    return total
  }

  private static let sort: Function = { (evaluator, value, arguments) throws(TemplateError) in
    let values = try arguments.bound(to: "sort", ["reverse", "case_sensitive", "attribute"])
    let isCased = values[1]?.isTrue ?? false
    let paths = try sortPaths(values[2], evaluator)
    let sorted = try Sorting.sorted(try value.elements(evaluator), evaluator, isReversed: values[0]?.isTrue ?? false) {
      (element) throws(TemplateError) in
      guard let paths else { return isCased ? element : ignoringCase(element) }
      var keys: [Value] = []
      for path in paths {
        let key = try attribute(path, element, evaluator)
        keys.append(isCased ? key : ignoringCase(key))
      }
      return .list(try Elements(keys, evaluator))
    }
    return try .list(sorted, evaluator)
  }

  /// `attribute="a,b"` sorts by several.
  private static func sortPaths(_ path: Value?, _ evaluator: Evaluator) throws(TemplateError) -> [Value]? {
    switch path {
    case nil, .some(.none): return nil
    case .some(.string(let text)): return text.split(",", limit: -1).map { .string($0) }
    case .some(let value): return [value]
    }
  }

  private static let dictsort: Function = { (evaluator, value, arguments) throws(TemplateError) in
    let values = try arguments.bound(to: "dictsort", ["case_sensitive", "by", "reverse"])
    if case .undefined(let missing) = value { throw missing.error }
    let by = try values[1].map { (value) throws(TemplateError) in try value.written(evaluator).string } ?? "key"
    guard by == "key" || by == "value" else { throw .runtime("You can only sort by either \"key\" or \"value\"") }
    guard case .dict(let dictionary) = value else { throw .type("'\(value.typeName)' object has no attribute 'items'") }
    let isCased = values[0]?.isTrue ?? false
    let sorted = try Sorting.sorted(dictionary.pairs, evaluator, isReversed: values[2]?.isTrue ?? false) { (pair) throws(TemplateError) in
      let key = by == "key" ? pair.0 : pair.1
      return isCased ? key : ignoringCase(key)
    }
    var items: [Value] = []
    for (key, value) in sorted { items.append(.tuple(try Elements([key, value], evaluator))) }
    return try .list(items, evaluator)
  }

  private static let unique: Function = { (evaluator, value, arguments) throws(TemplateError) in
    let values = try arguments.bound(to: "unique", ["case_sensitive", "attribute"])
    let next = try value.iterator(evaluator)
    let isCased = values[0]?.isTrue ?? false
    var seen: Set<Value> = []
    return .generator(
      try generator([value]) { [unowned evaluator] () throws(TemplateError) -> Value? in
        while let element = try next() {
          try evaluator.spend(elements: 2)
          var key = element
          if let path = values[1], path != .none { key = try attribute(path, element, evaluator) }
          key = try evaluator.key(isCased ? key : ignoringCase(key))
          if seen.insert(key).inserted { return element }
        }
        return nil
      })
  }

  private static func extreme(
    _ evaluator: Evaluator, _ value: Value, _ arguments: Arguments, isGreatest: Bool
  ) throws(TemplateError) -> Value {
    let values = try arguments.bound(to: isGreatest ? "max" : "min", ["case_sensitive", "attribute"])
    let isCased = values[0]?.isTrue ?? false
    var best: (key: Value, element: Value)?
    try value.forEach(evaluator) { (element) throws(TemplateError) in
      var key = element
      if let path = values[1], path != .none { key = try attribute(path, element, evaluator) }
      if !isCased { key = ignoringCase(key) }
      if let old = best {
        if try (isGreatest ? Comparison.greater : .less).apply(key, old.key, evaluator) { best = (key, element) }
      } else {
        best = (key, element)
      }
      return true
    }
    return best?.element ?? .undefined(Missing("No aggregated item, sequence was empty."))
  }

  private static let batch: Function = { (evaluator, value, arguments) throws(TemplateError) in
    let values = try arguments.bound(to: "batch", ["linecount", "fill_with"], required: 1)
    let size = try integer(values[0], 1)
    let next = try value.iterator(evaluator)
    var isDone = false
    // Rows of nothing: an empty one before the first element, and then one that no element fills.
    var first: Value?
    var isFirst = size == 0
    return .generator(
      try generator([value] + values.compactMap { $0 }) { [unowned evaluator] () throws(TemplateError) -> Value? in
        if isDone { return nil }
        if isFirst {
          isFirst = false
          first = try next()
          isDone = first == nil
          return isDone ? nil : try .list([], evaluator)
        }
        var row: [Value] = []
        if let value = first { row.append(value) }
        first = nil
        while let element = try next() {
          try evaluator.spend(elements: 1)
          // As Jinja has it: a full row goes when the next element comes.
          row.append(element)
          if row.count == size { break }
        }
        if row.count < size || row.isEmpty {
          isDone = true
          if row.isEmpty { return nil }
          if let fill = values[1], fill != .none {
            try evaluator.spend(elements: size - row.count)
            while row.count < size { row.append(fill) }
          }
        }
        return try .list(row, evaluator)
      })
  }

  private static let slice: Function = { (evaluator, value, arguments) throws(TemplateError) in
    let values = try arguments.bound(to: "slice", ["slices", "fill_with"], required: 1)
    let count = try integer(values[0], 1)
    guard count != 0 else { throw .runtime("integer division or modulo by zero") }
    let elements = try value.elements(evaluator)
    try evaluator.spend(elements: max(0, count))
    let (size, extra) = (elements.count / max(count, 1), elements.count % max(count, 1))
    var rows: [Value] = []
    var start = 0
    for index in 0..<max(0, count) {
      let end = start + size + (index < extra ? 1 : 0)
      var row = Array(elements[start..<end])
      if let fill = values[1], fill != .none, index >= extra { row.append(fill) }
      rows.append(try .list(row, evaluator))
      start = end
    }
    return .generator(try generator([value], over: rows))
  }

  private static let groupby: Function = { (evaluator, value, arguments) throws(TemplateError) in
    let values = try arguments.bound(to: "groupby", ["attribute", "default", "case_sensitive"], required: 1)
    guard let path = values[0] else { return .none }
    let isCased = values[2]?.isTrue ?? false
    func key(_ element: Value) throws(TemplateError) -> Value { try attribute(path, element, evaluator, fallback: values[1]) }
    let sorted = try Sorting.sorted(try value.elements(evaluator), evaluator) { (element) throws(TemplateError) in
      isCased ? try key(element) : ignoringCase(try key(element))
    }
    var groups: [(key: Value, shown: Value, elements: [Value])] = []
    for element in sorted {
      let shown = try key(element)
      let grouping = isCased ? shown : ignoringCase(shown)
      if let last = groups.last, try evaluator.areEqual(last.key, grouping) {
        groups[groups.count - 1].elements.append(element)
      } else {
        groups.append((grouping, shown, [element]))
      }
    }
    var result: [Value] = []
    for group in groups {
      let list = try Value.list(group.elements, evaluator)
      let group = try Elements([group.shown, list], evaluator)
      group.names = ["grouper", "list"]
      result.append(.tuple(group))
    }
    return try .list(result, evaluator)
  }

  /// A generator that looks at its input when it is first asked, and at an empty one not at all.
  private static func lazily(
    _ value: Value, _ arguments: Arguments, _ evaluator: Evaluator,
    _ prepare: @escaping () throws(TemplateError) -> (_ next: @escaping () throws(TemplateError) -> Value?) throws(TemplateError) -> Value?
  ) throws(TemplateError) -> Value {
    var step: (() throws(TemplateError) -> Value?)?
    return .generator(
      try generator([value] + arguments.positional + arguments.named.map(\.value)) {
        [unowned evaluator] () throws(TemplateError) -> Value? in
        try evaluator.spend()
        if let step { return try step() }
        guard value.isTrue else { return nil }
        let (body, next) = (try prepare(), try value.iterator(evaluator))
        step = { () throws(TemplateError) -> Value? in try body(next) }
        return try body(next)
      })
  }

  private static let map: Function = { (evaluator, value, arguments) throws(TemplateError) in
    try lazily(value, arguments, evaluator) { [unowned evaluator] () throws(TemplateError) in
      let transform: (Value) throws(TemplateError) -> Value
      if arguments.positional.isEmpty, let path = arguments["attribute"] {
        let fallback = arguments["default"]
        for (name, _) in arguments.named where name != "attribute" && name != "default" {
          throw .runtime("Unexpected keyword argument '\(name)'")
        }
        transform = { (element: Value) throws(TemplateError) -> Value in try attribute(path, element, evaluator, fallback: fallback) }
      } else {
        guard case .string(let name)? = arguments.positional.first else { throw .runtime("map requires a filter argument") }
        guard let filter = Filters.all[name.string] else { throw .runtime("No filter named '\(name.string)'.") }
        let rest = Arguments(positional: Array(arguments.positional.dropFirst()), named: arguments.named)
        transform = { (element: Value) throws(TemplateError) -> Value in try evaluator.apply(filter, element, rest) }
      }
      return { (next) throws(TemplateError) -> Value? in
        guard let element = try next() else { return nil }
        return try transform(element)
      }
    }
  }

  private static func select(keeps: Bool, byAttribute: Bool) -> Function {
    { (evaluator, value, arguments) throws(TemplateError) in
      try lazily(value, arguments, evaluator) { [unowned evaluator] () throws(TemplateError) in
        var rest = arguments
        var path: Value?
        if byAttribute {
          guard !rest.positional.isEmpty else { throw .runtime("Missing parameter for attribute name") }
          path = rest.positional.removeFirst()
        }
        var function: Test?
        if !rest.positional.isEmpty {
          let name = try rest.positional.removeFirst().written(evaluator).string
          guard let test = Tests.all[name] else { throw .runtime("No test named '\(name)'.") }
          function = test
        }
        return { [path, function, rest] (next) throws(TemplateError) -> Value? in
          while let element = try next() {
            try evaluator.spend()
            var tested = element
            if let path { tested = try attribute(path, element, evaluator) }
            let holds = if let function { try function(evaluator, tested, rest) } else { tested.isTrue }
            if holds == keeps { return element }
          }
          return nil
        }
      }
    }
  }
}

enum Sorting {
  /// Stable, by Python's `<` of the keys. Reversed, equal elements keep their order too.
  static func sorted<Element>(
    _ elements: [Element], _ evaluator: Evaluator, isReversed: Bool = false,
    by key: (Element) throws(TemplateError) -> Value
  ) throws(TemplateError) -> [Element] {
    var entries: [(key: Value, element: Element)] = []
    entries.reserveCapacity(elements.count)
    for element in elements { entries.append((try key(element), element)) }
    // Merging, from the bottom up: comparisons may throw.
    var width = 1
    var buffer = entries
    while width < entries.count {
      var start = 0
      while start < entries.count {
        let middle = min(start + width, entries.count)
        let end = min(start + 2 * width, entries.count)
        var (left, right) = (start, middle)
        for place in start..<end {
          try evaluator.spend()
          var takesRight = left == middle
          if !takesRight, right < end {
            takesRight =
              try isReversed
              ? Comparison.less.apply(entries[left].key, entries[right].key, evaluator)
              : Comparison.less.apply(entries[right].key, entries[left].key, evaluator)
          }
          if takesRight {
            buffer[place] = entries[right]
            right += 1
          } else {
            buffer[place] = entries[left]
            left += 1
          }
        }
        start = end
      }
      swap(&entries, &buffer)
      width *= 2
    }
    return entries.map(\.element)
  }
}
