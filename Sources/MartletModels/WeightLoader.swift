// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletAttention
import MartletCore
import MartletFormats

/// Reads a model's tensors by name, brings them to the device, and knows which were read.
///
/// A tensor that nobody asked for is an error at the end: a formula that ignores a part of the model gives wrong text without a word.
struct WeightLoader {
  let file: GGUFFile
  let device: any Device
  private let architecture: String
  private let progress: ((Double) -> Void)?
  private let totalByteCount: Int
  private var loadedByteCount = 0
  private var names: Set<String> = []

  init(_ file: GGUFFile, architecture: String, on device: any Device, progress: ((Double) -> Void)? = nil) {
    self.file = file
    self.architecture = architecture
    self.device = device
    self.progress = progress
    totalByteCount = max(file.tensors.reduce(0) { $0 + ($1.byteCount ?? 0) }, 1)
  }

  func has(_ name: String) -> Bool { file.tensor(name) != nil }

  /// Matrices with the same columns, stacked by rows into one product.
  mutating func projection(_ parts: [(name: String, rows: Int)], columns: Int) throws -> Projection {
    var weights: [Weight] = []
    for part in parts {
      weights.append(try file.weight(part.name, rows: part.rows, columns: columns))
      note(part.name)
    }
    return Projection(weight: try device.prepare(weights))
  }

  mutating func projection(_ name: String, rows: Int, columns: Int) throws -> Projection {
    try projection([(name, rows)], columns: columns)
  }

  mutating func norm(_ name: String, count: Int, epsilon: Float) throws -> RMSNorm {
    RMSNorm(weight: try vector(name, count: count), epsilon: epsilon)
  }

  mutating func headNorm(_ name: String, count: Int, epsilon: Float) throws -> HeadNorm {
    HeadNorm(weight: try vector(name, count: count), epsilon: epsilon)
  }

  /// Small values that the host needs.
  mutating func floats(_ name: String, count: Int) throws -> [Float] {
    let values = try file.floats(name, count: count)
    note(name)
    return values
  }

  /// - Throws: ``ModelError/unusedTensor(name:architecture:)`` for the first tensor of the file that was not read.
  func finish() throws {
    if let unused = file.tensors.first(where: { !names.contains($0.name) }) {
      throw ModelError.unusedTensor(name: unused.name, architecture: architecture)
    }
  }

  private mutating func vector(_ name: String, count: Int) throws -> Tensor {
    let values = try floats(name, count: count)
    let host = try device.makeHostBuffer(of: Float.self, count: count)
    for (index, value) in values.enumerated() { host[index] = value }
    let tensor = try device.makeTensor(Shape(count), .f32)
    let queue = device.makeQueue()
    queue.copy(host, count: count, to: tensor)
    queue.wait()
    return tensor
  }

  private mutating func note(_ name: String) {
    guard names.insert(name).inserted else { return }
    loadedByteCount += file.tensor(name)?.byteCount ?? 0
    progress?(Double(loadedByteCount) / Double(totalByteCount))
  }
}
