// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletFormats

/// The tokens of a `tokenizer.json`: those of its model and the added ones, by id.
struct TokenList {
  let vocabulary: Vocabulary
  let added: [AddedToken]
  private let isByteLevel: Bool
  private let type: String
  private let alphabet = ByteAlphabet()

  private static let models = ["BPE", "Unigram", "WordPiece"]

  init(_ root: JSONField, isByteLevel: Bool, _ companions: Companions) throws(TokenizerError) {
    let model = root["model"]
    // Files from before the field was written are what their other fields say.
    let type: String
    switch (model["type"].value, model["merges"].value, model["max_input_chars_per_word"].value) {
    case (nil, _?, _): type = "BPE"
    case (nil, nil, _?): type = "WordPiece"
    default: type = try model["type"].string()
    }
    guard Self.models.contains(type) else { throw model["type"].unsupported(type, supported: Self.models) }
    if type != "BPE" && isByteLevel { throw model["type"].unsupported("\(type) of bytes") }
    let listed = root["added_tokens"]
    let pieces = try Self.pieces(model["vocab"], isList: type == "Unigram", addedCount: listed.value?.count ?? 0)
    var added: [AddedToken] = []
    if listed.value != nil {
      for field in try listed.fields() { added.append(try AddedToken(field, highestID: pieces.highestID)) }
    }
    try Self.check(added, listed, pieces)
    try Self.complete(&added, pieces, companions)
    let count = max(pieces.count, Int(added.map(\.id).max() ?? -1) + 1)
    guard count > 0 else { throw model["vocab"].malformed("has no tokens") }
    var kinds = [TokenKind](repeating: .unused, count: count)
    var texts = pieces.texts + [JSONValue?](repeating: nil, count: count - pieces.count)
    let hasBytes = try model["byte_fallback"].bool(or: false)
    let isPiece = texts.map { $0 != nil }
    for (id, text) in texts.enumerated() {
      guard let text else { continue }
      let isByte = hasBytes && !isByteLevel && text.withStringBytes { SentencePieceText.byteValue(Array($0)[...]) != nil } == true
      kinds[id] = isByte ? .byte : .normal
    }
    var contents: [Int: [UInt8]] = [:]
    for token in added {
      kinds[Int(token.id)] = token.isSpecial ? .control : .userDefined
      contents[Int(token.id)] = token.content
      texts[Int(token.id)] = nil
    }
    let alphabet = ByteAlphabet()
    let pieceTexts = pieces.texts
    vocabulary = Vocabulary(kinds: kinds) {
      isPiece[$0]
    } append: { id, arena in
      if let content = contents[id] {
        arena += content
      } else if let text = pieceTexts.indices.contains(id) ? pieceTexts[id] : nil {
        text.withStringBytes { bytes in
          if !isByteLevel || !alphabet.appendBytes(bytes.span, to: &arena) { arena.append(contentsOf: bytes) }
        }
      }
    }
    self.added = added
    self.isByteLevel = isByteLevel
    self.type = type
  }

  /// The pieces by id, nil where the file leaves an id out.
  private struct Pieces {
    var texts: [JSONValue?]
    var highestID: Int
    var count: Int { texts.count }
  }

  /// Reads `model.vocab`: an object from pieces to ids, or a list of pieces with scores.
  private static func pieces(_ field: JSONField, isList: Bool, addedCount: Int) throws(TokenizerError) -> Pieces {
    // Files leave few ids out; one that names far higher ones would have us make room for tokens that do not exist.
    func highest(_ count: Int) -> Int { 4 * (count + addedCount) + 65_536 }
    if isList {
      var texts: [JSONValue?] = []
      for (index, entry) in try field.array().enumerated() {
        guard entry.kind == .array, entry.count == 2, let piece = entry.elements.first(where: { _ in true }), piece.kind == .string else {
          throw field.element(index, entry).malformed("is \(JSONField.shown(entry)), not a piece and its score")
        }
        texts.append(piece)
      }
      return Pieces(texts: texts, highestID: highest(texts.count))
    }
    let members = try field.object()
    let highestID = highest(members.underestimatedCount)
    var texts = [JSONValue?](repeating: nil, count: members.underestimatedCount)
    for (key, value) in members {
      let name = { "\(field.name)[\(JSONField.shown(key))]" }
      guard let id = value.integer else { throw .malformed(field: name(), problem: "is \(JSONField.shown(value)), not an id") }
      guard id >= 0, id <= highestID else { throw .malformed(field: name(), problem: "is \(id), which is not in 0...\(highestID)") }
      if id >= texts.count { texts += [JSONValue?](repeating: nil, count: id + 1 - texts.count) }
      if let other = texts[id] {
        throw .malformed(field: name(), problem: "is \(id), which is the id of \(JSONField.shown(other)) too")
      }
      texts[id] = key
    }
    while let last = texts.last, last == nil { texts.removeLast() }
    return Pieces(texts: texts, highestID: highestID)
  }

