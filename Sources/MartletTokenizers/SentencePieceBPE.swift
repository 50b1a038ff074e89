// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

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
  /// Found in every text, and in texts whose special tokens count.
  private let userDefined, allSpecial: SpecialTokenMatcher
  private let addsSpacePrefix: Bool

  private static let space = [UInt8]("\u{2581}".utf8)

  init(_ file: GGUFFile) throws(TokenizerError) {
    vocabulary = try Vocabulary(file, inTable: .normal) { text, _, arena in
      text.withUnsafeBufferPointer { arena.append(contentsOf: $0) }
    }
    priorities = try Self.priorities(file, count: vocabulary.count)
    special = try SpecialTokens(file, vocabulary, addsBOSByDefault: true)
    byteTokens = try Self.byteTokens(vocabulary, unknown: special.unknown ?? -1)
    userDefined = SpecialTokenMatcher(vocabulary, kinds: .userDefined, text: Self.writingSpaces)
    allSpecial = SpecialTokenMatcher(vocabulary, kinds: [.userDefined, .structural], text: Self.writingSpaces)
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

  private static func byteTokens(_ vocabulary: Vocabulary, unknown: Int32) throws(TokenizerError) -> [Int32] {
    var tokens = [Int32](repeating: unknown, count: 256)
    for id in 0..<Int32(vocabulary.count) where vocabulary.kinds[Int(id)] == .byte {
      tokens[Int(try byteValue(vocabulary.bytes(of: id), id))] = id
    }
    return tokens
  }

  /// The byte that `<0xAB>` names.
  private static func byteValue(_ name: ArraySlice<UInt8>, _ id: Int32) throws(TokenizerError) -> UInt8 {
    let text = String(decoding: name, as: UTF8.self)
    guard text.utf8.count == 6, text.hasPrefix("<0x"), text.hasSuffix(">"),
      let value = UInt8(text.dropFirst(3).dropLast(), radix: 16)
    else {
      throw .malformed(field: "tokenizer.ggml.tokens[\(id)]", problem: "is a byte token named \"\(text)\", not \"<0xAB>\"")
    }
    return value
  }

  var vocabularySize: Int { vocabulary.count }
  var bosToken: Int32? { special.bos }
  var eosToken: Int32? { special.eos }
  var endTokens: Set<Int32> { special.ends }
  var addsBOS: Bool { special.addsBOS }
  var dropsLeadingSpace: Bool { addsSpacePrefix }

  func encode(_ text: String, parsesSpecialTokens: Bool) -> [Int32] {
    let bytes = Self.writingSpaces(Array(text.utf8)[...])
    // A space becomes three bytes; symbols count bytes in 32 bits.
    precondition(bytes.count < Int(Int32.max) / 3, "a text of \(bytes.count) bytes cannot be encoded at once")
    var tokens: [Int32] = []
    var merger = PairMerger()
    var followsToken = true
    (parsesSpecialTokens ? allSpecial : userDefined).split(bytes) { run in
      encode(bytes[run], prefixed: addsSpacePrefix && followsToken, &merger, to: &tokens)
      followsToken = false
    } token: { token in
      tokens.append(token)
      followsToken = true
    }
    return tokens
  }

  /// The text with every "▁" as a space.
  private static func writingSpaces(_ text: ArraySlice<UInt8>) -> [UInt8] {
    var result: [UInt8] = []
    result.reserveCapacity(text.count)
    var index = text.startIndex
    while index < text.endIndex {
      if text[index] == space[0], text[index...].starts(with: space) {
        result.append(UInt8(ascii: " "))
        index += space.count
      } else {
        result.append(text[index])
        index += 1
      }
    }
    return result
  }

  /// Encodes text without special tokens.
  private func encode(_ run: ArraySlice<UInt8>, prefixed: Bool, _ merger: inout PairMerger, to tokens: inout [Int32]) {
    var text: [UInt8] = []
    text.reserveCapacity(run.count + run.count / 2)
    if prefixed { text += Self.space }
    for byte in run {
      if byte == UInt8(ascii: " ") { text += Self.space } else { text.append(byte) }
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

  func isControl(_ token: Int32) -> Bool {
    switch vocabulary.kinds[Int(token)] {
    case .control, .unknown, .unused: true
    case .undefined, .normal, .userDefined, .byte: false
    }
  }

  func appendBytes(of token: Int32, showsControlTokens: Bool, to bytes: inout [UInt8]) {
    let text = vocabulary.bytes(of: token)
    switch vocabulary.kinds[Int(token)] {
    case .control, .unknown, .unused:
      if showsControlTokens { bytes += text }
    case .byte:
      // The name was checked when the file was read: the two digits are at 3 and 4.
      func digit(_ index: Int) -> UInt8 {
        let character = text[text.startIndex + index]
        return character > UInt8(ascii: "9") ? (character | 0x20) - UInt8(ascii: "a") + 10 : character - UInt8(ascii: "0")
      }
      bytes.append(digit(3) << 4 | digit(4))
    case .undefined, .normal, .userDefined:
      bytes += Self.writingSpaces(text)
    }
  }
}

/// Bytes of the UTF-8 scalar that begins with `lead`, in valid UTF-8.
func scalarByteCount(lead: UInt8) -> Int {
  lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4
}
