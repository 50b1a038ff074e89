// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// A compiled program: its tree and its names.
struct Program: Sendable {
  let body: Block
  let names: [Name]
}

/// Tokens to a tree: the statements. Expressions are in `Parser+Expressions.swift`.
struct Parser {
  let tokens: [Token]
  var index = 0
  private var names: [String: Name] = [:]
  private var orderedNames: [Name] = []
  /// Expressions and statements that are open.
  private var nesting = 0
  /// Whether `break` means something here.
  private var isInLoop = false
  /// Whether an unknown filter waits until it runs: in a branch of an `if`, unless a loop or a macro stands between.
  var isInBranch = false
  /// Of each macro that is open what its body reads, those inside it included: `varargs`, `kwargs` and `caller` change what it takes. A name that
  /// is set before it is read is not counted, as Jinja has it.
  private var mentions: [(read: Set<String>, set: Set<String>)] = []
  private var blocks: Set<String> = []

  static func program(_ source: String) throws(TemplateError) -> Program {
    var parser = Parser(tokens: try Lexer.tokens(of: source))
    let body = try parser.statements(until: [])
    guard case .end = parser.current.kind else { throw parser.unexpected(parser.current) }
    return Program(body: body, names: parser.orderedNames)
  }

  private init(tokens: [Token]) { self.tokens = tokens }

  // MARK: Tokens

  var current: Token { tokens[index] }
  var next: Token { tokens[min(index + 1, tokens.count - 1)] }

  @discardableResult
  mutating func advance() -> Token {
    let token = tokens[index]
    if index + 1 < tokens.count { index += 1 }
    return token
  }

  mutating func skip(symbol: String) -> Bool {
    guard current.isSymbol(symbol) else { return false }
    advance()
    return true
  }

  mutating func skip(name: String) -> Bool {
    guard current.isName(name) else { return false }
    advance()
    return true
  }

  mutating func expect(symbol: String) throws(TemplateError) {
    guard skip(symbol: symbol) else { throw fail("expected token '\(symbol)', got '\(current.description)'") }
  }

  mutating func expectName() throws(TemplateError) -> String {
    guard case .name(let name) = current.kind else { throw fail("expected token 'name', got '\(current.description)'") }
    advance()
    return name
  }

  func fail(_ message: String, at token: Token? = nil) -> TemplateError {
    let position = (token ?? current).position
    return TemplateError(.syntax, message, line: Int(position.line), column: Int(position.column))
  }

  func unexpected(_ token: Token) -> TemplateError { fail("unexpected '\(token.description)'", at: token) }

  /// The name of a variable that is read.
  mutating func readName(_ text: String) -> Name {
    for index in mentions.indices where !mentions[index].set.contains(text) { mentions[index].read.insert(text) }
    return name(text)
  }

  /// The name of a variable that is set.
  private mutating func setName(_ text: String) -> Name {
    for index in mentions.indices { mentions[index].set.insert(text) }
    return name(text)
  }

  /// The name's place in the outermost frame.
  private mutating func name(_ text: String) -> Name {
    if let name = names[text] { return name }
    let name = Name(id: orderedNames.count, text: text)
    names[text] = name
    orderedNames.append(name)
    return name
  }

  /// Goes one level into the program.
  mutating func nested<T>(_ body: (inout Parser) throws(TemplateError) -> T) throws(TemplateError) -> T {
    nesting += 1
    defer { nesting -= 1 }
    guard nesting <= TemplateLimits.maximumNesting else { throw tooDeep() }
    return try body(&self)
  }

  private func tooDeep() -> TemplateError { limit("the template nests more than \(TemplateLimits.maximumNesting) deep") }

  func tooManyArguments() -> TemplateError { limit("more than \(TemplateLimits.maximumArgumentCount) named arguments") }

  private func limit(_ message: String) -> TemplateError {
    TemplateError(.limit, message, line: Int(current.position.line), column: Int(current.position.column))
  }

