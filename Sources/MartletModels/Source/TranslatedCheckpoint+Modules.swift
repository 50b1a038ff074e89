// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletFormats

/// The files that sentence-transformers lays beside a model: what becomes of its states.
///
/// `modules.json` lists modules in order: the model, the pooling, dense layers, a norm; each has a folder with a `config.json`, and dense layers have
/// weights there. They are said in GGUF's names as everything else is: `pooling_type`, `dense_2` and so on.
extension TranslatedCheckpoint {
  static let modulesFile = "modules.json"

  mutating func readModules(_ architecture: String) throws {
    guard let modules = try directory.json(Self.modulesFile) else { return }
    guard modules.kind == .array else { throw wrong(Self.modulesFile, "the text", "is \(modules), not a list of modules") }
    var dense = 2
    var poolingFolder: String?
    var normalizes = false
    for (index, module) in modules.elements.enumerated() {
      func field(_ name: String) -> String { "[\(index)].\(name)" }
      guard let type = module["type"]?.string else { throw wrong(Self.modulesFile, field("type"), "is missing or no string") }
      let path = module["path"]?.string ?? ""
      // Only folders of this directory: a list must not lead elsewhere.
      guard path.isEmpty || !path.contains("/") && !path.contains("\0") && path != ".." else {
        throw wrong(Self.modulesFile, field("path"), "is \(path), not the name of a folder beside it")
      }
      switch type.split(separator: ".").last {
      case "Transformer" where index == 0: break
      case "Pooling" where poolingFolder == nil && index > 0: poolingFolder = path
      case "Dense" where poolingFolder != nil && !normalizes:
        try readDense(path, as: "dense_\(dense)", architecture)
        dense += 1
      case "Normalize" where poolingFolder != nil: normalizes = true
      default:
        throw wrong(
          Self.modulesFile, field("type"),
          "is \(type), which this build does not compute there (it does: Transformer, Pooling, Dense, Normalize)")
      }
    }
    guard let poolingFolder else { return }
    try readPooling(poolingFolder, architecture)
    set("\(architecture).pooling_normalizes", .bool(normalizes), spelling: Self.modulesFile)
  }

  private func wrong(_ file: String, _ field: String, _ problem: String) -> any Error {
    CheckpointError.malformed(file: file, field: field, problem: problem)
  }

  private func settings(_ folder: String) throws -> JSONValue {
    let file = "\(folder)/config.json"
    guard let settings = try directory.json(file) else {
      throw CheckpointError.missingFile(file, directory: directory.path, hint: "modules.json lists it; fetch it, too")
    }
    guard settings.kind == .object else { throw wrong(file, "the text", "is \(settings), not an object") }
    return settings
  }

  /// By `pooling_mode` (newer files), or by the one flag of `pooling_mode_…` that is true.
  private mutating func readPooling(_ folder: String, _ architecture: String) throws {
    let settings = try settings(folder), file = "\(folder)/config.json"
    let names = ["mean": 1, "mean_tokens": 1, "cls": 2, "cls_token": 2, "lasttoken": 3]
    var chosen: [String] = []
    if let mode = settings["pooling_mode"], !mode.isNull {
      guard let name = mode.string else { throw wrong(file, "pooling_mode", "is \(mode), not a string") }
      chosen = [name]
    } else {
      for (key, value) in settings.members {
        guard let name = key.string, name.hasPrefix("pooling_mode_"), value.bool == true else { continue }
        chosen.append(String(name.dropFirst("pooling_mode_".count)))
      }
    }
    guard chosen.count == 1, let code = names[chosen[0]] else {
      throw wrong(
        file, "pooling_mode",
        "is \(chosen.isEmpty ? "none" : chosen.sorted().joined(separator: " and ")); this build computes one of mean, cls and lasttoken")
    }
    if settings["include_prompt"]?.bool == false {
      throw wrong(file, "include_prompt", "is false, and this build pools all tokens of a text")
    }
    set("\(architecture).pooling_type", .integer(code), spelling: "\(file): pooling_mode")
  }

  private mutating func readDense(_ folder: String, as name: String, _ architecture: String) throws {
    let settings = try settings(folder), file = "\(folder)/config.json"
    let activation = settings["activation_function"]?.string ?? "torch.nn.modules.activation.Tanh"
    switch activation.split(separator: ".").last {
    case "Identity": break
    case "Tanh": set("\(architecture).\(name)_activation", .string("tanh"), spelling: "\(file): activation_function")
    default: throw wrong(file, "activation_function", "is \(activation); this build computes Identity and Tanh")
    }
    try addModule(folder, as: name, tensors: ["linear.weight": "\(name).weight", "linear.bias": "\(name).bias"])
  }
}
