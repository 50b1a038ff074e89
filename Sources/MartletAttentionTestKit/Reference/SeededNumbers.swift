// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Numbers that are a function of a seed (SplitMix64): the same on every machine, in every order of asking.
public struct SeededNumbers: RandomNumberGenerator, Sendable {
  private var state: UInt64

  public init(seed: UInt64) { state = seed }

  /// The generator of one thing among many: of a request's token, say.
  public init(seed: UInt64, _ words: Int...) {
    var mixed = SeededNumbers(seed: seed)
    for word in words { mixed.state = mixed.next() ^ UInt64(bitPattern: Int64(word)) }
    state = mixed.next()
  }

  public mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  /// Below `count`.
  mutating func index(below count: Int) -> Int { Int(next() % UInt64(count)) }

  /// About normally distributed, with mean 0 and deviation 1: the sum of twelve uniform numbers, less its mean. No library's logarithm decides
  /// its bits.
  mutating func normal() -> Float {
    var sum = 0
    for _ in 0..<3 {
      let bits = next()
      for part in 0..<4 { sum += Int(bits >> UInt64(16 * part) & 0xFFFF) }
    }
    return Float(sum) / 65536 - 6
  }

  package mutating func normals(_ count: Int) -> [Float] { (0..<count).map { _ in normal() } }
}
