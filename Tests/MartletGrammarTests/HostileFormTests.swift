// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletGrammar
import Testing

/// Forms that somebody made to do harm compile or are refused, and are never followed beyond their bounds.
@Suite struct HostileFormTests {
  @Test func `a hundred thousand values of an enum compile`() throws {
    let values = (0..<100_000).map { "\"value \($0)\"" }.joined(separator: ",")
    let grammar = try CompiledGrammar(jsonSchema: "{\"enum\":[\(values)]}")
    #expect(try accepts(grammar, "\"value 99999\""))
    #expect(try !accepts(grammar, "\"value 100000\""))
  }

  @Test func `schemas that nest as deep as JSON may compile`() throws {
    let schema = String(repeating: "{\"items\":", count: 120) + "true" + String(repeating: "}", count: 120)
    _ = try CompiledGrammar(jsonSchema: schema)
  }

  @Test func `a long row of references is refused or compiles`() throws {
    let definitions = (0..<5000).map { "\"d\($0)\":{\"$ref\":\"#/$defs/d\($0 + 1)\"}" }.joined(separator: ",")
    let error = #expect(throws: GrammarError.self) {
      try CompiledGrammar(jsonSchema: "{\"$ref\":\"#/$defs/d0\",\"$defs\":{\(definitions),\"d5000\":true}}")
    }
    #expect(error?.code == .limit)
  }

  @Test func `combinations that multiply are given up`() {
    let pair = #"{"anyOf":[{"properties":{"a":{"const":1}}},{"properties":{"b":{"const":2}}},{"properties":{"c":{"const":3}}}]}"#
    let schema = "{\"type\":\"object\",\"allOf\":[\(Array(repeating: pair, count: 12).joined(separator: ","))]}"
    let error = #expect(throws: GrammarError.self) { try CompiledGrammar(jsonSchema: schema) }
    #expect(error?.code == .limit)
  }

  @Test func `an intersection whose states explode is given up`() {
    let schema =
      #"{"type":"string","allOf":[{"pattern":"^(a|b)*a(a|b){40}$"},{"not":{"pattern":"^(a|b)*b(a|b){39}$"}},{"pattern":"^(a|b)*a(a|b){38}$"},{"not":{"pattern":"a(a|b){37}$"}}]}"#
    // Whether there is a text is found out quickly or not at all.
    do { _ = try CompiledGrammar(jsonSchema: schema) } catch { #expect(error.code == .limit || error.code == .unsatisfiable) }
  }

  @Test func `what is too long is refused`() {
    var limits = GrammarLimits()
    limits.sourceByteCount = 100
    let error = #expect(throws: GrammarError.self) { try CompiledGrammar(regex: String(repeating: "a", count: 101), limits: limits) }
    #expect(error?.code == .limit)
    limits = GrammarLimits()
    limits.numExpressions = 50
    #expect(throws: GrammarError.self) { try CompiledGrammar(jsonSchema: "true", limits: limits) }
  }

  @Test func `deep groups and long rows of rules are refused or compile`() throws {
    let deep = String(repeating: "(", count: 5000) + "a" + String(repeating: ")", count: 5000)
    #expect(throws: GrammarError.self) { try CompiledGrammar(regex: deep) }
    #expect(throws: GrammarError.self) { try CompiledGrammar(gbnf: "root ::= " + deep) }
    let rules = (0..<20_000).map { "r\($0) ::= \"a\" r\($0 + 1)" }.joined(separator: "\n")
    let grammar = try CompiledGrammar(gbnf: "root ::= r0\n\(rules)\nr20000 ::= \"b\" root?")
    #expect(try accepts(grammar, String(repeating: "a", count: 20_000) + "b"))
  }

  @Test func `an answer that nests deep is followed`() throws {
    let depth = 20_000
    let text = String(repeating: "[", count: depth) + String(repeating: "]", count: depth)
    #expect(try accepts(try CompiledGrammar.json(), text))
  }
}
