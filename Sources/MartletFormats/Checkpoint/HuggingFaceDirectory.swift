// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore

/// A model as Hugging Face's hub has it: a directory with `config.json` and weights in safetensors.
///
/// Weights are one `model.safetensors`, or shards that `model.safetensors.index.json` lists. Names and values are as they are in the files; what they
/// mean for an architecture is not known here. Opening maps the files and checks them; no weight is read.
///
/// Indices are written by many programs, and people edit shards: what counts is what the files hold. Where two have a tensor, the index says which
/// one counts. A tensor that it lists and no file has is missing, which matters to whoever needs it.
public final class HuggingFaceDirectory: Sendable {
  public let path: String
  /// `config.json`: an object.
  public let config: JSONValue
  /// The tensors of all files, each once.
  public let tensors: [SafetensorsTensor]
  /// Bytes of all weight files.
  public let byteCount: Int

  private let files: [SafetensorsFile]
  private let fileIndices: [String: Int]
  /// Which file the index names for a tensor; nil without an index.
  private let index: [String: Int]?

  static let singleFile = "model.safetensors"
  static let indexFile = "model.safetensors.index.json"

  /// Opens the directory at `path`.
  public init(path: String) throws(CheckpointError) {
    self.path = path
    guard let config = try Self.object("config.json", in: path) else {
      throw .missingFile("config.json", directory: path, hint: "name the directory that holds the model, or a .gguf file")
    }
    self.config = config
    let (files, index) = try Self.openFiles(in: path)
    var indices: [String: Int] = [:]
    for (index, file) in files.enumerated() {
      for tensor in file.tensors { indices[tensor.name] = index }
    }
    if let index {
      for (tensor, file) in index where files[file].tensor(tensor) != nil { indices[tensor] = file }
    }
    self.files = files
    self.index = index
    fileIndices = indices
    tensors = files.indices.flatMap { file in files[file].tensors.filter { indices[$0.name] == file } }
    byteCount = files.reduce(0) { $0 + $1.byteCount }
  }

  /// The tensor of that name; nil without one.
  public func tensor(_ name: some StringProtocol) -> SafetensorsTensor? {
    let name = String(name)
    return fileIndices[name].flatMap { files[$0].tensor(name) }
  }

  /// The tensor `name` and its bytes, which the directory keeps.
  package func contents(of name: String) throws(CheckpointError) -> (tensor: SafetensorsTensor, bytes: UnsafeRawBufferPointer) {
    try file(of: name).contents(of: name)
  }

  /// The matrix `name`: a view, no copy, that keeps its file.
  ///
  /// - Parameters rows, columns: what the model needs; another shape is an error. nil accepts any.
  public func weight(_ name: String, rows: Int? = nil, columns: Int? = nil) throws(CheckpointError) -> Weight {
    try file(of: name).weight(name, rows: rows, columns: columns)
  }

  /// The matrices of the tensor `name`, which has three dims: views in order, no copies.
  ///
  /// - Parameters count, rows, columns: what the model needs; another shape is an error.
  public func weights(_ name: String, count: Int, rows: Int, columns: Int) throws(CheckpointError) -> [Weight] {
    try file(of: name).weights(name, count: count, rows: rows, columns: columns)
  }

  /// The values of a small tensor, widened exactly to float32.
  ///
  /// - Parameter count: how many the model needs; another number is an error. nil accepts any.
  public func floats(_ name: String, count: Int? = nil) throws(CheckpointError) -> [Float] {
    try file(of: name).floats(name, count: count)
  }

  /// Whether the index lists the tensor; true for all where there is no index.
  public func isListed(_ tensor: String) -> Bool { index.map { $0[tensor] != nil } ?? true }

  private func file(of tensor: String) throws(CheckpointError) -> SafetensorsFile {
    guard let index = fileIndices[tensor] else { throw .missingTensor(tensor) }
    return files[index]
  }

  /// The JSON value in another file of the directory; nil without the file.
  public func json(_ name: String) throws(CheckpointError) -> JSONValue? { try Self.json(name, in: path) }

  private static func json(_ name: String, in directory: String) throws(CheckpointError) -> JSONValue? {
    let path = directory + "/" + name
    guard FileBytes.exists(path) else { return nil }
    do { return try JSONValue(path: path) } catch {
      if error.code == .cannotOpen { throw .cannotOpen(path: path, reason: error.reason) }
      throw .malformed(file: name, field: "the text", problem: "cannot be read (\(error))")
    }
  }

  /// The JSON object in the file `name`; nil without the file.
  private static func object(_ name: String, in directory: String) throws(CheckpointError) -> JSONValue? {
    guard let value = try json(name, in: directory) else { return nil }
    guard value.kind == .object else { throw .malformed(file: name, field: "the text", problem: "is \(value), not an object") }
    return value
  }

  /// The files with weights, and the place among them of the one that the index names for each tensor.
  private static func openFiles(in directory: String) throws(CheckpointError) -> ([SafetensorsFile], index: [String: Int]?) {
    if FileBytes.exists(directory + "/" + singleFile) { return ([try SafetensorsFile(path: directory + "/" + singleFile)], nil) }
    guard let index = try object(indexFile, in: directory) else {
      throw .missingFile(
        "\(singleFile) and no \(indexFile)", directory: directory,
        hint: "convert weights in another format to safetensors (save_pretrained writes it)")
    }
    guard let map = index["weight_map"], map.kind == .object else {
      throw .malformed(file: indexFile, field: "weight_map", problem: "is missing or no object")
    }
    var shardsOfTensors: [String: String] = [:]
    for (key, value) in map.members {
      let tensor = key.string!
      // Only names of files in this directory: an index must not lead elsewhere.
      guard let shard = value.string, shard.hasSuffix(".safetensors"), !shard.contains("/"), !shard.contains("\0") else {
        throw .malformed(file: indexFile, field: "weight_map[\"\(tensor)\"]", problem: "is \(value), not the name of a .safetensors file")
      }
      shardsOfTensors[tensor] = shard
    }
    // In the order of their names: of two that have a tensor which the index does not list, the later one counts, as in Transformers.
    let shards = Set(shardsOfTensors.values).sorted()
    guard !shards.isEmpty else { throw .malformed(file: indexFile, field: "weight_map", problem: "is empty") }
    var files: [SafetensorsFile] = []
    for shard in shards {
      guard FileBytes.exists(directory + "/" + shard) else {
        throw .missingFile(shard, directory: directory, hint: "the index lists it; fetch it, too")
      }
      files.append(try SafetensorsFile(path: directory + "/" + shard))
    }
    let places = Dictionary(uniqueKeysWithValues: zip(shards, shards.indices))
    return (files, shardsOfTensors.mapValues { places[$0]! })
  }
}

/// The owner of weights that are made of several tensors, such as one of codes and one of scales.
extension HuggingFaceDirectory: WeightOwner {
  public func releasePages(of part: UnsafeRawBufferPointer) {
    for file in files { file.releasePages(of: part) }
  }
}