  /// The node, if it is not too deep: chains such as `a.b.c` nest too, without the parser's recursion.
  func checked<T: Expression>(_ node: T) throws(TemplateError) -> T {
    if node.depth > 2 * TemplateLimits.maximumNesting { throw tooDeep() }
    return node
  }

  // MARK: Statements

  /// Text, `{{ … }}` and statements up to a tag with one of these names, which is not taken.
  private mutating func statements(until ends: Set<String>) throws(TemplateError) -> Block {
    try nested { (parser) throws(TemplateError) in
      var statements: [any Statement] = []
      while true {
        let token = parser.current
        switch token.kind {
        case .data(let text):
          parser.advance()
          statements.append(PlainText(Text(text)))
        case .expressionBegin:
          parser.advance()
          statements.append(Output(try parser.tuple(), token.position))
          guard case .expressionEnd = parser.current.kind else {
            throw parser.fail("expected token 'end of print statement', got '\(parser.current.description)'")
          }
          parser.advance()
        case .statementBegin:
          if case .name(let name) = parser.next.kind, ends.contains(name) {
            parser.advance()
            return Block(statements)
          }
          parser.advance()
          if let statement = try parser.statement(token) { statements.append(statement) }
          try parser.endTag()
        case .end:
          if !ends.isEmpty {
            throw parser.fail(
              "Unexpected end of template. Jinja was looking for the following tags: \(ends.sorted().map { "'\($0)'" }.joined(separator: " or "))"
            )
          }
          return Block(statements)
        default: throw parser.unexpected(token)
        }
      }
    }
  }

  private mutating func endTag() throws(TemplateError) {
    guard case .statementEnd = current.kind else { throw fail("expected token 'end of statement block', got '\(current.description)'") }
    advance()
  }

  /// The body of a statement whose opening tag ends here, up to a tag with one of the names.
  private mutating func body(until ends: Set<String>) throws(TemplateError) -> Block {
    _ = skip(symbol: ":")
    try endTag()
    return try statements(until: ends)
  }

  /// The body up to `end`, whose tag's name is taken too.
  private mutating func body(_ end: String) throws(TemplateError) -> Block {
    let body = try body(until: [end])
    advance()
    return body
  }

  /// `body` parsed outside of an `if`'s branch, as Jinja has it for what gets a frame of its own.
  private mutating func inFrame<T>(
    isInLoop: Bool, _ body: (inout Parser) throws(TemplateError) -> T
  ) throws(TemplateError) -> T {
    let outer = (self.isInLoop, isInBranch)
    (self.isInLoop, isInBranch) = (isInLoop, false)
    defer { (self.isInLoop, isInBranch) = outer }
    return try body(&self)
  }

  private mutating func inBranch<T>(_ body: (inout Parser) throws(TemplateError) -> T) throws(TemplateError) -> T {
    let outer = isInBranch
    isInBranch = true
    defer { isInBranch = outer }
    return try body(&self)
  }

  /// A statement after its `{%`; its `%}` is left.
  private mutating func statement(_ begin: Token) throws(TemplateError) -> (any Statement)? {
    guard case .name(let tag) = current.kind else { throw fail("tag name expected") }
    let token = advance()
    let position = begin.position
    switch tag {
    case "for": return try parseFor(position)
    case "if": return try parseIf(position)
    case "set": return try parseSet(position)
    case "macro": return try parseMacro()
    case "call": return try parseCallBlock(position)
    case "filter":
      let filter = try filters(after: nil)
      return FilterBlock(filter, try inFrame(isInLoop: isInLoop) { (parser) throws(TemplateError) in try parser.body("endfilter") })
    case "with": return try parseWith()
    case "generation":
      return Generation(try inFrame(isInLoop: false) { (parser) throws(TemplateError) in try parser.body("endgeneration") })
    case "break", "continue":
      guard isInLoop else { throw fail("'\(tag)' outside of a loop", at: token) }
      return Jump(tag == "break" ? .breaksLoop : .continuesLoop)
    case "block": return try parseBlock(token)
    case "include", "import", "extends", "from":
      while true {
        if case .statementEnd = current.kind { break }
        if case .end = current.kind { break }
        advance()
      }
      return Unloadable(position)
    case "autoescape":
      throw fail("the tag 'autoescape' is not supported: a chat template is no HTML", at: token)
    default: throw fail("Encountered unknown tag '\(tag)'.", at: token)
    }
  }

