// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Intersections, unions and complements of shapes.

extension SchemaCompiler {
  // MARK: Intersection

  mutating func intersection(_ a: Shape, _ b: Shape) throws(GrammarError) -> Shape {
    try countStep()
    var result = Shape()
    result.allowsNull = a.allowsNull && b.allowsNull
    result.allowsTrue = a.allowsTrue && b.allowsTrue
    result.allowsFalse = a.allowsFalse && b.allowsFalse
    if let x = a.numbers, let y = b.numbers {
      let both = NumberSet(exact: table.all([x.exact, y.exact]), written: table.all([x.written, y.written]))
      if table.isAlive(both.exact) { result.numbers = both }
    }
    if let x = a.strings, let y = b.strings {
      result.strings = intersection(x, y)
      result.mayHaveStrings = result.strings == nil && (x.isPartial || y.isPartial)
    }
    result.mayHaveStrings = result.mayHaveStrings || a.mayHaveStrings || b.mayHaveStrings
    for x in a.arrays {
      for y in b.arrays {
        try countStep()
        if let both = intersection(x, y) { result.arrays.append(both) }
      }
    }
    for x in a.objects {
      for y in b.objects {
        try countStep()
        if let both = try intersection(x, y) { result.objects.append(both) }
      }
    }
    guard result.arrays.count + result.objects.count <= limits.numAlternatives else {
      throw .limit(
        "a value of the schema has more than \(limits.numAlternatives) alternatives once its parts are combined: make it simpler")
    }
    return result
  }

  private mutating func intersection(_ a: StringSet, _ b: StringSet) -> StringSet? {
    if a.literals.isEmpty && a.expression == anyString { return b }
    if b.literals.isEmpty && b.expression == anyString { return a }
    let others = Set(b.literals)
    var literals = a.literals.filter { others.contains($0) || matches(b.expression, $0) }
    let known = Set(literals)
    for literal in b.literals where !known.contains(literal) && matches(a.expression, literal) { literals.append(literal) }
    var expression = table.all([a.expression, b.expression])
    if !table.isAlive(expression) { expression = ExpressionTable.nothing }
    return literals.isEmpty && expression == ExpressionTable.nothing
      ? nil : StringSet(literals: literals, expression: expression, isPartial: a.isPartial || b.isPartial)
  }

  func plainEscaped(_ text: [UInt8]) -> [UInt8] {
    var result: [UInt8] = []
    for byte in text {
      switch byte {
      case UInt8(ascii: "\""), UInt8(ascii: "\\"): result += [UInt8(ascii: "\\"), byte]
      case 0x08: result += Array("\\b".utf8)
      case 0x09: result += Array("\\t".utf8)
      case 0x0A: result += Array("\\n".utf8)
      case 0x0C: result += Array("\\f".utf8)
      case 0x0D: result += Array("\\r".utf8)
      case 0..<0x20: result += Array((byte < 0x10 ? "\\u000" : "\\u00").utf8) + Array(String(byte, radix: 16).utf8)
      default: result.append(byte)
      }
    }
    return result
  }

  mutating func matches(_ expression: ExpressionTable.ID, _ text: [UInt8]) -> Bool {
    if expression == anyString { return true }
    var state = expression
    for byte in plainEscaped(text) {
      state = table.next(state, byte)
      if state == ExpressionTable.nothing { return false }
    }
    return table.isNullable(state)
  }

  /// All ways to write any of the texts.
  mutating func exact(_ literals: [[UInt8]]) -> ExpressionTable.ID {
    exactBranch(
      literals.map { String(decoding: $0, as: UTF8.self).unicodeScalars.map { $0.value } }.sorted { $0.lexicographicallyPrecedes($1) }[...],
      0)
  }

