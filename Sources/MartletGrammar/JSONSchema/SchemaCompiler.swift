// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletFormats

/// Compiles a JSON Schema in two steps: a schema becomes a ``Shape``, and a shape becomes rules of a grammar.
///
/// The first step holds every keyword exactly, or throws; the second writes the values of a shape in one order of keys and with as much white space
/// as the options say. Both work on terms, one at a time, each once.
struct SchemaCompiler {
  let document: SchemaDocument
  let options: JSONSchemaOptions
  let limits: GrammarLimits
  var table: ExpressionTable
  var grammar = Grammar()
  var patterns = PatternBuilder(.json)
  var numbers: NumberExpressions
  /// Any string's characters.
  let anyString: ExpressionTable.ID

  // Terms, and the schemas that they are made of.
  var terms: [[Atom]] = [[], [.never]]
  var termNumbers: [[Atom]: Int] = [[]: 0, [.never]: 1]
  var schemas: [(pointer: String, value: JSONValue)] = []
  /// By pointer in UTF-8, for strings that look alike are equal as `String`s.
  var schemaNumbers: [[UInt8]: Int] = [:]
  var shapes: [Int: Shape] = [:]
  /// Terms and schemas whose shapes are being found out.
  var openTerms: Set<Term> = []
  var depth = 0
  /// Steps of intersecting, which may multiply.
  var numSteps = 0
  var annotations: Set<String> = []

  // Rules: see SchemaCompiler+Rules.
  var rules: [Term: Grammar.RuleID] = [:]
  var pendingRules: [Term] = []

  init(_ root: JSONValue, _ options: JSONSchemaOptions, _ limits: GrammarLimits) {
    document = SchemaDocument(root)
    self.options = options
    self.limits = limits
    table = ExpressionTable(maximumCount: limits.numExpressions, maximumSteps: limits.numCompileSteps)
    anyString = patterns.anything(&table)
    numbers = NumberExpressions(&table, zeroFractions: options.integersMayHaveZeroFraction)
  }

  // MARK: Terms

  mutating func term(_ atoms: some Sequence<Atom>) -> Term {
    var unique: [Atom] = []
    for atom in atoms where !unique.contains(atom) { unique.append(atom) }
    if unique.contains(.never) { return .never }
    if let known = termNumbers[unique] { return Term(number: known) }
    terms.append(unique)
    termNumbers[unique] = terms.count - 1
    return Term(number: terms.count - 1)
  }

  mutating func both(_ a: Term, _ b: Term) -> Term {
    if a == b || b == .always { return a }
    if a == .always { return b }
    return term(terms[a.number] + terms[b.number])
  }

  mutating func term(at pointer: String, _ value: JSONValue) -> Term {
    if let bool = value.bool { return bool ? .always : .never }
    if value.kind == .object && value.count == 0 { return .always }
    return term([.schema(number(of: pointer, value))])
  }

  mutating func number(of pointer: String, _ value: JSONValue) -> Int {
    if let known = schemaNumbers[Array(pointer.utf8)] { return known }
    schemas.append((pointer, value))
    schemaNumbers[Array(pointer.utf8)] = schemas.count - 1
    return schemas.count - 1
  }

  mutating func negation(of term: Term) -> Term {
    if term == .always { return .never }
    if term == .never { return .always }
    if terms[term.number].count == 1, case .not(let inner) = terms[term.number][0] { return inner }
    return self.term([.not(term)])
  }

  /// The values for which the term holds.
  mutating func shape(of term: Term) throws(GrammarError) -> Shape {
    if term == .always { return any }
    if term == .never { return Shape() }
    if let known = shapes[term.number] { return known }
    guard openTerms.insert(term).inserted else {
      let place = terms[term.number].lazy.compactMap { atom in if case .schema(let number) = atom { number } else { nil } }.first
      throw .unsupported(
        "the schema refers to itself without a step into a value, so that it says nothing: remove the reference",
        at: place.map { "#" + schemas[$0].pointer })
    }
    depth += 1
    defer {
      openTerms.remove(term)
      depth -= 1
    }
    guard depth <= 120 else { throw .limit("references and combined schemas nest more than 120 deep: make the schema flatter") }
    var result = any
    var complements: [Term] = []
    for atom in terms[term.number] {
      if case .not(let inner) = atom { complements.append(inner) } else { result = try intersection(result, shape(of: atom)) }
    }
    // Last, for what is not there anyway need not be taken away.
    for inner in complements { result = try complement(shape(of: inner), within: result, at: place(of: inner)) }
    shapes[term.number] = result
    return result
  }

  private mutating func shape(of atom: Atom) throws(GrammarError) -> Shape {
    switch atom {
    case .never: return Shape()
    case .schema(let number):
      let whole = term([atom])
      // Alone, it may be known; and it is remembered for the next conjunction.
      if let known = shapes[whole.number] { return known }
      let shape = try shape(of: schemas[number].value, at: schemas[number].pointer)
      shapes[whole.number] = shape
      return shape
    case .literal(let bytes):
      let pointer = String(decoding: bytes, as: UTF8.self)
      return try shape(ofLiteral: document.value(at: pointer)!, at: pointer)
    case .not(let term): return try complement(shape(of: term), within: any, at: place(of: term))
    }
  }

  func place(of term: Term) -> String {
    for atom in terms[term.number] { if case .schema(let number) = atom { return schemas[number].pointer } }
    return ""
  }

  var any: Shape {
    Shape(
      allowsNull: true, allowsTrue: true, allowsFalse: true, numbers: numbers.all, strings: StringSet(expression: anyString),
      arrays: [ArrayShape()], objects: [anyObject])
  }

  var anyObject: ObjectShape { ObjectShape(classes: [ObjectShape.KeyClass(keys: anyString, term: .always)]) }

  func unsupported(_ reason: String, _ pointer: String, _ keyword: String = "") -> GrammarError {
    .unsupported(reason, at: "#" + pointer + (keyword.isEmpty ? "" : "/" + keyword))
  }

  func syntax(_ reason: String, _ pointer: String, _ keyword: String) -> GrammarError {
    GrammarError(.syntax, reason, at: "#" + pointer + "/" + keyword)
  }

  mutating func countStep() throws(GrammarError) {
    numSteps += 1
    guard numSteps <= 200_000 else { throw .limit("the schema's combinations multiply to too many: make it simpler") }
    guard !table.isExhausted else { throw .limit("the schema's strings and numbers take too many regular expressions: make it simpler") }
  }
}
