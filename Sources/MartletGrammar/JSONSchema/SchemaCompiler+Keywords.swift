// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletFormats

// What each keyword says. Every keyword of a schema is either held, or an annotation by the specification, or an error.

extension SchemaCompiler {
  /// Keywords that are held, or that only name and group schemas.
  private static var held: Set<String> {
    [
      "$ref", "type", "enum", "const", "allOf", "anyOf", "oneOf", "not", "if", "then", "else", "properties", "required",
      "additionalProperties",
      "patternProperties", "propertyNames", "minProperties", "maxProperties", "dependentRequired", "dependentSchemas", "dependencies",
      "prefixItems",
      "items", "additionalItems", "minItems", "maxItems", "contains", "minContains", "maxContains", "uniqueItems", "minLength", "maxLength",
      "pattern",
      "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "unevaluatedProperties", "unevaluatedItems",
      "$schema",
      "$id", "$anchor", "$defs", "definitions", "$dynamicAnchor",
    ]
  }

  mutating func shape(of schema: JSONValue, at pointer: String) throws(GrammarError) -> Shape {
    if let bool = schema.bool { return bool ? any : Shape() }
    guard schema.kind == .object else {
      throw GrammarError(.syntax, "a schema is an object or a Boolean, and \(schema) is neither", at: "#" + pointer)
    }
    try countStep()
    if document.referencesStandAlone, let reference = schema["$ref"] { return try shape(ofReference: reference, pointer) }
    for (key, _) in schema.members {
      let name = key.string!
      if name == "$dynamicRef" || name == "$recursiveRef" || name == "extends" || name == "disallow" || name == "divisibleBy" {
        throw unsupported("\(name) is not supported: use $ref, allOf, not or multipleOf", pointer, name)
      }
      if !Self.held.contains(name) { annotations.insert("#\(pointer)/\(SchemaDocument.escape(name))") }
    }
    var shape = any
    try applyType(schema, pointer, &shape)
    try applyValues(schema, pointer, &shape)
    try applyNumbers(schema, pointer, &shape)
    try applyStrings(schema, pointer, &shape)
    try applyArrays(schema, pointer, &shape)
    try applyObjects(schema, pointer, &shape)
    try applyCombinations(schema, pointer, &shape)
    return shape
  }

  private mutating func shape(ofReference reference: JSONValue, _ pointer: String) throws(GrammarError) -> Shape {
    try shape(of: term(ofReference: reference, pointer))
  }

  private mutating func term(ofReference reference: JSONValue, _ pointer: String) throws(GrammarError) -> Term {
    guard let text = reference.string else { throw syntax("$ref is a string", pointer, "$ref") }
    let target = document.target(of: text, at: pointer)
    if let target, let known = schemaNumbers[Array(target.utf8)] { return term([.schema(known)]) }
    guard let target, let value = document.value(at: target) else {
      throw unsupported("\"\(text)\" is not in the schema, and nothing is fetched: put what it refers to under $defs", pointer, "$ref")
    }
    return term(at: target, value)
  }

  // MARK: Types and values

  private mutating func applyType(_ schema: JSONValue, _ pointer: String, _ shape: inout Shape) throws(GrammarError) {
    guard let type = schema["type"] else { return }
    var allowed = Shape()
    for name in type.kind == .array ? Array(type.elements) : [type] {
      switch name.string {
      case "null": allowed.allowsNull = true
      case "boolean": (allowed.allowsTrue, allowed.allowsFalse) = (true, true)
      case "integer": allowed.numbers = allowed.numbers ?? numbers.integers
      case "number": allowed.numbers = numbers.all
      case "string": allowed.strings = StringSet(expression: anyString)
      case "array": allowed.arrays = [ArrayShape()]
      case "object": allowed.objects = [anyObject]
      default: throw syntax("there is no type \(name)", pointer, "type")
      }
    }
    shape = try intersection(shape, allowed)
  }

