// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletGrammar
import Testing

@Suite struct RegularExpressionTests {
  struct Example: Sendable {
    var regex: String
    var matches: [String]
    var others: [String]
  }

  static let examples: [Example] = [
    Example(regex: "a(b|cé)*d{2,3}", matches: ["add", "abcéddd"], others: ["abd", "adddd", "", "xadd"]),
    Example(regex: "^[^a-c]+$", matches: ["xyz", "😀"], others: ["xa", ""]),
    Example(regex: "\\d+\\.\\d*|\\w", matches: ["1.", "22.5", "_", "x"], others: [".5", "é", "xx"]),
    Example(regex: ".", matches: ["a", "é", "😀"], others: ["\n", "ab", ""]),
    Example(regex: "(?=.*\\d)(?!.*x)[a-z0-9]{2,4}", matches: ["a1", "ab12"], others: ["ab", "x1", "1x", "abcd1"]),
    Example(regex: "(?:^a|b)c", matches: ["ac", "bc"], others: ["c", "aac"]),
    Example(regex: "[\\u0041-\\u{43}]\\x2d?", matches: ["A", "C-"], others: ["D", "A--"]),
    Example(regex: "\\p{Lu}\\p{Ll}*", matches: ["Größe", "A"], others: ["größe", "AB"]),
    Example(regex: "(a|ab)(c|bcd)(d*)", matches: ["abcd", "ac", "abcdd", "abc"], others: ["ab", "abbcdx"]),
    Example(regex: "a{,2}", matches: ["a{,2}"], others: ["aa"]),
    Example(regex: "(a*)*b", matches: ["b", "aaab"], others: ["aaa"]),
  ]

  @Test(arguments: examples) func `a regular expression matches texts as a whole`(example: Example) throws {
    let grammar = try CompiledGrammar(regex: example.regex)
    for text in example.matches { #expect(try accepts(grammar, text), "\(example.regex) matches \(text)") }
    for text in example.others { #expect(try !accepts(grammar, text), "\(example.regex) does not match \(text)") }
  }

  @Test(arguments: ["(a", "a)", "[a", "*a", "a{3,2}", "[z-a]", "a**", "\\", "\\x4", "(?<n", "\\p{Lu"])
  func `what is no regular expression is a syntax error`(regex: String) {
    let error = #expect(throws: GrammarError.self) { try CompiledGrammar(regex: regex) }
    #expect(error?.code == .syntax)
    #expect(error?.place?.hasPrefix("character ") == true)
  }

  @Test(arguments: ["(a)\\1", "\\bword", "(?<=a)b", "(?i)a", "(?:a$)*b", "\\k<n>", "\\Z"])
  func `what an automaton cannot hold is refused`(regex: String) {
    let error = #expect(throws: GrammarError.self) { try CompiledGrammar(regex: regex) }
    #expect(error?.code == .unsupported)
  }

  @Test(arguments: ["a(?!.*)", "a\\b{0}[]", "(?=b)a"]) func `an expression that matches nothing is refused`(regex: String) {
    let error = #expect(throws: GrammarError.self) { try CompiledGrammar(regex: regex) }
    #expect(error?.code == .unsatisfiable || error?.code == .unsupported)
  }
}
