// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Whatever sequences share, copy, keep and give up, in whatever order: the books stay right, and what a sequence has of its tokens is what was
// written of these tokens.

import MartletKVCache
import MartletTestSupport
import Testing

@Suite("The prefix cache at random")
struct KVCachePrefixRandomTests {
  private struct Sequence {
    var tokens: [Int32]
    var salt: UInt64
    var isTold: Bool
    var prints: TokenPrints
  }

  private static let pageSize = 4
  private static let maxLength = 120

  /// The pages that were ever filled with tokens that were told, and those inside which sequences ended: the independent truth about what can be reused.
  private struct Filled {
    var prefixes: Set<[Int32]> = []
    var ofSalt: [UInt64: [[Int32]]] = [:]

    mutating func insert(_ tokens: ArraySlice<Int32>, salt: UInt64) {
      let prefix = Array(tokens)
      if prefixes.insert([Int32(salt)] + prefix).inserted { ofSalt[salt, default: []].append(prefix) }
    }

    /// How many tokens of the prompt the longest agreement with a page that is there still gives, its last token left.
    func longest(_ prompt: [Int32], salt: UInt64, _ manager: KVCacheManager) -> Int {
      var best = 0
      for prefix in ofSalt[salt, default: []] {
        var count = 0
        while count < min(prefix.count, prompt.count - 1), prefix[count] == prompt[count] { count += 1 }
        // A page is there where a sequence that goes on after it would begin with it: −1 is no token of any page.
        if count > best, manager.cachedPrefix(of: prefix + [-1], salt: salt) == prefix.count { best = count }
      }
      return best
    }
  }