  private mutating func applyValues(_ schema: JSONValue, _ pointer: String, _ shape: inout Shape) throws(GrammarError) {
    if let value = schema["const"] { shape = try intersection(shape, self.shape(ofLiteral: value, at: pointer + "/const")) }
    guard let list = schema["enum"] else { return }
    guard list.kind == .array else { throw syntax("enum is an array", pointer, "enum") }
    var literals: [[UInt8]] = []
    var known: Set<[UInt8]> = []
    var exact: [ExpressionTable.ID] = []
    var written: [[UInt8]] = []
    var others: [Shape] = []
    for (index, value) in list.elements.enumerated() {
      if let text = value.withStringBytes({ Array($0) }) {
        if known.insert(text).inserted { literals.append(text) }
      } else if value.kind == .number {
        let set = try number(value, pointer, "enum/\(index)")
        exact.append(set.exact)
        written += [try decimal(value, pointer, "enum/\(index)").text, Array(value.numberText!.utf8)]
      } else {
        others.append(try self.shape(ofLiteral: value, at: "\(pointer)/enum/\(index)"))
      }
      guard !table.isExhausted else { throw .limit("the schema's values take too many regular expressions: make it smaller") }
    }
    var allowed = try union(others)
    if !literals.isEmpty { allowed.strings = StringSet(literals: literals) }
    if !exact.isEmpty { allowed.numbers = NumberSet(exact: table.choice(exact), written: table.anyLiteral(written)) }
    shape = try intersection(shape, allowed)
  }

  mutating func shape(ofLiteral value: JSONValue, at pointer: String) throws(GrammarError) -> Shape {
    switch value.kind {
    case .null: return Shape(allowsNull: true)
    case .bool: return Shape(allowsTrue: value.bool!, allowsFalse: !value.bool!)
    case .number: return Shape(numbers: try number(value, pointer, ""))
    case .string: return Shape(strings: StringSet(literals: [value.withStringBytes { Array($0) }!]))
    case .array:
      var array = ArrayShape(rest: .never, minimum: value.count, maximum: value.count)
      for index in 0..<value.count { array.prefix.append(term([.literal(Array("\(pointer)/\(index)".utf8))])) }
      return Shape(arrays: [array])
    case .object:
      var object = ObjectShape(classes: [ObjectShape.KeyClass(keys: anyString, term: .never)])
      for (key, _) in value.members {
        let name = key.withStringBytes { Array($0) }!
        object.properties.append(
          ObjectShape.Property(key: name, term: term([.literal(Array("\(pointer)/\(SchemaDocument.escape(key.string!))".utf8))])))
        object.required.insert(name)
      }
      return Shape(objects: [object])
    }
  }

  // MARK: Numbers

  private func decimal(_ value: JSONValue, _ pointer: String, _ keyword: String) throws(GrammarError) -> Decimal {
    guard let text = value.numberText else { throw syntax("a number should stand here, not \(value)", pointer, keyword) }
    guard let decimal = Decimal(text) else { throw .init(.limit, "\(text) has an exponent beyond 400", at: "#\(pointer)/\(keyword)") }
    return decimal
  }

  private mutating func number(_ value: JSONValue, _ pointer: String, _ keyword: String) throws(GrammarError) -> NumberSet {
    numbers.number(try decimal(value, pointer, keyword), value.numberText!, &table)
  }

  /// A count such as that of minLength; nil without the keyword.
  private func count(_ schema: JSONValue, _ keyword: String, _ pointer: String) throws(GrammarError) -> Int? {
    guard let value = schema[keyword] else { return nil }
    let decimal = try decimal(value, pointer, keyword)
    guard !decimal.isNegative, decimal.fraction.isEmpty else { throw syntax("\(value) is no count", pointer, keyword) }
    return decimal.isZero ? 0 : min(decimal.coefficient ?? .max, Int(Int32.max) - 1)
  }

