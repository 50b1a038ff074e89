// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore
import MartletFormats

/// SentencePiece's unigram tokenizer ("t5" in GGUF): the text is normalised, its spaces written as "▁" (U+2581), and the ``UnigramModel`` chooses.
///
/// User-defined tokens are left as they are written and always chosen; control tokens are cut out if asked for. A file with tokens for all
/// 256 bytes falls back to them.
struct SentencePieceUnigram: Tokenizer {
  private let vocabulary: Vocabulary
  private let model: UnigramModel
  private let special: SpecialTokens
  private let structural: SpecialTokenMatcher
  private let normalizer: SentencePieceNormalizer

  init(_ file: GGUFFile) throws(TokenizerError) {
    var vocabulary = try Vocabulary(file, inTable: .normal) { text, _, arena in
      text.withUnsafeBufferPointer { arena.append(contentsOf: $0) }
    }
    let special = try SpecialTokens(file, vocabulary, addsBOSByDefault: false)
    // The model always finds user-defined tokens; what ends an answer must not be found in contents.
    vocabulary.makeControl(special.ends.filter { vocabulary.kinds[Int($0)] == .userDefined })
    let scores = try Self.scores(file, count: vocabulary.count)
    let byteTokens = try SentencePieceText.byteTokens(vocabulary, unknown: -1, field: "tokenizer.ggml.tokens")
    let hasBytes = !byteTokens.contains(-1)
    let unknown = special.unknown ?? vocabulary.kinds.firstIndex(of: .unknown).map { Int32($0) }
    guard unknown != nil || hasBytes else {
      throw .malformed(field: "tokenizer.ggml.unknown_token_id", problem: "is missing, and so are tokens for bytes")
    }
    let normal = vocabulary.kinds.indices.filter { vocabulary.kinds[$0] == .normal }
    let (worst, best) = (normal.map { scores[$0] }.min() ?? 0, scores.max() ?? 0)
    var pieces: [(text: [UInt8], token: Int32)] = []
    var userDefined: [(text: [UInt8], value: Int32)] = []
    var effective = scores
    for id in vocabulary.kinds.indices {
      let text = Array(vocabulary.bytes(of: Int32(id)))
      switch vocabulary.kinds[id] {
      case .normal: pieces.append((text, Int32(id)))
      case .userDefined:
        // As SentencePiece scores them, so that they are always chosen: the best of all scores for every byte, less 0.1.
        effective[id] = Double(Float(text.count) * Float(best)) - 0.1
        pieces.append((text, Int32(id)))
        userDefined.append((SentencePieceText.writingSpaces(text[...]), Int32(id)))
      case .undefined, .unknown, .control, .unused, .byte: break
      }
    }
    self.vocabulary = vocabulary
    self.special = special
    model = UnigramModel(
      pieces, scores: effective, worstScore: worst, unknown: unknown ?? -1, byteTokens: hasBytes ? byteTokens : [],
      sums: .float32)
    structural = SpecialTokenMatcher(vocabulary, kinds: .structural, ends: special.ends)
    // Where the file is silent, SentencePiece's own defaults hold.
    let (addsDummyPrefix, removesExtraSpaces): (Bool?, Bool?)
    do {
      addsDummyPrefix = try file.bool(ifPresent: "tokenizer.ggml.add_space_prefix")
      removesExtraSpaces = try file.bool(ifPresent: "tokenizer.ggml.remove_extra_whitespaces")
    } catch { throw .format(error) }
    normalizer = SentencePieceNormalizer(
      map: try Self.characterMap(file), untouched: PrefixIndex(userDefined), addsDummyPrefix: addsDummyPrefix ?? true,
      removesExtraSpaces: removesExtraSpaces ?? true)
  }

  private static func scores(_ file: GGUFFile, count: Int) throws(TokenizerError) -> [Double] {
    let key = "tokenizer.ggml.scores"
    let scores: GGUFArray
    do { scores = try file.array(key) } catch { throw .format(error) }
    guard scores.count == count else { throw .malformed(field: key, problem: "has \(scores.count) entries for \(count) tokens") }
    guard let values = scores.floats() else { throw .malformed(field: key, problem: "does not hold floating-point numbers") }
    if let bad = values.firstIndex(where: { !$0.isFinite }) { throw .malformed(field: "\(key)[\(bad)]", problem: "is not a finite number") }
    return values.map { Double($0) }
  }

