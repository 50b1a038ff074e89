// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// A sequence that parts from an earlier one inside a page begins with a copy of that page, if there is room for one.

import MartletCPU
import MartletCore
import MartletKVCache
import Testing

@Suite("A page that agrees in part")
struct KVCachePartialTests {
  @Test("is copied up to the token where the sequence parts, and the last token is never taken")
  func copies() throws {
    let manager = try makePrefixManager(windows: [nil], reusesPartialPages: true)
    let text = randomTokens(100)
    #expect(manager.run(0, text) == 0)
    let table = manager.table(0)
    manager.remove(0)
    var (reusedTokens, copiedTokens) = (0, 0)
    // (prompt, tokens that it takes): pages of 8, of which 12 were filled, at least one token left.
    let parted = text[..<50] + [5000] + text[51...]
    let cases: [(prompt: [Int32], reused: Int)] = [
      (text, 96), (Array(text[..<96]), 95), (Array(text[..<97]), 96), (Array(text[..<8]), 7), (Array(text[..<9]), 8),
      (Array(text[..<1]), 0), (Array(text[..<2]), 1), (Array(parted), 50), ([5000] + Array(text[1...]), 0),
    ]
    for (prompt, reused) in cases {
      #expect(manager.cachedPrefix(of: prompt) == reused)
      #expect(manager.addSequence(1, tokens: prompt) == reused)
      #expect((manager.length(1), manager.computedLength(1)) == (reused, reused))
      let own = manager.table(1)
      #expect(own[..<(reused / 8)] == table[..<(reused / 8)])
      #expect(reused % 8 == 0 || own[reused / 8] >= 0 && own[reused / 8] != table[reused / 8], "the copy is a page of its own")
      #expect(manager.heldPages(pool: 0) == (reused + 7) / 8)
      #expect(manager.mismatches(1, TokenPrints(prompt)).isEmpty)
      try manager.checkIntegrity()
      // It goes on as any other; the page that it parted from stays what it was.
      #expect(manager.extend(1, to: prompt.count))
      manager.write(1, TokenPrints(prompt), from: reused, to: prompt.count)
      manager.computed(1, upTo: prompt.count, tokens: prompt)
      #expect(manager.mismatches(1, TokenPrints(prompt)).isEmpty)
      try manager.checkIntegrity()
      manager.remove(1)
      #expect(manager.addSequence(2, tokens: text) == 96 && manager.mismatches(2, TokenPrints(text)).isEmpty)
      manager.remove(2)
      reusedTokens += reused + 96
      copiedTokens += reused % 8
    }
    #expect(manager.statistics.prefixes.reusedTokens == reusedTokens && manager.statistics.prefixes.copiedTokens == copiedTokens)
  }

  @Test("is also the one inside which a sequence ended, until another has its tokens too")
  func tails() throws {
    let manager = try makePrefixManager(windows: [nil, 20], pages: 400, reusesPartialPages: true)
    let text = randomTokens(24)
    func end(_ tokens: [Int32], retention: KVRetention? = nil) throws -> Int? {
      let reused = manager.run(0, tokens, retention: retention)
      manager.remove(0, tokens: tokens)
      try manager.checkIntegrity()
      return reused
    }
    #expect(try end(Array(text[..<19])) == 0 && manager.cachedPages(pool: 0) == 3)
    // The same again leaves its last token to compute; what goes on has all of it.
    #expect(try end(Array(text[..<19])) == 18 && manager.cachedPages(pool: 0) == 3)
    #expect(manager.cachedPrefix(of: text) == 19 && manager.cachedPrefix(of: text[..<17] + [-1]) == 17)
    #expect(manager.addSequence(1, tokens: text) == 19 && manager.mismatches(1, TokenPrints(text)).isEmpty)
    manager.remove(1)
    // One that ends earlier in the page adds nothing; one that ends later replaces it; one that parts adds its own.
    #expect(try end(Array(text[..<18])) == 17 && manager.cachedPages(pool: 0) == 3)
    #expect(try end(Array(text[..<21])) == 19 && manager.cachedPages(pool: 0) == 3)
    #expect(manager.cachedPrefix(of: text) == 21)
    #expect(try end(text[..<18] + [-1, -2]) == 18 && manager.cachedPages(pool: 0) == 4)
    // The full page replaces what its tokens began with.
    #expect(try end(text, retention: .low) == 21 && manager.cachedPages(pool: 0) == 4)
    #expect(manager.cachedPrefix(of: text + [-1]) == 24 && manager.cachedPrefix(of: text[..<18] + [-1, -2, -3]) == 20)
    #expect(manager.statistics.prefixes.evictedPages == 0)
    #expect(manager.cachedPages(pool: 1) == 4)
    // Without the tokens nothing is remembered of the last page.
    #expect(manager.run(2, text + [7, 7, 7]) == 24)
    manager.remove(2)
    #expect(manager.cachedPrefix(of: text + [7, 7, 7, 7]) == 24)
  }

