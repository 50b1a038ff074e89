// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletGrammar
import MartletTestSupport

/// Vocabularies for tests: every byte is a token, so that every text can be written.
enum Vocabularies {
  static let bytes = TokenVocabulary(tokens: (UInt8.min...UInt8.max).map { [$0] } + [nil], endTokens: [256])

  /// Bytes, and tokens such as vocabularies have: words with and without a space, pieces of JSON over the borders of strings, parts of characters.
  static func mixed() -> (vocabulary: TokenVocabulary, tokens: [[UInt8]?], end: Int) {
    let words = [
      "a", "b", "ab", "name", "na", "me", " name", " the", "red", "blue", "true", "tru", "false", "null", "12", "123", "0.", ".5", "-1",
      "e", "  ", "\n", "\n\n",
      "\"", "\":", "\": ", "\",", "\", ", "\",\"", "\":\"", "{\"", "{\"name", "\"}", "\"}]", "}}", "[[", "[]", "{}", "],[", "abc\",\"b",
      "é", "Größe", "ö", "\\", "\\n", "\\u",
      "\\\"", "00", "d8", "/", "😀", "long words are here", "0123456789", "x", "fo", "foo", "bar", "baz",
    ]
    var tokens: [[UInt8]?] = (UInt8.min...UInt8.max).map { [$0] }
    tokens += words.map { Array($0.utf8) }
    // Half characters.
    tokens += [[0xC3], [0xF0, 0x9F], [0x98, 0x80], [0x22, 0xC3]]
    tokens += [nil, Array("name".utf8), []]
    tokens.append(nil)
    return (TokenVocabulary(tokens: tokens, endTokens: [tokens.count - 1]), tokens, tokens.count - 1)
  }
}

/// Whether the form has the text, by its bytes.
func accepts(_ grammar: CompiledGrammar, _ text: String) throws -> Bool {
  var matcher = GrammarConstraint(grammar, vocabulary: Vocabularies.bytes).makeMatcher()
  guard try matcher.advance(bytes: Array(text.utf8)) else { return false }
  return try matcher.isAccepting
}

/// The bytes of an answer whose tokens are drawn from masks until one ends it; nil if that takes more than `limit` tokens. Tokens that end a value are
/// drawn more often the longer the answer is.
func walk(
  _ constraint: GrammarConstraint, _ tokens: [[UInt8]?], end: Int, limit: Int, using generator: inout SeededGenerator
) throws -> [UInt8]? {
  var matcher = constraint.makeMatcher()
  var mask = TokenMask(numTokens: constraint.vocabulary.numTokens)
  var bytes: [UInt8] = []
  for step in 0..<limit {
    try matcher.fill(&mask)
    if mask[end], step > 10 || Bool.random(using: &generator) { return bytes }
    var allowed = (0..<mask.numTokens).filter { mask[$0] && $0 != end }
    guard !allowed.isEmpty else { return mask[end] ? bytes : [] }
    if step > 20 {
      let closing = allowed.filter { token in
        tokens[token]!.contains { $0 == UInt8(ascii: "\"") || $0 == UInt8(ascii: "}") || $0 == UInt8(ascii: "]") }
      }
      if !closing.isEmpty && Int.random(in: 0..<4, using: &generator) > 0 { allowed = closing }
    }
    let token = allowed.randomElement(using: &generator)!
    guard try matcher.advance(token) else { return [] }
    bytes += tokens[token]!
  }
  return nil
}
