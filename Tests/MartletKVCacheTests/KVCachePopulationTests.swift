// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCPU
import MartletCore
import MartletKVCache
import MartletTestSupport
import Testing

#if os(Linux)
@Suite("The memory of the key/value cache")
struct KVCachePopulationTests {
  @Test("is there for a first sequence before it comes, and no more of it than that")
  func population() throws {
    let hugePage = 2 << 20, pageSize = 32, tokens = 1024
    let layout = KVLayout.nhd(dataType: .f32, pageSize: pageSize, numKVHeads: 4, headDim: 128, valueHeadDim: 128)
    let manager = try KVCacheManager(
      layers: [KVLayerSpec(layout: layout), KVLayerSpec(layout: layout, window: 64)], config: KVCacheConfig(pageSize: .tokens(pageSize)),
      maxSequenceLength: 8192, maxSequences: 1, maxTokensPerStep: 512, on: CPUDevice(threads: 2))
    func resident(_ layer: Int) throws -> (bytes: Int, of: Int) {
      let pages = manager.pages(layer: layer), start = try #require(pages.buffer.hostAddress) + pages.byteOffset
      return (try residentByteCount(of: UnsafeRawBufferPointer(start: start, count: pages.byteCount)), pages.byteCount)
    }
    #expect(try resident(0).bytes == 0 && resident(1).bytes == 0, "memory is given when it is used")
    manager.populate(tokens: tokens)
    let wanted = tokens / pageSize * layout.pageByteCount, whole = try resident(0), window = try resident(1)
    #expect(whole.bytes >= wanted && whole.bytes <= wanted + hugePage, "\(whole.bytes) of \(wanted) bytes")
    // Pages for a window and a chunk are fewer than those of the sequence.
    #expect(window.bytes == window.of && window.of < wanted, "\(window.bytes) of \(window.of) bytes")
    #expect(try #require(manager.pages(layer: 0).unsafeHostPointer(to: Float.self)).prefix(wanted / 4).allSatisfy { $0 == 0 })
  }
}
#endif
