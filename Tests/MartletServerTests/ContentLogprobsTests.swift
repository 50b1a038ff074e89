// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import Martlet
import MartletAnswers
import MartletServer
import Testing

/// Which tokens an answer's text is made of. A token here is as many bytes as its id says.
@Suite struct ContentLogprobsTests {
  /// The tokens of the text, by their numbers, of an answer that comes in these chunks: texts, and the byte counts of their tokens.
  private static func tokens(_ chunks: [(String, [Int])], reasoning: Bool = true) -> (content: String, tokens: [Int]) {
    let format = AnswerFormat(reasoning: reasoning ? .between(open: "<think>", close: "</think>") : .none, toolCalls: .none)
    var parser = AnswerParser(format: format)
    var logprobs = ContentLogprobs { $0 % 100 }
    var (content, found, count) = ("", [Int](), 0)
    for (index, (text, sizes)) in chunks.enumerated() {
      let isLast = index == chunks.count - 1
      var ranges: [Range<Int>] = []
      var parts = parser.append(text)
      ranges += parser.contentRanges
      if isLast {
        parts += parser.finish()
        ranges += parser.contentRanges
      }
      for case .content(let piece) in parts { content += piece }
      let tokens = sizes.map { size in
        count += 1
        return TokenLogprob(tokenID: size + 100 * count, logprob: -1, top: [])
      }
      let chunk = GenerationChunk(text: text, tokenIDs: tokens.map(\.tokenID), logprobs: tokens)
      found += logprobs.read(chunk, at: ranges).map { $0.tokenID / 100 }
    }
    return (content, found)
  }

  @Test func `thoughts and marks are none of the text, whatever comes at once`() {
    let (content, tokens) = Self.tokens([("<think>hm</think>Yes, so.", [7, 2, 8, 3, 1, 4, 0])])
    #expect(content == "Yes, so.")
    #expect(tokens == [4, 5, 6])
  }

  @Test func `what is held back takes its tokens along`() {
    // "<th" may become a mark, and is none.
    let (content, tokens) = Self.tokens([("<th", [3]), ("at> is", [2, 4]), (" it", [3])])
    #expect(content == "<that> is it")
    #expect(tokens == [1, 2, 3, 4])
  }

  @Test func `half a character waits for its other half`() {
    let (content, tokens) = Self.tokens([("a", [1, 1]), ("é", [1]), ("b", [1])])
    #expect(content == "aéb")
    #expect(tokens == [1, 2, 3, 4])
  }

  @Test func `bytes that are no character do not move what comes behind them`() {
    // A token of one byte is a text of three.
    let (content, tokens) = Self.tokens([("<think>\u{FFFD}", [7, 1]), ("</think>", [8]), ("Yes", [3])])
    #expect(content == "Yes")
    #expect(tokens == [4])
  }

  @Test func `the token at the end, and what a stop string took, are none of the text`() {
    let (content, tokens) = Self.tokens([("Yes", [3]), ("", [4, 0])], reasoning: false)
    #expect(content == "Yes")
    #expect(tokens == [1])
  }
}
#endif
