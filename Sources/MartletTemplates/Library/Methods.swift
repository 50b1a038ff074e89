// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Python's methods, as far as they change nothing.
enum Methods {
  typealias Method = @Sendable (Evaluator, Value, Arguments) throws(TemplateError) -> Value

  static func find(_ owner: Value, _ name: String) -> Method? {
    switch owner {
    case .string: strings[name]
    case .dict: dictionaries[name]
    case .list, .tuple: lists[name]
    case .float: floats[name]
    case .int, .bool: integers[name]
    default: nil
    }
  }

  /// Whether the sandbox keeps the name from programs: of a method that would change its value, or of what every Python object has inside.
  static func isForbidden(_ owner: Value, _ name: String) -> Bool {
    switch owner {
    case .list: if listChanging.contains(name) { return true }
    case .dict: if dictionaryChanging.contains(name) { return true }
    default: break
    }
    return internals.contains(name)
  }

  /// Whether a dictionary has something else by this name than an item.
  static func ofDictionaries(_ name: String) -> Bool {
    dictionaries[name] != nil || dictionaryChanging.contains(name) || internals.contains(name)
  }

  private static let listChanging: Set<String> = ["append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"]
  private static let dictionaryChanging: Set<String> = ["clear", "pop", "popitem", "setdefault", "update"]

  private static let internals: Set<String> = [
    "__class__", "__delattr__", "__dir__", "__doc__", "__eq__", "__format__", "__ge__", "__getattribute__", "__getstate__", "__gt__",
    "__hash__", "__init__", "__init_subclass__", "__le__", "__lt__", "__ne__", "__new__", "__reduce__", "__reduce_ex__", "__repr__",
    "__setattr__", "__sizeof__", "__str__", "__subclasshook__",
  ]

  // MARK: Dictionaries, lists, numbers

  private static let dictionaries: [String: Method] = [
    "get": { (evaluator, owner, arguments) throws(TemplateError) in
      let values = try arguments.placed("get", ["key", "default"], required: 1)
      guard case .dict(let dictionary) = owner, let key = values[0] else { return .none }
      return dictionary[try evaluator.key(key)] ?? values[1] ?? .none
    },
    "keys": { (_, owner, arguments) throws(TemplateError) in try view(.keys, owner, arguments) },
    "values": { (_, owner, arguments) throws(TemplateError) in try view(.values, owner, arguments) },
    "items": { (_, owner, arguments) throws(TemplateError) in try view(.items, owner, arguments) },
    "fromkeys": { (evaluator, _, arguments) throws(TemplateError) in try Functions.fromKeys(evaluator, arguments) },
    "copy": { (_, owner, arguments) throws(TemplateError) in
      _ = try arguments.placed("copy", [])
      return owner
    },
  ]

  private static func view(_ kind: DictionaryView.Kind, _ owner: Value, _ arguments: Arguments) throws(TemplateError) -> Value {
    _ = try arguments.placed(kind.rawValue, [])
    guard case .dict(let dictionary) = owner else { return .none }
    return .view(DictionaryView(kind, dictionary))
  }

  private static let lists: [String: Method] = [
    "count": { (evaluator, owner, arguments) throws(TemplateError) in
      let wanted = try arguments.placed("count", ["value"], required: 1)[0] ?? .none
      var count = 0
      for element in try owner.elements(evaluator) where try evaluator.areEqual(element, wanted) { count += 1 }
      return .int(count)
    },
    "index": { (evaluator, owner, arguments) throws(TemplateError) in
      let values = try arguments.placed("index", ["value", "start", "stop"], required: 1)
      let elements = try owner.elements(evaluator)
      func place(_ value: Value?, _ fallback: Int) -> Int {
        guard let index = value?.integer else { return fallback }
        return min(max(index < 0 ? index + elements.count : index, 0), elements.count)
      }
      let (start, stop) = (place(values[1], 0), place(values[2], elements.count))
      let wanted = values[0] ?? .none
      if start < stop {
        for index in start..<stop where try evaluator.areEqual(elements[index], wanted) { return .int(index) }
      }
      var shown = Text()
      try wanted.appendRepr(to: &shown, evaluator)
      throw .value("\(shown.string) is not in list")
    },
    "copy": { (_, owner, _) throws(TemplateError) in owner },
  ]

