// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

extension WeightFormat {
  /// The first `count` values as float32, exactly; nil for formats of blocks.
  func widened(_ bytes: UnsafeRawBufferPointer, count: Int) -> [Float]? {
    func bits16(_ index: Int) -> UInt16 { UInt16(littleEndian: bytes.loadUnaligned(fromByteOffset: 2 * index, as: UInt16.self)) }
    switch self {
    case .f32:
      return (0..<count).map { Float(bitPattern: UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self))) }
    case .f16: return (0..<count).map { Float(halfBits: bits16($0)) }
    case .e4m3: return (0..<count).map { Float(Float8E4M3(bitPattern: bytes[$0])) }
    case .bf16: return (0..<count).map { Float(BFloat16(bitPattern: bits16($0))) }
    default: return nil
    }
  }
}