  private mutating func applyNumbers(_ schema: JSONValue, _ pointer: String, _ shape: inout Shape) throws(GrammarError) {
    guard shape.numbers != nil else { return }
    var sets: [NumberSet] = []
    for (keyword, strict, bound, strictBound) in [
      ("minimum", "exclusiveMinimum", NumberExpressions.Bound.atLeast, NumberExpressions.Bound.above),
      ("maximum", "exclusiveMaximum", .atMost, .below),
    ] {
      // In draft 4 the exclusive one is a Boolean beside the other.
      let isStrict = schema[strict]?.bool ?? false
      if let value = schema[keyword] {
        sets.append(numbers.numbers(isStrict ? strictBound : bound, try decimal(value, pointer, keyword), &table))
      }
      if let value = schema[strict], value.bool == nil {
        sets.append(numbers.numbers(strictBound, try decimal(value, pointer, strict), &table))
      }
    }
    if let value = schema["multipleOf"] {
      let step = try decimal(value, pointer, "multipleOf")
      guard !step.isZero && !step.isNegative else { throw syntax("multipleOf is above 0", pointer, "multipleOf") }
      guard let set = numbers.multiples(of: step, &table) else {
        throw unsupported(
          "multiples of \(value) are not supported: whole numbers up to 100000000 are, and fractions that divide 1 into at most 2000 parts",
          pointer, "multipleOf")
      }
      sets.append(set)
    }
    guard !sets.isEmpty, let all = shape.numbers else { return }
    let exact = table.all([all.exact] + sets.map { $0.exact })
    let written = table.all([all.written] + sets.map { $0.written })
    shape.numbers = table.isAlive(exact) ? NumberSet(exact: exact, written: written) : nil
  }

  // MARK: Strings

  private mutating func applyStrings(_ schema: JSONValue, _ pointer: String, _ shape: inout Shape) throws(GrammarError) {
    guard shape.strings != nil else { return }
    var isPartial = false
    var expressions: [ExpressionTable.ID] = []
    let (minimum, maximum) = (try count(schema, "minLength", pointer) ?? 0, try count(schema, "maxLength", pointer))
    if minimum > 0 || maximum != nil {
      let character = patterns.character(.all, &table)
      if let maximum, maximum < minimum {
        expressions.append(ExpressionTable.nothing)
      } else {
        expressions.append(table.repeat(character, minimum, maximum))
      }
    }
    if let value = schema["pattern"] {
      guard let text = value.string else { throw syntax("pattern is a string", pointer, "pattern") }
      expressions.append(try pattern(text, pointer, "pattern"))
    }
    if let value = schema["format"] {
      guard let name = value.string else { throw syntax("format is a string", pointer, "format") }
      if let text = StringFormats.pattern(name) {
        expressions.append(try pattern(text, pointer, "format"))
        isPartial = StringFormats.partial.contains(name)
      } else if options.unknownFormats == .annotate {
        annotations.insert("#\(pointer)/format")
      } else {
        throw unsupported("the format \"\(name)\" is not held: remove it, or have unknown formats taken as annotations", pointer, "format")
      }
    }
    guard !expressions.isEmpty, let strings = shape.strings else { return }
    let literals = strings.literals.filter { literal in expressions.allSatisfy { matches($0, literal) } }
    let expression = table.all([strings.expression] + expressions)
    let isAlive = table.isAlive(expression)
    shape.strings =
      literals.isEmpty && !isAlive
      ? nil : StringSet(literals: literals, expression: isAlive ? expression : ExpressionTable.nothing, isPartial: isPartial)
    shape.mayHaveStrings = isPartial && shape.strings == nil
  }

  /// Strings in which a regular expression finds something.
  private mutating func pattern(_ text: String, _ pointer: String, _ keyword: String) throws(GrammarError) -> ExpressionTable.ID {
    do {
      return try patterns.search(try patterns.parse(text), &table)
    } catch {
      throw GrammarError(error.code, error.description, at: "#\(pointer)/\(keyword)")
    }
  }