  /// No id twice, and none that the model gives to another piece.
  private static func check(_ added: [AddedToken], _ field: JSONField, _ pieces: Pieces) throws(TokenizerError) {
    var seen: [Int32: Int] = [:]
    for (index, token) in added.enumerated() {
      let name = "\(field.name)[\(index)].id"
      if let other = seen[token.id] { throw .malformed(field: name, problem: "is \(token.id), and so is that of added_tokens[\(other)]") }
      seen[token.id] = index
      let id = Int(token.id)
      guard id < pieces.count, let piece = pieces.texts[id] else { continue }
      if piece.withStringBytes({ token.content.elementsEqual($0) }) != true {
        throw .malformed(field: name, problem: "is \(id), which model.vocab gives to \(JSONField.shown(piece))")
      }
    }
  }

  /// Adds the tokens of the files beside `tokenizer.json`, as the `transformers` package does: one that is there already only takes their flags,
  /// a piece of the model keeps its id, and any other gets the next id, whichever the file writes.
  private static func complete(_ added: inout [AddedToken], _ pieces: Pieces, _ companions: Companions) throws(TokenizerError) {
    let further = try companions.addedTokens()
    let named = try companions.namedTokens()
    guard !further.isEmpty || !named.isEmpty else { return }
    var known: [[UInt8]: Int] = [:]
    for (index, token) in added.enumerated() { known[token.content] = index }
    var pieceIDs: [[UInt8]: Int32] = [:]
    let wanted = Set(further.map(\.content) + named)
    for (id, text) in pieces.texts.enumerated() {
      text?.withStringBytes { bytes in
        let bytes = Array(bytes)
        if wanted.contains(bytes) { pieceIDs[bytes] = Int32(id) }
      }
    }
    let pieceCount = pieces.texts.count { $0 != nil }
    var next = max(Int32(pieceCount), (added.map(\.id).max() ?? -1) + 1)
    for var token in further {
      if named.contains(token.content) { token.isSpecial = true }
      if let index = known[token.content] {
        token.id = added[index].id
        added[index] = token
        continue
      }
      if let id = pieceIDs[token.content] {
        token.id = id
      } else {
        token.id = next
      }
      next = max(next, token.id + 1)
      known[token.content] = added.count
      added.append(token)
    }
    // What is named and is no token at all would be a row that the model does not have.
    for content in named where known[content] == nil {
      guard let id = pieceIDs[content] else { continue }
      known[content] = added.count
      added.append(AddedToken(id: id, special: content))
    }
  }

  /// The token of this content: an added one, or a piece.
  func token(_ content: String) -> Int32? {
    let bytes = Array(content.utf8)
    if let token = added.first(where: { $0.content == bytes }) { return token.id }
    var inTable: [UInt8] = []
    appendBytes(bytes.span, &inTable)
    return vocabulary.token(inTable.span)
  }

  /// Appends the bytes that a piece has in the vocabulary.
  private func appendBytes(_ piece: Span<UInt8>, _ bytes: inout [UInt8]) {
    if !isByteLevel || !alphabet.appendBytes(piece, to: &bytes) { piece.withUnsafeBufferPointer { bytes.append(contentsOf: $0) } }
  }

  // MARK: Models

