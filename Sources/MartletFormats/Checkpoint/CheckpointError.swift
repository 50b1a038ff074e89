// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Why a safetensors file, or the Hugging Face directory around it, cannot be used. Every case names the file and the field.
public enum CheckpointError: Error, Hashable {
  /// The file or directory could not be opened or mapped; `reason` is the system's.
  case cannotOpen(path: String, reason: String)
  /// A file that the directory must have; `hint` may say what to do.
  case missingFile(String, directory: String, hint: String)
  /// `field` takes `needed` bytes where the file has `available` left.
  case truncated(file: String, field: String, needed: UInt64, available: Int)
  /// `field` has a value that no valid file has.
  case malformed(file: String, field: String, problem: String)
  /// A tensor that was asked for is missing.
  case missingTensor(String)
  /// A tensor has a type that cannot be read as what was asked for; `readable` lists those that can.
  case unreadableFormat(tensor: String, format: String, readable: [String])
  /// A tensor has another shape (outermost dimension first) than what was asked for.
  case wrongShape(tensor: String, found: [Int], expected: String)
}

extension CheckpointError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .cannotOpen(let path, let reason): "checkpoint: cannot open \"\(path)\": \(reason)"
    case .missingFile(let name, let directory, let hint):
      "checkpoint: the directory \"\(directory)\" has no \(name)\(hint.isEmpty ? "; fetch the whole model again" : "; " + hint)"
    case .truncated(let file, let field, let needed, let available):
      "checkpoint: \(file): \(field) needs \(needed) bytes, the file has \(available) left: it is cut short or damaged; fetch it again"
    case .malformed(let file, let field, let problem):
      "checkpoint: \(file): \(field) \(problem): the file is damaged or was written wrongly; fetch or convert it again"
    case .missingTensor(let name): "checkpoint: there is no tensor \"\(name)\"; the model is incomplete or another variant"
    case .unreadableFormat(let tensor, let format, let readable):
      "checkpoint: tensor \"\(tensor)\" has type \(format), which this build cannot read (reads: \(readable.joined(separator: ", "))); "
        + "convert the model to one of them, or to GGUF"
    case .wrongShape(let tensor, let found, let expected):
      "checkpoint: tensor \"\(tensor)\" has shape \(found) where \(expected) is needed"
    }
  }
}
