// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletFormats

/// The `BPE` model of `tokenizer.json`: a word's characters merge by the file's list, the earliest in the list first.
///
/// Byte-level, the characters are the bytes. Otherwise they are Unicode's, and one that is no token becomes its bytes' tokens, if the file
/// has them and wants that, or the unknown token, or nothing. A class, as a word must not copy the tables.
final class BytePairModel: Sendable {
  let vocabulary: Vocabulary
  let merges: MergeTable
  let isByteLevel: Bool
  /// A word that is a token is that token, whatever the merges say.
  let prefersWholeWords: Bool
  /// Tokens of the 256 bytes, -1 where there is none; for characters only with byte fallback.
  let byteTokens: [Int32]
  let unknown: Int32?
  /// Neighbouring unknown characters are one token.
  let fusesUnknown: Bool

  init(
    vocabulary: Vocabulary, merges: MergeTable, isByteLevel: Bool, prefersWholeWords: Bool, byteTokens: [Int32], unknown: Int32?,
    fusesUnknown: Bool
  ) {
    self.vocabulary = vocabulary
    self.merges = merges
    self.isByteLevel = isByteLevel
    self.prefersWholeWords = prefersWholeWords
    self.byteTokens = byteTokens
    self.unknown = unknown
    self.fusesUnknown = fusesUnknown
  }

  /// Appends the tokens of `text[range]`.
  func encode(_ text: [UInt8], _ range: Range<Int>, _ merger: inout PairMerger, to tokens: inout [Int32]) {
    let word = text.span
    if prefersWholeWords, let token = vocabulary.token(word.extracting(range)) {
      tokens.append(token)
      return
    }
    merger.reset()
    var position = range.lowerBound
    var unknownStart: Int?
    func flush(_ end: Int, _ merger: inout PairMerger) {
      guard let start = unknownStart, let unknown else { return }
      merger.append(Symbol(start: start, end: end, token: unknown))
      unknownStart = nil
    }
    while position < range.upperBound {
      let end = isByteLevel ? position + 1 : position + scalarByteCount(lead: text[position])
      let token = isByteLevel ? byteTokens[Int(text[position])] : vocabulary.token(word.extracting(position..<end)) ?? -1
      if token >= 0 {
        flush(position, &merger)
        merger.append(Symbol(start: position, end: end, token: token))
      } else if !isByteLevel, text[position..<end].allSatisfy({ byteTokens[Int($0)] >= 0 }) {
        flush(position, &merger)
        for index in position..<end { merger.append(Symbol(start: index, end: index + 1, token: byteTokens[Int(text[index])])) }
      } else {
        if !fusesUnknown { flush(position, &merger) }
        unknownStart = unknownStart ?? position
      }
      position = end
    }
    flush(position, &merger)
    merger.run { left, right in
      merges[left.token, right.token].map { ($0.priority, $0.token) }
    } output: {
      tokens.append($0.token)
    }
  }
}

extension MergeTable {
  /// Reads `model.merges`: pairs of pieces, or texts of two pieces with one space between. Of two merges of the same pair the last counts, as in
  /// the `tokenizers` package.
  ///
  /// - Parameter appendBytes: Appends the bytes that a piece has in `vocabulary`.
  init(
    _ field: JSONField, _ vocabulary: Vocabulary, appendBytes: (Span<UInt8>, inout [UInt8]) -> Void
  ) throws(TokenizerError) {
    let list = try field.array()
    self.init(minimumCapacity: list.underestimatedCount)
    var joined: [UInt8] = []
    for (index, value) in list.enumerated() {
      joined.removeAll(keepingCapacity: true)
      guard let middle = Self.split(value, appendBytes, &joined) else {
        throw field.element(index, value).malformed("is \(JSONField.shown(value)), not two pieces")
      }
      let bytes = joined.span
      guard middle > 0, middle < bytes.count, let left = vocabulary.token(bytes.extracting(..<middle)),
        let right = vocabulary.token(bytes.extracting(middle...)), let whole = vocabulary.token(bytes)
      else {
        throw field.element(index, value).malformed("is \(Self.shown(value)), which does not join two pieces of model.vocab to a third")
      }
      self[left, right] = Merge(priority: UInt32(index), token: whole)
    }
  }

  private static func shown(_ value: JSONValue) -> String {
    guard value.kind == .array else { return JSONField.shown(value) }
    return "[" + value.elements.map(JSONField.shown).joined(separator: ", ") + "]"
  }

  /// Appends both pieces; returns where the second begins.
  private static func split(_ value: JSONValue, _ appendBytes: (Span<UInt8>, inout [UInt8]) -> Void, _ joined: inout [UInt8]) -> Int? {
    if value.kind == .array {
      guard value.count == 2 else { return nil }
      var middle: Int?
      for piece in value.elements {
        middle = middle == nil ? 0 : joined.count
        guard piece.withStringBytes({ appendBytes($0.span, &joined) }) != nil else { return nil }
      }
      return middle
    }
    return value.withStringBytes { line in
      let spaces = line.indices.filter { line[$0] == UInt8(ascii: " ") }
      guard spaces.count == 1, let space = spaces.first else { return nil }
      appendBytes(line.extracting(..<space).span, &joined)
      let middle = joined.count
      appendBytes(line.extracting((space + 1)...).span, &joined)
      return middle
    } ?? nil
  }
}
