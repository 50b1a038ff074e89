// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// How a weight is coded in its file, and stays coded in memory.
///
/// A format is a block: `blockSize` neighbours along k coded in `blockByteCount` bytes. The bytes are those of GGUF
/// (`gguf-py/gguf/constants.py` and `quants.py` are the public description).
///
/// | format | a value is | block |
/// |---|---|---|
/// | `q4_0` | d·(q − 8), q 4 bits | f16 d, 16 bytes of codes |
/// | `q4_1` | d·q + m | f16 d, f16 m, 16 bytes |
/// | `q5_0` | d·(q − 16), q 5 bits | f16 d, 4 bytes of fifth bits, 16 bytes |
/// | `q8_0` | d·q, q int8 | f16 d, 32 bytes |
/// | `q4_K` | d·s·q − dmin·m, s and m 6 bits per 32 | f16 d, f16 dmin, 12 bytes of s and m, 128 bytes |
/// | `q6_K` | d·s·(q − 32), s int8 per 16 | 128 + 64 bytes of codes, 16 bytes of s, f16 d |
public enum WeightFormat: String, Sendable, Hashable, CaseIterable {
  case f32 = "F32"
  case f16 = "F16"
  case bf16 = "BF16"
  case q4_0 = "Q4_0"
  case q4_1 = "Q4_1"
  case q5_0 = "Q5_0"
  case q8_0 = "Q8_0"
  case q4_K = "Q4_K"
  case q6_K = "Q6_K"

  /// Values in one block.
  public var blockSize: Int {
    switch self {
    case .f32, .f16, .bf16: 1
    case .q4_0, .q4_1, .q5_0, .q8_0: 32
    case .q4_K, .q6_K: 256
    }
  }

  /// Bytes of one block.
  public var blockByteCount: Int {
    switch self {
    case .f32: 4
    case .f16, .bf16: 2
    case .q4_0: 18
    case .q4_1: 20
    case .q5_0: 22
    case .q8_0: 34
    case .q4_K: 144
    case .q6_K: 210
    }
  }

  /// Bytes of a row of `count` values.
  /// - Precondition: `count` is a multiple of `blockSize`.
  public func byteCount(ofRow count: Int) -> Int {
    precondition(count % blockSize == 0, "a row of \(count) values does not divide into \(rawValue) blocks of \(blockSize)")
    return count / blockSize * blockByteCount
  }
}
