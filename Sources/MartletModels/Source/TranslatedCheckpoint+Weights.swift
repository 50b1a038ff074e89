// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore
import MartletFormats

/// Where a directory has what GGUF calls one tensor.
struct TensorOrigin {
  /// The directory's name.
  var name: String
  /// Added to every value of a small tensor.
  var addend: Float = 0
  /// Of two tensors whose outputs take turns, which one; nil where there is one tensor only.
  var turn: Int?
  /// Whether matrices are [in, out].
  var isTransposed = false

  /// Whether values are blocks of MXFP4, with exponents in a tensor of their own.
  var isBlocks: Bool { name.hasSuffix(Self.blocks) }
  var exponents: String { String(name.dropLast(Self.blocks.count)) + "_scales" }
  /// How many tensors take turns.
  var turns: Int { turn == nil ? 1 : 2 }
  var isPlain: Bool { turn == nil && !isTransposed && !isBlocks }

  static let blocks = "_blocks"
}

extension TranslatedCheckpoint {
  /// What a directory's tensor is under GGUF's name: the shape and the format that its matrices have.
  static func modelTensor(_ tensor: SafetensorsTensor, _ origin: TensorOrigin, name: String, exponentByteCount: Int) -> ModelTensor {
    var shape = tensor.shape, type = tensor.type, format = tensor.weightFormat
    if origin.isBlocks, shape.count == 4 {
      shape = [shape[0], shape[1], shape[2].multipliedReportingOverflow(by: 32).partialValue]
      (type, format) = (WeightFormat.mxfp4.rawValue, .mxfp4)
    }
    if origin.isTransposed, shape.count == 3 { shape.swapAt(1, 2) }
    if origin.turn != nil, shape.count > 1 { shape[1] /= 2 }
    return ModelTensor(
      name: name, shape: shape, formatName: type, format: format, byteCount: (tensor.byteCount + exponentByteCount) / origin.turns)
  }

  /// Whether a tensor belongs to another one, or says how activations would be quantised, which this build leaves as they are.
  static func isCompanion(_ name: String, in directory: HuggingFaceDirectory) -> Bool {
    if name.hasSuffix("_scales"), directory.tensor(name.dropLast(7) + TensorOrigin.blocks) != nil { return true }
    if [".self_attn.q_scale", ".self_attn.prob_scale"].contains(where: name.hasSuffix) { return true }
    for suffix in weightScales + ["input_scale"] where name.hasSuffix("." + suffix) {
      return directory.tensor(name.dropLast(suffix.count) + "weight")?.weightFormat == .e4m3
    }
    return false
  }

  /// How files call the scales of a matrix `weight`. All of them multiply.
  private static let weightScales = ["weight_scale", "weight_scale_inv"]

  /// A matrix of e4m3 with its scales: one for all, one for each row, or one for each block.
  func scaled(_ weight: Weight, _ name: String) throws -> Weight {
    guard weight.format == .e4m3, name.hasSuffix(".weight") else { return weight }
    let names = Self.weightScales.map { name.dropLast(6) + $0 }
    guard let scale = names.lazy.compactMap({ directory.tensor($0) }).first else { return weight }
    let values = try directory.floats(scale.name), rows = weight.rows, columns = weight.columns, block = scaleBlock
    let scales: Weight.Scales
    switch scale.shape {
    case [], [1], [1, 1]: scales = .floats(values, rows: rows, columns: columns)
    case [rows], [rows, 1]: scales = .floats(values, rows: 1, columns: columns)
    case [(rows + block.rows - 1) / block.rows, (columns + block.columns - 1) / block.columns]:
      scales = .floats(values, rows: block.rows, columns: block.columns)
    default:
      throw CheckpointError.wrongShape(
        tensor: scale.name, found: scale.shape,
        expected: "one scale for a matrix of [\(rows), \(columns)], one for each row, or one for \(block.rows) × \(block.columns) values")
    }
    return Weight(
      name: weight.name, format: .e4m3, rows: rows, columns: columns, bytes: weight.bytes, layout: weight.layout, scales: scales,
      owner: directory)
  }

