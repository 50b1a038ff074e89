// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore
import MartletFormats

/// BERT's tokenizer as a GGUF file has it ("bert"): the text is cleaned, its words cut at spaces and punctuation, and each word into pieces.
///
/// The file writes "▁" before pieces that begin a word, and nothing before those within one; here they are as the model's own list has them, with "##"
/// before the latter. Text is cut as the `tokenizers` package cuts it.
struct WordPieceTokenizer: Tokenizer {
  private let vocabulary: Vocabulary
  private let model: WordPieceModel
  private let special: SpecialTokens
  private let matcher: SpecialTokenMatcher
  private let normalizer: TextNormalizer
  private let words = WordSteps.bert
  let textFrame: TextFrame

  static let prefix = Array("##".utf8)
  /// What `tokenizers` takes where a file does not say.
  static let mostCharacters = 100

  init(_ file: GGUFFile) throws(TokenizerError) {
    vocabulary = try Vocabulary(file, inTable: .normal) { text, kind, arena in
      text.withUnsafeBufferPointer { bytes in
        switch kind {
        case .control, .unknown, .byte: arena.append(contentsOf: bytes)
        case .normal, .undefined, .userDefined, .unused:
          if bytes.starts(with: SentencePieceText.space) {
            arena.append(contentsOf: bytes.dropFirst(SentencePieceText.space.count))
          } else {
            arena += Self.prefix
            arena.append(contentsOf: bytes)
          }
        }
      }
    }
    special = try SpecialTokens(file, vocabulary, addsBOSByDefault: true)
    guard let unknown = special.unknown ?? vocabulary.kinds.firstIndex(of: .unknown).map({ Int32($0) }) else {
      throw .malformed(field: "tokenizer.ggml.unknown_token_id", problem: "is missing, and words that are not listed need it")
    }
    model = WordPieceModel(vocabulary: vocabulary, prefix: Self.prefix, unknown: unknown, mostCharacters: Self.mostCharacters)
    matcher = SpecialTokenMatcher(vocabulary, kinds: .structural, ends: special.ends)
    let lowercase: Bool?, stripsAccents: Bool?
    do {
      lowercase = try file.bool(ifPresent: "tokenizer.ggml.normalizer.lowercase")
      stripsAccents = try file.bool(ifPresent: "tokenizer.ggml.normalizer.strip_accents")
    } catch { throw .format(error) }
    normalizer = TextNormalizer(bertLowercase: lowercase ?? true, stripsAccents: stripsAccents)
    textFrame = try Self.frame(file, special, vocabulary)
  }

  /// Between the token for the beginning and the separator, which most files name twice: as themselves, and as BOS and EOS.
  private static func frame(_ file: GGUFFile, _ special: SpecialTokens, _ vocabulary: Vocabulary) throws(TokenizerError) -> TextFrame {
    func token(_ keys: [String]) throws(TokenizerError) -> Int32? {
      for key in keys {
        let key = "tokenizer.ggml.\(key)_token_id"
        let id: Int?
        do { id = try file.integer(ifPresent: key) } catch { throw .format(error) }
        guard let id, id != -1, id != Int(UInt32.max) else { continue }
        guard id >= 0, id < vocabulary.count else { throw .malformed(field: key, problem: "is \(id) of \(vocabulary.count) tokens") }
        return Int32(id)
      }
      return nil
    }
    let before = try token(["cls"]) ?? special.bos
    // Spelled so in files.
    let after = try token(["seperator", "separator"]) ?? special.eos
    let adds: (before: Bool?, after: Bool?)
    do {
      adds = (try file.bool(ifPresent: "tokenizer.ggml.add_bos_token"), try file.bool(ifPresent: "tokenizer.ggml.add_eos_token"))
    } catch { throw .format(error) }
    return TextFrame(
      before: adds.before ?? true ? before.map { [$0] } ?? [] : [], after: adds.after ?? true ? after.map { [$0] } ?? [] : [])
  }

  var vocabularySize: Int { vocabulary.count }
  var bosToken: Int32? { special.bos }
  var eosToken: Int32? { special.eos }
  var endTokens: Set<Int32> { special.ends }
  var addsBOS: Bool { special.addsBOS }
  var dropsLeadingSpace: Bool { true }

  func encode(_ text: String, parsesSpecialTokens: Bool) -> [Int32] {
    encode(MarkedBytes(text, parsesSpecialTokens: parsesSpecialTokens))
  }

  func encode(_ text: MarkedText) -> [Int32] { encode(MarkedBytes(text)) }

  private func encode(_ text: MarkedBytes) -> [Int32] {
    enforce(text.bytes.count < Int(Int32.max), "a text of \(text.bytes.count) bytes cannot be encoded at once")
    var tokens: [Int32] = []
    matcher.split(text) { run in
      let part = normalizer.normalized(Array(text.bytes[run]))
      words.forEachWord(in: part, 0..<part.count, isFirst: run.lowerBound == 0) { model.encode($0, $1, to: &tokens) }
    } token: {
      tokens.append($0)
    }
    return tokens
  }

  func isControl(_ token: Int32) -> Bool { vocabulary.isControl(token) }

  func appendBytes(of token: Int32, showsControlTokens: Bool, to bytes: inout [UInt8]) {
    guard vocabulary.contains(token), showsControlTokens || !isControl(token) else { return }
    WordPieceTokenizer.append(vocabulary.bytes(of: token), prefix: Self.prefix, isControl: isControl(token), to: &bytes)
  }

  /// A piece as text: within a word without the prefix, else with a space before it. Spaces that the text did not have, before punctuation, stay.
  static func append(_ piece: ArraySlice<UInt8>, prefix: [UInt8], isControl: Bool, to bytes: inout [UInt8]) {
    if isControl {
      bytes += piece
    } else if piece.starts(with: prefix) && piece.count > prefix.count {
      bytes += piece.dropFirst(prefix.count)
    } else {
      bytes.append(UInt8(ascii: " "))
      bytes += piece
    }
  }
}
