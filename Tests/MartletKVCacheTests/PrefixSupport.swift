// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCPU
import MartletCore
import MartletKVCache
import MartletTestSupport

/// Layers of one head of 4 + 4 dims in bf16, one for each window.
func makePrefixManager(
  windows: [Int?], pageSize: Int = 8, pages: Int? = nil, maxLength: Int = 200, maxSequences: Int = 12, chunk: Int? = 64,
  reusesPrefixes: Bool = true, reusesPartialPages: Bool = false, retention: KVRetention = .normal
) throws -> KVCacheManager {
  let layers = windows.map {
    KVLayerSpec(layout: .nhd(dataType: .bf16, pageSize: pageSize, numKVHeads: 1, headDim: 4, valueHeadDim: 4), window: $0)
  }
  // Keys and values of one head of 4 dims in bf16: 16 bytes a token and layer.
  return try KVCacheManager(
    layers: layers,
    config: KVCacheConfig(
      pageSize: .tokens(pageSize), budget: pages.map { .bytes($0 * pageSize * 16) } ?? .automatic, reusesPrefixes: reusesPrefixes,
      reusesPartialPages: reusesPartialPages, retention: retention), maxSequenceLength: maxLength, maxSequences: maxSequences,
    maxTokensPerStep: chunk,
    on: CPUDevice(threads: 1))
}

func randomTokens(_ count: Int, seed: UInt64 = 1) -> [Int32] {
  var random = SeededGenerator(seed: seed)
  return (0..<count).map { _ in Int32.random(in: 0..<1000, using: &random) }
}

/// What these tests store of a token in place of its keys and values: a function of the salt and of all tokens up to it, as theirs are.
struct TokenPrints {
  private var prints: [UInt64] = []

  init(_ tokens: [Int32], salt: UInt64 = 0) {
    var print = salt
    for token in [-1] + tokens {
      var generator = SeededGenerator(seed: print &+ UInt64(UInt32(bitPattern: token)))
      print = generator.next()
      prints.append(print)
    }
  }

  /// The 8 bytes of its 4 keys, and those of its 4 values.
  func words(_ position: Int, layer: Int) -> (UInt64, UInt64) {
    let print = prints[position + 1] &+ UInt64(layer)
    return (print, print.byteSwapped ^ 0x5555)
  }
}

extension KVCacheManager {
  /// Calls `body` with the place of each token's keys and values, in every layer that has its page.
  private func withTokens(
    _ id: Int, _ positions: Range<Int>, _ body: (_ layer: Int, _ position: Int, UnsafeMutableRawPointer, UnsafeMutableRawPointer) -> Void
  ) {
    let tables = (0..<poolCount).map { table(id, pool: $0) }
    for layer in layers.indices {
      let start = UnsafeMutableRawPointer(pages(layer: layer).unsafeHostPointer(to: UInt16.self)!.baseAddress!)
      for position in positions {
        let page = Int(tables[pool(ofLayer: layer)][position / pageSize])
        if page < 0 { continue }
        let keys = start + page * layout(layer: layer).pageByteCount + position % pageSize * 8
        body(layer, position, keys, keys + layout(layer: layer).valuesByteOffset)
      }
    }
  }

  /// Writes tokens as a step does.
  func write(_ id: Int, _ prints: TokenPrints, from start: Int, to end: Int) {
    withTokens(id, start..<end) { layer, position, keys, values in
      let (keyWord, valueWord) = prints.words(position, layer: layer)
      keys.storeBytes(of: keyWord, as: UInt64.self)
      values.storeBytes(of: valueWord, as: UInt64.self)
    }
  }

  /// Where the sequence's computed tokens are not what was written of them; not of layers in which a token sees itself alone.
  func mismatches(_ id: Int, _ prints: TokenPrints) -> [String] {
    var found: [String] = []
    withTokens(id, 0..<computedLength(id)) { layer, position, keys, values in
      if layers[layer].window == 1 { return }
      if (keys.load(as: UInt64.self), values.load(as: UInt64.self)) != prints.words(position, layer: layer) {
        found.append("layer \(layer), position \(position) of sequence \(id)")
      }
    }
    return found
  }

  func table(_ id: Int, pool: Int = 0) -> [Int32] {
    withUnsafeTemporaryAllocation(of: Int32.self, capacity: maxPagesPerSequence) { row in
      writePageTable(id, length: length(id), pool: pool, into: row)
      return Array(row)
    }
  }

  /// Adds a sequence, computes it in one step and says how many tokens it had from the cache; nil where it does not fit.
  func run(_ id: Int, _ tokens: [Int32], salt: UInt64 = 0, retention: KVRetention? = nil) -> Int? {
    guard let reused = addSequence(id, tokens: tokens, salt: salt, retention: retention) else { return nil }
    guard extend(id, to: tokens.count) else {
      remove(id)
      return nil
    }
    write(id, TokenPrints(tokens, salt: salt), from: reused, to: tokens.count)
    computed(id, upTo: tokens.count, tokens: tokens)
    return reused
  }
}
