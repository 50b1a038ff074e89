// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletAttention
public import MartletCore

/// Reads a model's tensors by name, brings them to the device, and knows which were read.
///
/// A tensor that nobody asked for is an error at the end: a formula that ignores a part of the model gives wrong text without a word.
public struct WeightLoader {
  public let source: any ModelSource
  public let device: any Device
  /// How products with the weights round their rows.
  public let activations: Activations
  private let architecture: String
  private let progress: ((Double) throws -> Void)?
  private let tensors: [ModelTensor]
  private let byteCounts: [String: Int]
  private let totalByteCount: Int
  private var loadedByteCount = 0
  private var names: Set<String> = []

  /// - Parameter architecture: who reads, for messages.
  public init(
    _ source: any ModelSource, architecture: String, on device: any Device, activations: Activations = .exact,
    progress: ((Double) throws -> Void)? = nil
  ) {
    self.source = source
    self.architecture = architecture
    self.device = device
    self.activations = activations
    self.progress = progress
    tensors = source.modelTensors
    byteCounts = Dictionary(tensors.map { ($0.name, $0.byteCount ?? 0) }, uniquingKeysWith: { $1 })
    totalByteCount = max(byteCounts.values.reduce(0, +), 1)
  }

  /// What loads a model in a context.
  public init(_ source: any ModelSource, architecture: String, in context: ModelContext) {
    self.init(
      source, architecture: architecture, on: context.device, activations: context.activations, progress: context.progress)
  }

  public func has(_ name: String) -> Bool { byteCounts[name] != nil }

  /// The format of a tensor; nil without the tensor, and of one that this build cannot read.
  func format(of name: String) -> WeightFormat? { tensors.first { $0.name == name }?.format }

  /// The first size of a tensor's shape; 0 without the tensor.
  func rows(of name: String) -> Int { tensors.first { $0.name == name }?.shape.first ?? 0 }

  /// Matrices with the same columns, stacked by rows into one product; with a bias, `name.bias` is added to the outputs of `name.weight`.
  /// - Parameters:
  ///   - whole: the name under which some files have all parts as one matrix; taken where the first part is missing.
  ///   - chooses: whether the outputs choose something, such as experts. A sum that is rounded more coarsely moves a little; a choice that turns over
  ///     moves all that follows. So what chooses is exact whatever ``activations`` says, which costs little: its rows are few.
  public mutating func projection(
    _ parts: [(name: String, rows: Int)], orOne whole: String? = nil, columns: Int, hasBias: Bool = false, chooses: Bool = false
  ) throws -> Projection {
    var parts = parts
    let rows = parts.reduce(0) { $0 + $1.rows }
    if let whole, !has("\(parts[0].name).weight"), tensors.first(where: { $0.name == "\(whole).weight" })?.shape.first == rows {
      parts = [(whole, rows)]
    }
    var weights: [Weight] = []
    var bias: [Float] = []
    for part in parts {
      weights.append(try source.weight("\(part.name).weight", rows: part.rows, columns: columns))
      try note("\(part.name).weight")
      if hasBias { bias += try floats("\(part.name).bias", count: part.rows) }
    }
    let prepared = try device.prepare(weights, activations: chooses ? .exact : activations)
    return Projection(weight: prepared, bias: hasBias ? try vector(bias) : nil)
  }

  public mutating func projection(_ name: String, rows: Int, columns: Int) throws -> Projection {
    try projection([(name, rows)], columns: columns)
  }

  /// The matrices of every expert, those of one stacked by rows into one product.
  ///
  /// - Parameter whole: the name under which some files have all parts as one tensor of three dims, those of one expert stacked.
  ///
  /// A part is either one tensor of three dims, `<part>_exps.weight`, or one matrix for each expert, `<part>.<expert>.weight`.
  public mutating func experts(_ parts: [String], orOne whole: String? = nil, count: Int, rows: Int, columns: Int) throws
    -> [any PreparedWeight]
  {
    if let whole, has("\(whole)_exps.weight") {
      let name = "\(whole)_exps.weight"
      let weights = try source.weights(name, count: count, rows: parts.count * rows, columns: columns)
      try note(name)
      return try weights.map { try device.prepare([$0], activations: activations) }
    }
    let weights: [[Weight]] = try parts.map { part in
      let whole = "\(part)_exps.weight"
      if has(whole) || !has("\(part).0.weight") {
        let weights = try source.weights(whole, count: count, rows: rows, columns: columns)
        try note(whole)
        return weights
      }
      return try (0..<count).map { expert in
        let name = "\(part).\(expert).weight"
        let weight = try source.weight(name, rows: rows, columns: columns)
        try note(name)
        return weight
      }
    }
    return try (0..<count).map { expert in try device.prepare(weights.map { $0[expert] }, activations: activations) }
  }

