// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Shapes as rules: how values are written.

extension SchemaCompiler {
  mutating func compile() throws(GrammarError) -> CompiledGrammar {
    grammar.root = rule(for: term(at: "", document.root))
    while let term = pendingRules.popLast() {
      let shape = try shape(of: term)
      var nodes = [grammar.lexeme(scalars(shape), then: Grammar.end)]
      for array in shape.arrays { nodes.append(try node(array, then: Grammar.end)) }
      for object in shape.objects { nodes.append(try node(object, then: Grammar.end)) }
      grammar.starts[Int(rules[term]!)] = grammar.split(nodes)
      guard grammar.nodes.count <= limits.numNodes else {
        throw .limit("the schema takes more than \(limits.numNodes) nodes: make it smaller")
      }
      try countStep()
    }
    var result = try CompiledGrammar(grammar, table, limits)
    result.annotations = annotations.sorted()
    return result
  }

  private mutating func rule(for term: Term) -> Grammar.RuleID {
    if let known = rules[term] { return known }
    let rule = grammar.declareRule("a value")
    rules[term] = rule
    pendingRules.append(term)
    return rule
  }

  /// A value, and `next` after it. What has no parts is a lexeme in its place.
  private mutating func value(_ term: Term, then next: Grammar.NodeID) throws(GrammarError) -> Grammar.NodeID {
    if next == Grammar.dead || term == .never { return Grammar.dead }
    if term != .always {
      let shape = try shape(of: term)
      if shape.arrays.isEmpty && shape.objects.isEmpty { return grammar.lexeme(scalars(shape), then: next) }
    }
    return grammar.call(rule(for: term), then: next)
  }

  private mutating func scalars(_ shape: Shape) -> ExpressionTable.ID {
    var choices: [ExpressionTable.ID] = []
    if shape.allowsNull { choices.append(text("null")) }
    if shape.allowsTrue { choices.append(text("true")) }
    if shape.allowsFalse { choices.append(text("false")) }
    if let set = shape.numbers { choices.append(set.written) }
    if let set = shape.strings {
      let literals = table.anyLiteral(set.literals.map { plainEscaped($0) })
      choices.append(quoted(table.choice(literals, set.expression)))
    }
    return table.choice(choices)
  }

  // MARK: Tokens of JSON

  private mutating func text(_ text: String) -> ExpressionTable.ID { table.literal(Array(text.utf8)) }

  private mutating func quoted(_ characters: ExpressionTable.ID) -> ExpressionTable.ID {
    let quote = table.byte(UInt8(ascii: "\""))
    return table.sequence([quote, characters, quote])
  }

  private mutating func space() -> ExpressionTable.ID {
    guard case .flexible(let maximum) = options.whitespace else { return ExpressionTable.empty }
    var set = ByteSet(UInt8(ascii: " "))
    for byte in [UInt8(ascii: "\n"), UInt8(ascii: "\r"), UInt8(ascii: "\t")] { set.insert(byte) }
    let one = table.bytes(set)
    return table.repeat(one, 0, maximum)
  }

  private mutating func opening(_ bracket: String) -> ExpressionTable.ID { table.sequence(text(bracket), space()) }
  private mutating func closing(_ bracket: String) -> ExpressionTable.ID { table.sequence(space(), text(bracket)) }
  private mutating func comma() -> ExpressionTable.ID { table.sequence([space(), text(","), space()]) }
  private mutating func key(_ characters: ExpressionTable.ID) -> ExpressionTable.ID {
    table.sequence([quoted(characters), space(), text(":"), space()])
  }

  // MARK: Objects

  /// Where an object is: which property comes next, how many were written, and what stands before the next one.
  private struct ObjectPlace: Hashable {
    enum Before { case nothing, value, comma }
    var index: Int
    var count: Int
    var before: Before
  }

