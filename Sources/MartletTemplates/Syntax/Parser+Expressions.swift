// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Expressions, the loosest binding first: `if … else`, `or`, `and`, `not`, comparisons, `+ -`, `~`, `* / // %`, `**`, signs, then what follows a
// value: attributes, items, calls, filters and tests. `~` binds tighter than `+`, and `**` goes from left to right: Jinja, not Python.

extension Parser {
  /// One expression, or several with commas: a tuple.
  ///
  /// - Parameters:
  ///   - isConditional: Whether `if … else` may stand here without parentheses.
  ///   - end: A name that ends the tuple.
  mutating func tuple(isConditional: Bool = true, until end: String? = nil) throws(TemplateError) -> any Expression {
    var elements: [any Expression] = []
    while !(isTupleEnd || end.map { current.isName($0) } ?? false) {
      elements.append(isConditional ? try expression() : try disjunction())
      guard skip(symbol: ",") else {
        if elements.count == 1 { return elements[0] }
        return try checked(Listing(elements, isTuple: true))
      }
    }
    guard !elements.isEmpty else { throw fail("Expected an expression, got '\(current.description)'") }
    return try checked(Listing(elements, isTuple: true))
  }

  private var isTupleEnd: Bool {
    switch current.kind {
    case .expressionEnd, .statementEnd, .end: true
    default: current.isSymbol(")")
    }
  }

  mutating func expression() throws(TemplateError) -> any Expression {
    try nested { (parser) throws(TemplateError) in
      let outer = parser.isInBranch
      // A filter that is not there is found where it stands before its `if` too.
      if parser.isConditionalAhead { parser.isInBranch = true }
      defer { parser.isInBranch = outer }
      var value = try parser.disjunction()
      while parser.skip(name: "if") {
        let condition = try parser.disjunction()
        let alternative = parser.skip(name: "else") ? try parser.expression() : nil
        value = try parser.checked(Conditional(if: condition, value, else: alternative))
      }
      return value
    }
  }

  /// Whether this expression has an `if` of its own, outside of brackets.
  private var isConditionalAhead: Bool {
    var depth = 0
    var index = index
    while index < tokens.count {
      switch tokens[index].kind {
      case .name("if"): if depth == 0 { return true }
      case .symbol("("), .symbol("["), .symbol("{"): depth += 1
      case .symbol(")"), .symbol("]"), .symbol("}"):
        depth -= 1
        if depth < 0 { return false }
      case .symbol(","): if depth == 0 { return false }
      case .expressionEnd, .statementEnd, .end: return false
      default: break
      }
      index += 1
    }
    return false
  }

  mutating func disjunction() throws(TemplateError) -> any Expression {
    var operands = [try conjunction()]
    while skip(name: "or") { operands.append(try conjunction()) }
    return operands.count == 1 ? operands[0] : try checked(Logic(operands, isAnd: false))
  }

  private mutating func conjunction() throws(TemplateError) -> any Expression {
    var operands = [try negation()]
    while skip(name: "and") { operands.append(try negation()) }
    return operands.count == 1 ? operands[0] : try checked(Logic(operands, isAnd: true))
  }

  private mutating func negation() throws(TemplateError) -> any Expression {
    guard skip(name: "not") else { return try comparison() }
    return try nested { (parser) throws(TemplateError) in try parser.checked(Not(try parser.negation())) }
  }

  private mutating func comparison() throws(TemplateError) -> any Expression {
    let first = try sum()
    var rest: [(Comparison, any Expression)] = []
    while true {
      if case .symbol(let symbol) = current.kind, let comparison = Comparison(rawValue: symbol) {
        advance()
        rest.append((comparison, try sum()))
      } else if skip(name: "in") {
        rest.append((.isIn, try sum()))
      } else if current.isName("not"), next.isName("in") {
        advance()
        advance()
        rest.append((.isNotIn, try sum()))
      } else {
        break
      }
    }
    return rest.isEmpty ? first : try checked(ComparisonChain(first, rest))
  }

  private mutating func chain(
    _ operators: [BinaryOperator], _ operand: (inout Parser) throws(TemplateError) -> any Expression
  ) throws(TemplateError) -> any Expression {
    let first = try operand(&self)
    var rest: [(BinaryOperator, any Expression)] = []
    while case .symbol(let symbol) = current.kind, let operation = BinaryOperator(rawValue: symbol), operators.contains(operation) {
      advance()
      rest.append((operation, try operand(&self)))
    }
    return rest.isEmpty ? first : try checked(Arithmetic(first, rest))
  }

