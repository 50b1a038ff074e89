// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// SplitMix64: the same numbers for the same seed on every machine. Every test's randomness comes from a seed that stands in the test.
package struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64

  package init(seed: UInt64) { state = seed }

  package mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  /// Roughly normal with mean 0 and deviation 1: the sum of twelve uniform numbers, less six.
  package mutating func normal() -> Float {
    var sum = 0.0
    for _ in 0..<12 { sum += Double.random(in: 0..<1, using: &self) }
    return Float(sum - 6)
  }
}
