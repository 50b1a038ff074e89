// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Why a safetensors file, or the Hugging Face directory around it, cannot be used. The sentence names the file and the field.
///
/// A program looks at ``code``, a person reads ``description``. More codes may come, so a `switch` over them has a `default`.
public struct CheckpointError: Error, Sendable, Hashable, CustomStringConvertible {
  /// Which failure it is.
  public struct Code: RawRepresentable, Sendable, Hashable, Codable {
    public let rawValue: String
    public init(rawValue: String) { self.rawValue = rawValue }

    /// The file or directory could not be opened or mapped.
    public static let cannotOpen = Code(rawValue: "cannotOpen")
    /// A file that the directory must have is not there.
    public static let missingFile = Code(rawValue: "missingFile")
    /// The file ends before a field does.
    public static let truncated = Code(rawValue: "truncated")
    /// A field has a value that no valid file has.
    public static let malformed = Code(rawValue: "malformed")
    /// A tensor that was asked for is missing.
    public static let missingTensor = Code(rawValue: "missingTensor")
    /// A tensor has a type that cannot be read as what was asked for.
    public static let unreadableFormat = Code(rawValue: "unreadableFormat")
    /// A tensor has another shape than what was asked for.
    public static let wrongShape = Code(rawValue: "wrongShape")
  }

  public let code: Code
  /// A sentence that names the thing and the way out.
  public let description: String
  /// The file that it is about, as the sentence names it; nil where it names none.
  public let file: String?
  // More than four words wide: the optimiser of Swift 6.3 crashes on async callers of what throws a typed error of two to four.

  public init(_ code: Code, _ description: String, file: String? = nil) {
    self.code = code
    self.description = description
    self.file = file
  }
}

extension CheckpointError {
  /// ``Code/cannotOpen``; `reason` is the system's.
  public static func cannotOpen(path: String, reason: String) -> CheckpointError {
    CheckpointError(.cannotOpen, "checkpoint: cannot open \"\(path)\": \(reason)", file: path)
  }

  /// ``Code/missingFile``; `hint` may say what to do.
  public static func missingFile(_ name: String, directory: String, hint: String) -> CheckpointError {
    CheckpointError(
      .missingFile,
      "checkpoint: the directory \"\(directory)\" has no \(name)\(hint.isEmpty ? "; fetch the whole model again" : "; " + hint)", file: name
    )
  }

  /// ``Code/truncated``: `field` takes `needed` bytes where the file has `available` left.
  public static func truncated(file: String, field: String, needed: UInt64, available: Int) -> CheckpointError {
    CheckpointError(
      .truncated,
      "checkpoint: \(file): \(field) needs \(needed) bytes, the file has \(available) left: it is cut short or damaged; fetch it again",
      file: file)
  }

  /// ``Code/malformed``.
  public static func malformed(file: String, field: String, problem: String) -> CheckpointError {
    CheckpointError(
      .malformed,
      "checkpoint: \(file): \(field) \(problem): the file is damaged or was written wrongly; fetch or convert it again", file: file)
  }

  /// ``Code/missingTensor``.
  public static func missingTensor(_ name: String) -> CheckpointError {
    CheckpointError(.missingTensor, "checkpoint: there is no tensor \"\(name)\"; the model is incomplete or another variant")
  }

  /// ``Code/unreadableFormat``; `readable` lists the types that can be read.
  public static func unreadableFormat(tensor: String, format: String, readable: [String]) -> CheckpointError {
    CheckpointError(
      .unreadableFormat,
      "checkpoint: tensor \"\(tensor)\" has type \(format), which this build cannot read (reads: \(readable.joined(separator: ", "))); "
        + "convert the model to one of them, or to GGUF")
  }

  /// ``Code/wrongShape``; `found` has the outermost dimension first.
  public static func wrongShape(tensor: String, found: [Int], expected: String) -> CheckpointError {
    CheckpointError(.wrongShape, "checkpoint: tensor \"\(tensor)\" has shape \(found) where \(expected) is needed")
  }
}