  private mutating func sum() throws(TemplateError) -> any Expression {
    try chain([.add, .subtract]) { (parser) throws(TemplateError) in try parser.concatenation() }
  }

  private mutating func concatenation() throws(TemplateError) -> any Expression {
    var parts = [try product()]
    while skip(symbol: "~") { parts.append(try product()) }
    return parts.count == 1 ? parts[0] : try checked(Concatenation(parts))
  }

  private mutating func product() throws(TemplateError) -> any Expression {
    try chain([.multiply, .divide, .floorDivide, .remainder]) { (parser) throws(TemplateError) in try parser.power() }
  }

  private mutating func power() throws(TemplateError) -> any Expression {
    try chain([.power]) { (parser) throws(TemplateError) in try parser.unary() }
  }

  /// A sign binds tighter than a filter: `-1|abs` is 1.
  private mutating func unary(takesFilters: Bool = true) throws(TemplateError) -> any Expression {
    var node: any Expression
    if current.isSymbol("-") || current.isSymbol("+") {
      let isNegative = advance().isSymbol("-")
      node = try nested { (parser) throws(TemplateError) in
        try parser.checked(Sign(try parser.unary(takesFilters: false), isNegative: isNegative))
      }
    } else {
      node = try primary()
    }
    node = try postfix(node)
    return takesFilters ? try filtersAndTests(node) : node
  }

  private mutating func primary() throws(TemplateError) -> any Expression {
    let token = advance()
    switch token.kind {
    case .name("true"), .name("True"): return Constant(.bool(true))
    case .name("false"), .name("False"): return Constant(.bool(false))
    case .name("none"), .name("None"): return Constant(.none)
    case .name(let text): return Variable(readName(text))
    case .integer(let value): return Constant(.int(value))
    case .largeInteger(let value): return Constant(.largeInt(value))
    case .float(let value): return Constant(.float(value))
    case .string(var text):
      while case .string(let more) = current.kind {
        text += more
        advance()
      }
      return TextLiteral(Text(text))
    case .symbol("("):
      if skip(symbol: ")") { return Listing([], isTuple: true) }
      let value = try tuple()
      try expect(symbol: ")")
      return value
    case .symbol("["):
      var elements: [any Expression] = []
      while !current.isSymbol("]") {
        if !elements.isEmpty { try expect(symbol: ",") }
        if current.isSymbol("]") { break }
        elements.append(try expression())
      }
      try expect(symbol: "]")
      return try checked(Listing(elements, isTuple: false))
    case .symbol("{"):
      var pairs: [(any Expression, any Expression)] = []
      while !current.isSymbol("}") {
        if !pairs.isEmpty { try expect(symbol: ",") }
        if current.isSymbol("}") { break }
        let key = try expression()
        try expect(symbol: ":")
        pairs.append((key, try expression()))
      }
      try expect(symbol: "}")
      return try checked(DictionaryLiteral(pairs))
    default: throw unexpected(token)
    }
  }

  private mutating func postfix(_ node: any Expression) throws(TemplateError) -> any Expression {
    var node = node
    while true {
      if current.isSymbol(".") || current.isSymbol("[") {
        node = try subscripted(node)
      } else if current.isSymbol("(") {
        node = try call(node)
      } else {
        return node
      }
    }
  }

  private mutating func call(_ node: any Expression) throws(TemplateError) -> any Expression {
    let position = current.position
    return try checked(Call(node, try callArguments(), position))
  }

  private mutating func subscripted(_ node: any Expression) throws(TemplateError) -> any Expression {
    if skip(symbol: ".") {
      let token = advance()
      switch token.kind {
      case .name(let name): return try checked(Attribute(node, Text(name)))
      case .integer(let value): return try checked(Item(node, Constant(.int(value))))
      default: throw fail("expected name or number", at: token)
      }
    }
    try expect(symbol: "[")
    var keys: [any Expression] = []
    var slice: [(any Expression)?]?
    while !current.isSymbol("]") {
      if !keys.isEmpty || slice != nil { try expect(symbol: ",") }
      if current.isSymbol("]") { break }
      if slice != nil { throw fail("slices in tuples are not supported") }
      let first = current.isSymbol(":") ? nil : try expression()
      guard skip(symbol: ":") else {
        keys.append(first!)
        continue
      }
      guard keys.isEmpty else { throw fail("slices in tuples are not supported") }
      var bounds = [first, nil, nil]
      if !current.isSymbol(":") && !current.isSymbol("]") && !current.isSymbol(",") { bounds[1] = try expression() }
      if skip(symbol: ":"), !current.isSymbol("]") && !current.isSymbol(",") { bounds[2] = try expression() }
      slice = bounds
    }
    try expect(symbol: "]")
    if let slice { return try checked(Slice(node, slice)) }
    return try checked(Item(node, keys.count == 1 ? keys[0] : try checked(Listing(keys, isTuple: true))))
  }

