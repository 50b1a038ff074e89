// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Which whole pages a sequence takes from earlier ones that began alike.

import MartletCPU
import MartletCore
import MartletKVCache
import Testing

@Suite("The prefix cache")
struct KVCachePrefixTests {
  @Test("gives a sequence the full pages of the longest prefix, and never the last token")
  func longestPrefix() throws {
    let manager = try makePrefixManager(windows: [nil])
    let text = randomTokens(100)
    #expect(manager.run(0, text) == 0)
    let table = manager.table(0)
    manager.remove(0)
    #expect(manager.heldPages(pool: 0) == 0 && manager.cachedPages(pool: 0) == 12)
    // (prompt, tokens that it takes): pages of 8, at least one token left.
    for (prompt, reused) in [
      (text, 96), (Array(text[..<96]), 88), (Array(text[..<97]), 96), (Array(text[..<8]), 0), (Array(text[..<9]), 8),
      (text[..<50] + [5000] + text[51...], 48), ([5000] + text[1...], 0), (text + randomTokens(20, seed: 2), 96),
    ] {
      #expect(manager.cachedPrefix(of: prompt) == reused)
      #expect(manager.addSequence(1, tokens: prompt) == reused)
      #expect((manager.length(1), manager.computedLength(1)) == (reused, reused))
      #expect(manager.table(1)[..<(reused / 8)] == table[..<(reused / 8)] && manager.heldPages(pool: 0) == reused / 8)
      try manager.checkIntegrity()
      manager.remove(1)
      try manager.checkIntegrity()
    }
    #expect(manager.statistics.prefixes.reusedTokens == 96 + 88 + 96 + 8 + 48 + 96)
  }

  @Test("keeps sequences of different salts apart, and does nothing where it is off")
  func salts() throws {
    let manager = try makePrefixManager(windows: [nil])
    let text = randomTokens(60)
    #expect(manager.run(0, text, salt: 1) == 0 && manager.run(1, text, salt: 2) == 0 && manager.run(2, text, salt: 1) == 56)
    #expect(manager.heldPages(pool: 0) == 7 + 1 + 7 + 1 + 1)
    try manager.checkIntegrity()
    let off = try makePrefixManager(windows: [nil], reusesPrefixes: false)
    #expect(off.run(0, text) == 0 && off.run(1, text) == 0)
    off.remove(0)
    off.remove(1)
    #expect(off.cachedPages(pool: 0) == 0 && off.freePages(pool: 0) == off.pageCount(pool: 0))
    try off.checkIntegrity()
  }

  @Test("holds a prefix of 1000 tokens once for 32 sequences, also for those that computed it at the same time")
  func common() throws {
    let manager = try makePrefixManager(windows: [nil], pages: 3000, maxLength: 1100, maxSequences: 32, chunk: 1100)
    let common = randomTokens(1000)
    // All are added before any is computed.
    let sequences = (0..<32).map { common + randomTokens(40, seed: UInt64(100 + $0)) }
    for id in 0..<16 { #expect(manager.addSequence(id, tokens: sequences[id]) == 0 && manager.extend(id, to: 1040)) }
    #expect(manager.heldPages(pool: 0) == 16 * 130)
    for id in 0..<16 { manager.computed(id, upTo: 1040, tokens: sequences[id]) }
    #expect(manager.heldPages(pool: 0) == 125 + 16 * 5)
    for id in 16..<32 { #expect(manager.run(id, sequences[id]) == 1000) }
    #expect(manager.heldPages(pool: 0) == 125 + 32 * 5)
    for id in 0..<32 { #expect(manager.table(id)[..<125] == manager.table(0)[..<125]) }
    try manager.checkIntegrity()
  }

  @Test("matches where a window pool has what the next token sees, whether or not it has what lies behind")
  func windows() throws {
    // A window of 20 tokens and pages of 8: a token at 64 sees from 45 on, which is pages 5, 6 and 7.
    let manager = try makePrefixManager(windows: [nil, 20], pages: 400)
    let text = randomTokens(64 + 5)
    #expect(manager.run(0, text) == 0)
    // Pages behind the window went back and are cached still: shorter prefixes match too.
    #expect(manager.cachedPrefix(of: Array(text[..<30])) == 24)
    #expect(manager.addSequence(1, tokens: text) == 64)
    #expect(manager.table(1, pool: 1)[..<8].map { $0 >= 0 } == [false, false, false, false, false, true, true, true])
    #expect(manager.table(1)[..<8].allSatisfy { $0 >= 0 })
    try manager.checkIntegrity()
    manager.remove(0)
    manager.remove(1)
    // A sequence that needs every page of the window pool but two pushes out the oldest: those behind the window first.
    let room = manager.freePages(pool: 1) + manager.cachedPages(pool: 1)
    #expect(room == manager.pageCount(pool: 1) && manager.cachedPages(pool: 1) == 8)
    var used = 0
    var id = 10
    // Sequences that are not computed hold their pages.
    while room - used > 3 {
      let pages = min(25, room - used - 3)
      #expect(manager.addSequence(id) && manager.extend(id, to: pages * 8))
      used += pages
      id += 1
    }
    #expect(manager.cachedPages(pool: 1) == 3)
    try manager.checkIntegrity()
    #expect(manager.cachedPrefix(of: text) == 64, "what the longest prefix needs is there")
    #expect(manager.cachedPrefix(of: Array(text[..<30])) == 0, "and what is behind it is not")
  }

  @Test("gives up the least recently held leaf first, and never a page that is held")
  func eviction() throws {
    let manager = try makePrefixManager(windows: [nil], pages: 30, maxLength: 160, maxSequences: 4)
    let (first, second) = (randomTokens(80, seed: 1), randomTokens(80, seed: 2))
    #expect(manager.run(0, first) == 0 && manager.run(1, second) == 0)
    manager.remove(0)
    manager.remove(1)
    #expect(manager.cachedPages(pool: 0) == 20 && manager.freePages(pool: 0) == 10)
    // Looking the first up again makes it the more recent one.
    #expect(manager.addSequence(2, tokens: first) == 72)
    manager.remove(2)
    #expect(manager.run(3, randomTokens(120, seed: 3)) == 0)  // 15 pages: 10 free ones and the 5 oldest leaves
    // The last page of the first was not looked up again, so it went first; then four of the second, from its end.
    #expect(manager.cachedPrefix(of: first + [1]) == 72 && manager.cachedPrefix(of: second + [1]) == 48)
    #expect(manager.statistics.prefixes.evictedPages == 5)
    try manager.checkIntegrity()
    // 15 pages are held; 16 more are not available, and asking for them changes nothing.
    #expect(manager.addSequence(4) && !manager.extend(4, to: 128) && manager.cachedPages(pool: 0) == 15)
    #expect(manager.extend(4, to: 120) && manager.cachedPages(pool: 0) == 0 && manager.freePages(pool: 0) == 0)
    #expect(manager.cachedPrefix(of: randomTokens(120, seed: 3)) == 112, "what is held stays")
    try manager.checkIntegrity()
  }
}
