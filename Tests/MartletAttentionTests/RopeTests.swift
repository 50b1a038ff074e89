// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Rotary frequencies of every scaling kind, against formulas written again from their sources.

import Foundation
import MartletAttention
import MartletCPU
import MartletCore
import Testing

@Suite("Rotary positions")
struct RopeTests {
  private let dim = 64
  private func plain(_ pair: Int, theta: Double = 10000) -> Double { exp(-Double(2 * pair) / Double(dim) * log(theta)) }

  private func expect(_ rope: RopeParams, maxSequenceLength: Int = 4096, _ expected: (Int) -> Double) {
    let frequencies = rope.frequencies(maxSequenceLength: maxSequenceLength)
    #expect(frequencies.count == dim / 2)
    for (pair, frequency) in frequencies.enumerated() {
      // Both sides are double; pow and exp∘log differ in the last bits.
      #expect(abs(frequency / expected(pair) - 1) < 1e-12, "pair \(pair) of \(rope.scaling)")
    }
  }

  @Test("without scaling fall geometrically, and linear scaling divides them")
  func noneAndLinear() {
    expect(RopeParams(dim: dim, theta: 500_000)) { plain($0, theta: 500_000) }
    expect(RopeParams(dim: dim, scaling: .linear(factor: 8))) { plain($0) / 8 }
    expect(RopeParams(dim: dim, frequencyDivisors: (0..<32).map { Double($0 + 1) })) { plain($0) / Double($0 + 1) }
  }

  @Test("under dynamic scaling have a larger base")
  func dynamic() {
    // alpha^(dim / (dim − 2)) on the base is alpha^(−2i / (dim − 2)) on frequency i: the last pair is slowed by exactly alpha.
    expect(RopeParams(dim: dim, scaling: .dynamic(alpha: 6))) { plain($0) * pow(6, -2 * Double($0) / Double(dim - 2)) }
  }

  @Test("under llama3 scaling keep fast pairs, slow down slow ones and blend between")
  func llama3() {
    let rope = RopeParams(
      dim: dim, theta: 500_000, scaling: .llama3(factor: 32, lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositions: 8192))
    var kinds = Set<Int>()
    expect(rope) { pair in
      let frequency = plain(pair, theta: 500_000)
      let turns = 8192 * frequency / (2 * Double.pi)  // within the original length
      if turns > 4 { kinds.insert(0); return frequency }
      if turns < 1 { kinds.insert(1); return frequency / 32 }
      kinds.insert(2)
      let share = (turns - 1) / 3
      return frequency * (share + (1 - share) / 32)
    }
    #expect(kinds == [0, 1, 2], "all three kinds of pair were met")
  }

  @Test("under yarn ramp between the pairs of many and of few turns")
  func yarn() {
    let rope = RopeParams(dim: dim, scaling: .yarn(factor: 16, originalMaxPositions: 4096))
    // The pairs that turn 32 times and once in 4096 positions: 2π·32·10000^(2i/64) = 4096.
    let low = floor(32 * log(4096 / (32 * 2 * Double.pi)) / log(10000))
    let high = ceil(32 * log(4096 / (2 * Double.pi)) / log(10000))
    #expect((low, high) == (10, 23))
    expect(rope) { pair in
      let kept = 1 - min(1, max(0, (Double(pair) - low) / (high - low)))
      return plain(pair) * (kept + (1 - kept) / 16)
    }
    #expect(abs(rope.magnitude - (0.1 * log(16) + 1)) < 1e-15)
    // gpt-oss: the ramp begins and ends between pairs.
    let first = 32 * log(4096 / (32 * 2 * Double.pi)) / log(10000), last = 32 * log(4096 / (2 * Double.pi)) / log(10000)
    expect(RopeParams(dim: dim, scaling: .yarn(factor: 16, originalMaxPositions: 4096, truncates: false))) { pair in
      let kept = 1 - min(1, max(0, (Double(pair) - first) / (last - first)))
      return plain(pair) * (kept + (1 - kept) / 16)
    }
    let deepSeek = RopeParams(
      dim: dim, scaling: .yarn(factor: 40, originalMaxPositions: 4096, mscale: 0.707, mscaleAllDim: 0.707))
    #expect(deepSeek.magnitude == 1)
  }

  @Test("under longrope take the list that the engine's length chooses, once for all requests")
  func longRope() {
    let short = (0..<32).map { 1 + Double($0) / 100 }
    let long = (0..<32).map { 1 + Double($0) }
    let rope = RopeParams(
      dim: dim, scaling: .longRope(shortFactors: short, longFactors: long, originalMaxPositions: 4096, maxPositions: 131_072))
    expect(rope, maxSequenceLength: 4096) { plain($0) / short[$0] }
    expect(rope, maxSequenceLength: 4097) { plain($0) / long[$0] }
    // Phi-3's published attention factor for 128k over 4k: √(1 + ln 32 / ln 4096).
    #expect(abs(rope.magnitude - 1.1902380714238083) < 1e-12)
  }

  @Test("are tabled in double and rounded once")
  func table() throws {
    let context = AttentionContext(device: try CPUDevice(threads: 1), kvCache: nil, maxNumRequests: 1, maxNumTokens: 2048)
    let rope = RopeParams(dim: dim, scaling: .yarn(factor: 2, originalMaxPositions: 1024))
    let table = try context.ropeTable(PositionalEmbeddingParams(rope))
    let values = try #require(table.values.unsafeHostPointer(to: Float.self))
    let frequencies = rope.frequencies(maxSequenceLength: 2048)
    for position in [0, 1, 17, 2047] {
      for pair in 0..<32 {
        let angle = Double(position) * frequencies[pair]
        #expect(values[(position * 32 + pair) * 2] == Float(cos(angle) * rope.magnitude))
        #expect(values[(position * 32 + pair) * 2 + 1] == Float(sin(angle) * rope.magnitude))
      }
    }
    let again = try context.ropeTable(PositionalEmbeddingParams(rope))
    #expect(again.values.address == table.values.address, "layers with the same parameters share one table")
  }

  @Test("with parameters that cannot work say what is wrong")
  func problems() {
    #expect(RopeParams(dim: 64).problem == nil)
    #expect(RopeParams(dim: 63).problem?.contains("63") == true)
    #expect(RopeParams(dim: 64, theta: 0).problem != nil)
    #expect(RopeParams(dim: 64, scaling: .linear(factor: 0)).problem != nil)
    #expect(RopeParams(dim: 64, scaling: .llama3(factor: 8, lowFreqFactor: 4, highFreqFactor: 4)).problem != nil)
    #expect(RopeParams(dim: 64, frequencyDivisors: [1]).problem?.contains("32 pairs") == true)
    #expect(
      RopeParams(dim: 64, scaling: .longRope(shortFactors: [1], longFactors: [1], originalMaxPositions: 4096, maxPositions: 8192))
        .problem != nil)
  }
}
