// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletGrammar
import Testing

@Suite struct GBNFTests {
  struct Example: Sendable {
    var grammar: String
    var texts: [String]
    var others: [String]
  }

  static let examples: [Example] = [
    Example(
      grammar: "# sums\nroot ::= term (\"+\" term)*\nterm ::= number | \"(\" root \")\"\nnumber ::= [0-9]+\n",
      texts: ["1", "1+(22+3)+4", "((5))"], others: ["1+", "(1", "", "1 +2"]),
    Example(grammar: "root ::= \"a\" root \"b\" | \"\"", texts: ["", "ab", "aaabbb"], others: ["aab", "abb", "ba"]),
    // So many ways to read the beginning that each by itself would be too many.
    Example(
      grammar: "root ::= e\ne ::= \"a\" e \"b\" | \"a\" e \"c\" | \"\"\n",
      texts: [String(repeating: "a", count: 60) + String(repeating: "bc", count: 30)], others: ["aab", "abb"]),
    Example(
      grammar: "root ::= [^\\n\"]{2,3} \"\\\"\" . | item{2}\nitem ::= \"x\" | \"yy\"", texts: ["ab\"é", "éaz\"\n", "xyy", "yyyy"],
      others: ["a\"b", "x", "xxx\n"]),
    Example(grammar: "root ::= (\n  \"a\" |\n  \"b\" # or\n)+ \"\\x63\\u00e9\"?", texts: ["ab", "bacé"], others: ["", "é"]),
    // What may be empty, within what may be empty.
    Example(grammar: "root ::= a b \"!\"\na ::= \"x\"? b\nb ::= (\"y\" a)? ", texts: ["!", "x!", "yx!", "xyxyx!"], others: ["xx!", ""]),
    // A lexeme that could be longer, beside one that needs it shorter.
    Example(grammar: "root ::= [a-z]+ item*\nitem ::= \"ab\" item | \"-\"", texts: ["cab-", "c-ab-", "abab"], others: ["-", "c-ab"]),
    Example(
      grammar: "root ::= list{2,3}\nlist ::= \"[\" list? \"]\"", texts: ["[][]", "[[]][][[[]]]"], others: ["[]", "[][][][]", "[[]"]),
  ]

  @Test(arguments: examples) func `a grammar has its texts and no others`(example: Example) throws {
    let grammar = try CompiledGrammar(gbnf: example.grammar)
    for text in example.texts { #expect(try accepts(grammar, text), "\(text)") }
    for text in example.others { #expect(try !accepts(grammar, text), "\(text)") }
  }

  @Test(arguments: [
    "root ::= root \"a\" | \"a\"", "root ::= x root | \"c\"\nx ::= \"\" | \"b\"", "root ::= a\na ::= b \"x\"\nb ::= a | \"y\"",
    "root ::= <think>",
  ]) func `left recursion and tokens are refused`(grammar: String) {
    let error = #expect(throws: GrammarError.self) { try CompiledGrammar(gbnf: grammar) }
    #expect(error?.code == .unsupported)
  }

  @Test(arguments: [
    "root = \"a\"", "root ::= \"a", "root ::= x", "x ::= \"a\"", "root ::= (\"a\"", "root ::= [a", "root ::= \"a\"\nroot ::= \"b\"",
    "root ::= \"\\q\"",
  ])
  func `what is no grammar is a syntax error with its place`(grammar: String) {
    let error = #expect(throws: GrammarError.self) { try CompiledGrammar(gbnf: grammar) }
    #expect(error?.code == .syntax)
  }

  @Test func `a grammar without a text is refused`() {
    let error = #expect(throws: GrammarError.self) { try CompiledGrammar(gbnf: "root ::= \"a\" root") }
    #expect(error?.code == .unsatisfiable)
  }
}