  private mutating func node(_ object: ObjectShape, then next: Grammar.NodeID) throws(GrammarError) -> Grammar.NodeID {
    let properties = object.properties.filter { $0.term != .never }
    guard object.required.isSubset(of: properties.map { $0.key }) else { return Grammar.dead }
    let (further, member) = try furtherMembers(of: object)
    let close = grammar.lexeme(closing("}"), then: next)
    let comma = comma()
    // The count matters only where bounds may be broken.
    let mayHaveFurther = member != nil
    let minimum = object.minimum > object.required.count ? object.minimum : 0
    let maximum = object.maximum.flatMap { mayHaveFurther || $0 < properties.count ? $0 : nil }
    if minimum > properties.count + 1 && mayHaveFurther || minimum > 1 && mayHaveFurther && properties.isEmpty {
      throw unsupported(
        "minProperties of \(minimum) is not supported where the schema does not name as many properties, for keys may repeat: name them",
        object.pointer, "minProperties")
    }
    let highest = maximum ?? minimum
    guard (properties.count + 1) * (highest + 1) <= limits.numNodes / 8 else {
      throw .limit("counting \(highest) of \(properties.count) properties takes too many nodes: remove minProperties or maxProperties")
    }
    var numRequiredFrom = [Int](repeating: 0, count: properties.count + 1)
    for index in properties.indices.reversed() {
      numRequiredFrom[index] = numRequiredFrom[index + 1] + (object.required.contains(properties[index].key) ? 1 : 0)
    }
    func counted(_ count: Int) -> Int { maximum == nil ? min(count, minimum) : count }
    // From the last property to the first, so that every place leads to ones that are there.
    var places: [ObjectPlace: Grammar.NodeID] = [:]
    for count in 0...highest {
      // Behind the named properties; of the others, one at most counts towards the minimum.
      let missing = minimum - count
      let room = maximum.map { $0 - count }
      let isPossible = room.map { $0 >= 0 } ?? true
      let mayClose = isPossible && missing <= 0
      let more = further.map { grammar.loop($0, minimum: 0, maximum: room.map { $0 - 1 }, then: close) }
      let first = mayHaveFurther && missing <= 1 && room.map({ $0 > 0 }) ?? true
      let memberFirst = first ? try member!(&self, more!) : Grammar.dead
      places[ObjectPlace(index: properties.count, count: count, before: .comma)] = memberFirst
      places[ObjectPlace(index: properties.count, count: count, before: .value)] = grammar.split([
        mayClose ? close : Grammar.dead, grammar.lexeme(comma, then: memberFirst),
      ])
      places[ObjectPlace(index: properties.count, count: count, before: .nothing)] = grammar.split([
        mayClose ? close : Grammar.dead, memberFirst,
      ])
    }
    for index in properties.indices.reversed() {
      let property = properties[index]
      let isRequired = object.required.contains(property.key)
      let key = key(table.literal(plainEscaped(property.key)))
      for count in 0...highest {
        let after = ObjectPlace(index: index + 1, count: counted(count + 1), before: .value)
        var written = Grammar.dead
        if maximum.map({ count < $0 }) ?? true { written = grammar.lexeme(key, then: try value(property.term, then: places[after]!)) }
        func skipped(_ before: ObjectPlace.Before) -> Grammar.NodeID {
          isRequired ? Grammar.dead : places[ObjectPlace(index: index + 1, count: count, before: before)]!
        }
        let behindComma = grammar.split([written, skipped(.comma)])
        places[ObjectPlace(index: index, count: count, before: .comma)] = behindComma
        if count == 0 { places[ObjectPlace(index: index, count: count, before: .nothing)] = grammar.split([written, skipped(.nothing)]) }
        let mayClose = numRequiredFrom[index] == 0 && count >= minimum
        places[ObjectPlace(index: index, count: count, before: .value)] = grammar.split([
          mayClose ? close : Grammar.dead, grammar.lexeme(comma, then: behindComma),
        ])
      }
    }
    return grammar.lexeme(opening("{"), then: places[ObjectPlace(index: 0, count: 0, before: .nothing)]!)
  }