  private static let floats: [String: Method] = [
    "is_integer": { (_, owner, _) throws(TemplateError) in .bool(owner.double.map { $0 == $0.rounded() } ?? false) }
  ]

  private static let integers: [String: Method] = [
    "bit_length": { (_, owner, _) throws(TemplateError) in
      .int(Int.bitWidth - (owner.integer ?? 0).magnitude.leadingZeroBitCount)
    },
    "is_integer": { (_, _, _) throws(TemplateError) in .bool(true) },
  ]

  // MARK: Strings

  /// The texts among a method's arguments; none and what is left out are nil.
  private static func texts(_ values: [Value?], _ name: String) throws(TemplateError) -> [Text?] {
    var texts: [Text?] = []
    for value in values {
      switch value {
      case nil, .some(.none): texts.append(nil)
      case .some(.string(let text)): texts.append(text)
      case .some(.undefined(let missing)): throw missing.error
      case .some(let value): throw .type("\(name) arg must be str, not \(value.typeName)")
      }
    }
    return texts
  }

  private static func text(_ body: @escaping @Sendable (Text) -> Text) -> Method {
    { (evaluator, owner, arguments) throws(TemplateError) in
      _ = try arguments.placed("method", [])
      guard case .string(let text) = owner else { return .none }
      return .string(body(text))
    }
  }

  private static func strip(_ name: String, left: Bool, right: Bool) -> Method {
    { (evaluator, owner, arguments) throws(TemplateError) in
      let set = try texts(try arguments.placed(name, ["chars"]), name)[0]
      guard case .string(let text) = owner else { return .none }
      return .string(text.stripped(set, left: left, right: right))
    }
  }

  private static func split(_ name: String, fromRight: Bool) -> Method {
    { (evaluator, owner, arguments) throws(TemplateError) in
      let values = try arguments.bound(to: name, ["sep", "maxsplit"])
      let separator = try texts([values[0]], name)[0]
      let limit = try Filters.integer(values[1], -1)
      guard case .string(let text) = owner else { return .none }
      let parts: [Text]
      if let separator {
        guard !separator.isEmpty else { throw .value("empty separator") }
        parts = fromRight ? text.splitFromRight(separator, limit: limit) : text.split(separator, limit: limit)
      } else {
        parts = text.splitAtSpace(limit: limit, fromRight: fromRight)
      }
      return try .list(parts.map { .string($0) }, evaluator)
    }
  }

  /// `startswith` and `endswith`: one text or a tuple of them.
  private static func affix(_ name: String, _ holds: @escaping @Sendable (Text, Text) -> Bool) -> Method {
    { (evaluator, owner, arguments) throws(TemplateError) in
      let values = try arguments.placed(name, ["prefix", "start", "end"], required: 1)
      guard case .string(let whole) = owner else { return .none }
      var text = whole
      if values[1] != nil || values[2] != nil {
        let part = try owner.slice(
          try Filters.integer(values[1], 0), values[2].map { (value) throws(TemplateError) in try Filters.integer(value, 0) }, nil,
          evaluator)
        text = part.text ?? text
      }
      switch values[0] {
      case .some(.string(let affix)): return .bool(holds(text, affix))
      case .some(.tuple(let affixes)):
        for affix in affixes.values {
          guard case .string(let affix) = affix else {
            throw .type("tuple for \(name) must only contain str, not \(affix.typeName)")
          }
          if holds(text, affix) { return .bool(true) }
        }
        return .bool(false)
      case .some(.undefined(let missing)): throw missing.error
      default: throw .type("\(name) first arg must be str or a tuple of str, not \(values[0]?.typeName ?? "nothing")")
      }
    }
  }

