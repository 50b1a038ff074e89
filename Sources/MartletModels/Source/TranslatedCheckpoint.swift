// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore
public import MartletFormats

/// A Hugging Face directory as a model source: its settings and tensors under GGUF's names, by a ``CheckpointTranslation``.
///
/// Nothing is converted: a weight stays the view that the file gives. Messages name settings and tensors as the directory does.
public struct TranslatedCheckpoint: ModelSource {
  public let directory: HuggingFaceDirectory
  public let modelTensors: [ModelTensor]
  public internal(set) var ignoredSettings: [String] = []

  /// The metadata that the settings say.
  private(set) var values: [String: MetadataValue] = [:]
  /// The directory's spelling of a key, whether the directory has it or not.
  private(set) var spellings: [String: String] = [:]
  let translation: CheckpointTranslation
  /// The directory's tensors by GGUF's names.
  private let tensors: [String: TensorOrigin]
  /// The part of a matrix that has a scale, where scales are for blocks.
  var scaleBlock = (rows: 128, columns: 128)

  enum MetadataValue {
    case string(String), integer(Int), float(Float), bool(Bool), floats([Float]), bools([Bool]), integers([Int])
  }

  /// - Throws: ``ModelError`` naming the setting.
  init(_ directory: HuggingFaceDirectory, architecture: String, translation: CheckpointTranslation) throws {
    self.directory = directory
    self.translation = translation
    let reader = ConfigReader(directory.config)
    let tiesEmbeddings = try reader.bool("tie_word_embeddings") ?? translation.tiesEmbeddings
    var tensors: [String: TensorOrigin] = [:]
    var modelTensors: [ModelTensor] = []
    // Tied matrices are one, and a file may hold it under either name. A file that holds both says more than the setting: the loader compares them.
    let outputIsEmbedding = tiesEmbeddings && !directory.tensors.contains { translation.tensors[$0.name]?.name == "token_embd.weight" }
    for tensor in directory.tensors {
      // Old checkpoints store RoPE's frequencies, which follow from the settings.
      if tensor.name.hasSuffix(".rotary_emb.inv_freq") { continue }
      if Self.isCompanion(tensor.name, in: directory) { continue }
      var target = Self.target(of: tensor.name, translation)
      if outputIsEmbedding && target?.name == "output.weight" { target = "token_embd.weight" }
      // What neither the index nor the formula knows is no part of the model.
      if target == nil && !directory.isListed(tensor.name) { continue }
      // An unknown tensor must not pass for a known one, whatever it is called.
      let name = target?.name ?? "untranslated: \(tensor.name)"
      if target == nil { spellings[name] = tensor.name }
      for (turn, name) in [name, target?.second].enumerated() {
        guard let name else { continue }
        let origin = TensorOrigin(
          name: tensor.name, addend: target?.addend ?? 0, turn: target?.second == nil ? nil : turn,
          isTransposed: target?.isTransposed ?? false)
        if target != nil { tensors[name] = origin }
        modelTensors.append(
          Self.modelTensor(
            tensor, origin, name: name, exponentByteCount: origin.isBlocks ? directory.tensor(origin.exponents)?.byteCount ?? 0 : 0))
      }
    }
    if !tiesEmbeddings && tensors["output.weight"] == nil {
      throw ModelError.invalid(
        key: "tie_word_embeddings", value: "false", reason: "the output matrix is then a tensor \"lm_head.weight\", and there is none")
    }
    self.tensors = tensors
    self.modelTensors = modelTensors
    try readSettings(reader, architecture: architecture)
  }

  // MARK: Metadata

  public func string(ifPresent key: String) throws -> String? {
    guard let value = values[key] else { return nil }
    guard case .string(let string) = value else { throw invalid(key, value, "a string is needed") }
    return string
  }

  public func integer(ifPresent key: String) throws -> Int? {
    guard let value = values[key] else { return nil }
    guard case .integer(let integer) = value else { throw invalid(key, value, "an integer is needed") }
    return integer
  }

