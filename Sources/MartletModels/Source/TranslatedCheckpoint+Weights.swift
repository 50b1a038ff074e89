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
  /// What belongs to a matrix of NVFP4; nil of others.
  var sixteens: Sixteens?

  /// Whether values are blocks of MXFP4, with exponents in a tensor of their own.
  var isBlocks: Bool { name.hasSuffix(Self.blocks) }
  var exponents: String { String(name.dropLast(Self.blocks.count)) + "_scales" }
  /// How many tensors take turns.
  var turns: Int { turn == nil ? 1 : 2 }
  var isPlain: Bool { turn == nil && !isTransposed && !isBlocks && sixteens == nil }

  static let blocks = "_blocks"
}

/// Where a directory has what belongs to a matrix of NVFP4, whose codes are U8: the scales of 16 values each, and a factor for all.
struct Sixteens {
  /// How the matrix would be called, if it were of floats.
  let matrix: String
  let scales: String
  let factor: String
  /// Whether values are divided by the factor.
  let divides: Bool

  /// compressed-tensors' `weight_packed` and modelopt's `weight`; nil for another tensor.
  init?(_ tensor: SafetensorsTensor, in directory: HuggingFaceDirectory) {
    guard tensor.type == "U8", let form = Self.forms.first(where: { tensor.name.hasSuffix(".\($0.codes)") }) else { return nil }
    let module = String(tensor.name.dropLast(form.codes.count))
    matrix = module + "weight"
    scales = module + "weight_scale"
    factor = module + form.factor
    divides = form.divides
    guard directory.tensor(scales)?.type == WeightFormat.e4m3.rawValue else { return nil }
  }

  /// Whether a tensor belongs to such a matrix, or says how activations would be quantised.
  static func isCompanion(_ name: String, in directory: HuggingFaceDirectory) -> Bool {
    forms.contains { form in
      ["weight_scale", form.factor, form.activations].contains { suffix in
        guard name.hasSuffix(".\(suffix)"), let codes = directory.tensor(name.dropLast(suffix.count) + form.codes) else { return false }
        return Sixteens(codes, in: directory) != nil
      }
    }
  }

  private static let forms = [
    (codes: "weight_packed", factor: "weight_global_scale", activations: "input_global_scale", divides: true),
    (codes: "weight", factor: "weight_scale_2", activations: "input_scale", divides: false),
  ]
}

extension TranslatedCheckpoint {
  /// What a directory's tensor is under GGUF's name: the shape and the format that its matrices have.
  static func modelTensor(_ tensor: SafetensorsTensor, _ origin: TensorOrigin, name: String, scaleByteCount: Int) -> ModelTensor {
    var shape = tensor.shape, type = tensor.type, format = tensor.weightFormat
    if origin.isBlocks, shape.count == 4 {
      shape = [shape[0], shape[1], shape[2].multipliedReportingOverflow(by: 32).partialValue]
      (type, format) = (WeightFormat.mxfp4.rawValue, .mxfp4)
    }
    if origin.sixteens != nil, shape.count == 2, shape[1] % 32 == 0, shape[1] <= Int.max / 2 {
      shape[1] *= 2
      (type, format) = (WeightFormat.nvfp4.rawValue, .nvfp4)
    }
    if origin.isTransposed, shape.count == 3 { shape.swapAt(1, 2) }
    if origin.turn != nil, shape.count > 1 { shape[1] /= 2 }
    return ModelTensor(
      name: name, shape: shape, formatName: type, format: format, byteCount: (tensor.byteCount + scaleByteCount) / origin.turns)
  }