  // MARK: Arrays

  private mutating func applyArrays(_ schema: JSONValue, _ pointer: String, _ shape: inout Shape) throws(GrammarError) {
    var array = ArrayShape(pointer: pointer)
    let items = schema["items"]
    let prefixName = items?.kind == .array ? "items" : "prefixItems"
    if let list = schema[prefixName] {
      guard list.kind == .array else { throw syntax("prefixItems is an array", pointer, prefixName) }
      for (index, value) in list.elements.enumerated() { array.prefix.append(term(at: "\(pointer)/\(prefixName)/\(index)", value)) }
    }
    if let items, items.kind != .array {
      array.rest = term(at: pointer + "/items", items)
    } else if items != nil, let rest = schema["additionalItems"] {
      array.rest = term(at: pointer + "/additionalItems", rest)
    }
    if let rest = schema["unevaluatedItems"], rest.bool != true {
      guard schema["contains"] == nil, hasNoCombinations(schema) else {
        throw unsupported("unevaluatedItems beside contains or combined schemas is not supported: use items", pointer, "unevaluatedItems")
      }
      if items == nil || items!.kind == .array && schema["additionalItems"] == nil {
        array.rest = term(at: pointer + "/unevaluatedItems", rest)
      }
    }
    array.minimum = try count(schema, "minItems", pointer) ?? 0
    array.maximum = try count(schema, "maxItems", pointer)
    array.isUnique = schema["uniqueItems"]?.bool ?? false
    if let value = schema["contains"] {
      let minimum = try count(schema, "minContains", pointer) ?? 1
      let maximum = try count(schema, "maxContains", pointer)
      if minimum > 0 || maximum != nil {
        array.contains = [ArrayShape.Contains(term: term(at: pointer + "/contains", value), minimum: minimum, maximum: maximum)]
        array.minimum = max(array.minimum, minimum)
      }
    }
    guard shape.arrays.count > 0 else { return }
    shape = try intersection(shape, replacing(arrays: simplified(array).map { [$0] } ?? []))
  }

  /// Any value, but only these arrays.
  private func replacing(arrays: [ArrayShape]) -> Shape {
    var shape = any
    shape.arrays = arrays
    return shape
  }

  private func replacing(objects: [ObjectShape]) -> Shape {
    var shape = any
    shape.objects = objects
    return shape
  }

  // MARK: Objects

  private mutating func applyObjects(_ schema: JSONValue, _ pointer: String, _ shape: inout Shape) throws(GrammarError) {
    guard shape.objects.count > 0 else { return }
    var object = ObjectShape(classes: [], pointer: pointer)
    if let properties = schema["properties"] {
      guard properties.kind == .object else { throw syntax("properties is an object", pointer, "properties") }
      for (key, value) in properties.members {
        let name = SchemaDocument.escape(key.string!)
        object.properties.append(
          ObjectShape.Property(key: key.withStringBytes { Array($0) }!, term: term(at: "\(pointer)/properties/\(name)", value)))
      }
    }
    try applyKeys(schema, pointer, &object)
    if schema["required"]?.bool != nil {
      // Draft 3's, which no later draft knows.
      annotations.insert("#\(pointer)/required")
    } else if let value = schema["required"] {
      guard value.kind == .array else { throw syntax("required is an array", pointer, "required") }
      var named = Set(object.properties.map { $0.key })
      for element in value.elements {
        guard let key = element.withStringBytes({ Array($0) }) else { throw syntax("a key is a string", pointer, "required") }
        object.required.insert(key)
        guard named.insert(key).inserted else { continue }
        object.properties.append(ObjectShape.Property(key: key, term: classTerm(of: key, in: object), isNamed: false))
      }
    }
    object.minimum = try count(schema, "minProperties", pointer) ?? 0
    object.maximum = try count(schema, "maxProperties", pointer)
    shape = try intersection(shape, replacing(objects: [object]))
    for keyword in ["dependentRequired", "dependentSchemas", "dependencies"] {
      guard let value = schema[keyword] else { continue }
      guard value.kind == .object else { throw syntax("\(keyword) is an object", pointer, keyword) }
      for (key, dependency) in value.members {
        try applyDependency(
          key.withStringBytes { Array($0) }!, dependency, "\(pointer)/\(keyword)/\(SchemaDocument.escape(key.string!))", &shape)
      }
    }
  }

