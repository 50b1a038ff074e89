// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore
import MartletFormats

/// Byte-pair encoding over bytes, as GPT-2 introduced it ("gpt2" in GGUF).
///
/// A ``PreTokenizer`` cuts the text into words; each word's bytes merge by the file's list of merges, the earliest in the list first.
/// The file writes every byte as a printable character (GPT-2's table: a space is "Ġ"); here tokens are kept as the bytes they stand for.
/// A byte that the vocabulary lacks is left out, as the model's own tokenizer does (SmolLM2 lacks 21 of 256, most of them never in UTF-8).
struct ByteLevelBPE: Tokenizer {
  private let vocabulary: Vocabulary
  private let preTokenizer: PreTokenizer
  private let merges: MergeTable
  /// Tokens of the 256 bytes, -1 where there is none.
  private let byteTokens: [Int32]
  private let special: SpecialTokens
  private let matcher: SpecialTokenMatcher

  init(_ file: GGUFFile) throws(TokenizerError) {
    let name: String?
    do { name = try file.string(ifPresent: "tokenizer.ggml.pre") } catch { throw .format(error) }
    guard let name, let preTokenizer = PreTokenizer.named[name] else {
      throw .unsupportedPreTokenizer(name, supported: PreTokenizer.named.keys.sorted())
    }
    self.preTokenizer = preTokenizer
    let alphabet = ByteAlphabet()
    vocabulary = try Vocabulary(file, inTable: .normal) { text, kind, arena in
      if kind != .normal || !alphabet.appendBytes(text, to: &arena) { text.withUnsafeBufferPointer { arena.append(contentsOf: $0) } }
    }
    special = try SpecialTokens(file, vocabulary, addsBOSByDefault: preTokenizer.addsBOS)
    merges = try Self.merges(file, vocabulary, alphabet)
    var byteTokens: [Int32] = []
    for byte in UInt8.min...UInt8.max { byteTokens.append(vocabulary.token([byte].span) ?? -1) }
    self.byteTokens = byteTokens
    matcher = SpecialTokenMatcher(vocabulary, ends: special.ends)
  }

  /// Reads the list of merges: two tokens in the file's alphabet with one space between.
  private static func merges(
    _ file: GGUFFile, _ vocabulary: Vocabulary, _ alphabet: ByteAlphabet
  ) throws(TokenizerError) -> MergeTable {
    let key = "tokenizer.ggml.merges"
    let lines: GGUFArray
    do { lines = try file.array(key) } catch { throw .format(error) }
    guard lines.elementType == .string else { throw .malformed(field: key, problem: "holds \(lines.elementType), not strings") }
    guard lines.count < Int(UInt32.max) else { throw .malformed(field: key, problem: "has \(lines.count) entries") }
    var merges = MergeTable(minimumCapacity: lines.count)
    var joined: [UInt8] = []
    try lines.forEachString { (index, line) throws(TokenizerError) in
      joined.removeAll(keepingCapacity: true)
      var middle = 0
      let space = line.indices.dropFirst().first { line[$0] == UInt8(ascii: " ") }
      if let space, alphabet.appendBytes(line.extracting(..<space), to: &joined) {
        middle = joined.count
        if !alphabet.appendBytes(line.extracting((space + 1)...), to: &joined) { joined.removeAll() }
      }
      let bytes = joined.span
      // A name that ends an answer is a control token, which text does not merge to.
      if middle > 0, SpecialTokens.isEndName(bytes) { return }
      guard middle > 0, middle < bytes.count, let left = vocabulary.token(bytes.extracting(..<middle)),
        let right = vocabulary.token(bytes.extracting(middle...)), let whole = vocabulary.token(bytes)
      else {
        let text = line.withUnsafeBufferPointer { String(decoding: $0, as: UTF8.self) }
        throw .malformed(field: "\(key)[\(index)]", problem: "is \"\(text)\", which does not join two tokens to a third")
      }
      // Of two merges of the same pair the first counts.
      if merges[left, right] == nil { merges[left, right] = MergeTable.Merge(priority: UInt32(index), token: whole) }
    }
    return merges
  }

  var vocabularySize: Int { vocabulary.count }
  var bosToken: Int32? { special.bos }
  var eosToken: Int32? { special.eos }
  var endTokens: Set<Int32> { special.ends }
  var addsBOS: Bool { special.addsBOS }
  var textFrame: TextFrame { special.frame }
  var dropsLeadingSpace: Bool { false }

  func encode(_ text: String, parsesSpecialTokens: Bool) -> [Int32] {
    encode(MarkedBytes(text, parsesSpecialTokens: parsesSpecialTokens))
  }

  func encode(_ text: MarkedText) -> [Int32] { encode(MarkedBytes(text)) }

  private func encode(_ text: MarkedBytes) -> [Int32] {
    let bytes = text.bytes
    enforce(bytes.count < Int(Int32.max), "a text of \(bytes.count) bytes cannot be encoded at once")
    var tokens: [Int32] = []
    var merger = PairMerger()
    matcher.split(text) { run in
      preTokenizer.forEachWord(in: bytes, run) { encode(bytes.span.extracting($0), &merger, to: &tokens) }
    } token: { token in
      tokens.append(token)
    }
    return tokens
  }

  private func encode(_ word: Span<UInt8>, _ merger: inout PairMerger, to tokens: inout [Int32]) {
    if preTokenizer.prefersWholeWords, let token = vocabulary.token(word) {
      tokens.append(token)
      return
    }
    merger.reset()
    for index in word.indices { merger.append(Symbol(start: index, end: index + 1, token: byteTokens[Int(word[index])])) }
    merger.run { left, right in
      merges[left.token, right.token].map { ($0.priority, $0.token) }
    } output: { symbol in
      if symbol.token >= 0 { tokens.append(symbol.token) }
    }
  }

  func isControl(_ token: Int32) -> Bool { vocabulary.isControl(token) }

  func appendBytes(of token: Int32, showsControlTokens: Bool, to bytes: inout [UInt8]) {
    if vocabulary.contains(token), showsControlTokens || !isControl(token) { bytes += vocabulary.bytes(of: token) }
  }
}