  /// `find` and its like: a place in code points.
  private static func find(_ name: String, isLast: Bool, raises: Bool) -> Method {
    { (evaluator, owner, arguments) throws(TemplateError) in
      let values = try arguments.placed(name, ["sub", "start", "end"], required: 1)
      guard case .string(let text) = owner, let part = try texts([values[0]], name)[0] else {
        throw .type("must be str, not \(values[0]?.typeName ?? "nothing")")
      }
      let starts = text.scalarStarts
      func place(_ value: Value?, _ fallback: Int) throws(TemplateError) -> Int {
        guard let value, value != .none else { return fallback }
        let index = try Filters.integer(value, 0)
        return min(max(index < 0 ? index + starts.count - 1 : index, 0), starts.count - 1)
      }
      let (start, end) = (try place(values[1], 0), try place(values[2], starts.count - 1))
      var found: Int?
      if start <= end {
        let window = text[starts[start]..<starts[end]]
        found = (isLast ? window.lastIndex(of: part) : window.firstIndex(of: part)).map { $0 + starts[start] }
      }
      guard let found else {
        if raises { throw .value("substring not found") }
        return .int(-1)
      }
      return .int(text[0..<found].scalarCount)
    }
  }

  private static func check(_ holds: @escaping @Sendable (Unicode.Scalar) -> Bool) -> Method {
    { (_, owner, _) throws(TemplateError) in
      guard case .string(let text) = owner else { return .none }
      return .bool(!text.isEmpty && text.string.unicodeScalars.allSatisfy(holds))
    }
  }

  private static func pad(_ name: String, left: Bool, right: Bool) -> Method {
    { (evaluator, owner, arguments) throws(TemplateError) in
      let values = try arguments.placed(name, ["width", "fillchar"], required: 1)
      let width = try Filters.integer(values[0], 0)
      let fill = try texts([values[1]], name)[0] ?? " "
      guard fill.scalarCount == 1 else { throw .type("The fill character must be exactly one character long") }
      guard case .string(let text) = owner else { return .none }
      try evaluator.spend(bytes: max(0, width))
      return .string(text.padded(to: width, left: left, right: right, with: fill))
    }
  }

  private static func partition(_ name: String, isLast: Bool) -> Method {
    { (evaluator, owner, arguments) throws(TemplateError) in
      guard case .string(let text) = owner, let separator = try texts(try arguments.placed(name, ["sep"], required: 1), name)[0] else {
        throw .type("must be str")
      }
      guard !separator.isEmpty else { throw .value("empty separator") }
      let parts: [Text]
      if let place = isLast ? text.lastIndex(of: separator) : text.firstIndex(of: separator) {
        parts = [text[0..<place], text[place..<(place + separator.count)], text[(place + separator.count)..<text.count]]
      } else {
        parts = isLast ? [Text(), Text(), text] : [text, Text(), Text()]
      }
      return .tuple(try Elements(parts.map { .string($0) }, evaluator))
    }
  }

