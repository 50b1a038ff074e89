// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore
import MartletFormats

/// What a token is, numbered as in `tokenizer.ggml.token_type`.
enum TokenKind: UInt8 {
  case undefined, normal, unknown, control, userDefined, unused, byte
}

/// A set of kinds.
struct TokenKinds: OptionSet, Sendable {
  let rawValue: UInt8

  static let normal = TokenKinds(.normal)
  static let userDefined = TokenKinds(.userDefined)
  /// What stands for structure and can be named in a text.
  static let structural: TokenKinds = [TokenKinds(.control), TokenKinds(.unknown)]

  init(rawValue: UInt8) { self.rawValue = rawValue }
  init(_ kind: TokenKind) { rawValue = 1 << kind.rawValue }

  func contains(_ kind: TokenKind) -> Bool { contains(TokenKinds(kind)) }
}

/// The tokens of a file: the bytes of all of them in one run, their kinds, and a hash table from bytes to id.
///
/// Nothing is made per token, so that 262 144 tokens load in milliseconds. The table probes linearly and is at most half full; its hash is
/// the standard library's, seeded per process, so that no file can choose names that collide.
struct Vocabulary: Sendable {
  private var arena: [UInt8] = []
  /// Token i's bytes are `arena[ends[i - 1]..<ends[i]]`.
  private var ends: [Int] = []
  private(set) var kinds: [TokenKind] = []
  /// Ids, or -1 for an empty slot.
  private var slots: [Int32] = []
  /// Bytes of the longest token in the table.
  private(set) var longestLookup = 0

  /// Reads `tokenizer.ggml.tokens` and `token_type`; a name that ends an answer is a control token. `append` puts a token's bytes at the end of the arena, in the form that the tokenizer keeps
  /// them; only tokens of the kinds `inTable` can be found by ``token(_:)``. Of two tokens with the same bytes the first is found.
  init(
    _ file: GGUFFile, inTable: TokenKinds, append: (Span<UInt8>, TokenKind, inout [UInt8]) throws(TokenizerError) -> Void
  ) throws(TokenizerError) {
    let texts: GGUFArray
    do {
      texts = try file.array("tokenizer.ggml.tokens")
    } catch { throw .format(error) }
    let field = "tokenizer.ggml.tokens"
    guard texts.elementType == .string else { throw .malformed(field: field, problem: "holds \(texts.elementType), not strings") }
    guard texts.count > 0, texts.count < Int(Int32.max) else { throw .malformed(field: field, problem: "has \(texts.count) tokens") }
    kinds = try Self.kinds(file, count: texts.count)
    ends.reserveCapacity(texts.count)
    arena.reserveCapacity(8 * texts.count)
    try texts.forEachString { (index, text) throws(TokenizerError) in
      switch kinds[index] {
      case .undefined, .normal, .userDefined, .unused: if SpecialTokens.isEndName(text) { kinds[index] = .control }
      case .unknown, .control, .byte: break
      }
      try append(text, kinds[index], &arena)
      ends.append(arena.count)
    }
    let known = kinds
    fillTable { inTable.contains(known[$0]) }
  }

  /// Tokens of these kinds, in order, of which `isInTable` says which can be found by ``token(_:)``. `append` puts token `index`'s bytes at the end
  /// of the arena.
  init(kinds: [TokenKind], isInTable: (_ index: Int) -> Bool, append: (_ index: Int, inout [UInt8]) -> Void) {
    self.kinds = kinds
    ends.reserveCapacity(kinds.count)
    arena.reserveCapacity(8 * kinds.count)
    for index in kinds.indices {
      append(index, &arena)
      ends.append(arena.count)
    }
    fillTable(isInTable)
  }

  /// Makes tokens that ``token(_:)`` does not find control tokens.
  mutating func makeControl(_ tokens: some Sequence<Int32>) {
    for token in tokens { kinds[Int(token)] = .control }
  }

  private mutating func fillTable(_ isInTable: (Int) -> Bool) {
    slots = [Int32](repeating: -1, count: Self.slotCount(for: count))
    for index in 0..<count where isInTable(index) {
      let range = range(of: Int32(index))
      let slot = slot(for: arena.span.extracting(range))
      if slots[slot] < 0 { slots[slot] = Int32(index) }
      longestLookup = max(longestLookup, range.count)
    }
  }

  private static func slotCount(for count: Int) -> Int {
    var size = 16
    while size < 2 * count { size *= 2 }
    return size
  }

  private static func kinds(_ file: GGUFFile, count: Int) throws(TokenizerError) -> [TokenKind] {
    let key = "tokenizer.ggml.token_type"
    let array: GGUFArray?
    do { array = try file.array(ifPresent: key) } catch { throw .format(error) }
    // Files without it have normal tokens only.
    guard let array else { return [TokenKind](repeating: .normal, count: count) }
    guard array.count == count else { throw .malformed(field: key, problem: "has \(array.count) entries for \(count) tokens") }
    guard let codes = array.integers() else { throw .malformed(field: key, problem: "does not hold integers") }
    var kinds: [TokenKind] = []
    kinds.reserveCapacity(count)
    for (index, code) in codes.enumerated() {
      guard let kind = UInt8(exactly: code).flatMap(TokenKind.init(rawValue:)) else {
        throw .malformed(field: "\(key)[\(index)]", problem: "is \(code), which is no kind of token")
      }
      kinds.append(kind)
    }
    return kinds
  }

  var count: Int { ends.count }

  private func range(of token: Int32) -> Range<Int> {
    enforce(token >= 0 && token < ends.count, "token \(token) of a vocabulary of \(ends.count)")
    return (token == 0 ? 0 : ends[Int(token) - 1])..<ends[Int(token)]
  }

  func contains(_ token: Int32) -> Bool { token >= 0 && token < ends.count }

  /// Whether the token stands for structure, not text. One that is not there does.
  func isControl(_ token: Int32) -> Bool {
    guard contains(token) else { return true }
    switch kinds[Int(token)] {
    case .control, .unknown, .unused: return true
    case .undefined, .normal, .userDefined, .byte: return false
    }
  }

  /// The bytes of a token.
  func bytes(of token: Int32) -> ArraySlice<UInt8> { arena[range(of: token)] }

  /// The token with exactly these bytes, if it is of a kind that is in the table.
  func token(_ bytes: Span<UInt8>) -> Int32? {
    let id = slots[slot(for: bytes)]
    return id < 0 ? nil : id
  }

  /// The slot of these bytes, or the empty one where they would go.
  private func slot(for bytes: Span<UInt8>) -> Int {
    var hasher = Hasher()
    bytes.withUnsafeBytes { hasher.combine(bytes: $0) }
    let mask = slots.count - 1
    var slot = hasher.finalize() & mask
    while slots[slot] >= 0, !isEqual(range(of: slots[slot]), bytes) { slot = (slot + 1) & mask }
    return slot
  }

  private func isEqual(_ range: Range<Int>, _ bytes: Span<UInt8>) -> Bool {
    guard range.count == bytes.count else { return false }
    for index in 0..<bytes.count where arena[range.lowerBound + index] != bytes[index] { return false }
    return true
  }
}