  /// The matrices that absorb a latent, one for each head: `[kvLoraRank, qkNopeHeadDim]` on the queries' side and `[vHeadDim, kvLoraRank]` on the
  /// output's.
  ///
  /// They are two tensors of three dims, `attn_k_b` and `attn_v_b`; or one matrix `attn_kv_b` with each head's rows of keys, then of values, whose keys
  /// are read transposed.
  mutating func latentHeads(_ prefix: String, _ mla: MLAParams, numHeads: Int) throws -> (
    keys: [Weight], values: [Weight]
  ) {
    let keys: [Weight], values: [Weight]
    if has("\(prefix).attn_k_b.weight") || !has("\(prefix).attn_kv_b.weight") {
      keys = try source.weights("\(prefix).attn_k_b.weight", count: numHeads, rows: mla.kvLoraRank, columns: mla.qkNopeHeadDim)
      values = try source.weights("\(prefix).attn_v_b.weight", count: numHeads, rows: mla.vHeadDim, columns: mla.kvLoraRank)
      try note("\(prefix).attn_k_b.weight")
      try note("\(prefix).attn_v_b.weight")
    } else {
      let name = "\(prefix).attn_kv_b.weight", rows = mla.qkNopeHeadDim + mla.vHeadDim
      let all = try source.weight(name, rows: numHeads * rows, columns: mla.kvLoraRank)
      let heads = (0..<numHeads).map { head -> (keys: Weight, values: Weight)? in
        let first = head * rows, middle = first + mla.qkNopeHeadDim
        guard let keys = all.rows(first..<middle)?.transposed(), let values = all.rows(middle..<first + rows) else { return nil }
        return (keys, values)
      }
      guard heads.allSatisfy({ $0 != nil }) else {
        throw source.invalid(
          name, all.format.rawValue, "its keys must be transposed, which blocks cannot be; convert the model anew, so that it has attn_k_b")
      }
      keys = heads.map { $0!.keys }
      values = heads.map { $0!.values }
      try note(name)
    }
    return (keys, values)
  }

  public mutating func norm(_ name: String, count: Int, epsilon: Float) throws -> RMSNorm {
    RMSNorm(weight: try vector(name, count: count), epsilon: epsilon)
  }

  /// `<name>.weight` and `<name>.bias`.
  public mutating func layerNorm(_ name: String, count: Int, epsilon: Float) throws -> LayerNorm {
    LayerNorm(weight: try vector("\(name).weight", count: count), bias: try vector("\(name).bias", count: count), epsilon: epsilon)
  }

  public mutating func headNorm(_ name: String, count: Int, epsilon: Float) throws -> HeadNorm {
    HeadNorm(weight: try vector(name, count: count), epsilon: epsilon)
  }

  /// Small values that the host needs.
  public mutating func floats(_ name: String, count: Int) throws -> [Float] {
    let values = try source.floats(name, count: count)
    try note(name)
    return values
  }

  /// Says that a tensor needs no memory of its own, because another one serves for it.
  public mutating func skip(_ name: String) throws { if has(name) { try note(name) } }

  /// Says the same of the tensors of some layers.
  mutating func skip(layers isSkipped: (Int) -> Bool) throws {
    for tensor in tensors {
      let parts = tensor.name.split(separator: ".", maxSplits: 2)
      if parts.count == 3, parts[0] == "blk", let layer = Int(parts[1]), isSkipped(layer) { try note(tensor.name) }
    }
  }

  /// - Throws: ``ModelError/Code/unusedTensor`` for the first tensor of the file that was not read.
  public func finish() throws {
    if let unused = tensors.first(where: { !names.contains($0.name) }) {
      throw ModelError.unusedTensor(name: source.spelling(of: unused.name), architecture: architecture)
    }
  }

  mutating func vector(_ name: String, count: Int) throws -> Tensor { try vector(floats(name, count: count)) }

  /// Values on the device, `[count]`.
  public func vector(_ values: [Float]) throws -> Tensor {
    let host = try device.makeHostBuffer(of: Float.self, count: values.count)
    for (index, value) in values.enumerated() { host[index] = value }
    let tensor = try device.makeTensor(Shape(values.count), .f32)
    let queue = device.makeQueue()
    queue.copy(host, count: values.count, to: tensor)
    try queue.finish()
    return tensor
  }

  private mutating func note(_ name: String) throws {
    guard names.insert(name).inserted else { return }
    loadedByteCount += byteCounts[name] ?? 0
    try progress?(Double(loadedByteCount) / Double(totalByteCount))
  }
}
