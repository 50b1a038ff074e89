// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// libFuzzer's target for `tokenizer.json`: the text parsed, the tokenizer made, texts through it, with contents and without, and
// every token back.

import MartletTokenizers

/// One input, which libFuzzer puts in memory of exactly its size.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzTokenizerJSON(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  do throws(TokenizerError) {
    let tokenizer = try parseTokenizerJSON(UnsafeRawBufferPointer(start: data, count: count))
    for text in ["", "Hello, world", "<|im_start|>user\n 12 ü 漢字 🙂<s></s>½ﬁ<|end|>", " \u{0}\r\n\t"] {
      let (asText, parsed) = (tokenizer.encode(text, parsesSpecialTokens: false), tokenizer.encode(text, parsesSpecialTokens: true))
      _ = (tokenizer.decode(asText), tokenizer.decode(parsed))
      let length = text.utf8.count
      precondition(tokenizer.encode(MarkedText(text)) == parsed, "a text without contents is one that the program wrote")
      // Names that end a turn are text in contents even where the file calls their tokens text.
      if tokenizer.endTokens.isDisjoint(with: asText) {
        let whole = length == 0 ? [] : [0..<length]
        precondition(
          tokenizer.encode(MarkedText(text, contents: whole)) == asText, "a text of nothing but contents is one that somebody else wrote")
      }
      // Contents may begin and end anywhere, inside of a character too.
      for start in 0..<min(length, 4) {
        let contents = stride(from: start, to: length, by: 5).map { $0..<min($0 + start + 1, length) }
        _ = tokenizer.decode(tokenizer.encode(MarkedText(text, contents: contents)))
      }
    }
    for token in 0..<Int32(min(tokenizer.vocabularySize, 4096)) { _ = tokenizer.bytes(of: token, showsControlTokens: true) }
    _ = (tokenizer.bosToken, tokenizer.eosToken, tokenizer.endTokens.count, tokenizer.addsBOS)
  } catch {
    _ = String(describing: error)
  }
  return 0
}
