// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
package import Martlet

/// Finds the tokens that an answer's text is made of among all that were generated: thoughts, calls, marks and the token at the end are none of it.
///
/// A text becomes certain later than its tokens: half a character waits for its other half, and what may become a mark until it is none. So its tokens
/// wait too. A token of which any byte stands in the text is one of the text's.
package struct ContentLogprobs: Sendable {
  private let byteCount: @Sendable (_ tokenID: Int) -> Int
  /// Tokens, and where their bytes stand in what was generated.
  private var waiting: [(token: TokenLogprob, range: Range<Int>)] = []
  private var textCount = 0
  private var end = 0

  /// - Parameter byteCount: of a token in the text.
  package init(byteCount: @escaping @Sendable (_ tokenID: Int) -> Int) { self.byteCount = byteCount }

  /// Takes a chunk, and gives the tokens of the text that it made certain.
  /// - Parameter ranges: where that stands in all of the text, as ``AnswerParser/contentRanges`` has it.
  package mutating func read(_ chunk: GenerationChunk, at ranges: [Range<Int>]) -> [TokenLogprob] {
    for token in chunk.logprobs {
      let next = end + byteCount(token.tokenID)
      waiting.append((token, end..<next))
      end = next
    }
    textCount += chunk.text.utf8.count
    // Bytes that are no character have become longer ones.
    end = max(end, textCount)
    var found: [TokenLogprob] = []
    for range in ranges {
      let count = waiting.prefix { $0.range.lowerBound < range.upperBound }.count
      found += waiting.prefix(count).filter { $0.range.upperBound > range.lowerBound }.map(\.token)
      waiting.removeFirst(count)
    }
    return found
  }
}
#endif
