// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletCUDAStandIn
import Foundation
import MartletCUDA
import MartletCore
import Testing

/// Devices over the emulator: everything of `MartletCUDA` but the compiler and the GPU itself.
enum StandIn {
  static func driver() throws -> CUDADriver { try CUDADriver(procAddress: martlet_stand_in_proc_address()) }

  static func context(ordinal: Int = 0) throws -> CUDAContext { try CUDAContext(driver(), ordinal: ordinal) }

  static func device(ordinal: Int = 0) throws -> CUDADevice {
    try CUDADevice(context(ordinal: ordinal)) { (_) throws(DeviceError) in image }
  }

  /// What the stand-in takes for machine code.
  static var image: [UInt8] { Array(String(cString: martlet_stand_in_image()).utf8) + [0] }
}

extension Device {
  /// A tensor of its own with these values.
  func tensor<Element: BitwiseCopyable & Sendable>(_ values: [Element], _ shape: Shape, _ dataType: DataType) throws -> Tensor {
    try #require(values.count == shape.count)
    let tensor = try makeTensor(shape, dataType), host = try makeHostBuffer(of: Element.self, count: values.count), queue = makeQueue()
    for (index, value) in values.enumerated() { host[index] = value }
    queue.copy(host, count: values.count, to: tensor)
    try queue.finish()
    return tensor
  }

  func tensor(_ values: [Float], _ shape: Shape) throws -> Tensor { try tensor(values, shape, .f32) }

  /// The elements of a tensor.
  func values<Element: BitwiseCopyable & Sendable>(_ tensor: Tensor, as type: Element.Type = Float.self) throws -> [Element] {
    let host = try makeHostBuffer(of: type, count: tensor.count), queue = makeQueue()
    queue.copy(tensor, to: host)
    try queue.finish()
    return (0..<tensor.count).map { host[$0] }
  }
}

/// SplitMix64: the same numbers for the same seed.
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  /// `count` values of a bell-like shape around 0.
  mutating func floats(_ count: Int, scale: Float = 1) -> [Float] {
    (0..<count).map { _ in scale * (Float.random(in: -1...1, using: &self) + .random(in: -1...1, using: &self)) }
  }
}