  @Test("is the one that agrees longest, of this salt, and not with the switch off")
  func longest() throws {
    let manager = try makePrefixManager(windows: [nil], reusesPartialPages: true)
    let common = randomTokens(16)
    let pages = (0..<5).map { randomTokens(8, seed: UInt64(10 + $0)) }
    for (id, page) in pages.enumerated() { #expect(manager.run(id, common + page, salt: 1)! <= 16) }
    for (index, page) in pages.enumerated() {
      for count in 1..<8 {
        #expect(manager.addSequence(100, tokens: common + page[..<count] + [-1], salt: 1) == 16 + count)
        #expect(manager.mismatches(100, TokenPrints(common + page, salt: 1)).isEmpty, "page \(index), \(count) tokens")
        manager.remove(100)
      }
    }
    #expect(manager.cachedPrefix(of: common + pages[2], salt: 2) == 0)
    let off = try makePrefixManager(windows: [nil])
    #expect(off.run(0, common + pages[0]) == 0 && off.cachedPrefix(of: common + pages[0]) == 16)
    #expect(off.cachedPrefix(of: common + pages[0][..<5] + [-1]) == 16)
  }

  @Test("is left where there is no page for the copy, and is not given up for it")
  func noRoom() throws {
    // Six pages: four of the text, and two more.
    let manager = try makePrefixManager(windows: [nil], pages: 6, maxLength: 48, maxSequences: 4, reusesPartialPages: true)
    let text = randomTokens(32)
    #expect(manager.run(0, text) == 0)
    manager.remove(0)
    #expect(manager.addSequence(1) && manager.extend(1, to: 16))
    #expect(manager.freePages(pool: 0) == 0 && manager.cachedPages(pool: 0) == 4)
    // Three pages are held and the fourth is what would be copied: there is no other.
    let prompt = text[..<28] + [-1]
    #expect(manager.cachedPrefix(of: Array(prompt)) == 24 && manager.addSequence(2, tokens: Array(prompt)) == 24)
    #expect(manager.cachedPages(pool: 0) == 1 && manager.cachedPrefix(of: text + [-1]) == 32, "nothing has changed")
    try manager.checkIntegrity()
    manager.remove(2)
    // One page less of the text: its last page goes for the copy of the one before it.
    #expect(manager.addSequence(2, tokens: Array(text[..<20] + [-1])) == 20)
    #expect(manager.mismatches(2, TokenPrints(text)).isEmpty && manager.cachedPrefix(of: text + [-1]) == 24)
    try manager.checkIntegrity()
  }

  @Test("stays while another page can go for the copy, though it is the least recently held")
  func source() throws {
    let manager = try makePrefixManager(windows: [nil, 64], pages: 16, maxLength: 64, maxSequences: 4, reusesPartialPages: true)
    let (older, newer) = (randomTokens(24, seed: 1), randomTokens(24, seed: 2))
    #expect(manager.run(0, older) == 0 && manager.run(1, newer) == 0)
    manager.remove(0)
    manager.remove(1)
    #expect(manager.addSequence(2) && manager.extend(2, to: 16))
    for pool in 0..<2 { #expect(manager.freePages(pool: pool) == 0 && manager.cachedPages(pool: pool) == 6) }
    #expect(manager.addSequence(3, tokens: older[..<20] + [-1]) == 20 && manager.mismatches(3, TokenPrints(older)).isEmpty)
    #expect(manager.cachedPrefix(of: older + [-1]) == 24 && manager.cachedPrefix(of: newer + [-1]) == 16)
    try manager.checkIntegrity()
  }

  @Test("must be there in every pool whose layers see earlier tokens")
  func windows() throws {
    // A window of 20 tokens, pages of 8; a window of one token sees none but its own.
    let manager = try makePrefixManager(windows: [nil, 20, 1], pages: 90, maxSequences: 3, reusesPartialPages: true)
    let text = randomTokens(64 + 5)
    #expect(manager.run(0, text) == 0)
    manager.remove(0)
    for parted in [61, 33, 20, 9, 3] {
      #expect(manager.addSequence(1, tokens: text[..<parted] + [-1]) == parted)
      #expect(manager.mismatches(1, TokenPrints(text)).isEmpty)
      let first = max(0, parted - 19) / 8
      #expect(manager.table(1, pool: 1)[..<(parted / 8 + 1)].map { $0 >= 0 } == (0...parted / 8).map { $0 >= first })
      try manager.checkIntegrity()
      manager.remove(1)
    }
  }

  @Test("helps only with what the next token sees, which can be less than after the whole pages before it")
  func seenThroughWindow() throws {
    let manager = try makePrefixManager(windows: [nil, 20], pages: 400, maxSequences: 3, reusesPartialPages: true)
    let text = randomTokens(64 + 5)
    #expect(manager.run(0, text) == 0)
    manager.remove(0)
    // Sequences that are not computed hold pages; the window pool is the smaller one, and gives up the text's first five.
    #expect(manager.addSequence(1) && manager.extend(1, to: 200) && manager.addSequence(2))
    let room = manager.freePages(pool: 1)
    #expect(manager.freePages(pool: 0) > room + 5 && manager.extend(2, to: (room + 5) * 8))
    #expect(manager.cachedPages(pool: 0) == 8 && manager.cachedPages(pool: 1) == 3)
    // A token at 59 sees from 40 on, which are pages 5, 6 and 7; one at 58 sees page 4 too, and so does one at 56, after seven whole pages.
    for (parted, reused) in [(63, 63), (60, 60), (59, 59), (58, 0), (56, 0), (47, 0), (3, 0)] {
      let prompt = text[..<parted] + [-1]
      #expect(manager.cachedPrefix(of: Array(prompt)) == 0, "there is no page for a copy")
      manager.remove(2)
      #expect(manager.cachedPrefix(of: Array(prompt)) == reused && manager.addSequence(2, tokens: Array(prompt)) == reused)
      #expect(manager.mismatches(2, TokenPrints(text)).isEmpty)
      try manager.checkIntegrity()
      manager.remove(2)
      #expect(manager.addSequence(2) && manager.extend(2, to: (room + 5) * 8) && manager.cachedPages(pool: 1) == 3)
    }
  }
}

@Suite("Retention")
struct KVCacheRetentionTests {
  @Test("lets a prefix of high retention survive what evicts normal ones, and low ones go first")
  func levels() throws {
    let manager = try makePrefixManager(windows: [nil], pages: 40, maxLength: 160, maxSequences: 4)
    let (low, normal, high) = (randomTokens(80, seed: 1), randomTokens(80, seed: 2), randomTokens(80, seed: 3))
    func cached() -> [Int] { [low, normal, high].map { manager.cachedPrefix(of: $0 + [-1]) } }
    // The high one is the oldest, and the low one the newest.
    for (id, (text, retention)) in [(high, KVRetention.high), (normal, nil), (low, .low)].enumerated() {
      #expect(manager.run(id, text, retention: retention) == 0)
      manager.remove(id)
    }
    #expect(manager.freePages(pool: 0) == 10 && cached() == [80, 80, 80])
    #expect(manager.addSequence(9) && manager.extend(9, to: 80) && cached() == [80, 80, 80])
    #expect(manager.extend(9, to: 120) && cached() == [40, 80, 80])
    #expect(manager.extend(9, to: 160) && cached() == [0, 80, 80])
    #expect(manager.addSequence(8) && manager.extend(8, to: 72) && cached() == [0, 8, 80])
    try manager.checkIntegrity()
    #expect(manager.extend(8, to: 80) && cached() == [0, 0, 80])
    // Nothing else is left: now it goes, from its end.
    #expect(manager.extend(8, to: 120) && cached() == [0, 0, 40])
    try manager.checkIntegrity()
  }

  @Test("of what continues a prefix raises the prefix, and pages used again rise to the retention of their user")
  func prefixes() throws {
    let manager = try makePrefixManager(windows: [nil], pages: 40, maxLength: 320, maxSequences: 4, retention: .low)
    let (prefix, other) = (randomTokens(40, seed: 1), randomTokens(80, seed: 2))
    let long = prefix + randomTokens(40, seed: 3)
    #expect(manager.run(0, prefix) == 0)
    manager.remove(0)
    #expect(manager.run(0, long, retention: .high) == 40)
    manager.remove(0)
    #expect(manager.run(0, other, retention: .normal) == 0)
    manager.remove(0)
    try manager.checkIntegrity()
    #expect(manager.addSequence(9) && manager.extend(9, to: 240))
    #expect(manager.cachedPrefix(of: long + [-1]) == 80 && manager.cachedPrefix(of: other + [-1]) == 0)
    manager.remove(9)
    // A page that was given up has no retention: whoever fills it next gives it one.
    #expect(manager.run(1, other) == 0)
    manager.remove(1)
    #expect(manager.run(2, randomTokens(160, seed: 4), retention: .normal) == 0)
    #expect(manager.addSequence(3) && manager.extend(3, to: 80) && manager.cachedPrefix(of: other + [-1]) == 0)
    #expect(manager.cachedPrefix(of: long + [-1]) == 80)
    try manager.checkIntegrity()
  }

  @Test("of a sequence that ends inside a known page raises that page")
  func tails() throws {
    let manager = try makePrefixManager(windows: [nil], pages: 40, maxLength: 320, maxSequences: 4, reusesPartialPages: true)
    let (text, other) = (randomTokens(29, seed: 1), randomTokens(29, seed: 2))
    for (tokens, retention) in [(text, KVRetention.low), (text, .high), (other, .normal)] {
      #expect(manager.run(0, tokens, retention: retention) == (retention == .high ? 28 : 0))
      manager.remove(0, tokens: tokens)
    }
    try manager.checkIntegrity()
    // Three pages have to go, which are the other text's: one more is left of that, to make room for a copy.
    #expect(manager.addSequence(9) && manager.extend(9, to: 35 * 8))
    #expect(manager.cachedPrefix(of: text + [-1]) == 29 && manager.cachedPrefix(of: other + [-1]) == 8)
    try manager.checkIntegrity()
  }

  @Test("counts in a window pool page by page")
  func windows() throws {
    let manager = try makePrefixManager(windows: [16], pages: 20, maxLength: 160, maxSequences: 4)
    let (high, normal) = (randomTokens(64, seed: 1), randomTokens(64, seed: 2))
    #expect(manager.run(0, high, retention: .high) == 0 && manager.run(1, normal) == 0)
    manager.remove(0)
    manager.remove(1)
    #expect(manager.addSequence(2) && manager.extend(2, to: 96))
    #expect(manager.cachedPrefix(of: high + [-1]) == 64 && manager.cachedPages(pool: 0) == 8)
    #expect(manager.cachedPrefix(of: normal + [-1]) == 0)
    try manager.checkIntegrity()
  }
}
