// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore

/// A model as Hugging Face's hub has it: a directory with `config.json` and weights in safetensors.
///
/// Weights are one `model.safetensors`, or shards that `model.safetensors.index.json` lists. Names and values are as they are in the files; what they
/// mean for an architecture is not known here. Opening maps the files and checks them; no weight is read.
public final class HuggingFaceDirectory: Sendable {
  public let path: String
  /// `config.json`: an object.
  public let config: JSONValue
  /// The tensors of all files.
  public let tensors: [SafetensorsTensor]
  /// Bytes of all weight files.
  public let byteCount: Int

  private let files: [SafetensorsFile]
  private let fileIndices: [String: Int]

  static let singleFile = "model.safetensors"
  static let indexFile = "model.safetensors.index.json"

  /// Opens the directory at `path`.
  public init(path: String) throws(CheckpointError) {
    self.path = path
    guard let config = try Self.object("config.json", in: path) else {
      throw .missingFile("config.json", directory: path, hint: "name the directory that holds the model, or a .gguf file")
    }
    self.config = config
    let files = try Self.openFiles(in: path)
    var indices: [String: Int] = [:]
    for (index, file) in files.enumerated() {
      for tensor in file.tensors where indices.updateValue(index, forKey: tensor.name) != nil {
        throw .malformed(file: file.name, field: "tensor \"\(tensor.name)\"", problem: "is in another shard too")
      }
    }
    self.files = files
    fileIndices = indices
    tensors = files.flatMap(\.tensors)
    byteCount = files.reduce(0) { $0 + $1.byteCount }
  }

  /// The matrix `name`: a view, no copy, that keeps its file.
  ///
  /// - Parameters rows, columns: what the model needs; another shape is an error. nil accepts any.
  public func weight(_ name: String, rows: Int? = nil, columns: Int? = nil) throws(CheckpointError) -> Weight {
    try file(of: name).weight(name, rows: rows, columns: columns)
  }

  /// The values of a small tensor, widened exactly to float32.
  ///
  /// - Parameter count: how many the model needs; another number is an error. nil accepts any.
  public func floats(_ name: String, count: Int? = nil) throws(CheckpointError) -> [Float] {
    try file(of: name).floats(name, count: count)
  }

  private func file(of tensor: String) throws(CheckpointError) -> SafetensorsFile {
    guard let index = fileIndices[tensor] else { throw .missingTensor(tensor) }
    return files[index]
  }

  /// The JSON object in the file `name`; nil without the file.
  private static func object(_ name: String, in directory: String) throws(CheckpointError) -> JSONValue? {
    let path = directory + "/" + name
    guard FileBytes.exists(path) else { return nil }
    let value: JSONValue
    do { value = try JSONValue(path: path) } catch {
      switch error {
      case .cannotOpen(_, let reason): throw .cannotOpen(path: path, reason: reason)
      case .malformed: throw .malformed(file: name, field: "the text", problem: "cannot be read (\(error))")
      }
    }
    guard value.kind == .object else { throw .malformed(file: name, field: "the text", problem: "is \(value), not an object") }
    return value
  }

  private static func openFiles(in directory: String) throws(CheckpointError) -> [SafetensorsFile] {
    if FileBytes.exists(directory + "/" + singleFile) { return [try SafetensorsFile(path: directory + "/" + singleFile)] }
    guard let index = try object(indexFile, in: directory) else {
      throw .missingFile(
        "\(singleFile) and no \(indexFile)", directory: directory,
        hint: "convert weights in another format to safetensors (save_pretrained writes it)")
    }
    guard let map = index["weight_map"], map.kind == .object else {
      throw .malformed(file: indexFile, field: "weight_map", problem: "is missing or no object")
    }
    // Shards in the order in which the index first names them.
    var shards: [String] = []
    var tensorsOfShards: [String: [String]] = [:]
    for (key, value) in map.members {
      let tensor = key.string!
      // Only names of files in this directory: an index must not lead elsewhere.
      guard let shard = value.string, shard.hasSuffix(".safetensors"), !shard.contains("/"), !shard.contains("\0") else {
        throw .malformed(file: indexFile, field: "weight_map[\"\(tensor)\"]", problem: "is \(value), not the name of a .safetensors file")
      }
      if tensorsOfShards[shard] == nil { shards.append(shard) }
      tensorsOfShards[shard, default: []].append(tensor)
    }
    guard !shards.isEmpty else { throw .malformed(file: indexFile, field: "weight_map", problem: "is empty") }
    var files: [SafetensorsFile] = []
    for shard in shards {
      guard FileBytes.exists(directory + "/" + shard) else {
        throw .missingFile(shard, directory: directory, hint: "the index lists it; fetch it, too")
      }
      let file = try SafetensorsFile(path: directory + "/" + shard)
      for tensor in tensorsOfShards[shard]! where file.tensor(tensor) == nil {
        throw .malformed(file: indexFile, field: "weight_map[\"\(tensor)\"]", problem: "names \(shard), which has no such tensor")
      }
      let listed = Set(tensorsOfShards[shard]!)
      if let extra = file.tensors.first(where: { !listed.contains($0.name) }) {
        throw .malformed(file: shard, field: "tensor \"\(extra.name)\"", problem: "is not in \(indexFile)")
      }
      files.append(file)
    }
    return files
  }
}
