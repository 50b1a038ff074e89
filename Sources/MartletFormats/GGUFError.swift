// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Why a GGUF file, or something asked of it, cannot be used. Every case names the field and, where there is one, the way out.
public indirect enum GGUFError: Error, Hashable {
  /// The file could not be opened or mapped; `reason` is the system's.
  case cannotOpen(path: String, reason: String)
  /// The first bytes are not "GGUF".
  case notGGUF(found: String)
  /// A big-endian file; `version` is what the version field reads.
  case bigEndian(version: UInt32)
  /// A version this build does not read.
  case unsupportedVersion(UInt32)
  /// `field`, at `offset`, takes `needed` bytes where the file has `available` left.
  case truncated(field: String, offset: Int, needed: UInt64, available: Int)
  /// `field` has a value that no valid file has.
  case malformed(field: String, problem: String)
  /// A metadata key that was asked for is missing.
  case missingKey(String)
  /// A metadata key has another type than what was asked for.
  case wrongType(key: String, found: String, expected: String)
  /// A tensor that was asked for is missing; `hint` may say where it is.
  case missingTensor(String, hint: String)
  /// A tensor has a format that cannot be read as what was asked for; `readable` lists those that can.
  case unreadableFormat(tensor: String, format: String, readable: [String])
  /// A tensor has another shape (outermost dimension first) than what was asked for.
  case wrongShape(tensor: String, found: [Int], expected: String)
  /// One part of a model was given without its path, so that the others cannot be found.
  case lonePart(part: Int, count: Int)
  /// A later part of a model was named; `first` is the one to name.
  case laterPart(path: String, first: String)
  /// A part of a model is not where the others are.
  case missingPart(path: String, part: Int, count: Int)
  /// The parts of a model do not fit together.
  case malformedParts(path: String, problem: String)
  /// What is wrong with one of the later parts of a model.
  case inPart(path: String, error: GGUFError)
}

extension GGUFError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .cannotOpen(let path, let reason):
      "GGUF: cannot open \"\(path)\": \(reason)"
    case .notGGUF(let found):
      "GGUF: the file begins with \(found), not with \"GGUF\": it is another kind of file (a download that failed, or a model to convert first)"
    case .bigEndian(let version):
      "GGUF: the version reads \(version), that is \(version.byteSwapped) with its bytes swapped: a big-endian file; "
        + "this build reads little-endian ones (convert it with gguf_convert_endian.py of the gguf package)"
    case .unsupportedVersion(let version):
      "GGUF: version \(version) is not supported (reads: 2, 3); convert the model again with a current converter"
    case .truncated(let field, let offset, let needed, let available):
      "GGUF: \(field) at byte \(offset) needs \(needed) bytes, the file has \(available) left: it is cut short or damaged; fetch it again"
    case .malformed(let field, let problem):
      "GGUF: \(field) \(problem): the file is damaged or was written wrongly; fetch or convert it again"
    case .missingKey(let key):
      "GGUF: the metadata has no \"\(key)\", which is needed; convert the model again with a current converter"
    case .wrongType(let key, let found, let expected):
      "GGUF: metadata \"\(key)\" is \(found) where \(expected) is needed; convert the model again with a current converter"
    case .missingTensor(let name, let hint):
      "GGUF: the file has no tensor \"\(name)\"\(hint.isEmpty ? "" : "; " + hint)"
    case .unreadableFormat(let tensor, let format, let readable):
      "GGUF: tensor \"\(tensor)\" has format \(format), which this build cannot read (reads: \(readable.joined(separator: ", ")))"
    case .wrongShape(let tensor, let found, let expected):
      "GGUF: tensor \"\(tensor)\" has shape \(found) where \(expected) is needed"
    case .lonePart(let part, let count):
      "GGUF: the file is part \(part) of a model of \(count) files; open it by the path of the first one, or join them with gguf-split --merge"
    case .laterPart(let path, let first): "GGUF: \"\(path)\" is a later part of a model; name the first one, \"\(first)\""
    case .missingPart(let path, let part, let count):
      "GGUF: part \(part) of \(count) is not there: \"\(path)\"; fetch it, too"
    case .malformedParts(let path, let problem): "GGUF: \"\(path)\" \(problem)"
    case .inPart(let path, let error): "\(error) (in \"\(path)\")"
    }
  }
}
