// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletAttention
import MartletCore

/// From the states of a step to one vector for each of its texts.
///
/// ```
/// v = pool(states of the text)
/// for each dense layer: v = activation(W · v + b)
/// v = v / |v|                                        if vectors have length 1
/// ```
struct PoolingHead {
  private struct Dense {
    let projection: Projection
    let width: Int
    let hasTanh: Bool
  }

  let pooling: Pooling
  /// Values of a vector.
  let width: Int
  private let dense: [Dense]
  /// `[maxNumRequests, the widest]`, twice: what a dense layer reads, and what it writes.
  private let memory: (Tensor, Tensor)?

  /// Reads `dense_2`, `dense_3` and so on, as far as the files have them: numbers are those of sentence-transformers' modules.
  init(_ loader: inout WeightLoader, _ pooling: Pooling, _ configuration: ModelConfiguration, in context: ModelContext) throws {
    self.pooling = pooling
    var width = configuration.hiddenSize
    var dense: [Dense] = []
    var number = 2
    while loader.has("dense_\(number).weight") {
      let name = "dense_\(number)"
      let rows = try loader.source.weight("\(name).weight", rows: nil, columns: width).rows
      let activation = try loader.source.string(ifPresent: "\(configuration.architecture).\(name)_activation")
      dense.append(
        Dense(
          projection: try loader.projection([(name, rows)], columns: width, hasBias: loader.has("\(name).bias")), width: rows,
          hasTanh: activation == "tanh"))
      width = rows
      number += 1
    }
    self.dense = dense
    self.width = width
    let widest = ([configuration.hiddenSize] + dense.map(\.width)).max() ?? 1
    func make() throws -> Tensor { try context.device.makeTensor(Shape(context.attention.maxNumRequests, widest), .f32) }
    memory = dense.isEmpty ? nil : (try make(), try make())
  }

  /// - Parameters:
  ///   - states: `[tokens, hiddenSize]`.
  ///   - output: `[texts, width]`.
  func callAsFunction(
    _ states: Tensor, metadata: AttentionMetadata, output: Tensor, on queue: any DeviceQueue, _ kernels: any TensorKernels
  ) {
    let count = output.shape[0], starts = metadata.ragged.queryIndptr
    if let memory {
      var (input, next) = memory
      var rows = input.rows(count, columns: states.shape[1])
      kernels.poolRows(pooling.method, states, starts: starts, output: rows, on: queue)
      for (index, layer) in dense.enumerated() {
        let target = index == dense.count - 1 ? output : next.rows(count, columns: layer.width)
        layer.projection(rows, into: target, on: queue, kernels)
        if layer.hasTanh { kernels.scale(target, by: 1, softCap: 1, on: queue) }
        (input, next) = (next, input)
        rows = target
      }
    } else {
      kernels.poolRows(pooling.method, states, starts: starts, output: output, on: queue)
    }
    if pooling.normalizes { kernels.unitRows(output, on: queue) }
  }
}