  private mutating func exactBranch(_ texts: ArraySlice<[UInt32]>, _ depth: Int) -> ExpressionTable.ID {
    guard let first = texts.first, let last = texts.last else { return ExpressionTable.nothing }
    var common = depth
    while common < first.count && common < last.count && first[common] == last[common] { common += 1 }
    var choices: [ExpressionTable.ID] = []
    var rest = texts
    while let text = rest.first, text.count == common {
      choices = [ExpressionTable.empty]
      rest = rest.dropFirst()
    }
    while let text = rest.first {
      var end = rest.startIndex
      while end < rest.endIndex && rest[end][common] == text[common] { end += 1 }
      let inner = rest[rest.startIndex..<end]
      choices.append(
        inner.count == 1 ? spelled(text[common...], ExpressionTable.empty) : spelled(text[common...common], exactBranch(inner, common + 1)))
      rest = rest[end...]
    }
    return spelled(first[depth..<common], table.choice(choices))
  }

  private mutating func spelled(_ scalars: ArraySlice<UInt32>, _ rest: ExpressionTable.ID) -> ExpressionTable.ID {
    var result = rest
    for scalar in scalars.reversed() { result = table.sequence(patterns.character(CodePointSet(scalar), &table), result) }
    return result
  }

  mutating func exact(_ set: StringSet) -> ExpressionTable.ID {
    set.literals.isEmpty ? set.expression : table.choice(set.expression, exact(set.literals))
  }

  private mutating func intersection(_ a: ArrayShape, _ b: ArrayShape) -> ArrayShape? {
    var result = ArrayShape()
    result.minimum = max(a.minimum, b.minimum)
    result.maximum = [a.maximum, b.maximum].compactMap { $0 }.min()
    let count = max(a.prefix.count, b.prefix.count)
    for index in 0..<count {
      result.prefix.append(both(index < a.prefix.count ? a.prefix[index] : a.rest, index < b.prefix.count ? b.prefix[index] : b.rest))
    }
    result.rest = both(a.rest, b.rest)
    result.contains = a.contains + b.contains
    result.isUnique = a.isUnique || b.isUnique
    result.pointer = a.pointer.isEmpty ? b.pointer : a.pointer
    return simplified(result)
  }

  /// Where an element can never be, the array ends before it; nil if no array is left.
  func simplified(_ array: ArrayShape) -> ArrayShape? {
    var result = array
    let end = result.prefix.firstIndex(of: .never) ?? (result.rest == .never ? result.prefix.count : nil)
    if let end { result.maximum = min(result.maximum ?? end, end) }
    if let maximum = result.maximum {
      if result.minimum > maximum { return nil }
      if result.prefix.count > maximum { result.prefix.removeSubrange(maximum...) }
      if result.prefix.count == maximum { result.rest = .never }
    }
    return result
  }

  mutating func term(of key: [UInt8], in object: ObjectShape) -> Term {
    object.properties.first { $0.key == key }?.term ?? classTerm(of: key, in: object)
  }

  /// Of a key that is not among the properties.
  mutating func classTerm(of key: [UInt8], in object: ObjectShape) -> Term {
    for keyClass in object.classes where matches(keyClass.keys, key) { return keyClass.term }
    return .never
  }

  private mutating func intersection(_ a: ObjectShape, _ b: ObjectShape) throws(GrammarError) -> ObjectShape? {
    var result = ObjectShape(classes: [])
    numSteps += (a.properties.count + b.properties.count) / 16
    var terms: [[UInt8]: (a: Term?, b: Term?)] = [:]
    for property in a.properties { terms[property.key] = (property.term, nil) }
    for property in b.properties { terms[property.key, default: (nil, nil)].b = property.term }
    // As the first names them, then as the second does, then what is only required.
    for isNamed in [true, false] {
      for property in a.properties + b.properties where property.isNamed == isNamed {
        guard let (x, y) = terms.removeValue(forKey: property.key) else { continue }
        let term = both(x ?? classTerm(of: property.key, in: a), y ?? classTerm(of: property.key, in: b))
        result.properties.append(ObjectShape.Property(key: property.key, term: term, isNamed: isNamed))
      }
    }
    for x in a.classes {
      for y in b.classes {
        try countStep()
        let keys = x.keys == anyString ? y.keys : y.keys == anyString ? x.keys : table.all([x.keys, y.keys])
        if table.isAlive(keys) { result.classes.append(ObjectShape.KeyClass(keys: keys, term: both(x.term, y.term))) }
      }
    }
    result.required = a.required.union(b.required)
    result.minimum = max(a.minimum, b.minimum)
    result.maximum = [a.maximum, b.maximum].compactMap { $0 }.min()
    result.pointer = a.pointer.isEmpty ? b.pointer : a.pointer
    return isPossible(result) ? result : nil
  }

