// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore
public import MartletFormats

/// A Hugging Face directory as a model source: its settings and tensors under GGUF's names, by a ``CheckpointTranslation``.
///
/// Nothing is converted: a weight stays the view that the file gives. Messages name settings and tensors as the directory does.
public struct TranslatedCheckpoint: ModelSource {
  public let directory: HuggingFaceDirectory
  public private(set) var modelTensors: [ModelTensor]
  public internal(set) var ignoredSettings: [String] = []

  /// The metadata that the settings say.
  private(set) var values: [String: MetadataValue] = [:]
  /// The directory's spelling of a key, whether the directory has it or not.
  private(set) var spellings: [String: String] = [:]
  let translation: CheckpointTranslation
  /// The directory's tensors by GGUF's names.
  private let tensors: [String: TensorOrigin]
  /// Tensors of modules behind the model, by GGUF's names.
  private var moduleTensors: [String: (file: SafetensorsFile, original: String)] = [:]
  /// Whether names begin with the translation's root.
  private let isRooted: Bool
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
    let layout = translation.layout
    isRooted = directory.tensors.contains { $0.name.hasPrefix(layout.root) }
    for tensor in directory.tensors {
      // Old checkpoints store RoPE's frequencies, which follow from the settings.
      if tensor.name.hasSuffix(".rotary_emb.inv_freq") { continue }
      if layout.unread.contains(where: { Self.bare(tensor.name, layout).hasPrefix($0) }) { continue }
      if Self.isCompanion(tensor.name, in: directory) { continue }
      let sixteens = Sixteens(tensor, in: directory)
      var target = Self.target(of: sixteens?.matrix ?? tensor.name, translation)
      if outputIsEmbedding && target?.name == "output.weight" { target = "token_embd.weight" }
      // What neither the index nor the formula knows is no part of the model.
      if target == nil && !directory.isListed(tensor.name) { continue }
      // One name that two tensors would have is none.
      if let known = target, tensors[known.name] != nil { target = nil }
      // An unknown tensor must not pass for a known one, whatever it is called.
      let name = target?.name ?? "untranslated: \(tensor.name)"
      if target == nil { spellings[name] = tensor.name }
      for (turn, name) in [name, target?.second].enumerated() {
        guard let name else { continue }
        let origin = TensorOrigin(
          name: tensor.name, addend: target?.addend ?? 0, turn: target?.second == nil ? nil : turn,
          isTransposed: target?.isTransposed ?? false, sixteens: sixteens)
        if target != nil { tensors[name] = origin }
        let scales = sixteens?.scales ?? (origin.isBlocks ? origin.exponents : nil)
        modelTensors.append(
          Self.modelTensor(tensor, origin, name: name, scaleByteCount: scales.flatMap { directory.tensor($0) }?.byteCount ?? 0))
      }
    }
    // What only answers with vectors may leave its output matrix out.
    let hasModules = try directory.json(Self.modulesFile) != nil
    if !tiesEmbeddings && tensors["output.weight"] == nil && !hasModules {
      throw ModelError.invalid(
        key: "tie_word_embeddings", value: "false", reason: "the output matrix is then a tensor \"lm_head.weight\", and there is none")
    }
    self.tensors = tensors
    self.modelTensors = modelTensors
    try readSettings(reader, architecture: architecture)
    try readModules(architecture)
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

  /// Adds the tensors of a module's own file: those that the table names; another one is a tensor that nobody reads.
  mutating func addModule(_ folder: String, as name: String, tensors table: [String: String]) throws {
    let path = "\(directory.path)/\(folder)/model.safetensors"
    let file: SafetensorsFile
    do { file = try SafetensorsFile(path: path) } catch {
      guard error.code == .cannotOpen else { throw error }
      throw CheckpointError.missingFile(
        "\(folder)/model.safetensors", directory: directory.path, hint: "modules.json lists it; convert other formats to safetensors")
    }
    for tensor in file.tensors {
      let target = table[tensor.name] ?? "untranslated: \(folder)/\(tensor.name)"
      spellings[target] = "\(folder)/\(tensor.name)"
      moduleTensors[target] = (file, tensor.name)
      modelTensors.append(
        ModelTensor(name: target, shape: tensor.shape, formatName: tensor.type, format: tensor.weightFormat, byteCount: tensor.byteCount))
    }
  }