  private mutating func parseFor(_ position: Position) throws(TemplateError) -> any Statement {
    let begin = current
    let target = try target(until: "in")
    guard !target.names.contains("loop") else { throw fail("Can't assign to special loop variable in for-loop target", at: begin) }
    guard skip(name: "in") else { throw fail("expected token 'in', got '\(current.description)'") }
    let values = try tuple(isConditional: false, until: "recursive")
    let loopName = name("loop")
    let outer = isInBranch
    isInBranch = false
    defer { isInBranch = outer }
    let filter = skip(name: "if") ? try expression() : nil
    let isRecursive = skip(name: "recursive")
    let body = try inFrame(isInLoop: true) { (parser) throws(TemplateError) in try parser.body(until: ["endfor", "else"]) }
    var alternative: Block?
    if advance().isName("else") {
      // A break in here ends the loop outside.
      alternative = try inFrame(isInLoop: isInLoop) { (parser) throws(TemplateError) in try parser.body("endfor") }
    }
    return For(
      target, in: values, if: filter, body, else: alternative, isRecursive: isRecursive, loopName: loopName, position)
  }

  private mutating func parseIf(_ position: Position) throws(TemplateError) -> any Statement {
    try inBranch { (parser) throws(TemplateError) in
      var branches: [(condition: any Expression, body: Block, position: Position)] = []
      var place = position
      while true {
        let condition = try parser.tuple(isConditional: false)
        branches.append((condition, try parser.body(until: ["elif", "else", "endif"]), place))
        let token = parser.advance()
        place = token.position
        if token.isName("elif") { continue }
        let alternative = token.isName("else") ? try parser.body("endif") : nil
        return If(branches, else: alternative)
      }
    }
  }

  private mutating func parseSet(_ position: Position) throws(TemplateError) -> any Statement {
    let target = try target(until: nil, takesAttributes: true)
    if skip(symbol: "=") { return Assignment(target, try tuple(), position) }
    let filter = current.isSymbol("|") ? try filters(after: nil, isInline: false) : nil
    let body = try inFrame(isInLoop: isInLoop) { (parser) throws(TemplateError) in try parser.body("endset") }
    return BlockAssignment(target, filter, body)
  }

  private mutating func parseWith() throws(TemplateError) -> any Statement {
    var assignments: [(Target, any Expression)] = []
    while true {
      if case .statementEnd = current.kind { break }
      if !assignments.isEmpty { try expect(symbol: ",") }
      let target = try singleTarget()
      try expect(symbol: "=")
      assignments.append((target, try expression()))
    }
    return With(assignments, try inFrame(isInLoop: isInLoop) { (parser) throws(TemplateError) in try parser.body("endwith") })
  }

  /// Without inheritance a block is its body, in a frame of its own.
  private mutating func parseBlock(_ token: Token) throws(TemplateError) -> any Statement {
    let name = try expectName()
    guard blocks.insert(name).inserted else { throw fail("block '\(name)' defined twice", at: token) }
    while skip(name: "scoped") || skip(name: "required") {}
    // What a block reads does not count for a macro around it.
    let outer = mentions
    mentions = []
    defer { mentions = outer }
    let body = try inFrame(isInLoop: false) { (parser) throws(TemplateError) in
      _ = parser.skip(symbol: ":")
      try parser.endTag()
      let body = try parser.statements(until: ["endblock"])
      parser.advance()
      return body
    }
    if case .name = current.kind { advance() }
    return With([], body)
  }

  private mutating func parseMacro() throws(TemplateError) -> any Statement {
    let text = try expectName()
    let name = name(text)
    return MacroDefinition(name, try routine("endmacro"))
  }

