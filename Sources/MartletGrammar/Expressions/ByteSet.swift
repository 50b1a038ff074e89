// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// A set of bytes, 256 bits.
struct ByteSet: Hashable, Sendable {
  var words: SIMD4<UInt64>

  init() { words = .zero }
  init(words: SIMD4<UInt64>) { self.words = words }
  init(_ byte: UInt8) {
    self.init()
    insert(byte)
  }
  init(_ range: ClosedRange<UInt8>) {
    self.init()
    for byte in range { insert(byte) }
  }

  static var all: ByteSet { ByteSet(words: SIMD4(repeating: .max)) }

  var isEmpty: Bool { words == .zero }
  var count: Int { (0..<4).reduce(0) { $0 + words[$1].nonzeroBitCount } }

  mutating func insert(_ byte: UInt8) { words[Int(byte >> 6)] |= 1 << UInt64(byte & 63) }

  @inline(__always)
  func contains(_ byte: UInt8) -> Bool { words[Int(byte >> 6)] >> UInt64(byte & 63) & 1 == 1 }

  func union(_ other: ByteSet) -> ByteSet { ByteSet(words: words | other.words) }
  func intersection(_ other: ByteSet) -> ByteSet { ByteSet(words: words & other.words) }

  /// Calls `body` with every byte of the set, in order.
  @inline(__always)
  func forEach(_ body: (UInt8) -> Void) {
    for index in 0..<4 {
      var word = words[index]
      while word != 0 {
        body(UInt8(index << 6 + word.trailingZeroBitCount))
        word &= word - 1
      }
    }
  }
}
