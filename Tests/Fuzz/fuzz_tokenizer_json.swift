// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// libFuzzer's target for `tokenizer.json`: the text parsed, the tokenizer made, texts through it and every token back.

import MartletTokenizers

/// One input, which libFuzzer puts in memory of exactly its size.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzTokenizerJSON(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  do throws(TokenizerError) {
    let tokenizer = try parseTokenizerJSON(UnsafeRawBufferPointer(start: data, count: count))
    for text in ["", "Hello, world", "<|im_start|>user\n 12 ü 漢字 🙂<s></s>", " \u{0}\r\n\t"] {
      for parsesSpecialTokens in [false, true] {
        _ = tokenizer.decode(tokenizer.encode(text, parsesSpecialTokens: parsesSpecialTokens))
      }
    }
    for token in 0..<Int32(min(tokenizer.vocabularySize, 4096)) { _ = tokenizer.bytes(of: token, showsControlTokens: true) }
    _ = (tokenizer.bosToken, tokenizer.eosToken, tokenizer.endTokens.count, tokenizer.addsBOS)
  } catch {
    _ = String(describing: error)
  }
  return 0
}
