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
      config: KVCacheConfig(
        pageSize: .tokens(pageSize), budget: .bytes(60_000), maxSequenceLength: maxLength, maxSequences: 12, maxTokensPerStep: 64),
      on: CPUDevice(threads: 1))
    #expect(manager.poolCount == 3)
    var lengths: [Int: Int] = [:]
    var computed: [Int: Int] = [:]
    var nextID = 0
    var refusals = 0
    for _ in 0..<10_000 {
      let id = lengths.keys.sorted().randomElement(using: &random)
      switch Int.random(in: 0..<10, using: &random) {
      case 0...1:
        let added = manager.addSequence(nextID)
        #expect(added == (lengths.count < 12))
        if added { (lengths[nextID], computed[nextID]) = (0, 0) }
        nextID += 1
      case 2...5:
        guard let id, let length = lengths[id] else { continue }
        let target = min(maxLength, length + Int.random(in: 0...64, using: &random))
        let free = (0..<3).map { manager.freePages(pool: $0) }
        let needed = (0..<3).map { manager.pagesNeeded(id, to: target, pool: $0) }
        let fits = zip(free, needed).allSatisfy { $0 >= $1 }
        #expect(manager.extend(id, to: target) == fits)
        #expect((0..<3).map { manager.freePages(pool: $0) } == (fits ? zip(free, needed).map { $0 - $1 } : free))
        if fits { lengths[id] = target } else { refusals += 1 }
      case 6...8:
        guard let id, let length = lengths[id], let done = computed[id] else { continue }
        computed[id] = Int.random(in: done...length, using: &random)
        manager.computed(id, upTo: computed[id]!)
      default:
        guard let id else { continue }
        manager.remove(id)
        (lengths[id], computed[id]) = (nil, nil)
      }
      try manager.checkIntegrity()
      for (id, length) in lengths { #expect(manager.length(id) == length && manager.computedLength(id) == computed[id]) }
    }
    #expect(refusals > 100, "the budget was to be tight enough that extending is refused")
    for id in lengths.keys { manager.remove(id) }
    try manager.checkIntegrity()
    for pool in 0..<3 { #expect(manager.freePages(pool: pool) == manager.pageCount(pool: pool)) }
  }

  @Test("of a window pool hold no more than the window and the chunk", arguments: [1, 8, 40], [1, 16, 64])
  func windowPools(window: Int, chunk: Int) throws {
    let manager = try KVCacheManager(
      layers: layers(pageSize: 8, windows: [window]),
      config: KVCacheConfig(pageSize: .tokens(8), maxSequenceLength: 400, maxSequences: 1, maxTokensPerStep: chunk),
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
      layers: layers(pageSize: 8, windows: [nil, 16]), config: KVCacheConfig(pageSize: .tokens(8), maxSequenceLength: 64, maxSequences: 2),
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

  @Test("of a linear cache give each sequence one page")
  func linear() throws {
    let manager = try KVCacheManager(
      layers: layers(pageSize: 100, windows: [nil, 10]), config: KVCacheConfig(pageSize: .linear, maxSequenceLength: 100, maxSequences: 3),
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
