// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Which pages a sequence takes from earlier ones that began alike, and that the books stay right whatever happens.

import MartletCPU
import MartletCore
import MartletKVCache
import MartletTestSupport
import Testing

private func makeManager(
  windows: [Int?], pageSize: Int = 8, pages: Int? = nil, maxLength: Int = 200, maxSequences: Int = 12, chunk: Int? = 64,
  reusesPrefixes: Bool = true
) throws -> KVCacheManager {
  let layers = windows.map {
    KVLayerSpec(layout: .nhd(dataType: .bf16, pageSize: pageSize, numKVHeads: 1, headDim: 4, valueHeadDim: 4), window: $0)
  }
  // Keys and values of one head of 4 dims in bf16: 16 bytes a token and layer.
  return try KVCacheManager(
    layers: layers,
    config: KVCacheConfig(
      pageSize: .tokens(pageSize), budget: pages.map { .bytes($0 * pageSize * 16) } ?? .automatic, maxSequenceLength: maxLength,
      maxSequences: maxSequences, maxTokensPerStep: chunk, reusesPrefixes: reusesPrefixes),
    on: CPUDevice(threads: 1))
}

private func tokens(_ count: Int, seed: UInt64 = 1) -> [Int32] {
  var random = SeededGenerator(seed: seed)
  return (0..<count).map { _ in Int32.random(in: 0..<1000, using: &random) }
}

extension KVCacheManager {
  fileprivate func table(_ id: Int, pool: Int = 0) -> [Int32] {
    withUnsafeTemporaryAllocation(of: Int32.self, capacity: maxPagesPerSequence) { row in
      writePageTable(id, length: length(id), pool: pool, into: row)
      return Array(row)
    }
  }

  /// Adds a sequence, computes it in one step and says how many tokens it had from the cache; nil where it does not fit.
  fileprivate func run(_ id: Int, _ tokens: [Int32], salt: UInt64 = 0) -> Int? {
    guard let reused = addSequence(id, tokens: tokens, salt: salt) else { return nil }
    guard extend(id, to: tokens.count) else {
      remove(id)
      return nil
    }
    computed(id, upTo: tokens.count, tokens: tokens)
    return reused
  }
}