  private typealias Member = (inout SchemaCompiler, Grammar.NodeID) throws(GrammarError) -> Grammar.NodeID

  /// Members that the object does not name: a rule for a comma and one of them, and what makes the node of one; nil if there are none.
  private mutating func furtherMembers(of object: ObjectShape) throws(GrammarError) -> (Grammar.RuleID?, Member?) {
    let alive = object.classes.filter { $0.term != .never }
    guard !alive.isEmpty else { return (nil, nil) }
    let named = exact(object.properties.map { $0.key })
    var classes: [ObjectShape.KeyClass] = []
    for part in alive {
      let keys = object.properties.isEmpty ? part.keys : table.all([part.keys, table.not(named)])
      if table.isAlive(keys) { classes.append(ObjectShape.KeyClass(keys: keys, term: part.term)) }
    }
    guard !classes.isEmpty else { return (nil, nil) }
    let made = classes
    let member: Member = { (compiler: inout SchemaCompiler, next: Grammar.NodeID) throws(GrammarError) in
      var nodes: [Grammar.NodeID] = []
      for part in made {
        let key = compiler.key(part.keys)
        nodes.append(compiler.grammar.lexeme(key, then: try compiler.value(part.term, then: next)))
      }
      return compiler.grammar.split(nodes)
    }
    let rule = grammar.declareRule("further members")
    let comma = comma()
    grammar.starts[Int(rule)] = grammar.lexeme(comma, then: try member(&self, Grammar.end))
    return (rule, member)
  }

  // MARK: Arrays

  private mutating func node(_ array: ArrayShape, then next: Grammar.NodeID) throws(GrammarError) -> Grammar.NodeID {
    let close = grammar.lexeme(closing("]"), then: next)
    let open = opening("[")
    if !array.contains.isEmpty || array.isUnique && array.maximum.map({ $0 > 1 }) ?? true {
      return grammar.lexeme(open, then: try countedElements(array, close))
    }
    let comma = comma()
    let count = array.prefix.count
    let mayHaveRest = array.rest != .never && array.maximum.map { $0 > count } ?? true
    var afterPrefix = close
    if mayHaveRest {
      let more = grammar.declareRule("further elements")
      grammar.starts[Int(more)] = grammar.lexeme(comma, then: try value(array.rest, then: Grammar.end))
      let behind = max(count, 1)
      afterPrefix = grammar.loop(more, minimum: max(0, array.minimum - behind), maximum: array.maximum.map { $0 - behind }, then: close)
    } else if array.minimum > count {
      afterPrefix = Grammar.dead
    }
    if count == 0 {
      let first = mayHaveRest ? try value(array.rest, then: afterPrefix) : Grammar.dead
      return grammar.lexeme(open, then: grammar.split([array.minimum == 0 ? close : Grammar.dead, first]))
    }
    var after = afterPrefix
    for index in array.prefix.indices.reversed() {
      let element = try value(array.prefix[index], then: after)
      after = grammar.split([index >= array.minimum ? close : Grammar.dead, index == 0 ? element : grammar.lexeme(comma, then: element)])
    }
    return grammar.lexeme(open, then: after)
  }

  /// Where an array is whose elements are counted one by one, or told apart.
  private struct ArrayPlace: Hashable {
    /// Elements so far, up to the number from which it does not matter.
    var count: Int
    /// Of these, such as `contains` asks for.
    var numContained: Int
    /// The values that were used, by their place among all.
    var used: UInt64
  }

