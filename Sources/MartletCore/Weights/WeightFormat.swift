// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// How a weight is coded in its file, and stays coded in memory.
///
/// A format is a block: `blockSize` neighbours along k coded in `blockByteCount` bytes. The bytes are those of GGUF
/// (`gguf-py/gguf/constants.py` and `quants.py` are the public description); `e4m3` is known to safetensors only.
///
/// | format | a value is | block |
/// |---|---|---|
/// | `q4_0` | d·(q − 8), q 4 bits | f16 d, 16 bytes of codes |
/// | `q4_1` | d·q + m | f16 d, f16 m, 16 bytes |
/// | `q5_0` | d·(q − 16), q 5 bits | f16 d, 4 bytes of fifth bits, 16 bytes |
/// | `q5_1` | d·q + m, q 5 bits | f16 d, f16 m, 4 bytes of fifth bits, 16 bytes |
/// | `q8_0` | d·q, q int8 | f16 d, 32 bytes |
/// | `q2_K` | d·s·q − dmin·m, q 2 bits, s and m 4 bits per 16 | 16 bytes of s and m, 64 bytes of codes, f16 d, f16 dmin |
/// | `q3_K` | d·(s − 32)·(q − 4), q 3 bits, s 6 bits per 16 | 32 bytes of third bits, 64 bytes, 12 bytes of s, f16 d |
/// | `q4_K` | d·s·q − dmin·m, s and m 6 bits per 32 | f16 d, f16 dmin, 12 bytes of s and m, 128 bytes |
/// | `q5_K` | as `q4_K`, q 5 bits | f16 d, f16 dmin, 12 bytes of s and m, 32 bytes of fifth bits, 128 bytes |
/// | `q6_K` | d·s·(q − 32), s int8 per 16 | 128 + 64 bytes of codes, 16 bytes of s, f16 d |
/// | `iq4_NL` | d·t[q], q 4 bits, t one fixed table of 16 int8 | f16 d, 16 bytes |
/// | `mxfp4` | 2^(e − 127)·q, q 4 bits, e2m1: ±0, 0.5, 1, 1.5, 2, 3, 4, 6 (OCP Microscaling Formats 1.0) | e 8 bits, 16 bytes |
/// | `nvfp4` | s·q, q 4 bits of e2m1, s e4m3 without a sign per 16, times a factor for all that lies apart | 4 bytes of s, 32 bytes of codes |
/// | `e4m3` | a value of 8 bits, ±448 the greatest, times a scale that lies apart (``Weight/Scales``) | one byte |
public enum WeightFormat: String, Sendable, Hashable, Codable, CaseIterable {
  case f32 = "F32"
  case f16 = "F16"
  case bf16 = "BF16"
  case q4_0 = "Q4_0"
  case q4_1 = "Q4_1"
  case q5_0 = "Q5_0"
  case q5_1 = "Q5_1"
  case q8_0 = "Q8_0"
  case q2_K = "Q2_K"
  case q3_K = "Q3_K"
  case q4_K = "Q4_K"
  case q5_K = "Q5_K"
  case q6_K = "Q6_K"
  case iq4_NL = "IQ4_NL"
  case mxfp4 = "MXFP4"
  case nvfp4 = "NVFP4"
  case e4m3 = "F8_E4M3"

  /// Values in one block.
  public var blockSize: Int {
    switch self {
    case .f32, .f16, .bf16, .e4m3: 1
    case .q4_0, .q4_1, .q5_0, .q5_1, .q8_0, .iq4_NL, .mxfp4: 32
    case .nvfp4: 64
    case .q2_K, .q3_K, .q4_K, .q5_K, .q6_K: 256
    }
  }

  /// Bytes of one block.
  public var blockByteCount: Int {
    switch self {
    case .f32: 4
    case .f16, .bf16: 2
    case .e4m3: 1
    case .mxfp4: 17
    case .q4_0, .iq4_NL: 18
    case .q4_1: 20
    case .q5_0: 22
    case .q5_1: 24
    case .q8_0: 34
    case .nvfp4: 36
    case .q2_K: 84
    case .q3_K: 110
    case .q4_K: 144
    case .q5_K: 176
    case .q6_K: 210
    }
  }

  /// Bytes of a row of `count` values.
  /// - Precondition: `count` is a multiple of `blockSize`.
  public func byteCount(ofRow count: Int) -> Int {
    enforce(count % blockSize == 0, "a row of \(count) values does not divide into \(rawValue) blocks of \(blockSize)")
    return count / blockSize * blockByteCount
  }
}
