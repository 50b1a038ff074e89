// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletFormats

/// How `tokenizer.json` cuts a normalised text into the words that its model sees: its `pre_tokenizer`, step by step.
struct WordSteps: Sendable {
  enum Prefix: Sendable { case never, always, first }

  enum Step: Sendable {
    case split(TextSplitter)
    /// "▁" for a space, one put before a word that begins without; then a new word at each "▁", or none.
    case metaspace(Prefix, splits: Bool)
    /// A space before a word that begins without.
    case spacePrefix
    /// BERT's words: cut at white space, which goes, and every punctuation mark a word of its own.
    case bert
  }

  /// BERT's pre-tokenizer alone.
  static let bert = WordSteps(steps: [.bert])

  private init(steps: [Step]) { self.steps = steps }

  private(set) var steps: [Step] = []
  /// The model sees bytes, each written as a character of GPT-2's table.
  private(set) var isByteLevel = false
  private(set) var hasMetaspace = false

  private static let supported = [
    "ByteLevel", "Split", "Digits", "Metaspace", "Punctuation", "WhitespaceSplit", "BertPreTokenizer", "Sequence",
  ]

  /// - Parameter field: `pre_tokenizer`; missing, the text is one word.
  init(_ field: JSONField) throws(TokenizerError) {
    for part in try field.sequence("pretokenizers") {
      let type = try part["type"].string()
      // What follows would see the bytes' characters.
      guard !isByteLevel else { throw part["type"].unsupported("\(type) after ByteLevel") }
      switch type {
      case "ByteLevel":
        isByteLevel = true
        if try part["add_prefix_space"].bool(or: true) { steps.append(.spacePrefix) }
        if try part["use_regex"].bool(or: true) {
          steps.append(try Self.split(part, #"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#))
        }
      case "Split":
        let behaviour = try Self.behaviour(part["behavior"])
        let isInverted = try part["invert"].bool(or: false)
        let pattern = try part["pattern"].pattern()
        steps.append(.split(TextSplitter(pattern: pattern, behaviour: behaviour, isInverted: isInverted)))
      case "Digits": steps.append(try Self.split(part, try part["individual_digits"].bool(or: false) ? #"\p{N}"# : #"\p{N}+"#))
      case "Punctuation":
        let behaviour = part["behavior"].value == nil ? .isolated : try Self.behaviour(part["behavior"])
        steps.append(try Self.split(part, #"[\p{P}!-/:-@\[-`{-~]"#, behaviour))
      case "BertPreTokenizer": steps.append(.bert)
      case "WhitespaceSplit": steps.append(try Self.split(part, #"\s"#, .removed))
      case "Metaspace":
        hasMetaspace = true
        steps.append(.metaspace(try Self.prefix(part), splits: try part["split"].bool(or: true)))
      default: throw part["type"].unsupported(type, supported: Self.supported)
      }
    }
  }

  private static func split(
    _ field: JSONField, _ expression: String, _ behaviour: TextSplitter.Behaviour = .isolated
  ) throws(TokenizerError) -> Step {
    do { return .split(TextSplitter(pattern: .words(try WordPattern(expression)), behaviour: behaviour)) } catch {
      throw field.unsupported(error.alternative)
    }
  }

  private static func behaviour(_ field: JSONField) throws(TokenizerError) -> TextSplitter.Behaviour {
    let name = try field.string()
    switch name {
    case "Isolated": return .isolated
    case "Removed": return .removed
    case "MergedWithPrevious": return .mergedWithPrevious
    case "MergedWithNext": return .mergedWithNext
    case "Contiguous": return .contiguous
    default:
      throw field.unsupported(name, supported: ["Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"])
    }
  }

  /// Whether a `Metaspace` puts "▁" before a text; its replacement must be that character.
  static func prefix(_ field: JSONField) throws(TokenizerError) -> Prefix {
    let replacement = try field["replacement"].string()
    guard replacement.utf8.elementsEqual(SentencePieceText.space) else {
      throw field["replacement"].unsupported(replacement, supported: ["▁"])
    }
    guard let scheme = try field["prepend_scheme"].stringIfPresent() else {
      return try field["add_prefix_space"].bool(or: true) ? .always : .never
    }
    switch scheme {
    case "always": return .always
    case "first": return .first
    case "never": return .never
    default: throw field["prepend_scheme"].unsupported(scheme, supported: ["always", "first", "never"])
    }
  }

  /// Calls `body` with every word: a range of a text, which need not be `text`.
  /// - Parameter isFirst: The text that `text[range]` was made of is the beginning of all.
  func forEachWord(in text: [UInt8], _ range: Range<Int>, isFirst: Bool, _ body: ([UInt8], Range<Int>) -> Void) {
    forEachWord(in: text, range, isFirst: isFirst, steps[...], body)
  }

  private func forEachWord(
    in text: [UInt8], _ range: Range<Int>, isFirst: Bool, _ rest: ArraySlice<Step>, _ body: ([UInt8], Range<Int>) -> Void
  ) {
    guard !range.isEmpty else { return }
    guard let step = rest.first else { return body(text, range) }
    let rest = rest.dropFirst()
    func next(_ piece: Range<Int>) {
      forEachWord(in: text, piece, isFirst: isFirst && piece.lowerBound == range.lowerBound, rest, body)
    }
    switch step {
    case .split(let splitter): splitter.forEachPiece(in: text, range, next)
    case .bert: Self.forEachBertWord(in: text, range, next)
    case .spacePrefix:
      guard text[range.lowerBound] != UInt8(ascii: " ") else { return next(range) }
      let prefixed = [UInt8(ascii: " ")] + text[range]
      forEachWord(in: prefixed, 0..<prefixed.count, isFirst: isFirst, rest, body)
    case .metaspace(let prefix, let splits):
      let spaced = Self.metaspaced(text[range], isPrefixed: prefix == .always || prefix == .first && isFirst)
      guard splits else { return forEachWord(in: spaced, 0..<spaced.count, isFirst: isFirst, rest, body) }
      TextSplitter(pattern: .text(SentencePieceText.space), behaviour: .mergedWithNext).forEachPiece(in: spaced, 0..<spaced.count) {
        piece in
        forEachWord(in: spaced, piece, isFirst: isFirst && piece.lowerBound == 0, rest, body)
      }
    }
  }

  private static func forEachBertWord(in text: [UInt8], _ range: Range<Int>, _ body: (Range<Int>) -> Void) {
    var (start, position) = (range.lowerBound, range.lowerBound)
    func end() { if start < position { body(start..<position) } }
    while position < range.upperBound {
      let character = ScannedCharacter(text, at: position)
      if character.properties.contains(.space) {
        end()
        start = character.end
      } else if BertCharacters.isPunctuation(Unicode.Scalar(character.scalar)!) {
        end()
        body(position..<character.end)
        start = character.end
      }
      position = character.end
    }
    end()
  }

  private static func metaspaced(_ text: ArraySlice<UInt8>, isPrefixed: Bool) -> [UInt8] {
    var result: [UInt8] = []
    result.reserveCapacity(text.count + text.count / 2 + 3)
    if isPrefixed, text.first != UInt8(ascii: " "), !text.starts(with: SentencePieceText.space) { result += SentencePieceText.space }
    for byte in text {
      if byte == UInt8(ascii: " ") { result += SentencePieceText.space } else { result.append(byte) }
    }
    return result
  }
}