  private mutating func parseCallBlock(_ position: Position) throws(TemplateError) -> any Statement {
    let signature = current.isSymbol("(") ? try self.signature() : Signature()
    let callToken = current
    guard let call = try expression() as? Call else { throw fail("expected call", at: callToken) }
    return CallBlock(call, try routine("endcall", signature))
  }

  /// What stands behind a macro's name, up to the end of its body.
  private mutating func routine(_ end: String, _ given: Signature? = nil) throws(TemplateError) -> Routine {
    let begin = current
    let (signature, read, body) = try inFrame(isInLoop: false) { (parser) throws(TemplateError) in
      let signature: Signature
      if let given { signature = given } else { signature = try parser.signature() }
      parser.mentions.append(([], []))
      let body = try parser.body(end)
      return (signature, parser.mentions.removeLast().read, body)
    }
    var complete = signature
    func uses(_ name: String) -> Bool { read.contains(name) && !signature.parameters.contains { $0.text == name } }
    complete.usesVarargs = uses("varargs")
    complete.usesKwargs = uses("kwargs")
    complete.usesCaller = uses("caller")
    if read.contains("caller"), let place = signature.parameters.firstIndex(where: { $0.text == "caller" }) {
      guard place >= signature.parameters.count - signature.defaults.count else {
        throw fail("the special \"caller\" argument must be omitted or be given a default", at: begin)
      }
    }
    return Routine(complete, body, varargs: name("varargs"), kwargs: name("kwargs"), caller: name("caller"))
  }

  private mutating func signature() throws(TemplateError) -> Signature {
    try expect(symbol: "(")
    var signature = Signature()
    while !current.isSymbol(")") {
      if !signature.parameters.isEmpty { try expect(symbol: ",") }
      guard case .name(let name) = current.kind, !Parser.constants.contains(name) else { throw fail("a parameter's name expected") }
      guard !signature.parameters.contains(where: { $0.text == name }) else { throw fail("duplicate argument '\(name)' in a macro") }
      guard signature.parameters.count < TemplateLimits.maximumArgumentCount else { throw tooManyArguments() }
      advance()
      signature.parameters.append(setName(name))
      if skip(symbol: "=") {
        signature.defaults.append(try expression())
      } else if !signature.defaults.isEmpty {
        throw fail("non-default argument follows default argument")
      }
    }
    try expect(symbol: ")")
    return signature
  }

  // MARK: Targets

  static let constants: Set<String> = ["true", "True", "false", "False", "none", "None"]

  /// One target, or several with commas.
  private mutating func target(until end: String?, takesAttributes: Bool = false) throws(TemplateError) -> Target {
    var targets: [Target] = []
    var isTuple = false
    while true {
      if !targets.isEmpty, let end, current.isName(end) { break }
      if !targets.isEmpty, current.isSymbol("=") { break }
      targets.append(try singleTarget(takesAttributes: takesAttributes))
      guard skip(symbol: ",") else { break }
      isTuple = true
    }
    return isTuple ? .tuple(targets) : targets[0]
  }

  private mutating func singleTarget(takesAttributes: Bool = false) throws(TemplateError) -> Target {
    if current.isSymbol("(") || current.isSymbol("[") {
      guard current.isSymbol("(") else { throw fail("can't assign to 'list'") }
      return try nested { (parser) throws(TemplateError) in
        parser.advance()
        var targets: [Target] = []
        var isTuple = false
        while !parser.current.isSymbol(")") {
          targets.append(try parser.singleTarget(takesAttributes: takesAttributes))
          guard parser.skip(symbol: ",") else { break }
          isTuple = true
        }
        try parser.expect(symbol: ")")
        return isTuple || targets.isEmpty ? .tuple(targets) : targets[0]
      }
    }
    let token = current
    guard case .name(let text) = token.kind else { throw fail("can't assign to '\(token.description)'") }
    guard !Parser.constants.contains(text) else { throw fail("can't assign to 'const'") }
    advance()
    guard takesAttributes, current.isSymbol(".") else { return .name(setName(text)) }
    advance()
    return .attribute(name(text), Text(try expectName()))
  }
}