  private mutating func require(_ key: [UInt8], in object: inout ObjectShape) {
    if !object.properties.contains(where: { $0.key == key }) {
      object.properties.append(ObjectShape.Property(key: key, term: term(of: key, in: object), isNamed: false))
    }
    object.required.insert(key)
  }

  /// patternProperties, additionalProperties and propertyNames: divides the keys into classes.
  private mutating func applyKeys(_ schema: JSONValue, _ pointer: String, _ object: inout ObjectShape) throws(GrammarError) {
    var classes: [(keys: ExpressionTable.ID, term: Term, isMatched: Bool)] = [(anyString, .always, false)]
    if let value = schema["patternProperties"] {
      guard value.kind == .object else { throw syntax("patternProperties is an object", pointer, "patternProperties") }
      var isDeclaredMatched = [Bool](repeating: false, count: object.properties.count)
      for (key, value) in value.members {
        let place = "patternProperties/" + SchemaDocument.escape(key.string!)
        let keys = try pattern(key.string!, pointer, place)
        let term = term(at: "\(pointer)/\(place)", value)
        for index in object.properties.indices where matches(keys, object.properties[index].key) {
          object.properties[index].term = both(object.properties[index].term, term)
          isDeclaredMatched[index] = true
        }
        var divided: [(keys: ExpressionTable.ID, term: Term, isMatched: Bool)] = []
        for part in classes {
          try countStep()
          let inside = part.keys == anyString ? keys : table.all([part.keys, keys])
          let outside = table.all([part.keys, table.not(keys)])
          if table.isAlive(inside) { divided.append((inside, both(part.term, term), true)) }
          if table.isAlive(outside) { divided.append((outside, part.term, part.isMatched)) }
        }
        classes = divided
        guard classes.count <= 64 else { throw .limit("patternProperties divide the keys into more than 64 kinds: make them simpler") }
      }
    }
    var additional = Term.always
    if let value = schema["additionalProperties"] {
      additional = term(at: pointer + "/additionalProperties", value)
    } else if let value = schema["unevaluatedProperties"], value.bool != true {
      guard hasNoCombinations(schema) else {
        throw unsupported(
          "unevaluatedProperties beside combined schemas is not supported: use additionalProperties in each", pointer,
          "unevaluatedProperties")
      }
      additional = term(at: pointer + "/unevaluatedProperties", value)
    }
    object.classes = classes.map { ObjectShape.KeyClass(keys: $0.keys, term: $0.isMatched ? $0.term : additional) }
    guard let value = schema["propertyNames"] else { return }
    let names = try shape(of: term(at: pointer + "/propertyNames", value)).strings ?? StringSet()
    let expression = exact(names)
    for index in object.properties.indices where !matches(expression, object.properties[index].key) {
      object.properties[index].term = .never
    }
    object.classes = object.classes.flatMap { part in
      let inside = table.all([part.keys, expression])
      let outside = table.all([part.keys, table.not(expression)])
      return [(inside, part.term), (outside, Term.never)].filter { table.isAlive($0.0) }.map {
        ObjectShape.KeyClass(keys: $0.0, term: $0.1)
      }
    }
  }

  private func hasNoCombinations(_ schema: JSONValue) -> Bool {
    ["$ref", "allOf", "anyOf", "oneOf", "not", "if", "dependentSchemas", "dependencies"].allSatisfy { schema[$0] == nil }
  }