  private func isPossible(_ object: ObjectShape) -> Bool {
    for property in object.properties where property.term == .never && object.required.contains(property.key) { return false }
    if let maximum = object.maximum, maximum < max(object.minimum, object.required.count) { return false }
    return true
  }

  // MARK: Union

  mutating func union(_ list: [Shape]) throws(GrammarError) -> Shape {
    var result = Shape()
    for shape in list {
      try countStep()
      result.allowsNull = result.allowsNull || shape.allowsNull
      result.allowsTrue = result.allowsTrue || shape.allowsTrue
      result.allowsFalse = result.allowsFalse || shape.allowsFalse
      if let x = result.numbers, let y = shape.numbers {
        result.numbers = NumberSet(exact: table.choice(x.exact, y.exact), written: table.choice(x.written, y.written))
      } else {
        result.numbers = result.numbers ?? shape.numbers
      }
      if let x = result.strings, let y = shape.strings {
        let known = Set(x.literals)
        result.strings = StringSet(
          literals: x.literals + y.literals.filter { !known.contains($0) }, expression: table.choice(x.expression, y.expression),
          isPartial: x.isPartial || y.isPartial)
      } else {
        result.strings = result.strings ?? shape.strings
      }
      result.mayHaveStrings = result.mayHaveStrings || shape.mayHaveStrings
      result.arrays += shape.arrays
      result.objects += shape.objects
    }
    guard result.arrays.count + result.objects.count <= limits.numAlternatives else {
      throw .limit("a value of the schema has more than \(limits.numAlternatives) alternatives: make it simpler")
    }
    return result
  }

  // MARK: Complement

  /// The values of `whole` that are not in the shape; an error where that cannot be said. What `whole` has not at all is not asked for.
  mutating func complement(_ shape: Shape, within whole: Shape, at pointer: String) throws(GrammarError) -> Shape {
    var result = Shape(allowsNull: !shape.allowsNull, allowsTrue: !shape.allowsTrue, allowsFalse: !shape.allowsFalse)
    if whole.strings != nil, shape.mayHaveStrings || shape.strings?.isPartial == true {
      throw unsupported(
        "that a string has not the format time, date-time, email or hostname is not supported: say what is allowed instead", pointer)
    }
    if let set = shape.numbers {
      let rest = numbers.complement(set, &table)
      if table.isAlive(rest.exact) { result.numbers = rest }
    } else {
      result.numbers = numbers.all
    }
    if whole.strings != nil, let set = shape.strings {
      let rest = table.all([anyString, table.not(exact(set))])
      if table.isAlive(rest) { result.strings = StringSet(expression: rest) }
    } else {
      result.strings = StringSet(expression: anyString)
    }
    if !whole.arrays.isEmpty {
      var arrays = Shape(arrays: [ArrayShape()])
      for array in shape.arrays { arrays = try intersection(arrays, Shape(arrays: complement(array, at: pointer))) }
      result.arrays = arrays.arrays
    }
    if !whole.objects.isEmpty {
      var objects = Shape(objects: [anyObject])
      for object in shape.objects { objects = try intersection(objects, Shape(objects: complement(object, at: pointer))) }
      result.objects = objects.objects
    }
    return try intersection(whole, result)
  }

