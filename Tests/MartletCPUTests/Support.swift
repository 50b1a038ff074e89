// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// What the tests of this module share: a seeded generator, tensors from arrays, and the devices to try.

import MartletCPU
package import MartletCore
import Testing

/// A small generator of known quality (SplitMix64), so that a failing case can be repeated from its seed.
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

  /// `count` values of a bell-like shape, within ±`scale`·√3 of 0.
  package mutating func floats(_ count: Int, scale: Float = 1) -> [Float] {
    (0..<count).map { _ in scale * (Float.random(in: -1...1, using: &self) + .random(in: -1...1, using: &self)) }
  }
}

extension Device {
  /// A tensor of its own with these values.
  package func tensor<Element: BitwiseCopyable>(_ values: [Element], _ shape: Shape, _ dataType: DataType) throws -> Tensor {
    let tensor = try makeTensor(shape, dataType)
    let target = try #require(tensor.unsafeHostPointer(to: Element.self))
    precondition(values.count == target.count, "\(values.count) values for a tensor of \(shape)")
    for (index, value) in values.enumerated() { target[index] = value }
    return tensor
  }

  package func tensor(_ values: [Float], _ shape: Shape) throws -> Tensor { try tensor(values, shape, .f32) }
}

extension Tensor {
  /// The float32 elements, copied.
  package var floats: [Float] { Array(unsafeHostPointer(to: Float.self)!) }
  /// The int32 elements, copied.
  package var integers: [Int32] { Array(unsafeHostPointer(to: Int32.self)!) }
}

/// The names of the instruction sets that this machine can run, the portable one and the bf16 model always among them.
package let runnableInstructionSets = CPUDevice.instructionSets.filter(\.isSupported).map(\.name)