@Suite("The prefix cache")
struct KVCachePrefixTests {
  @Test("gives a sequence the full pages of the longest prefix, and never the last token")
  func longestPrefix() throws {
    let manager = try makeManager(windows: [nil])
    let text = tokens(100)
    #expect(manager.run(0, text) == 0)
    let table = manager.table(0)
    manager.remove(0)
    #expect(manager.heldPages(pool: 0) == 0 && manager.cachedPages(pool: 0) == 12)
    // (prompt, tokens that it takes): pages of 8, at least one token left.
    for (prompt, reused) in [
      (text, 96), (Array(text[..<96]), 88), (Array(text[..<97]), 96), (Array(text[..<8]), 0), (Array(text[..<9]), 8),
      (text[..<50] + [5000] + text[51...], 48), ([5000] + text[1...], 0), (text + tokens(20, seed: 2), 96),
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
    let manager = try makeManager(windows: [nil])
    let text = tokens(60)
    #expect(manager.run(0, text, salt: 1) == 0 && manager.run(1, text, salt: 2) == 0 && manager.run(2, text, salt: 1) == 56)
    #expect(manager.heldPages(pool: 0) == 7 + 1 + 7 + 1 + 1)
    try manager.checkIntegrity()
    let off = try makeManager(windows: [nil], reusesPrefixes: false)
    #expect(off.run(0, text) == 0 && off.run(1, text) == 0)
    off.remove(0)
    off.remove(1)
    #expect(off.cachedPages(pool: 0) == 0 && off.freePages(pool: 0) == off.pageCount(pool: 0))
    try off.checkIntegrity()
  }

  @Test("holds a prefix of 1000 tokens once for 32 sequences, also for those that computed it at the same time")
  func common() throws {
    let manager = try makeManager(windows: [nil], pages: 3000, maxLength: 1100, maxSequences: 32, chunk: 1100)
    let common = tokens(1000)
    // All are added before any is computed.
    let sequences = (0..<32).map { common + tokens(40, seed: UInt64(100 + $0)) }
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
    let manager = try makeManager(windows: [nil, 20], pages: 400)
    let text = tokens(64 + 5)
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
    let manager = try makeManager(windows: [nil], pages: 30, maxLength: 160, maxSequences: 4)
    let (first, second) = (tokens(80, seed: 1), tokens(80, seed: 2))
    #expect(manager.run(0, first) == 0 && manager.run(1, second) == 0)
    manager.remove(0)
    manager.remove(1)
    #expect(manager.cachedPages(pool: 0) == 20 && manager.freePages(pool: 0) == 10)
    // Looking the first up again makes it the more recent one.
    #expect(manager.addSequence(2, tokens: first) == 72)
    manager.remove(2)
    #expect(manager.run(3, tokens(120, seed: 3)) == 0)  // 15 pages: 10 free ones and the 5 oldest leaves
    // The last page of the first was not looked up again, so it went first; then four of the second, from its end.
    #expect(manager.cachedPrefix(of: first + [1]) == 72 && manager.cachedPrefix(of: second + [1]) == 48)
    #expect(manager.statistics.prefixes.evictedPages == 5)
    try manager.checkIntegrity()
    // 15 pages are held; 16 more are not to be had, and asking for them changes nothing.
    #expect(manager.addSequence(4) && !manager.extend(4, to: 128) && manager.cachedPages(pool: 0) == 15)
    #expect(manager.extend(4, to: 120) && manager.cachedPages(pool: 0) == 0 && manager.freePages(pool: 0) == 0)
    #expect(manager.cachedPrefix(of: tokens(120, seed: 3)) == 112, "what is held stays")
    try manager.checkIntegrity()
  }

  @Test(
    "keeps the books over a hundred thousand random operations, and a page's tokens are those it was filled with",
    arguments: [[nil], [nil, 40, nil, 7, 40], [16, 40], [3]] as [[Int?]])
  func randomOperations(windows: [Int?]) throws {
    let seed = UInt64(windows.count)
    var random = SeededGenerator(seed: seed)
    let pageSize = 4
    let manager = try makeManager(windows: windows, pageSize: pageSize, pages: 60 * windows.count, maxLength: 120, chunk: 32)
    struct Sequence {
      var tokens: [Int32]
      var salt: UInt64
      var isTold: Bool
    }
    var sequences: [Int: Sequence] = [:]
    /// What each page of each pool was filled with last: the independent truth.
    var contents: [[Int32: [Int32]]] = Array(repeating: [:], count: manager.poolCount)
    var nextID = 0
    var (refusals, reuses, shares, tight) = (0, 0, 0, 0)
    func checkContents(_ id: Int) {
      guard let sequence = sequences[id] else { return }
      for pool in 0..<manager.poolCount {
        for (entry, page) in manager.table(id, pool: pool).enumerated()
        where page >= 0 && (entry + 1) * pageSize <= manager.computedLength(id) {
          let prefix = [Int32(sequence.salt)] + sequence.tokens[..<((entry + 1) * pageSize)]
          if contents[pool][page] != prefix { Issue.record("pool \(pool), page \(page) of sequence \(id) at \(entry) has other tokens") }
        }
      }
    }
    for operation in 0..<100_000 {
      let id = sequences.isEmpty ? nil : sequences.keys.sorted().randomElement(using: &random)
      switch Int.random(in: 0..<11, using: &random) {
      case 0, 1:
        // Few beginnings and two tokens: prefixes meet often, and part often.
        let base = (0..<120).map { Int32($0 / 13 % 3) }
        var text = base
        for index in Int.random(in: 0..<120, using: &random)..<120 { text[index] = Int32.random(in: 0..<2, using: &random) }
        let isTold = Int.random(in: 0..<8, using: &random) > 0
        let sequence = Sequence(tokens: text, salt: isTold ? UInt64.random(in: 0..<2, using: &random) : 0, isTold: isTold)
        let prompt = Array(text[..<Int.random(in: 1...120, using: &random)])
        let hasRoom = manager.hasRoom(for: prompt, salt: sequence.salt, reusing: isTold, chunk: 32)
        let expected = isTold ? manager.cachedPrefix(of: prompt, salt: sequence.salt) : 0
        let reused = isTold ? manager.addSequence(nextID, tokens: prompt, salt: sequence.salt) : manager.addSequence(nextID) ? 0 : nil
        #expect(reused == (sequences.count < 12 ? expected : nil))
        guard let reused else { break }
        // What was said before it came is what can be seen now that it is there.
        let fits = (0..<manager.poolCount).allSatisfy { pool in
          let missing = manager.peakPages(length: prompt.count, chunk: 32, pool: pool) - manager.heldPages(pool: pool, by: nextID)
          return missing <= manager.freePages(pool: pool) + manager.cachedPages(pool: pool)
        }
        #expect(hasRoom == fits)
        if !fits { tight += 1 }
        #expect(reused < prompt.count && reused % pageSize == 0)
        if reused > 0 { reuses += 1 }
        sequences[nextID] = sequence
        checkContents(nextID)
        nextID += 1
      case 2...4:
        guard let id else { break }
        let target = min(120, manager.length(id) + Int.random(in: 0...32, using: &random))
        let room = (0..<manager.poolCount).map { manager.freePages(pool: $0) + manager.cachedPages(pool: $0) }
        let fits = room.indices.allSatisfy { manager.pagesNeeded(id, to: target, pool: $0) <= room[$0] }
        #expect(manager.extend(id, to: target) == fits)
        if !fits { refusals += 1 }
      case 5...7:
        guard let id, let sequence = sequences[id] else { break }
        let done = manager.computedLength(id)
        let length = Int.random(in: done...manager.length(id), using: &random)
        // The step writes: every page from the first uncomputed token on.
        for pool in 0..<manager.poolCount {
          for (entry, page) in manager.table(id, pool: pool).enumerated()
          where page >= 0 && entry >= done / pageSize && (entry + 1) * pageSize <= length {
            contents[pool][page] = [Int32(sequence.salt)] + sequence.tokens[..<((entry + 1) * pageSize)]
          }
        }
        if sequence.isTold {
          manager.computed(id, upTo: length, tokens: sequence.tokens)
        } else {
          manager.computed(id, upTo: length)
        }
        checkContents(id)
      case 8:
        guard let id, let sequence = sequences[id], sequences.count < 12 else { break }
        #expect(manager.addSequence(nextID))
        if manager.share(prefixOf: id, tokens: manager.computedLength(id) / pageSize * pageSize, with: nextID) { shares += 1 }
        sequences[nextID] = sequence
        if manager.length(nextID) == 0 { sequences[nextID]?.salt = 0 }
        nextID += 1
      default:
        guard let id else { break }
        manager.remove(id)
        sequences[id] = nil
      }
      if operation % 1000 == 999 {
        try manager.checkIntegrity()
        for id in sequences.keys { checkContents(id) }
      }
    }
    #expect(refusals > 100 && reuses > 1000 && shares > 100 && tight > 100)
    #expect(manager.statistics.prefixes.evictedPages > 1000)
    for id in sequences.keys { manager.remove(id) }
    try manager.checkIntegrity()
    for pool in 0..<manager.poolCount {
      #expect(manager.freePages(pool: pool) + manager.cachedPages(pool: pool) == manager.pageCount(pool: pool))
    }
  }
}
