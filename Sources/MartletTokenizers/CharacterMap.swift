// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// SentencePiece's `precompiled_charsmap`: which characters are written otherwise before a text is cut into pieces (NFKC and more).
///
/// The bytes are a count, a double-array trie of that many bytes, and the replacements, each ended by a zero. A unit of the trie has 32 bits: the
/// byte that leads to it (0–7), whether a key ends here (8), and how far its children are (10–30, 256 times as far with bit 9); the unit of a key's
/// end is where its replacement begins. Every step of a look-up stays inside the array, whatever it holds.
struct CharacterMap: Sendable {
  private var units: [UInt32] = []
  /// The replacements with their zeros.
  private var pool: [UInt8] = []

  private(set) var longestReplacement = 1

  /// NFKC's longest replacement has 33 bytes; what is much longer would let a small file write a huge text.
  private static let mostReplacement = 256
  /// NFKC's keys are a few characters.
  private static let longestKey = 256

  /// - Parameter field: What the errors call it.
  init(_ bytes: [UInt8], field: String) throws(TokenizerError) {
    func word(_ index: Int) -> UInt32 {
      UInt32(bytes[index]) | UInt32(bytes[index + 1]) << 8 | UInt32(bytes[index + 2]) << 16 | UInt32(bytes[index + 3]) << 24
    }
    guard bytes.count >= 4 else { throw .malformed(field: field, problem: "has \(bytes.count) bytes, not even its count") }
    let trieBytes = Int(word(0))
    guard trieBytes % 4 == 0, trieBytes >= 4, trieBytes <= bytes.count - 4 else {
      throw .malformed(field: field, problem: "has a trie of \(trieBytes) bytes in \(bytes.count)")
    }
    units.reserveCapacity(trieBytes / 4)
    for index in stride(from: 4, to: 4 + trieBytes, by: 4) { units.append(word(index)) }
    pool = Array(bytes[(4 + trieBytes)...])
    guard pool.last == 0, String(validating: pool, as: UTF8.self) != nil else {
      throw .malformed(field: field, problem: "has replacements that are not UTF-8 ended by a zero")
    }
    for replacement in pool.split(separator: 0) { longestReplacement = max(longestReplacement, replacement.count) }
    guard longestReplacement <= Self.mostReplacement else {
      throw .malformed(field: field, problem: "has a replacement of \(longestReplacement) bytes, more than \(Self.mostReplacement)")
    }
  }

  /// The longest or shortest key at `position`: where it ends, and the bytes that stand for it. Nil where no key begins.
  func replacement(_ text: [UInt8], at position: Int, end: Int, shortest: Bool = false) -> (bytes: ArraySlice<UInt8>, end: Int)? {
    var best: (bytes: ArraySlice<UInt8>, end: Int)?
    var node = offset(units[0])
    for index in position..<min(end, position + Self.longestKey) {
      node ^= UInt32(text[index])
      guard let unit = unit(node), unit & 0x8000_00FF == UInt32(text[index]) else { break }
      node ^= offset(unit)
      guard unit >> 8 & 1 == 1, let leaf = self.unit(node) else { continue }
      let start = Int(leaf & 0x7FFF_FFFF)
      // A replacement that begins inside a character is no text.
      guard start < pool.count, pool[start] & 0xC0 != 0x80, isBoundary(text, index + 1, end) else { continue }
      let stop = pool[start...].firstIndex(of: 0) ?? start
      best = (pool[start..<stop], index + 1)
      if shortest { break }
    }
    return best
  }

  private func isBoundary(_ text: [UInt8], _ position: Int, _ end: Int) -> Bool { position == end || text[position] & 0xC0 != 0x80 }

  private func unit(_ index: UInt32) -> UInt32? { Int(index) < units.count ? units[Int(index)] : nil }

  private func offset(_ unit: UInt32) -> UInt32 { (unit >> 10) << ((unit & 0x200) >> 6) }
}