  /// The matrices of a tensor that does not lie as GGUF's do: views, no copies.
  func weights(_ origin: TensorOrigin, count: Int, rows: Int, columns: Int) throws -> [Weight] {
    let (tensor, bytes) = try directory.contents(of: origin.name), turns = origin.turns, turn = origin.turn ?? 0
    func view(_ bytes: UnsafeRawBufferPointer, _ index: Int, size: Int, from offset: Int) -> UnsafeRawBufferPointer {
      UnsafeRawBufferPointer(rebasing: bytes[index * size + offset..<(index + 1) * size])
    }
    func check(_ tensor: SafetensorsTensor, _ shape: [Int], types: [String]) throws {
      guard types.contains(tensor.type) else {
        throw CheckpointError.unreadableFormat(tensor: tensor.name, format: tensor.type, readable: types)
      }
      guard tensor.shape == shape, tensor.count > 0 else {
        throw CheckpointError.wrongShape(tensor: tensor.name, found: tensor.shape, expected: "\(shape)")
      }
    }
    if origin.isBlocks {
      let blocks = (columns + 31) / 32
      try check(tensor, [count, rows * turns, blocks, 16], types: ["U8"])
      guard columns % 32 == 0 else {
        throw CheckpointError.wrongShape(tensor: tensor.name, found: tensor.shape, expected: "rows of \(columns) values")
      }
      let (scales, exponents) = try directory.contents(of: origin.exponents)
      try check(scales, [count, rows * turns, blocks], types: ["U8", "F8_E8M0"])
      return (0..<count).map { index in
        Weight(
          name: "\(tensor.name)[\(index)]", format: .mxfp4, rows: rows, columns: columns,
          bytes: view(bytes, index, size: rows * turns * blocks * 16, from: turn * blocks * 16),
          layout: Weight.Layout(rowStride: turns * blocks * 16, blockStride: 16),
          scales: .exponents(view(exponents, index, size: rows * turns * blocks, from: turn * blocks), rowStride: turns * blocks),
          owner: directory)
      }
    }
    let readable: [WeightFormat] = [.f32, .f16, .bf16]
    try check(
      tensor, origin.isTransposed ? [count, columns, rows * turns] : [count, rows * turns, columns], types: readable.map(\.rawValue))
    let format = tensor.weightFormat!, value = format.blockByteCount, step = origin.isTransposed ? value : columns * value
    return (0..<count).map { index in
      Weight(
        name: "\(tensor.name)[\(index)]", format: format, rows: rows, columns: columns,
        bytes: view(bytes, index, size: rows * turns * columns * value, from: turn * step),
        layout: Weight.Layout(rowStride: turns * step, blockStride: origin.isTransposed ? rows * turns * value : value), owner: directory)
    }
  }

  /// The values of a small tensor, every second one where two tensors take turns.
  func floats(_ origin: TensorOrigin, count: Int?) throws -> [Float] {
    let values = try directory.floats(origin.name, count: count.map { $0 * origin.turns })
    guard let turn = origin.turn else { return origin.addend == 0 ? values : values.map { $0 + origin.addend } }
    return stride(from: turn, to: values.count, by: 2).map { values[$0] }
  }
}

// MARK: - What quantization_config may say

extension TranslatedCheckpoint {
  /// Checks that the weights are coded in a way that this build reads, and takes the blocks' sizes. Where activations would be quantised too, they are
  /// not: products take them as they are.
  mutating func checkQuantization(_ reader: ConfigReader) throws {
    guard let config = try reader.object("quantization_config") else { return }
    let method = try config.string("quant_method")
    func only(_ config: ConfigReader, _ name: String, _ known: [String]) throws {
      guard let value = try config.string(name), !known.contains(value) else { return }
      throw config.invalid(
        name, value, "this build reads \(known.joined(separator: " and ")) only; take unquantised weights, or a GGUF file")
    }
    switch method {
    case "mxfp4": break
    case "fp8":
      try only(config, "fmt", ["e4m3"])
      try takeBlock(config, "weight_block_size")
    case "modelopt": try only(config, "quant_algo", ["FP8"])
    case "compressed-tensors":
      try only(config, "format", ["float-quantized", "naive-quantized"])
      guard let groups = config.value("config_groups") else { break }
      for (key, value) in groups.members where value.kind == .object {
        let name = "quantization_config.config_groups.\(key.string!)"
        let group = ConfigReader(value, prefix: "\(name).")
        guard let weights = try group.object("weights") else { continue }
        try only(weights, "type", ["float"])
        if let bits = try weights.integer("num_bits"), bits != 8 {
          throw weights.invalid("num_bits", bits, "this build reads 8 only; take unquantised weights, or a GGUF file")
        }
        try takeBlock(weights, "block_structure")
        if try group.object("input_activations") != nil { ignoredSettings.append("\(name).input_activations") }
      }
    default:
      throw reader.invalid(
        "quantization_config.quant_method", method ?? "none",
        "this build reads fp8, mxfp4, modelopt and compressed-tensors; take unquantised weights, or a GGUF file")
    }
    if try config.string("activation_scheme") == "static" { ignoredSettings.append("quantization_config.activation_scheme") }
  }

  private mutating func takeBlock(_ config: ConfigReader, _ name: String) throws {
    guard let block = try config.integers(name) else { return }
    guard block.count == 2, block[0] >= 1, block[1] >= 1, block[1] % 128 == 0 else {
      throw config.invalid(name, block, "a block has rows, and a multiple of 128 columns")
    }
    scaleBlock = (block[0], block[1])
  }
}
