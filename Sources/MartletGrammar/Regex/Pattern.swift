// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// A regular expression over characters, as it was written.
indirect enum Pattern: Sendable {
  case characters(CodePointSet)
  case sequence([Pattern])
  case choice([Pattern])
  case `repeat`(Pattern, minimum: Int, maximum: Int?)
  /// Only at the beginning of the text: `^`.
  case start
  /// Only at the end of the text: `$`.
  case end
  /// What follows begins with a match, or with none: `(?=…)`, `(?!…)`.
  case ahead(Pattern, isNegative: Bool)

  /// Whether it matches the same texts wherever it stands.
  var isFree: Bool {
    switch self {
    case .characters: true
    case .sequence(let list), .choice(let list): list.allSatisfy { $0.isFree }
    case .repeat(let inner, _, _): inner.isFree
    case .start, .end, .ahead: false
    }
  }
}

/// Turns patterns into expressions over bytes.
///
/// Anchors and lookahead make what a part matches depend on what is around it. So a pattern is built from its end: each part is handed what follows it,
/// once for the case that the text's beginning is here, once for all other places, and gives the same for itself.
struct PatternBuilder {
  /// How a character is written.
  enum Encoding { case utf8, json }

  /// What follows: at the beginning of the text, and elsewhere.
  private struct Continuation {
    var atStart: ExpressionTable.ID
    var elsewhere: ExpressionTable.ID
  }

  let encoding: Encoding
  private var characters: [CodePointSet: ExpressionTable.ID] = [:]

  private var properties: [String: CodePointSet] = [:]

  init(_ encoding: Encoding) { self.encoding = encoding }

  mutating func parse(_ text: String) throws(GrammarError) -> Pattern { try PatternParser.parse(text, properties: &properties) }

  /// Any text at all.
  mutating func anything(_ table: inout ExpressionTable) -> ExpressionTable.ID { table.repeat(character(.all, &table)) }

  mutating func character(_ set: CodePointSet, _ table: inout ExpressionTable) -> ExpressionTable.ID {
    if let known = characters[set] { return known }
    let result = encoding == .utf8 ? table.utf8(set) : table.jsonCharacter(set)
    characters[set] = result
    return result
  }

  /// Texts that match as a whole.
  mutating func whole(_ pattern: Pattern, _ table: inout ExpressionTable) throws(GrammarError) -> ExpressionTable.ID {
    try build(pattern, Continuation(atStart: ExpressionTable.empty, elsewhere: ExpressionTable.empty), &table).atStart
  }

  /// Texts in which a match is found anywhere.
  mutating func search(_ pattern: Pattern, _ table: inout ExpressionTable) throws(GrammarError) -> ExpressionTable.ID {
    let anything = anything(&table)
    let found = try build(pattern, Continuation(atStart: anything, elsewhere: anything), &table)
    if found.atStart == found.elsewhere { return table.sequence(anything, found.atStart) }
    let character = character(.all, &table)
    return table.choice(found.atStart, table.sequence([character, anything, found.elsewhere]))
  }

  private mutating func build(
    _ pattern: Pattern, _ next: Continuation, _ table: inout ExpressionTable
  ) throws(GrammarError) -> Continuation {
    if pattern.isFree {
      let expression = free(pattern, &table)
      let elsewhere = table.sequence(expression, next.elsewhere)
      // Nothing was read where the expression matched the empty text; what follows may then still be at the beginning.
      let atStart = table.isNullable(expression) && next.atStart != next.elsewhere ? table.choice(next.atStart, elsewhere) : elsewhere
      return Continuation(atStart: next.atStart == next.elsewhere ? elsewhere : atStart, elsewhere: elsewhere)
    }
    switch pattern {
    case .characters: break
    case .sequence(let list):
      var result = next
      for part in list.reversed() { result = try build(part, result, &table) }
      return result
    case .choice(let list):
      var result = Continuation(atStart: ExpressionTable.nothing, elsewhere: ExpressionTable.nothing)
      for part in list {
        let built = try build(part, next, &table)
        result.atStart = table.choice(result.atStart, built.atStart)
        result.elsewhere = table.choice(result.elsewhere, built.elsewhere)
      }
      return result
    case .repeat(let inner, let minimum, let maximum):
      guard let maximum, maximum <= 8 else {
        throw .unsupported("an anchor or a lookahead inside of a part that repeats is not supported: write it outside")
      }
      var result = next
      for count in (0..<maximum).reversed() {
        let built = try build(inner, result, &table)
        guard count >= minimum else {
          result = built
          continue
        }
        result = Continuation(atStart: table.choice(next.atStart, built.atStart), elsewhere: table.choice(next.elsewhere, built.elsewhere))
      }
      return result
    case .start: return Continuation(atStart: next.atStart, elsewhere: ExpressionTable.nothing)
    case .end:
      func onlyEmpty(_ id: ExpressionTable.ID) -> ExpressionTable.ID {
        table.isNullable(id) ? ExpressionTable.empty : ExpressionTable.nothing
      }
      return Continuation(atStart: onlyEmpty(next.atStart), elsewhere: onlyEmpty(next.elsewhere))
    case .ahead(let inner, let isNegative):
      let anything = anything(&table)
      var ahead = try build(inner, Continuation(atStart: anything, elsewhere: anything), &table)
      if isNegative { ahead = Continuation(atStart: table.not(ahead.atStart), elsewhere: table.not(ahead.elsewhere)) }
      return Continuation(
        atStart: table.all([ahead.atStart, next.atStart]), elsewhere: table.all([ahead.elsewhere, next.elsewhere]))
    }
    return next
  }

  private mutating func free(_ pattern: Pattern, _ table: inout ExpressionTable) -> ExpressionTable.ID {
    switch pattern {
    case .characters(let set): return character(set, &table)
    case .sequence(let list): return table.sequence(list.map { free($0, &table) })
    case .choice(let list): return table.choice(list.map { free($0, &table) })
    case .repeat(let inner, let minimum, let maximum): return table.repeat(free(inner, &table), minimum, maximum)
    case .start, .end, .ahead: return ExpressionTable.empty  // no free pattern has one
    }
  }
}
