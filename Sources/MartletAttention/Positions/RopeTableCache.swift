// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// The rotation tables on a device, one for each distinct set of parameters.
struct RopeTableCache {
  private var tables: [PositionalEmbeddingParams: RopeTable] = [:]

  init() {}

  mutating func table(_ parameters: PositionalEmbeddingParams, maxPositions: Int, on device: any Device) throws -> RopeTable {
    var key = parameters
    key.kind = .rope
    if let table = tables[key] { return table }
    if let problem = parameters.rope.problem ?? parameters.mrope?.problem(dim: parameters.rope.dim) {
      throw AttentionError.invalidRope(problem)
    }
    let values = parameters.rope.table(maxPositions: maxPositions)
    let host = try device.makeHostBuffer(of: Float.self, count: values.count)
    _ = host.unsafeStorage.update(fromContentsOf: values)
    let tensor = try device.makeTensor(Shape(maxPositions, parameters.rope.dim / 2, 2), .f32)
    let queue = device.makeQueue()
    queue.copy(host, count: values.count, to: tensor)
    var axes: Tensor?
    if let sections = parameters.mrope {
      let hostAxes = try device.makeHostBuffer(of: Int32.self, count: parameters.rope.dim / 2)
      for (pair, axis) in sections.axes.enumerated() { hostAxes[pair] = Int32(axis) }
      let tensor = try device.makeTensor(Shape(parameters.rope.dim / 2), .i32)
      queue.copy(hostAxes, count: hostAxes.count, to: tensor)
      axes = tensor
    }
    queue.wait()
    let table = RopeTable(
      dim: parameters.rope.dim, firstDim: parameters.firstDim, isNeoX: parameters.isNeoX, values: tensor, axes: axes)
    tables[key] = table
    return table
  }
}
