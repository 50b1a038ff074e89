// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore
import MartletFormats

/// A tokenizer as `tokenizer.json` describes it: added tokens are cut out, the rest is normalised, cut into words, and encoded by a model.
///
/// The truth is the `tokenizers` package: same file, same ids. What it has and this build has not is an error when the file is read.
/// A class, for the closures that the text goes through keep it: as a value they would copy its tables' references for every word.
final class HuggingFaceTokenizer: Tokenizer {
  enum Model: Sendable {
    case bytePairs(BytePairModel)
    case unigram(UnigramModel)
    case wordPieces(WordPieceModel)
  }

  private let vocabulary: Vocabulary
  private let model: Model
  private let special: SpecialTokens
  private let normalizer: TextNormalizer
  private let words: WordSteps
  /// Looked for in the text as it is, and in the normalised one.
  private let written, normalized: AddedTokenMatcher
  private let decoder: TokenDecoding

  init(_ file: JSONValue, _ companions: Companions) throws(TokenizerError) {
    let root = JSONField("tokenizer.json:", file)
    guard file.kind == .object else { throw .malformed(field: "tokenizer.json", problem: "is \(JSONField.shown(file)), not an object") }
    let normalizer = try TextNormalizer(root["normalizer"])
    let words = try WordSteps(root["pre_tokenizer"])
    let tokens = try TokenList(root, isByteLevel: words.isByteLevel, companions)
    vocabulary = tokens.vocabulary
    model = try tokens.model(root["model"])
    decoder = try TokenDecoding(root["decoder"], isByteLevel: words.isByteLevel)
    special = try companions.specialTokens(root["post_processor"], tokens)
    written = AddedTokenMatcher(tokens.added.filter { !$0.isNormalized }, ends: special.ends) { $0.content }
    normalized = AddedTokenMatcher(tokens.added.filter { $0.isNormalized }, ends: special.ends) { normalizer.normalized($0.content) }
    self.normalizer = normalizer
    self.words = words
  }

  var vocabularySize: Int { vocabulary.count }
  var bosToken: Int32? { special.bos }
  var eosToken: Int32? { special.eos }
  var endTokens: Set<Int32> { special.ends }
  var addsBOS: Bool { special.addsBOS }
  var textFrame: TextFrame { special.frame }
  var dropsLeadingSpace: Bool { decoder.dropsLeadingSpace }

  func encode(_ text: String, parsesSpecialTokens: Bool) -> [Int32] {
    encode(MarkedBytes(text, parsesSpecialTokens: parsesSpecialTokens))
  }

  func encode(_ text: MarkedText) -> [Int32] { encode(MarkedBytes(text)) }

  private func encode(_ text: MarkedBytes) -> [Int32] {
    enforce(text.bytes.count < Int(Int32.max), "a text of \(text.bytes.count) bytes cannot be encoded at once")
    var tokens: [Int32] = []
    var merger = PairMerger()
    var cursor = ContentCursor(text)
    written.split(text) { run in
      var part = normalized.asksForContents ? text.part(run, &cursor) : MarkedBytes(Array(text.bytes[run]))
      part.isBeginning = run.lowerBound == 0
      part = normalizer.normalized(part)
      normalized.split(part) { piece in
        words.forEachWord(in: part.bytes, piece, isFirst: part.isBeginning && piece.lowerBound == 0) { word, range in
          enforce(range.upperBound < Int(Int32.max), "a normalised text of \(range.upperBound) bytes cannot be encoded at once")
          switch model {
          case .bytePairs(let model): model.encode(word, range, &merger, to: &tokens)
          case .unigram(let model): model.encode(word, range, to: &tokens)
          case .wordPieces(let model): model.encode(word, range, to: &tokens)
          }
        }
      } token: {
        tokens.append($0)
      }
    } token: {
      tokens.append($0)
    }
    return tokens
  }

  func isControl(_ token: Int32) -> Bool { vocabulary.isControl(token) }

  func appendBytes(of token: Int32, showsControlTokens: Bool, to bytes: inout [UInt8]) {
    guard vocabulary.contains(token) else { return }
    switch vocabulary.kinds[Int(token)] {
    case .normal where decoder.writesSpaces, .byte:
      SentencePieceText.appendBytes(of: token, in: vocabulary, showsControlTokens: showsControlTokens, to: &bytes)
    case .normal:
      guard let prefix = decoder.wordPiecePrefix else { fallthrough }
      WordPieceTokenizer.append(vocabulary.bytes(of: token), prefix: prefix, isControl: false, to: &bytes)
    default:
      if showsControlTokens || !isControl(token) { bytes += vocabulary.bytes(of: token) }
    }
  }
}

/// What `decoder` says about the text of tokens.
struct TokenDecoding: Sendable {
  /// "▁" is a space.
  private(set) var writesSpaces = false
  private(set) var dropsLeadingSpace = false
  /// What stands before pieces within a word; others have a space before them. nil where pieces have their spaces themselves.
  private(set) var wordPiecePrefix: [UInt8]?

  private static let supported = ["ByteLevel", "Metaspace", "Replace", "ByteFallback", "Fuse", "Strip", "WordPiece", "Sequence"]

  init(_ field: JSONField, isByteLevel: Bool) throws(TokenizerError) {
    for part in try field.sequence("decoders") {
      let type = try part["type"].string()
      switch type {
      case "ByteLevel":
        guard isByteLevel else { throw part["type"].unsupported("ByteLevel without a pre-tokenizer of that name") }
      case "Fuse", "ByteFallback": break
      case "WordPiece":
        wordPiecePrefix = try part["prefix"].bytes()
        dropsLeadingSpace = true
      case "Metaspace":
        writesSpaces = true
        if try WordSteps.prefix(part) != .never { dropsLeadingSpace = true }
      case "Replace":
        let (pattern, content) = (try part["pattern"].literal(), try part["content"].bytes())
        guard pattern == SentencePieceText.space, content == [UInt8(ascii: " ")] else {
          throw part["pattern"].unsupported("a replacement", supported: ["\"▁\" by a space"])
        }
        writesSpaces = true
      case "Strip":
        let (start, stop) = (try part["start"].integer(), try part["stop"].integer())
        guard try part["content"].string() == " ", start == 0 || start == 1, stop == 0 else {
          throw part["type"].unsupported("Strip", supported: ["one space at the start"])
        }
        if start == 1 { dropsLeadingSpace = true }
      default: throw part["type"].unsupported(type, supported: Self.supported)
      }
    }
  }
}