  /// Either the key is not there, or what depends on it holds.
  private mutating func applyDependency(
    _ key: [UInt8], _ dependency: JSONValue, _ pointer: String, _ shape: inout Shape
  ) throws(GrammarError) {
    var absent = anyObject
    absent.properties = [ObjectShape.Property(key: key, term: .never)]
    var present = anyObject
    require(key, in: &present)
    var then: Shape
    if dependency.kind == .array || dependency.kind == .string {
      for element in dependency.kind == .array ? Array(dependency.elements) : [dependency] {
        guard let other = element.withStringBytes({ Array($0) }) else {
          throw GrammarError(.syntax, "a key is a string", at: "#" + pointer)
        }
        require(other, in: &present)
      }
      then = Shape(objects: [present])
    } else {
      let inner = try self.shape(of: term(at: pointer, dependency))
      then = try intersection(Shape(objects: [present]), inner)
    }
    var objects = Shape(objects: [absent])
    objects.objects += then.objects
    shape = try intersection(shape, replacing(objects: objects.objects))
  }

  // MARK: Combinations

  private mutating func terms(_ schema: JSONValue, _ keyword: String, _ pointer: String) throws(GrammarError) -> [Term]? {
    guard let list = schema[keyword] else { return nil }
    guard list.kind == .array, list.count > 0 else { throw syntax("\(keyword) is an array of schemas", pointer, keyword) }
    return list.elements.enumerated().map { term(at: "\(pointer)/\(keyword)/\($0.offset)", $0.element) }
  }

  private mutating func applyCombinations(_ schema: JSONValue, _ pointer: String, _ shape: inout Shape) throws(GrammarError) {
    if let reference = schema["$ref"] { shape = try intersection(shape, self.shape(ofReference: reference, pointer)) }
    for term in try terms(schema, "allOf", pointer) ?? [] { shape = try intersection(shape, self.shape(of: term)) }
    if let list = try terms(schema, "anyOf", pointer) {
      var alternatives: [Shape] = []
      for term in list { alternatives.append(try intersection(shape, self.shape(of: term))) }
      shape = try union(alternatives)
    }
    if let list = try terms(schema, "oneOf", pointer) { shape = try exactlyOne(list, shape, pointer) }
    if let value = schema["not"] {
      shape = try complement(self.shape(of: term(at: pointer + "/not", value)), within: shape, at: pointer + "/not")
    }
    if let value = schema["if"], schema["then"] != nil || schema["else"] != nil {
      let condition = term(at: pointer + "/if", value)
      var branches: [Shape] = []
      let holds = try self.shape(of: condition)
      for (keyword, isThen) in [("then", true), ("else", false)] {
        var branch = isThen ? try intersection(shape, holds) : try complement(holds, within: shape, at: pointer + "/if")
        if let value = schema[keyword] { branch = try intersection(branch, self.shape(of: self.term(at: "\(pointer)/\(keyword)", value))) }
        branches.append(branch)
      }
      shape = try union(branches)
    }
  }

  /// Where two alternatives may hold at once, each is restricted to where the other does not.
  private mutating func exactlyOne(_ list: [Term], _ shape: Shape, _ pointer: String) throws(GrammarError) -> Shape {
    var alternatives: [Shape] = []
    for term in list { alternatives.append(try intersection(shape, self.shape(of: term))) }
    var result: [Shape] = []
    for (index, alternative) in alternatives.enumerated() {
      var kept = alternative
      for (other, shape) in alternatives.enumerated() where other != index {
        if isCertainlyEmpty(try intersection(kept, shape)) { continue }
        do {
          kept = try complement(self.shape(of: list[other]), within: kept, at: "\(pointer)/oneOf/\(other)")
        } catch {
          throw GrammarError(
            error.code,
            "the alternatives \(min(index, other)) and \(max(index, other)) may both hold, and that they do not cannot be said (\(error.description)): use anyOf, or tell them apart by a constant",
            at: "#\(pointer)/oneOf")
        }
      }
      result.append(kept)
    }
    return try union(result)
  }
}