  private static func characterMap(_ file: GGUFFile) throws(TokenizerError) -> CharacterMap? {
    let key = "tokenizer.ggml.precompiled_charsmap"
    let array: GGUFArray?
    do { array = try file.array(ifPresent: key) } catch { throw .format(error) }
    guard let array else { return nil }
    guard array.elementType == .uint8 || array.elementType == .int8, let values = array.integers() else {
      throw .malformed(field: key, problem: "holds \(array.elementType), not bytes")
    }
    return try CharacterMap(values.map { UInt8(truncatingIfNeeded: $0) }, field: key)
  }

  var vocabularySize: Int { vocabulary.count }
  var bosToken: Int32? { special.bos }
  var eosToken: Int32? { special.eos }
  var endTokens: Set<Int32> { special.ends }
  var addsBOS: Bool { special.addsBOS }
  var textFrame: TextFrame { special.frame }
  var dropsLeadingSpace: Bool { normalizer.addsDummyPrefix }

  func encode(_ text: String, parsesSpecialTokens: Bool) -> [Int32] {
    encode(MarkedBytes(text, parsesSpecialTokens: parsesSpecialTokens))
  }

  func encode(_ text: MarkedText) -> [Int32] { encode(MarkedBytes(text)) }

  private func encode(_ text: MarkedBytes) -> [Int32] {
    let bytes = text.bytes
    // A space becomes three bytes, and places are counted in 32 bits.
    enforce(bytes.count < Int(Int32.max) / 3, "a text of \(bytes.count) bytes cannot be encoded at once")
    var tokens: [Int32] = []
    structural.split(text) { run in
      let normalized = normalizer.normalized(bytes, run)
      model.encode(normalized, 0..<normalized.count, to: &tokens)
    } token: {
      tokens.append($0)
    }
    return tokens
  }

  func isControl(_ token: Int32) -> Bool { vocabulary.isControl(token) }

  func appendBytes(of token: Int32, showsControlTokens: Bool, to bytes: inout [UInt8]) {
    SentencePieceText.appendBytes(of: token, in: vocabulary, showsControlTokens: showsControlTokens, to: &bytes)
  }
}

/// SentencePiece's normaliser: characters mapped, runs of spaces made one, "▁" for every space, and one before the text.
struct SentencePieceNormalizer: Sendable {
  let map: CharacterMap?
  /// What is not mapped: user-defined tokens.
  let untouched: PrefixIndex
  let addsDummyPrefix: Bool
  /// Whether spaces at both ends go, and of several one is left.
  let removesExtraSpaces: Bool

  func normalized(_ text: [UInt8], _ range: Range<Int>) -> [UInt8] {
    var result: [UInt8] = []
    result.reserveCapacity(range.count + range.count / 2)
    var position = range.lowerBound
    // The text's first space that is not its own: put when the first other character comes, so that spaces alone are nothing.
    var isAtStart = true
    var followsSpace = removesExtraSpaces
    while position < range.upperBound {
      let (bytes, end) = prefix(text, at: position, end: range.upperBound)
      position = end
      let kept = followsSpace ? bytes.drop { $0 == UInt8(ascii: " ") } : bytes
      guard let last = kept.last else { continue }
      if isAtStart && addsDummyPrefix { result += SentencePieceText.space }
      isAtStart = false
      for byte in kept {
        if byte == UInt8(ascii: " ") { result += SentencePieceText.space } else { result.append(byte) }
      }
      followsSpace = last == UInt8(ascii: " ") && removesExtraSpaces
    }
    if removesExtraSpaces {
      while result.count >= 3, result.suffix(3).elementsEqual(SentencePieceText.space) { result.removeLast(3) }
    }
    return result
  }

  /// What stands for the text at `position`, and where that ends.
  private func prefix(_ text: [UInt8], at position: Int, end: Int) -> (bytes: ArraySlice<UInt8>, end: Int) {
    if let (_, stop) = untouched.longestMatch(text, at: position, end: end) { return (text[position..<stop], stop) }
    if let map, let mapped = map.replacement(text, at: position, end: end) { return mapped }
    let stop = position + scalarByteCount(lead: text[position])
    return (text[position..<stop], stop)
  }
}
