// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// The budget is a promise: never passed, never silently shrunk, and what cannot work says so in numbers.

import MartletCPU
import MartletCore
import MartletKVCache
import Testing

@Suite("The budget of the key/value cache")
struct KVCacheBudgetTests {
  /// A page of 16 tokens: 16 · 2 heads · (8 + 8) dims · 2 bytes.
  private let pageBytes = 1024
  private func layer(window: Int? = nil) -> KVLayerSpec {
    KVLayerSpec(layout: .nhd(dataType: .f16, pageSize: 16, numKVHeads: 2, headDim: 8, valueHeadDim: 8), window: window)
  }
  private func manager(
    _ layers: [KVLayerSpec], _ budget: KVCacheConfig.Budget, pageSize: Int = 16, maxSequenceLength: Int = 256, maxSequences: Int = 4,
    chunk: Int? = nil
  ) throws -> KVCacheManager {
    try KVCacheManager(
      layers: layers, config: KVCacheConfig(pageSize: .tokens(pageSize), budget: budget), maxSequenceLength: maxSequenceLength,
      maxSequences: maxSequences, maxTokensPerStep: chunk, on: CPUDevice())
  }

  @Test("in bytes gives as many pages as fit, the layers of a pool counted together")
  func bytes() throws {
    let manager = try self.manager([layer(), layer(), layer()], .bytes(10 * 3 * pageBytes + 5))
    #expect(manager.pageCount(pool: 0) == 10)
    #expect(manager.statistics.byteCount == 10 * 3 * pageBytes)
    #expect(manager.statistics.budgetByteCount == 10 * 3 * pageBytes + 5)
    #expect(manager.pages(layer: 2).byteCount == 10 * pageBytes)
  }

  @Test("that cannot hold one page of every pool is an error that names the numbers")
  func tooSmall() throws {
    let layers = [layer(), layer(window: 32)]
    let error = #expect(throws: KVCacheError.self) {
      try manager(layers, .bytes(2 * pageBytes - 1))
    }
    #expect(error == .budgetTooSmall(budget: 2 * pageBytes - 1, needed: 2 * pageBytes, pageSize: 16, pools: 2))
    #expect("\(error!)".contains("kvCache.budget"))
    let smallest = try manager(layers, .bytes(2 * pageBytes))
    #expect(smallest.pageCount(pool: 0) == 1 && smallest.pageCount(pool: 1) == 1)
  }

  @Test("chosen automatically suffices for every sequence at its longest")
  func automatic() throws {
    let layers = [layer(), layer(window: 32)]
    let manager = try self.manager(layers, .automatic, chunk: 16)
    #expect(manager.pageCount(pool: 0) == 4 * 16)
    // A chunk of 16 and 31 tokens before it lie in at most 4 pages.
    #expect(manager.pageCount(pool: 1) == 4 * 4)
    #expect(manager.statistics.budgetOrigin.contains("chosen"))
    for id in 0..<4 {
      #expect(manager.addSequence(id))
      var length = 0
      while length < 256 {
        length += 16
        #expect(manager.extend(id, to: length))
        manager.computed(id, upTo: length)
      }
    }
  }

  @Test("is never passed, and what one pool cannot use goes to the others", arguments: [3, 17, 64, 100, 1000])
  func shares(pages: Int) throws {
    let layers = [layer(), layer(window: 32), layer(), layer(window: 64)]
    let manager = try self.manager(layers, .bytes(pages * 2 * pageBytes), chunk: 16)
    #expect(manager.statistics.byteCount <= pages * 2 * pageBytes)
    for pool in 0..<3 {
      let most = 4 * manager.peakPages(length: 256, chunk: 16, pool: pool)
      #expect((1...most).contains(manager.pageCount(pool: pool)))
    }
    if pages == 1000 {
      for pool in 0..<3 { #expect(manager.pageCount(pool: pool) == 4 * manager.peakPages(length: 256, chunk: 16, pool: pool)) }
    }
  }

  @Test("as a fraction of the free memory is taken when the cache is made")
  func fraction() throws {
    let device = try CPUDevice()
    let manager = try self.manager([layer()], .fractionOfFreeMemory(0.001))
    #expect(manager.budgetByteCount > 0 && manager.budgetByteCount < device.availableByteCount / 100)
  }

  @Test("tells which lengths can never fit, and why")
  func neverFits() throws {
    let manager = try self.manager([layer(), layer(window: 32)], .bytes(12 * pageBytes), chunk: 16)
    // 12 pages: 4 for the window's pool, the rest for the other, whatever the rounding.
    let whole = 8
    #expect(manager.obstacle(toLength: whole * 16) == nil)
    let reason = try #require(manager.obstacle(toLength: whole * 16 + 1))
    #expect(reason.contains("\(whole + 1) pages") && reason.contains("kvCache.budget"))
    #expect(try #require(manager.obstacle(toLength: 257)).contains("256"))
  }

  @Test("and the other options are checked before memory is taken")
  func invalidOptions() throws {
    func error(_ make: @autoclosure () throws -> KVCacheManager) -> String {
      #expect(throws: KVCacheError.self) { try make() }?.description ?? ""
    }
    let layers = [layer()]
    #expect(error(try manager(layers, .automatic, pageSize: 24)).contains("power of two"))
    #expect(error(try manager(layers, .automatic, maxSequenceLength: 0)).contains("maxSequenceLength"))
    #expect(error(try manager(layers, .automatic, maxSequences: 0)).contains("maxSequences"))
    #expect(error(try manager(layers, .automatic, chunk: 0)).contains("maxTokensPerStep"))
    #expect(error(try manager(layers, .fractionOfFreeMemory(1.5))).contains("1.5"))
    #expect(error(try manager(layers, .bytes(0))).contains("budget"))
    // The layer's layout has pages of 16 tokens.
    #expect(error(try manager(layers, .automatic, pageSize: 32)).contains("layer 0"))
  }
}