  /// The node before the first element of an array with `contains` or `uniqueItems`: a graph with a place for each count.
  private mutating func countedElements(_ array: ArrayShape, _ close: Grammar.NodeID) throws(GrammarError) -> Grammar.NodeID {
    guard array.contains.count <= 1 else {
      throw unsupported("contains in several schemas at once is not supported", array.pointer, "contains")
    }
    var values: [(ExpressionTable.ID)] = []
    if array.isUnique {
      guard array.contains.isEmpty, let list = try finiteValues(array) else {
        throw unsupported(
          "uniqueItems is supported only for up to 62 strings, Booleans and null that an enum or const names, or for at most one element: remove it or list the values",
          array.pointer, "uniqueItems")
      }
      values = list
    }
    let contains = array.contains.first
    let without = try contains.flatMap { (contains) throws(GrammarError) in
      contains.maximum == nil
        ? nil
        : try { () throws(GrammarError) -> Term in
          let other = negation(of: contains.term)
          _ = try shape(of: other)
          return other
        }()
    }
    // Before the first element there is no comma, whatever the bounds are.
    let highestCount = max(1, array.prefix.count, array.minimum, array.maximum ?? 0)
    let highestContained = contains.map { $0.maximum ?? $0.minimum } ?? 0
    let comma = comma()
    var nodes: [ArrayPlace: Grammar.NodeID] = [:]
    var pending: [ArrayPlace] = []
    func node(_ place: ArrayPlace, _ compiler: inout SchemaCompiler) -> Grammar.NodeID {
      if let known = nodes[place] { return known }
      let node = compiler.grammar.add(.split([]))
      nodes[place] = node
      pending.append(place)
      return node
    }
    let start = node(ArrayPlace(count: 0, numContained: 0, used: 0), &self)
    while let place = pending.popLast() {
      guard nodes.count <= 4096 else {
        throw unsupported(
          "contains or uniqueItems with these bounds takes too many nodes: lower them", array.pointer,
          array.isUnique ? "uniqueItems" : "contains")
      }
      var ways: [Grammar.NodeID] = []
      if place.count >= array.minimum && place.numContained >= contains?.minimum ?? 0 { ways.append(close) }
      if array.maximum.map({ place.count < $0 }) ?? true {
        let term = place.count < array.prefix.count ? array.prefix[place.count] : array.rest
        var after = place
        after.count = min(place.count + 1, highestCount)
        var elements: [Grammar.NodeID] = []
        if array.isUnique {
          for (index, value) in values.enumerated() where place.used >> UInt64(index) & 1 == 0 {
            after.used = place.used | 1 << UInt64(index)
            elements.append(grammar.lexeme(value, then: node(after, &self)))
          }
        } else if let contains {
          elements.append(try value(without.map { both(term, $0) } ?? term, then: node(after, &self)))
          if place.numContained < highestContained {
            after.numContained += 1
            elements.append(try value(both(term, contains.term), then: node(after, &self)))
          }
        }
        let element = grammar.split(elements)
        ways.append(place.count == 0 ? element : grammar.lexeme(comma, then: element))
      }
      grammar.nodes[Int(nodes[place]!)] = .split(ways.filter { $0 != Grammar.dead })
    }
    return start
  }

  /// The values of an array's elements, if these are few and all alike; nil if not.
  private mutating func finiteValues(_ array: ArrayShape) throws(GrammarError) -> [ExpressionTable.ID]? {
    guard array.prefix.isEmpty, array.rest != .always else { return nil }
    let shape = try shape(of: array.rest)
    guard shape.numbers == nil, shape.arrays.isEmpty, shape.objects.isEmpty else { return nil }
    var values: [ExpressionTable.ID] = []
    if shape.allowsNull { values.append(text("null")) }
    if shape.allowsTrue { values.append(text("true")) }
    if shape.allowsFalse { values.append(text("false")) }
    if let set = shape.strings {
      guard set.expression == ExpressionTable.nothing else { return nil }
      for literal in set.literals {
        let characters = table.literal(plainEscaped(literal))
        values.append(quoted(characters))
      }
    }
    return values.count <= 62 ? values : nil
  }
}
