// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletGrammar
import MartletTestSupport
import Testing

@Suite struct TokenMaskTests {
  static let forms: [@Sendable () throws -> CompiledGrammar] = [
    { try CompiledGrammar.json() },
    {
      try CompiledGrammar(
        jsonSchema:
          #"{"type":"object","properties":{"name":{"type":"string","maxLength":12},"b":{"enum":["red","blue"]}},"required":["name"]}"#)
    },
    { try CompiledGrammar(jsonSchema: #"{"type":"array","items":{"type":"string","pattern":"^[a-zé ]*$"}}"#) },
    { try CompiledGrammar(regex: "([a-z]+ ?)*") },
    { try CompiledGrammar(regex: "(foo|bar[a-z]{0,20}|.{3,30}x)+") },
    { try CompiledGrammar(gbnf: "root ::= word (\" \" word)*\nword ::= [a-zA-Z]+ | \"(\" root \")\"") },
  ]

  /// In every state of random answers, by brute force.
  @Test(arguments: forms.indices) func `a mask has exactly the tokens that may come`(form: Int) throws {
    let (vocabulary, tokens, end) = Vocabularies.mixed()
    let constraint = GrammarConstraint(try Self.forms[form](), vocabulary: vocabulary)
    var generator = SeededGenerator(seed: UInt64(form))
    var mask = TokenMask(numTokens: tokens.count)
    for _ in 0..<6 {
      var matcher = constraint.makeMatcher()
      for _ in 0..<25 {
        try matcher.fill(&mask)
        var allowed: [Int] = []
        for token in tokens.indices {
          var trial = matcher
          let comes = try trial.advance(token)
          #expect(mask[token] == comes, "token \(token) after form \(form)")
          if comes && token != end { allowed.append(token) }
        }
        #expect(mask[end] == (try matcher.isAccepting))
        guard let token = allowed.randomElement(using: &generator) else { break }
        #expect(try matcher.advance(token))
      }
    }
  }

  @Test func `a special token never comes, and nothing comes after the end`() throws {
    let (vocabulary, tokens, end) = Vocabularies.mixed()
    var matcher = GrammarConstraint(try CompiledGrammar(regex: "a*"), vocabulary: vocabulary).makeMatcher()
    var mask = TokenMask(numTokens: tokens.count)
    try matcher.fill(&mask)
    #expect(!mask[end - 3] && !mask[end - 1])  // special, and empty
    #expect(mask[Int(UInt8(ascii: "a"))] && mask[end])
    #expect(try matcher.advance(end))
    #expect(matcher.isFinished)
    try matcher.fill(&mask)
    #expect(mask.count == 0)
    #expect(try !matcher.advance(Int(UInt8(ascii: "a"))))
  }

  @Test func `bytes that must come are found`() throws {
    let schema =
      #"{"type":"object","properties":{"name":{"type":"string"},"kind":{"const":"fixed"}},"required":["name","kind"],"additionalProperties":false}"#
    var matcher = GrammarConstraint(try CompiledGrammar(jsonSchema: schema), vocabulary: Vocabularies.bytes).makeMatcher()
    #expect(String(decoding: try matcher.forcedBytes(), as: UTF8.self) == #"{"name":""#)
    #expect(try matcher.advance(bytes: Array(#"{"name":"x""#.utf8)))
    #expect(String(decoding: try matcher.forcedBytes(), as: UTF8.self) == #","kind":"fixed"}"#)
    #expect(String(decoding: try matcher.forcedBytes(limit: 3), as: UTF8.self) == #","k"#)
  }

  @Test func `a copy goes its own way`() throws {
    var matcher = GrammarConstraint(try CompiledGrammar(regex: "a(b|c)"), vocabulary: Vocabularies.bytes).makeMatcher()
    #expect(try matcher.advance(bytes: [UInt8(ascii: "a")]))
    var other = matcher
    #expect(try other.advance(bytes: [UInt8(ascii: "c")]))
    #expect(try other.isAccepting)
    #expect(try !matcher.isAccepting)
    #expect(try matcher.advance(bytes: [UInt8(ascii: "b")]))
  }

  /// Every way to cut a text into tokens.
  @Test func `a text is accepted in whatever tokens it comes`() throws {
    let (vocabulary, tokens, end) = Vocabularies.mixed()
    let schema =
      #"{"type":"object","properties":{"name":{"type":"string"},"Größe":{"type":"number"}},"additionalProperties":{"type":"array"}}"#
    let constraint = GrammarConstraint(try CompiledGrammar(jsonSchema: schema), vocabulary: vocabulary)
    let text = Array(#"{"name":"abc\",\"b é😀\u00d8\n","Größe":0.5,"foo":[[],["12",{"a":null}]]}"#.utf8)
    var generator = SeededGenerator(seed: 5)
    var mask = TokenMask(numTokens: tokens.count)
    for _ in 0..<200 {
      var matcher = constraint.makeMatcher()
      var position = 0
      while position < text.count {
        let fitting = tokens.indices.filter { token in
          guard let bytes = tokens[token], !bytes.isEmpty else { return false }
          return text[position...].starts(with: bytes)
        }
        let token = fitting.randomElement(using: &generator)!
        try matcher.fill(&mask)
        #expect(mask[token])
        try #require(try matcher.advance(token))
        position += tokens[token]!.count
      }
      try matcher.fill(&mask)
      #expect(mask[end])
    }
  }

  @Test func `automata that outgrow their memory are made anew, and answers go on`() throws {
    var limits = GrammarLimits()
    limits.automatonByteCount = 600_000
    limits.maskByteCount = 1000
    let (vocabulary, tokens, end) = Vocabularies.mixed()
    let constraint = GrammarConstraint(try CompiledGrammar(regex: "(a|b)*a(a|b){30}c", limits: limits), vocabulary: vocabulary)
    var generator = SeededGenerator(seed: 9)
    var mask = TokenMask(numTokens: tokens.count)
    var matchers = (0..<20).map { _ in constraint.makeMatcher() }
    for index in matchers.indices { #expect(try matchers[index].advance(bytes: [UInt8(ascii: "a")])) }
    for _ in 0..<60 {
      for index in matchers.indices {
        try matchers[index].fill(&mask)
        #expect(!mask[end] && mask[Int(UInt8(ascii: "a"))])
        try #require(try matchers[index].advance(Int(UInt8(ascii: Bool.random(using: &generator) ? "a" : "b"))))
        #expect(constraint.byteCount < 4_000_000)
      }
    }
    for index in matchers.indices {
      #expect(try matchers[index].advance(bytes: Array((String(repeating: "a", count: 31) + "c").utf8)))
      #expect(try matchers[index].isAccepting)
    }
  }
}