  @Test(
    "keeps the books over a hundred thousand operations, and every token of every sequence",
    arguments: [[nil], [nil, 40, nil, 7, 40], [16, 40], [3], [nil, 1]] as [[Int?]])
  func operations(windows: [Int?]) throws {
    let (pageSize, maxLength) = (Self.pageSize, Self.maxLength)
    var random = SeededGenerator(seed: UInt64(windows.count))
    let manager = try makePrefixManager(
      windows: windows, pageSize: pageSize, pages: 60 * windows.count, maxLength: maxLength, chunk: 32, reusesPartialPages: true)
    var sequences: [Int: Sequence] = [:]
    var filled = Filled()
    var nextID = 0
    var (refusals, reuses, copies, shares, tight, compared, roomless) = (0, 0, 0, 0, 0, 0, 0)
    func checkContents(_ id: Int) {
      guard let sequence = sequences[id], let first = manager.mismatches(id, sequence.prints).first else { return }
      Issue.record("\(first) has other tokens' contents")
    }
    func available() -> [Int] { (0..<manager.poolCount).map { manager.freePages(pool: $0) + manager.cachedPages(pool: $0) } }
    for operation in 0..<100_000 {
      let id = sequences.isEmpty ? nil : sequences.keys.sorted().randomElement(using: &random)
      switch Int.random(in: 0..<11, using: &random) {
      case 0, 1:
        // Few beginnings and two tokens: prefixes meet often, and part often, at any token.
        var text = (0..<maxLength).map { Int32($0 / 13 % 3) }
        for index in Int.random(in: 0..<maxLength, using: &random)..<maxLength { text[index] = Int32.random(in: 0..<2, using: &random) }
        let isTold = Int.random(in: 0..<8, using: &random) > 0
        let salt = isTold ? UInt64.random(in: 0..<2, using: &random) : 0
        let retention = ([nil] + KVRetention.allCases).randomElement(using: &random)!
        let prompt = Array(text[..<Int.random(in: 1...maxLength, using: &random)])
        let hasRoom = manager.hasRoom(for: prompt, salt: salt, reusing: isTold, chunk: 32)
        let expected = isTold ? manager.cachedPrefix(of: prompt, salt: salt) : 0
        var longest: Int?
        if windows == [nil], isTold, Int.random(in: 0..<20, using: &random) == 0 { longest = filled.longest(prompt, salt: salt, manager) }
        let reused =
          isTold
          ? manager.addSequence(nextID, tokens: prompt, salt: salt, retention: retention)
          : manager.addSequence(nextID, retention: retention) ? 0 : nil
        #expect(reused == (sequences.count < 12 ? expected : nil))
        guard let reused else { break }
        // What was said before it came is what can be seen now that it is there.
        let room = available()
        let fits = room.indices.allSatisfy { pool in
          manager.peakPages(length: prompt.count, chunk: 32, pool: pool) - manager.heldPages(pool: pool, by: nextID) <= room[pool]
        }
        #expect(hasRoom == fits)
        if !fits { tight += 1 }
        #expect(reused < prompt.count)
        if reused > 0 { reuses += 1 }
        if reused % pageSize > 0 { copies += 1 }
        if let longest {
          compared += 1
          // Without a page for the copy, besides the one that is copied, whole pages only.
          if room[0] <= 1 {
            #expect(reused / pageSize == longest / pageSize)
            roomless += 1
          } else {
            #expect(reused == longest)
          }
        }
        sequences[nextID] = Sequence(tokens: text, salt: salt, isTold: isTold, prints: TokenPrints(text, salt: salt))
        checkContents(nextID)
        nextID += 1
      case 2...4:
        guard let id else { break }
        let target = min(maxLength, manager.length(id) + Int.random(in: 0...32, using: &random))
        let room = available()
        let fits = room.indices.allSatisfy { manager.pagesNeeded(id, to: target, pool: $0) <= room[$0] }
        #expect(manager.extend(id, to: target) == fits)
        if !fits { refusals += 1 }
      case 5...7:
        guard let id, let sequence = sequences[id] else { break }
        let done = manager.computedLength(id)
        let length = Int.random(in: done...manager.length(id), using: &random)
        manager.write(id, sequence.prints, from: done, to: length)
        if sequence.isTold {
          manager.computed(id, upTo: length, tokens: sequence.tokens)
          for pages in 0..<length / pageSize { filled.insert(sequence.tokens[..<((pages + 1) * pageSize)], salt: sequence.salt) }
        } else {
          manager.computed(id, upTo: length)
        }
        checkContents(id)
      case 8:
        guard let id, var sequence = sequences[id], sequences.count < 12 else { break }
        #expect(manager.addSequence(nextID, retention: KVRetention.allCases.randomElement(using: &random)))
        if manager.share(prefixOf: id, tokens: manager.computedLength(id) / pageSize * pageSize, with: nextID) { shares += 1 }
        if manager.length(nextID) == 0 {
          sequence.salt = 0
          sequence.prints = TokenPrints(sequence.tokens)
        }
        sequences[nextID] = sequence
        nextID += 1
      default:
        guard let id, let sequence = sequences[id] else { break }
        if sequence.isTold && Bool.random(using: &random) {
          let length = manager.computedLength(id)
          if length > 0 { filled.insert(sequence.tokens[..<length], salt: sequence.salt) }
          manager.remove(id, tokens: sequence.tokens)
        } else {
          manager.remove(id)
        }
        sequences[id] = nil
      }
      if operation % 1000 == 999 {
        try manager.checkIntegrity()
        for id in sequences.keys { checkContents(id) }
      }
    }
    #expect(refusals > 100 && reuses > 1000 && copies > 1000 && shares > 100 && tight > 100)
    #expect(windows != [nil] || compared > 500 && roomless < compared / 2)
    #expect(manager.statistics.prefixes.evictedPages > 1000 && manager.statistics.prefixes.copiedTokens > copies)
    for id in sequences.keys { manager.remove(id) }
    try manager.checkIntegrity()
    for pool in 0..<manager.poolCount {
      #expect(manager.freePages(pool: pool) + manager.cachedPages(pool: pool) == manager.pageCount(pool: pool))
    }
  }
}
