// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Why a GGUF file, or something asked of it, cannot be used. Every case names the field and, where there is one, the way out.
public enum GGUFError: Error, Hashable {
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
    }
  }
}