  /// Whether a tensor belongs to another one, or says how activations would be quantised, which this build leaves as they are.
  static func isCompanion(_ name: String, in directory: HuggingFaceDirectory) -> Bool {
    if name.hasSuffix("_scales"), directory.tensor(name.dropLast(7) + TensorOrigin.blocks) != nil { return true }
    if [".self_attn.q_scale", ".self_attn.prob_scale"].contains(where: name.hasSuffix) { return true }
    if Sixteens.isCompanion(name, in: directory) { return true }
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

  /// A matrix of NVFP4 with its scales and its factor: a view, no copy.
  func weight(_ name: String, _ sixteens: Sixteens, rows: Int?, columns: Int?) throws -> Weight {
    let (tensor, bytes) = try directory.contents(of: name), (scales, codes) = try directory.contents(of: sixteens.scales)
    guard tensor.shape.count == 2, tensor.count > 0, tensor.shape[1] % 32 == 0, rows.map({ $0 == tensor.shape[0] }) ?? true,
      columns.map({ $0 == 2 * tensor.shape[1] }) ?? true
    else {
      func text(_ size: Int?) -> String { size.map(String.init) ?? "any" }
      throw CheckpointError.wrongShape(
        tensor: name, found: tensor.shape,
        expected: "[\(text(rows)), half of \(text(columns))], two values in a byte, and rows of a multiple of 64 values")
    }
    let (rows, columns) = (tensor.shape[0], 2 * tensor.shape[1])
    guard scales.shape == [rows, columns / 16] else {
      throw CheckpointError.wrongShape(tensor: scales.name, found: scales.shape, expected: "[\(rows), \(columns / 16)]")
    }
    let value = try directory.floats(sixteens.factor, count: 1)[0], factor = sixteens.divides ? 1 / value : value
    guard factor.isFinite else {
      throw ModelError.invalid(
        key: sixteens.factor, value: "\(value)", reason: "a number that scales weights is needed; fetch the file again")
    }
    return Weight(
      name: name, format: .nvfp4, rows: rows, columns: columns, bytes: bytes,
      layout: Weight.Layout(rowStride: columns / 2, blockStride: 32),
      scales: .sixteens(codes, rowStride: columns / 16, factor: factor), owner: directory)
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
    guard let (config, method) = try quantization(reader) else { return }
    switch method {
    case "mxfp4": break
    case "fp8":
      try Self.check(config, "fmt", ["e4m3"])
      try takeBlock(config, "weight_block_size")
    case "modelopt": try checkModelOpt(config)
    case "compressed-tensors": try checkCompressedTensors(config)
    default:
      throw reader.invalid(
        "quantization_config.quant_method", method ?? "none",
        "this build reads fp8, mxfp4, modelopt and compressed-tensors; take unquantised weights, or a GGUF file")
    }
    if try config.string("activation_scheme") == "static" { ignoredSettings.append("quantization_config.activation_scheme") }
  }

  /// `quantization_config` and its method; without it what modelopt writes into a file of its own.
  private func quantization(_ reader: ConfigReader) throws -> (ConfigReader, method: String?)? {
    if let config = try reader.object("quantization_config") { return (config, try config.string("quant_method")) }
    let name = "hf_quant_config.json"
    guard let file = try directory.json(name) else { return nil }
    guard let config = try ConfigReader(file, prefix: "\(name): ").object("quantization") else { return nil }
    return (config, "modelopt")
  }

  private static func check(_ config: ConfigReader, _ name: String, _ known: [String]) throws {
    guard let value = try config.string(name), !known.contains(value) else { return }
    throw config.invalid(
      name, value, "this build reads \(known.joined(separator: " and ")) only; take unquantised weights, or a GGUF file")
  }

  private static func check(_ config: ConfigReader, _ name: String, _ known: Int) throws {
    guard let value = try config.integer(name), value != known else { return }
    throw config.invalid(name, value, "this build reads \(known) only; take unquantised weights, or a GGUF file")
  }

  private mutating func checkModelOpt(_ config: ConfigReader) throws {
    let known = ["FP8", "NVFP4", "W4A16_NVFP4"]
    func checkAlgorithm(_ config: ConfigReader, _ known: [String]) throws {
      try Self.check(config, "quant_algo", known)
      if try config.string("quant_algo")?.hasSuffix("NVFP4") ?? false { try Self.check(config, "group_size", 16) }
    }
    try checkAlgorithm(config, known + ["MIXED_PRECISION"])
    for (name, layer) in Self.objects(in: config.value("quantized_layers"), "quantization_config.quantized_layers") {
      try checkAlgorithm(ConfigReader(layer, prefix: "\(name)."), known)
    }
    for (name, group) in Self.groups(config) where try group.object("input_activations") != nil {
      ignoredSettings.append("\(name).input_activations")
    }
  }

  private mutating func checkCompressedTensors(_ config: ConfigReader) throws {
    let nvfp4 = "nvfp4-pack-quantized", known = ["float-quantized", "naive-quantized", nvfp4]
    try Self.check(config, "format", known + ["mixed-precision"])
    // Rotations that inputs would need, too.
    if let value = config.value("transform_config"), (value["config_groups"] ?? value).count > 0 {
      throw config.invalid("transform_config", "set", "this build knows no transforms; take weights without them, or a GGUF file")
    }
    for (name, group) in Self.groups(config) {
      try Self.check(group, "format", known)
      if try group.object("input_activations") != nil { ignoredSettings.append("\(name).input_activations") }
      guard let weights = try group.object("weights") else { continue }
      try Self.check(weights, "type", ["float"])
      if try group.string("format") ?? config.string("format") == nvfp4 {
        try Self.check(weights, "num_bits", 4)
        try Self.check(weights, "group_size", 16)
      } else {
        try Self.check(weights, "num_bits", 8)
        try takeBlock(weights, "block_structure")
      }
    }
  }

  /// Parts of the model that are quantised alike, with their names for messages.
  private static func groups(_ config: ConfigReader) -> [(name: String, ConfigReader)] {
    objects(in: config.value("config_groups"), "quantization_config.config_groups").map { ($0, ConfigReader($1, prefix: "\($0).")) }
  }

  private static func objects(in value: JSONValue?, _ name: String) -> [(name: String, JSONValue)] {
    guard let value, value.kind == .object else { return [] }
    return value.members.filter { $0.value.kind == .object }.map { ("\(name).\($0.key.string!)", $0.value) }
  }

  private mutating func takeBlock(_ config: ConfigReader, _ name: String) throws {
    guard let block = try config.integers(name) else { return }
    guard block.count == 2, block[0] >= 1, block[1] >= 1, block[1] % 128 == 0 else {
      throw config.invalid(name, block, "a block has rows, and a multiple of 128 columns")
    }
    scaleBlock = (block[0], block[1])
  }
}