  // MARK: Tensors

  public func spelling(of name: String) -> String {
    if let spelling = spellings[name] { return spelling }
    if let tensor = tensors[name] { return tensor.name }
    // A tensor that is missing: what it would be called.
    if let (original, _) = translation.tensors.first(where: { $0.value.name == name }) { return written(original) }
    let parts = name.split(separator: ".", maxSplits: 2)
    if parts.count == 3, parts[0] == "blk" {
      let (pattern, expert) = CheckpointTranslation.pattern(of: parts[2])
      if let (original, _) = translation.layerTensors.first(where: { $0.value.name == pattern }) {
        let layout = translation.layout
        return written("\(layout.root)\(layout.layers)\(parts[1]).\(original.replacing("#", with: expert))")
      }
    }
    return name
  }

  /// A name as this directory writes it, with the root or without.
  private func written(_ name: String) -> String {
    let root = translation.layout.root, bare = Self.bare(name, translation.layout)
    if modelTensors.isEmpty || bare == "lm_head.weight" { return name }
    return isRooted ? root + bare : String(bare)
  }

  /// A name without the root.
  private static func bare(_ name: String, _ layout: CheckpointTranslation.Layout) -> Substring {
    name.hasPrefix(layout.root) ? name.dropFirst(layout.root.count) : name[...]
  }

  public func weight(_ name: String, rows: Int?, columns: Int?) throws -> Weight {
    if let module = moduleTensors[name] { return try module.file.weight(module.original, rows: rows, columns: columns) }
    guard let tensor = tensors[name] else { throw CheckpointError.missingTensor(spelling(of: name)) }
    if let sixteens = tensor.sixteens { return try weight(tensor.name, sixteens, rows: rows, columns: columns) }
    return try scaled(directory.weight(tensor.name, rows: rows, columns: columns), tensor.name)
  }

  public func weights(_ name: String, count: Int, rows: Int, columns: Int) throws -> [Weight] {
    guard let tensor = tensors[name] else { throw CheckpointError.missingTensor(spelling(of: name)) }
    guard tensor.isPlain else { return try weights(tensor, count: count, rows: rows, columns: columns) }
    return try directory.weights(tensor.name, count: count, rows: rows, columns: columns)
  }

  public func floats(_ name: String, count: Int?) throws -> [Float] {
    if let module = moduleTensors[name] { return try module.file.floats(module.original, count: count) }
    guard let tensor = tensors[name] else { throw CheckpointError.missingTensor(spelling(of: name)) }
    return try floats(tensor, count: count)
  }

  /// GGUF's name for a tensor; nil for one that the translation does not know.
  private static func target(of name: String, _ translation: CheckpointTranslation) -> CheckpointTranslation.TensorName? {
    let layout = translation.layout, bare = bare(name, layout)
    if let target = translation.tensors[name] ?? translation.tensors[String(bare)] ?? translation.tensors[layout.root + bare] {
      return target
    }
    guard bare.hasPrefix(layout.layers) else { return nil }
    let parts = bare.dropFirst(layout.layers.count).split(separator: ".", maxSplits: 1)
    guard parts.count == 2, let layer = Int(parts[0]), String(layer) == parts[0],
      case let (pattern, expert) = CheckpointTranslation.pattern(of: parts[1]), let target = translation.layerTensors[pattern]
    else { return nil }
    func full(_ name: String) -> String { "blk.\(layer).\(name.replacing("#", with: expert))" }
    return CheckpointTranslation.TensorName(
      full(target.name), addend: target.addend, alternatingWith: target.second.map(full), isTransposed: target.isTransposed)
  }
}
