// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Whatever happens to sequences, in whatever order, the books of the cache stay right.

import MartletCPU
import MartletCore
import MartletKVCache
import MartletTestSupport
import Testing

/// Layers of two windows and none, so that three pools run side by side.
private func layers(pageSize: Int, windows: [Int?]) -> [KVLayerSpec] {
  windows.map {
    KVLayerSpec(layout: .nhd(dataType: .bf16, pageSize: pageSize, numKVHeads: 1, headDim: 4, valueHeadDim: 4), window: $0)
  }
}

@Suite("The books of the key/value cache")
struct KVCacheOperationTests {
  @Test("stay right over ten thousand random operations", arguments: [1, 2, 3] as [UInt64])
  func randomOperations(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    let pageSize = 8
    let maxLength = 200
    let manager = try KVCacheManager(
      layers: layers(pageSize: pageSize, windows: [nil, 40, nil, 7, 40]),
      config: KVCacheConfig(pageSize: .tokens(pageSize), budget: .bytes(60_000)), maxSequenceLength: maxLength, maxSequences: 12,
      maxTokensPerStep: 64,
      on: CPUDevice(threads: 1))
    #expect(manager.poolCount == 3)
    var lengths: [Int: Int] = [:]
    var computed: [Int: Int] = [:]
    var nextID = 0
    var refusals = 0
    var shares = 0
    var shareRefusals = 0
    for _ in 0..<10_000 {
      let id = lengths.keys.sorted().randomElement(using: &random)
      switch Int.random(in: 0..<11, using: &random) {
      case 0:
        let added = manager.addSequence(nextID)
        #expect(added == (lengths.count < 12))
        if added { (lengths[nextID], computed[nextID]) = (0, 0) }
        nextID += 1
      case 1...4:
        guard let id, let length = lengths[id] else { continue }
        let target = min(maxLength, length + Int.random(in: 0...64, using: &random))
        let free = (0..<3).map { manager.freePages(pool: $0) }
        let needed = (0..<3).map { manager.pagesNeeded(id, to: target, pool: $0) }
        let fits = zip(free, needed).allSatisfy { $0 >= $1 }
        #expect(manager.extend(id, to: target) == fits)
        #expect((0..<3).map { manager.freePages(pool: $0) } == (fits ? zip(free, needed).map { $0 - $1 } : free))
        if fits { lengths[id] = target } else { refusals += 1 }
      case 5...7:
        guard let id, let length = lengths[id], let done = computed[id] else { continue }
        computed[id] = Int.random(in: done...length, using: &random)
        manager.computed(id, upTo: computed[id]!)
      case 8:
        // The prefix of a sequence for a new one: what its next token sees must still be there, in every pool.
        guard let id, let done = computed[id], lengths.count < 12 else { continue }
        let tokens = (Bool.random(using: &random) ? done / pageSize : Int.random(in: 0...done / pageSize, using: &random)) * pageSize
        #expect(manager.addSequence(nextID))
        let free = (0..<3).map { manager.freePages(pool: $0) }
        let fits = [40, 7].allSatisfy { max(0, done - $0 + 1) / pageSize <= max(0, tokens - $0 + 1) / pageSize }
        #expect(manager.share(prefixOf: id, tokens: tokens, with: nextID) == fits)
        #expect((0..<3).map { manager.freePages(pool: $0) } == free, "sharing takes no page")
        (lengths[nextID], computed[nextID]) = fits ? (tokens, tokens) : (0, 0)
        if fits && tokens > 0 { shares += 1 } else if !fits { shareRefusals += 1 }
        nextID += 1
      default:
        guard let id else { continue }
        manager.remove(id)
        (lengths[id], computed[id]) = (nil, nil)
      }
      try manager.checkIntegrity()
      for (id, length) in lengths { #expect(manager.length(id) == length && manager.computedLength(id) == computed[id]) }
    }
    #expect(refusals > 100, "the budget was to be tight enough that extending is refused")
    #expect(shares > 20 && shareRefusals > 20, "\(shares) prefixes were shared, \(shareRefusals) were behind a window")
    for id in lengths.keys { manager.remove(id) }
    try manager.checkIntegrity()
    for pool in 0..<3 { #expect(manager.freePages(pool: pool) == manager.pageCount(pool: pool)) }
  }

  @Test("of a window pool hold no more than the window and the chunk", arguments: [1, 8, 40], [1, 16, 64])
  func windowPools(window: Int, chunk: Int) throws {
    let manager = try KVCacheManager(
      layers: layers(pageSize: 8, windows: [window]),
      config: KVCacheConfig(pageSize: .tokens(8)), maxSequenceLength: 400, maxSequences: 1, maxTokensPerStep: chunk,
      on: CPUDevice(threads: 1))
    #expect(manager.pageCount(pool: 0) == manager.peakPages(length: 400, chunk: chunk, pool: 0))
    #expect(manager.addSequence(7))
    var most = 0
    var length = 0
    while length < 400 {
      length = min(400, length + chunk)
      #expect(manager.extend(7, to: length), "what peakPages promises suffices")
      most = max(most, manager.heldPages(pool: 0, by: 7))
      manager.computed(7, upTo: length)
      try manager.checkIntegrity()
    }
    #expect(most <= (window - 1 + chunk + 6) / 8 + 1)
    // The next query, at position 400, sees the keys above 400 − window.
    #expect(manager.heldPages(pool: 0) == 50 - (400 - window + 1) / 8)
  }

  @Test("say −1 in a page table for pages behind the window and for those not there yet")
  func pageTables() throws {
    let manager = try KVCacheManager(
      layers: layers(pageSize: 8, windows: [nil, 16]), config: KVCacheConfig(pageSize: .tokens(8)), maxSequenceLength: 64, maxSequences: 2,
      on: CPUDevice(threads: 1))
    #expect(manager.addSequence(1) && manager.addSequence(2))
    #expect(manager.extend(1, to: 40) && manager.extend(2, to: 9))
    manager.computed(1, upTo: 33)
    func table(_ id: Int, length: Int, pool: Int) -> [Int32] {
      withUnsafeTemporaryAllocation(of: Int32.self, capacity: 6) { row in
        manager.writePageTable(id, length: length, pool: pool, into: row)
        return Array(row)
      }
    }
    // Position 33 sees keys from 18 on: pages 0 and 1 are behind. Only pages of the asked length are listed.
    let windowed = table(1, length: 34, pool: 1)
    #expect(windowed.map { $0 >= 0 } == [false, false, true, true, true, false])
    let whole = table(1, length: 30, pool: 0)
    #expect(whole.map { $0 >= 0 } == [true, true, true, true, false, false])
    #expect(table(2, length: 9, pool: 0).map { $0 >= 0 } == [true, true, false, false, false, false])
    #expect(Set(table(1, length: 40, pool: 0)).intersection(table(2, length: 9, pool: 0)) == [-1])
  }

  @Test("let sequences hold the pages of a common prefix together, until the last of them is removed")
  func sharing() throws {
    let manager = try KVCacheManager(
      layers: layers(pageSize: 8, windows: [nil, 16]),
      config: KVCacheConfig(pageSize: .tokens(8)), maxSequenceLength: 64, maxSequences: 3, on: CPUDevice(threads: 1))
    func table(_ id: Int, _ length: Int, pool: Int = 0) -> [Int32] {
      withUnsafeTemporaryAllocation(of: Int32.self, capacity: 8) { row in
        manager.writePageTable(id, length: length, pool: pool, into: row)
        return Array(row)
      }
    }
    #expect(manager.addSequence(1) && manager.extend(1, to: 37))
    manager.computed(1, upTo: 37)
    #expect(manager.addSequence(2) && manager.share(prefixOf: 1, tokens: 32, with: 2))
    #expect((manager.length(2), manager.computedLength(2)) == (32, 32))
    #expect(table(2, 32)[..<4] == table(1, 37)[..<4] && table(2, 32)[4] == -1)
    // A query at 32 sees keys from 17 on: entries 2 and 3 of the window pool.
    #expect(table(2, 32, pool: 1)[..<4] == [-1, -1] + table(1, 37, pool: 1)[2..<4])
    #expect(manager.heldPages(pool: 0) == 5 && manager.heldPages(pool: 0, by: 2) == 4)
    #expect(manager.statistics.pools[0].heldPages == 5)
    // Each goes on in pages of its own.
    #expect(manager.extend(2, to: 40) && table(2, 40)[4] != table(1, 37)[4])
    // 16 tokens of sequence 1 are behind its window: a query at 16 would see keys from 1 on.
    #expect(manager.addSequence(3) && !manager.share(prefixOf: 1, tokens: 16, with: 3))
    #expect(manager.length(3) == 0 && manager.heldPages(pool: 0, by: 3) == 0)
    try manager.checkIntegrity()
    let prefix = Array(table(1, 37)[..<4])
    manager.remove(1)
    try manager.checkIntegrity()
    #expect(Array(table(2, 40)[..<4]) == prefix && manager.heldPages(pool: 0) == 5)
    #expect(manager.share(prefixOf: 2, tokens: 32, with: 3))
    manager.remove(2)
    manager.remove(3)
    try manager.checkIntegrity()
    #expect((0..<2).allSatisfy { manager.heldPages(pool: $0) == 0 })
  }

  @Test("of a linear cache give each sequence one page")
  func linear() throws {
    let manager = try KVCacheManager(
      layers: layers(pageSize: 100, windows: [nil, 10]), config: KVCacheConfig(pageSize: .linear), maxSequenceLength: 100, maxSequences: 3,
      on: CPUDevice(threads: 1))
    for id in 0..<3 {
      #expect(manager.addSequence(id) && manager.extend(id, to: 30 * (id + 1)))
      #expect(manager.heldPages(pool: 0, by: id) == 1)
    }
    #expect(!manager.addSequence(3))
    manager.computed(2, upTo: 90)
    try manager.checkIntegrity()
    #expect(manager.heldPages(pool: 1, by: 2) == 1)
  }
}