  private mutating func complement(_ array: ArrayShape, at pointer: String) throws(GrammarError) -> [ArrayShape] {
    if array.isUnique { throw unsupported("\"not\" of uniqueItems is not supported: say what is allowed instead", pointer) }
    var result: [ArrayShape] = []
    func add(_ body: (inout ArrayShape) -> Void) {
      var shape = ArrayShape()
      body(&shape)
      if let shape = simplified(shape) { result.append(shape) }
    }
    if array.minimum > 0 { add { $0.maximum = array.minimum - 1 } }
    if let maximum = array.maximum { add { $0.minimum = maximum + 1 } }
    for (index, term) in array.prefix.enumerated() where term != .always {
      let other = negation(of: term)
      add {
        $0.minimum = index + 1
        $0.prefix = [Term](repeating: .always, count: index) + [other]
      }
    }
    if array.rest != .always && array.maximum.map({ $0 > array.prefix.count }) ?? true {
      let other = negation(of: array.rest)
      if array.rest == .never {
        add { $0.minimum = array.prefix.count + 1 }
      } else if array.prefix.isEmpty {
        add { $0.contains = [ArrayShape.Contains(term: other, minimum: 1, maximum: nil)] }
      } else {
        throw unsupported("\"not\" of items behind prefixItems is not supported: say what is allowed instead", pointer)
      }
    }
    for contains in array.contains {
      if contains.minimum > 0 {
        add { $0.contains = [ArrayShape.Contains(term: contains.term, minimum: 0, maximum: contains.minimum - 1)] }
      }
      if let maximum = contains.maximum {
        add { $0.contains = [ArrayShape.Contains(term: contains.term, minimum: maximum + 1, maximum: nil)] }
      }
    }
    return result
  }

  private mutating func complement(_ object: ObjectShape, at pointer: String) throws(GrammarError) -> [ObjectShape] {
    var result: [ObjectShape] = []
    let base = anyObject
    func add(_ body: (inout ObjectShape) -> Void) {
      var shape = base
      body(&shape)
      if isPossible(shape) { result.append(shape) }
    }
    for property in object.properties {
      if object.required.contains(property.key) { add { $0.properties = [ObjectShape.Property(key: property.key, term: .never)] } }
      if property.term == .always { continue }
      let other = negation(of: property.term)
      add {
        $0.properties = [ObjectShape.Property(key: property.key, term: other)]
        $0.required = [property.key]
      }
    }
    if object.minimum > 0 { add { $0.maximum = object.minimum - 1 } }
    if let maximum = object.maximum { add { $0.minimum = maximum + 1 } }
    for keyClass in object.classes where keyClass.term != .always {
      throw unsupported(
        "\"not\" of a schema that restricts properties which it does not name is not supported: say what is allowed instead", pointer)
    }
    return result
  }

  // MARK: Emptiness

  /// Whether the shape certainly has no value. Looks at what is inside to a certain depth.
  mutating func isCertainlyEmpty(_ shape: Shape, depth: Int = 0) -> Bool {
    if shape.allowsNull || shape.allowsTrue || shape.allowsFalse || shape.numbers != nil || shape.strings != nil || shape.mayHaveStrings {
      return false
    }
    for array in shape.arrays {
      guard depth < 6 else { return false }
      var isEmpty = false
      for index in 0..<min(array.minimum, array.prefix.count + 1) where !isEmpty {
        isEmpty = isCertainlyEmpty(index < array.prefix.count ? array.prefix[index] : array.rest, depth: depth + 1)
      }
      if !isEmpty { return false }
    }
    for object in shape.objects {
      guard depth < 6 else { return false }
      var isEmpty = false
      for property in object.properties where !isEmpty && object.required.contains(property.key) {
        isEmpty = isCertainlyEmpty(property.term, depth: depth + 1)
      }
      if !isEmpty { return false }
    }
    return true
  }

  mutating func isCertainlyEmpty(_ term: Term, depth: Int) -> Bool {
    if term == .never { return true }
    if term == .always || openTerms.contains(term) { return false }
    guard let shape = try? shape(of: term) else { return false }
    return isCertainlyEmpty(shape, depth: depth)
  }
}