  private static let strings: [String: Method] = [
    "upper": text(\.uppercased), "lower": text(\.lowercased), "capitalize": text(\.capitalized), "title": text(\.titlecased),
    "swapcase": text(\.caseSwapped), "casefold": text(\.caseFolded),
    "isidentifier": { (_, owner, _) throws(TemplateError) in
      guard case .string(let text) = owner, let first = text.scalars.first else { return .bool(false) }
      func isStart(_ scalar: Unicode.Scalar) -> Bool { scalar == "_" || scalar.properties.isXIDStart }
      return .bool(isStart(first) && text.scalars.dropFirst().allSatisfy { isStart($0) || $0.properties.isXIDContinue })
    },
    "format_map": { (evaluator, owner, arguments) throws(TemplateError) in
      guard case .string(let text) = owner, case .dict(let dictionary)? = try arguments.placed("format_map", ["map"], required: 1)[0] else {
        throw .type("format_map() argument must be a mapping")
      }
      let named = dictionary.pairs.compactMap { key, value in key.text.map { (name: $0.string, value: value) } }
      return .string(try BraceFormat.apply(text, Arguments(named: named), evaluator).asMarkup(text.isMarkup))
    },
    "strip": strip("strip", left: true, right: true), "lstrip": strip("lstrip", left: true, right: false),
    "rstrip": strip("rstrip", left: false, right: true),
    "split": split("split", fromRight: false), "rsplit": split("rsplit", fromRight: true),
    "splitlines": { (evaluator, owner, arguments) throws(TemplateError) in
      let keepsEnds = try arguments.bound(to: "splitlines", ["keepends"])[0]?.isTrue ?? false
      guard case .string(let text) = owner else { return .none }
      return try .list(text.lines(keepsEnds: keepsEnds).map { .string($0) }, evaluator)
    },
    "startswith": affix("startswith") { $0.hasPrefix($1) }, "endswith": affix("endswith") { $0.hasSuffix($1) },
    "find": find("find", isLast: false, raises: false), "rfind": find("rfind", isLast: true, raises: false),
    "index": find("index", isLast: false, raises: true), "rindex": find("rindex", isLast: true, raises: true),
    "count": { (evaluator, owner, arguments) throws(TemplateError) in
      let values = try arguments.placed("count", ["sub", "start", "end"], required: 1)
      guard case .string = owner, let part = try texts([values[0]], "count")[0] else { throw .type("must be str") }
      func bound(_ value: Value?) throws(TemplateError) -> Int? {
        guard let value, value != .none else { return nil }
        return try Filters.integer(value, 0)
      }
      let length = try owner.length()
      let (start, end) = (try bound(values[1]), try bound(values[2]))
      if let start, start > length { return .int(0) }
      guard case .string(let window) = try owner.slice(start, end, nil, evaluator) else { return .none }
      return .int(part.isEmpty ? window.scalarCount + 1 : window.split(part, limit: -1).count - 1)
    },
    "replace": { (evaluator, owner, arguments) throws(TemplateError) in
      let values = try arguments.placed("replace", ["old", "new", "count"], required: 2)
      let parts = try texts([values[0], values[1]], "replace")
      guard case .string(let text) = owner, let old = parts[0], let new = parts[1] else {
        throw .type("replace() argument must be str, not None")
      }
      return .string(
        try Filters.replace(
          text, old, text.isMarkup && !new.isMarkup ? HTML.escaped(new) : new, try Filters.integer(values[2], -1), evaluator))
    },
    "join": { (evaluator, owner, arguments) throws(TemplateError) in
      guard case .string(let separator) = owner, let values = try arguments.placed("join", ["iterable"], required: 1)[0] else {
        return .none
      }
      var parts: [Text] = []
      for (index, value) in try values.elements(evaluator).enumerated() {
        guard case .string(let text) = value else {
          throw .type("sequence item \(index): expected str instance, \(value.typeName) found")
        }
        try evaluator.spend(bytes: text.count + separator.count)
        parts.append(separator.isMarkup && !text.isMarkup ? HTML.escaped(text) : text)
      }
      return .string(Text.joined(parts, separator: separator).asMarkup(separator.isMarkup))
    },
    "format": { (evaluator, owner, arguments) throws(TemplateError) in
      guard case .string(let text) = owner else { return .none }
      return .string(try BraceFormat.apply(text, arguments, evaluator).asMarkup(text.isMarkup))
    },
    "ljust": pad("ljust", left: false, right: true), "rjust": pad("rjust", left: true, right: false),
    "center": pad("center", left: true, right: true),
    "zfill": { (evaluator, owner, arguments) throws(TemplateError) in
      let width = max(0, try Filters.integer(try arguments.placed("zfill", ["width"], required: 1)[0], 0))
      guard case .string(let text) = owner else { return .none }
      try evaluator.spend(bytes: max(0, width))
      let hasSign = text.bytes.first == UInt8(ascii: "-") || text.bytes.first == UInt8(ascii: "+")
      var result = hasSign ? text[0..<1] : Text()
      result.append(text[(hasSign ? 1 : 0)..<text.count].padded(to: width - (hasSign ? 1 : 0), left: true, right: false, with: "0"))
      return .string(result)
    },
    "partition": partition("partition", isLast: false), "rpartition": partition("rpartition", isLast: true),
    "removeprefix": { (_, owner, arguments) throws(TemplateError) in
      guard case .string(let text) = owner,
        let affix = try texts(try arguments.placed("removeprefix", ["prefix"], required: 1), "removeprefix")[0]
      else { throw .type("removeprefix() argument must be str") }
      return .string(text.hasPrefix(affix) ? text[affix.count..<text.count] : text)
    },
    "removesuffix": { (_, owner, arguments) throws(TemplateError) in
      guard case .string(let text) = owner,
        let affix = try texts(try arguments.placed("removesuffix", ["suffix"], required: 1), "removesuffix")[0]
      else { throw .type("removesuffix() argument must be str") }
      return .string(text.hasSuffix(affix) ? text[0..<(text.count - affix.count)] : text)
    },
    "expandtabs": { (evaluator, owner, arguments) throws(TemplateError) in
      let size = try Filters.integer(try arguments.bound(to: "expandtabs", ["tabsize"])[0], 8)
      guard Int32(exactly: size) != nil else { throw .runtime("Python int too large to convert to C int") }
      guard case .string(let text) = owner else { return .none }
      let (grown, overflow) = text.bytes.count { $0 == 9 }.multipliedReportingOverflow(by: max(0, size))
      try evaluator.spend(bytes: overflow ? Int.max : grown)
      var column = 0
      return .string(
        text.mapScalars { scalar, _ in
          if scalar == "\t" {
            guard size > 0 else { return "" }
            let count = size - column % size
            column += count
            return String(repeating: " ", count: count)
          }
          column = scalar == "\n" || scalar == "\r" ? 0 : column + 1
          return nil
        })
    },
    "isdigit": check { $0.properties.numericType == .decimal || $0.properties.numericType == .digit },
    "isdecimal": check { $0.properties.numericType == .decimal },
    "isnumeric": check { $0.properties.numericType != nil },
    "isalpha": check(\.isPythonLetter),
    "isalnum": check { $0.isPythonLetter || $0.properties.numericType != nil },
    "isspace": check(\.isPythonSpace),
    "isascii": { (_, owner, _) throws(TemplateError) in .bool(owner.text?.isASCII ?? false) },
    "isprintable": { (_, owner, _) throws(TemplateError) in .bool(owner.text?.scalars.allSatisfy(\.isPythonPrintable) ?? false) },
    "isupper": { (_, owner, _) throws(TemplateError) in
      guard case .string(let text) = owner else { return .none }
      return .bool(text.scalars.contains { $0.properties.isUppercase } && !text.scalars.contains { $0.properties.isLowercase })
    },
    "islower": { (_, owner, _) throws(TemplateError) in
      guard case .string(let text) = owner else { return .none }
      return .bool(text.scalars.contains { $0.properties.isLowercase } && !text.scalars.contains { $0.properties.isUppercase })
    },
    "istitle": { (_, owner, _) throws(TemplateError) in
      guard case .string(let text) = owner else { return .none }
      return .bool(text.isCased && text.titlecased == text)
    },
  ]
}

extension Unicode.Scalar {
  fileprivate var isPythonLetter: Bool {
    switch properties.generalCategory {
    case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter: true
    default: false
    }
  }
}