  public func float(ifPresent key: String) throws -> Float? {
    guard let value = values[key] else { return nil }
    guard case .float(let float) = value else { throw invalid(key, value, "a number is needed") }
    return float
  }

  public func bool(ifPresent key: String) throws -> Bool? {
    guard let value = values[key] else { return nil }
    guard case .bool(let bool) = value else { throw invalid(key, value, "true or false is needed") }
    return bool
  }

  public func isList(_ key: String) -> Bool {
    switch values[key] {
    case .floats, .bools, .integers: true
    default: false
    }
  }

  public func floatList(ifPresent key: String) throws -> [Float]? {
    guard let value = values[key] else { return nil }
    guard case .floats(let floats) = value else { throw invalid(key, value, "a list of numbers is needed") }
    return floats
  }

  public func boolList(ifPresent key: String) throws -> [Bool]? {
    guard let value = values[key] else { return nil }
    guard case .bools(let bools) = value else { throw invalid(key, value, "a list of Booleans is needed") }
    return bools
  }

  public func integerList(ifPresent key: String) throws -> [Int]? {
    guard let value = values[key] else { return nil }
    guard case .integers(let integers) = value else { throw invalid(key, value, "a list of integers is needed") }
    return integers
  }

  public func missingKey(_ key: String) -> any Error { ModelError.missingSetting(spelling(of: key)) }

  /// Says that a setting of the directory is a key of this library.
  mutating func set(_ key: String, _ value: MetadataValue?, spelling: String) {
    spellings[key] = spelling
    if let value { values[key] = value }
  }

  // MARK: Tensors

  public func spelling(of name: String) -> String {
    if let spelling = spellings[name] { return spelling }
    if let tensor = tensors[name] { return tensor.name }
    // A tensor that is missing: what it would be called.
    if let (original, _) = translation.tensors.first(where: { $0.value.name == name }) { return original }
    let parts = name.split(separator: ".", maxSplits: 2)
    if parts.count == 3, parts[0] == "blk" {
      let (pattern, expert) = CheckpointTranslation.pattern(of: parts[2])
      if let (original, _) = translation.layerTensors.first(where: { $0.value.name == pattern }) {
        return "model.layers.\(parts[1]).\(original.replacing("#", with: expert))"
      }
    }
    return name
  }

  public func weight(_ name: String, rows: Int?, columns: Int?) throws -> Weight {
    guard let tensor = tensors[name] else { throw CheckpointError.missingTensor(spelling(of: name)) }
    return try scaled(directory.weight(tensor.name, rows: rows, columns: columns), tensor.name)
  }

  public func weights(_ name: String, count: Int, rows: Int, columns: Int) throws -> [Weight] {
    guard let tensor = tensors[name] else { throw CheckpointError.missingTensor(spelling(of: name)) }
    guard tensor.isPlain else { return try weights(tensor, count: count, rows: rows, columns: columns) }
    return try directory.weights(tensor.name, count: count, rows: rows, columns: columns)
  }

  public func floats(_ name: String, count: Int?) throws -> [Float] {
    guard let tensor = tensors[name] else { throw CheckpointError.missingTensor(spelling(of: name)) }
    return try floats(tensor, count: count)
  }

  /// GGUF's name for a tensor; nil for one that the translation does not know.
  private static func target(of name: String, _ translation: CheckpointTranslation) -> CheckpointTranslation.TensorName? {
    if let target = translation.tensors[name] { return target }
    let parts = name.split(separator: ".", maxSplits: 3)
    guard parts.count == 4, parts[0] == "model", parts[1] == "layers", let layer = Int(parts[2]), String(layer) == parts[2],
      case let (pattern, expert) = CheckpointTranslation.pattern(of: parts[3]), let target = translation.layerTensors[pattern]
    else { return nil }
    func full(_ name: String) -> String { "blk.\(layer).\(name.replacing("#", with: expert))" }
    return CheckpointTranslation.TensorName(
      full(target.name), addend: target.addend, alternatingWith: target.second.map(full), isTransposed: target.isTransposed)
  }
}
