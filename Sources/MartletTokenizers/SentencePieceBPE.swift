// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore
import MartletFormats

/// SentencePiece's byte-pair encoding, as Llama 2 and Gemma have it ("llama" in GGUF).
///
/// The text, its spaces written as "▁" (U+2581), is one run of characters. Neighbours merge while their bytes together are a normal token,
/// highest score first. A character that is no token falls back to its bytes' tokens `<0x00>`…`<0xFF>`, or to the unknown token. User-defined
/// tokens (Gemma: runs of newlines, spaces, HTML tags) are cut out first. A "▁" in the text is a space, here as in the original.
struct SentencePieceBPE: Tokenizer {
  private let vocabulary: Vocabulary
  /// The order of merges: lower first.
  private let priorities: [UInt32]
  /// Tokens of the 256 bytes; the unknown token where there is none, -1 without one.
  private let byteTokens: [Int32]
  private let special: SpecialTokens
  private let matcher: SpecialTokenMatcher
  private let addsSpacePrefix: Bool

  init(_ file: GGUFFile) throws(TokenizerError) {
    vocabulary = try Vocabulary(file, inTable: .normal) { text, _, arena in
      text.withUnsafeBufferPointer { arena.append(contentsOf: $0) }
    }
    priorities = try Self.priorities(file, count: vocabulary.count)
    special = try SpecialTokens(file, vocabulary, addsBOSByDefault: true)
    byteTokens = try SentencePieceText.byteTokens(vocabulary, unknown: special.unknown ?? -1, field: "tokenizer.ggml.tokens")
    matcher = SpecialTokenMatcher(vocabulary, ends: special.ends, text: SentencePieceText.writingSpaces)
    do { addsSpacePrefix = try file.bool(ifPresent: "tokenizer.ggml.add_space_prefix") ?? true } catch { throw .format(error) }
  }

  /// Scores as integers in reverse order: the bits of a positive float order like integers, those of a negative one backwards.
  private static func priorities(_ file: GGUFFile, count: Int) throws(TokenizerError) -> [UInt32] {
    let key = "tokenizer.ggml.scores"
    let scores: GGUFArray
    do { scores = try file.array(key) } catch { throw .format(error) }
    guard scores.count == count else { throw .malformed(field: key, problem: "has \(scores.count) entries for \(count) tokens") }
    guard let values = scores.floats() else { throw .malformed(field: key, problem: "does not hold floating-point numbers") }
    if let bad = values.firstIndex(where: \.isNaN) { throw .malformed(field: "\(key)[\(bad)]", problem: "is not a number") }
    return values.map { score in
      let bits = (score + 0).bitPattern  // + 0: −0 orders like 0
      return bits >> 31 == 0 ? ~(bits | 0x8000_0000) : bits
    }
  }

  var vocabularySize: Int { vocabulary.count }
  var bosToken: Int32? { special.bos }
  var eosToken: Int32? { special.eos }
  var endTokens: Set<Int32> { special.ends }
  var addsBOS: Bool { special.addsBOS }
  var textFrame: TextFrame { special.frame }
  var dropsLeadingSpace: Bool { addsSpacePrefix }

  func encode(_ text: String, parsesSpecialTokens: Bool) -> [Int32] {
    encode(MarkedBytes(text, parsesSpecialTokens: parsesSpecialTokens))
  }

  func encode(_ text: MarkedText) -> [Int32] { encode(MarkedBytes(text)) }

  private func encode(_ text: MarkedBytes) -> [Int32] {
    let text = SentencePieceText.writingSpaces(text)
    let bytes = text.bytes
    // A space becomes three bytes; symbols count bytes in 32 bits.
    enforce(bytes.count < Int(Int32.max) / 3, "a text of \(bytes.count) bytes cannot be encoded at once")
    var tokens: [Int32] = []
    var merger = PairMerger()
    var followsToken = true
    matcher.split(text) { run in
      encode(bytes[run], prefixed: addsSpacePrefix && followsToken, &merger, to: &tokens)
      followsToken = false
    } token: { token in
      tokens.append(token)
      followsToken = true
    }
    return tokens
  }

  /// Encodes text without special tokens.
  private func encode(_ run: ArraySlice<UInt8>, prefixed: Bool, _ merger: inout PairMerger, to tokens: inout [Int32]) {
    var text: [UInt8] = []
    text.reserveCapacity(run.count + run.count / 2)
    if prefixed { text += SentencePieceText.space }
    for byte in run {
      if byte == UInt8(ascii: " ") { text += SentencePieceText.space } else { text.append(byte) }
    }
    let span = text.span
    merger.reset()
    var start = 0
    while start < text.count {
      let end = start + scalarByteCount(lead: text[start])
      merger.append(Symbol(start: start, end: end, token: vocabulary.token(span.extracting(start..<end)) ?? -1))
      start = end
    }
    merger.run { left, right in
      guard right.end - left.start <= vocabulary.longestLookup else { return nil }
      let joined = span.extracting(Int(left.start)..<Int(right.end))
      return vocabulary.token(joined).map { (priorities[Int($0)], $0) }
    } output: { symbol in
      if symbol.token >= 0 {
        tokens.append(symbol.token)
      } else {
        for byte in text[symbol.range] where byteTokens[Int(byte)] >= 0 { tokens.append(byteTokens[Int(byte)]) }
      }
    }
  }

  func isControl(_ token: Int32) -> Bool { vocabulary.isControl(token) }

  func appendBytes(of token: Int32, showsControlTokens: Bool, to bytes: inout [UInt8]) {
    SentencePieceText.appendBytes(of: token, in: vocabulary, showsControlTokens: showsControlTokens, to: &bytes)
  }
}

/// Bytes of the UTF-8 scalar that begins with `lead`, in valid UTF-8.
func scalarByteCount(lead: UInt8) -> Int {
  lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4
}