  /// - Parameter field: `model`.
  func model(_ field: JSONField) throws(TokenizerError) -> HuggingFaceTokenizer.Model {
    if type == "Unigram" { return .unigram(try unigram(field)) }
    if type == "WordPiece" { return .wordPieces(try wordPieces(field)) }
    for name in ["continuing_subword_prefix", "end_of_word_suffix"] {
      if let text = try field[name].stringIfPresent(), !text.isEmpty { throw field[name].unsupported(text, supported: ["none"]) }
    }
    if let dropout = field["dropout"].value, dropout.double != 0 {
      throw field["dropout"].unsupported(JSONField.shown(dropout), supported: ["none"])
    }
    var byteTokens = [Int32](repeating: -1, count: 256)
    if isByteLevel {
      for byte in UInt8.min...UInt8.max { byteTokens[Int(byte)] = vocabulary.token([byte].span) ?? -1 }
      if try field["byte_fallback"].bool(or: false), byteTokens.contains(-1) {
        throw field["byte_fallback"].unsupported("true", supported: ["false where the vocabulary is of bytes and lacks some"])
      }
    } else if try field["byte_fallback"].bool(or: false) {
      byteTokens = try SentencePieceText.byteTokens(vocabulary, unknown: -1, field: "\(field.name).vocab")
    }
    var unknown: Int32?
    if let text = try field["unk_token"].stringIfPresent() {
      unknown = token(text)
      if unknown == nil { throw field["unk_token"].malformed("is \"\(text)\", which is no token") }
    }
    return .bytePairs(
      BytePairModel(
        vocabulary: vocabulary, merges: try MergeTable(field["merges"], vocabulary, appendBytes: appendBytes), isByteLevel: isByteLevel,
        prefersWholeWords: try field["ignore_merges"].bool(or: false), byteTokens: byteTokens, unknown: unknown,
        fusesUnknown: try field["fuse_unk"].bool(or: false)))
  }

  private func wordPieces(_ field: JSONField) throws(TokenizerError) -> WordPieceModel {
    let text = try field["unk_token"].string()
    guard let unknown = token(text) else { throw field["unk_token"].malformed("is \"\(text)\", which is no token") }
    let most =
      field["max_input_chars_per_word"].value == nil ? WordPieceTokenizer.mostCharacters : try field["max_input_chars_per_word"].integer()
    guard most >= 1 else { throw field["max_input_chars_per_word"].malformed("is \(most); a word has at least one character") }
    let prefix =
      field["continuing_subword_prefix"].value == nil ? WordPieceTokenizer.prefix : try field["continuing_subword_prefix"].bytes()
    guard prefix.count <= 64 else { throw field["continuing_subword_prefix"].malformed("has \(prefix.count) bytes") }
    return WordPieceModel(vocabulary: vocabulary, prefix: prefix, unknown: unknown, mostCharacters: most)
  }

  private func unigram(_ field: JSONField) throws(TokenizerError) -> UnigramModel {
    var scores = [Double](repeating: 0, count: vocabulary.count)
    var pieces: [(text: [UInt8], token: Int32)] = []
    for (index, entry) in try field["vocab"].array().enumerated() {
      var elements = entry.elements
      let text = elements.next()?.withStringBytes { Array($0) } ?? []
      guard let score = elements.next()?.double else {
        throw field["vocab"].element(index, entry).malformed("has a score that is not a finite number")
      }
      scores[index] = score
      pieces.append((text, Int32(index)))
    }
    let worst = scores[..<pieces.count].min() ?? 0
    var unknown: Int32?
    if field["unk_id"].value != nil {
      let id = try field["unk_id"].integer()
      guard id >= 0, id < pieces.count else { throw field["unk_id"].malformed("is \(id) of \(pieces.count) pieces") }
      unknown = Int32(id)
    }
    var byteTokens: [Int32] = []
    if try field["byte_fallback"].bool(or: false) {
      byteTokens = try SentencePieceText.byteTokens(vocabulary, unknown: -1, field: "\(field.name).vocab")
      if byteTokens.contains(-1) { throw field["byte_fallback"].malformed("is true, but there are not tokens for all bytes") }
    }
    return UnigramModel(pieces, scores: scores, worstScore: worst, unknown: unknown ?? -1, byteTokens: byteTokens, sums: .float64)
  }
}