  private mutating func callArguments() throws(TemplateError) -> CallArguments {
    try expect(symbol: "(")
    var positional: [any Expression] = []
    var named: [(String, any Expression)] = []
    var list, dictionary: (any Expression)?
    var needsComma = false
    while !current.isSymbol(")") {
      if needsComma {
        try expect(symbol: ",")
        if current.isSymbol(")") { break }
      }
      if skip(symbol: "*") {
        guard list == nil, dictionary == nil else { throw fail("invalid syntax for function call expression") }
        list = try expression()
      } else if skip(symbol: "**") {
        guard dictionary == nil else { throw fail("invalid syntax for function call expression") }
        dictionary = try expression()
      } else if case .name(let name) = current.kind, next.isSymbol("=") {
        guard dictionary == nil else { throw fail("invalid syntax for function call expression") }
        guard !named.contains(where: { $0.0 == name }) else { throw fail("keyword argument repeated: \(name)") }
        guard named.count < TemplateLimits.maximumArgumentCount else { throw tooManyArguments() }
        advance()
        advance()
        named.append((name, try expression()))
      } else {
        guard list == nil, dictionary == nil, named.isEmpty else { throw fail("invalid syntax for function call expression") }
        positional.append(try expression())
      }
      needsComma = true
    }
    try expect(symbol: ")")
    return CallArguments(positional, named: named, list: list, dictionary: dictionary)
  }

  // MARK: Filters and tests

  private mutating func filtersAndTests(_ node: any Expression) throws(TemplateError) -> any Expression {
    var node = node
    while true {
      if current.isSymbol("|") {
        node = try filters(after: node, isInline: false)
      } else if current.isName("is") {
        advance()
        node = try test(node)
      } else if current.isSymbol("(") {
        node = try call(node)
      } else {
        return node
      }
    }
  }

  private mutating func dottedName() throws(TemplateError) -> String {
    var name = try expectName()
    while skip(symbol: ".") { name += "." + (try expectName()) }
    return name
  }

  /// One filter or more.
  ///
  /// - Parameter isInline: Whether the first stands without its bar, as in a `filter` block.
  mutating func filters(after node: (any Expression)?, isInline: Bool = true) throws(TemplateError) -> FilterCall {
    var result: FilterCall?
    var isFirst = isInline
    while isFirst || current.isSymbol("|") {
      if !isFirst { advance() }
      isFirst = false
      let token = current
      let name = try dottedName()
      if Filters.all[name] == nil, !isInBranch { throw fail("No filter named '\(name)'.", at: token) }
      let arguments = current.isSymbol("(") ? try callArguments() : .none
      result = try checked(FilterCall(result ?? node, name, arguments, token.position))
    }
    guard let result else { throw fail("expected token '|', got '\(current.description)'") }
    return result
  }

  private mutating func test(_ node: any Expression) throws(TemplateError) -> any Expression {
    let isNegated = skip(name: "not")
    let token = current
    let name = try dottedName()
    if Tests.all[name] == nil, !isInBranch { throw fail("No test named '\(name)'.", at: token) }
    var arguments = CallArguments.none
    if current.isSymbol("(") {
      arguments = try callArguments()
    } else if takesTestArgument {
      if current.isName("is") { throw fail("You cannot chain multiple tests with is") }
      let argument = try nested { (parser) throws(TemplateError) in try parser.postfix(try parser.primary()) }
      arguments = CallArguments([argument])
    }
    let result = try checked(TestCall(node, name, arguments))
    return isNegated ? try checked(Not(result)) : result
  }

  /// `x is divisibleby 3`: one argument may stand without parentheses.
  private var takesTestArgument: Bool {
    switch current.kind {
    case .name(let name): !["else", "or", "and"].contains(name)
    case .string, .integer, .largeInteger, .float: true
    case .symbol(let symbol): symbol == "[" || symbol == "{"
    default: false
    }
  }
}
