// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Why a GGUF file, or something asked of it, cannot be used. The sentence names the field and, where there is one, the way out.
///
/// A program looks at ``code``, a person reads ``description``. More codes may come, so a `switch` over them has a `default`.
public struct GGUFError: Error, Sendable, Hashable, CustomStringConvertible {
  /// Which failure it is.
  public struct Code: RawRepresentable, Sendable, Hashable, Codable {
    public let rawValue: String
    public init(rawValue: String) { self.rawValue = rawValue }

    /// The file could not be opened or mapped.
    public static let cannotOpen = Code(rawValue: "cannotOpen")
    /// The first bytes are not "GGUF".
    public static let notGGUF = Code(rawValue: "notGGUF")
    /// A big-endian file.
    public static let bigEndian = Code(rawValue: "bigEndian")
    /// A version this build does not read.
    public static let unsupportedVersion = Code(rawValue: "unsupportedVersion")
    /// The file ends before a field does.
    public static let truncated = Code(rawValue: "truncated")
    /// A field has a value that no valid file has.
    public static let malformed = Code(rawValue: "malformed")
    /// A metadata key that was asked for is missing.
    public static let missingKey = Code(rawValue: "missingKey")
    /// A metadata key has another type than what was asked for.
    public static let wrongType = Code(rawValue: "wrongType")
    /// A tensor that was asked for is missing.
    public static let missingTensor = Code(rawValue: "missingTensor")
    /// A tensor has a format that cannot be read as what was asked for.
    public static let unreadableFormat = Code(rawValue: "unreadableFormat")
    /// A tensor has another shape than what was asked for.
    public static let wrongShape = Code(rawValue: "wrongShape")
    /// One part of a model was given without its path, so that the others cannot be found.
    public static let lonePart = Code(rawValue: "lonePart")
    /// A later part of a model was named, not the first.
    public static let laterPart = Code(rawValue: "laterPart")
    /// A part of a model is not where the others are.
    public static let missingPart = Code(rawValue: "missingPart")
    /// The parts of a model do not fit together.
    public static let malformedParts = Code(rawValue: "malformedParts")
  }

  public let code: Code
  /// A sentence that names the thing and the way out.
  public let description: String
  /// The file that it is about, where the error names one; of ``Code/laterPart`` the first part, which is the one to open.
  public let path: String?
  // More than four words wide: the optimiser of Swift 6.3 crashes on async callers of what throws a typed error of two to four.

  public init(_ code: Code, _ description: String, path: String? = nil) {
    self.code = code
    self.description = description
    self.path = path
  }
}

extension GGUFError {
  /// The same error, of the file at `path`, which it names.
  package func of(path: String) -> GGUFError {
    let what = description.hasPrefix("GGUF: ") ? String(description.dropFirst(6)) : description
    return GGUFError(code, "GGUF: in \"\(path)\": \(what)", path: path)
  }

  /// ``Code/cannotOpen``; `reason` is the system's.
  public static func cannotOpen(path: String, reason: String) -> GGUFError {
    GGUFError(.cannotOpen, "GGUF: cannot open \"\(path)\": \(reason)", path: path)
  }

  /// ``Code/notGGUF``, with the bytes that the file begins with.
  public static func notGGUF(found: String) -> GGUFError {
    GGUFError(
      .notGGUF,
      "GGUF: the file begins with \(found), not with \"GGUF\": it is another kind of file (a download that failed, or a model to convert first)"
    )
  }

  /// ``Code/bigEndian``; `version` is what the version field reads.
  public static func bigEndian(version: UInt32) -> GGUFError {
    GGUFError(
      .bigEndian,
      "GGUF: the version reads \(version), that is \(version.byteSwapped) with its bytes swapped: a big-endian file; "
        + "this build reads little-endian ones (convert it with gguf_convert_endian.py of the gguf package)")
  }

  /// ``Code/unsupportedVersion``.
  public static func unsupportedVersion(_ version: UInt32) -> GGUFError {
    GGUFError(
      .unsupportedVersion, "GGUF: version \(version) is not supported (reads: 2, 3); convert the model again with a current converter")
  }

  /// ``Code/truncated``: `field`, at `offset`, takes `needed` bytes where the file has `available` left.
  public static func truncated(field: String, offset: Int, needed: UInt64, available: Int) -> GGUFError {
    GGUFError(
      .truncated,
      "GGUF: \(field) at byte \(offset) needs \(needed) bytes, the file has \(available) left: it is cut short or damaged; fetch it again")
  }

  /// ``Code/malformed``.
  public static func malformed(field: String, problem: String) -> GGUFError {
    GGUFError(.malformed, "GGUF: \(field) \(problem): the file is damaged or was written wrongly; fetch or convert it again")
  }

  /// ``Code/missingKey``.
  public static func missingKey(_ key: String) -> GGUFError {
    GGUFError(.missingKey, "GGUF: the metadata has no \"\(key)\", which is needed; convert the model again with a current converter")
  }

  /// ``Code/wrongType``.
  public static func wrongType(key: String, found: String, expected: String) -> GGUFError {
    GGUFError(
      .wrongType,
      "GGUF: metadata \"\(key)\" is \(found) where \(expected) is needed; convert the model again with a current converter")
  }

  /// ``Code/missingTensor``; `hint` may say where it is.
  public static func missingTensor(_ name: String, hint: String) -> GGUFError {
    GGUFError(.missingTensor, "GGUF: the file has no tensor \"\(name)\"\(hint.isEmpty ? "" : "; " + hint)")
  }

  /// ``Code/unreadableFormat``; `readable` lists the formats that can be read.
  public static func unreadableFormat(tensor: String, format: String, readable: [String]) -> GGUFError {
    GGUFError(
      .unreadableFormat,
      "GGUF: tensor \"\(tensor)\" has format \(format), which this build cannot read (reads: \(readable.joined(separator: ", ")))")
  }

  /// ``Code/wrongShape``; `found` has the outermost dimension first.
  public static func wrongShape(tensor: String, found: [Int], expected: String) -> GGUFError {
    GGUFError(.wrongShape, "GGUF: tensor \"\(tensor)\" has shape \(found) where \(expected) is needed")
  }

  /// ``Code/lonePart``.
  public static func lonePart(part: Int, count: Int) -> GGUFError {
    GGUFError(
      .lonePart,
      "GGUF: the file is part \(part) of a model of \(count) files; open it by the path of the first one, or join them with gguf-split --merge"
    )
  }

  /// ``Code/laterPart``; `first` is the one to name.
  public static func laterPart(path: String, first: String) -> GGUFError {
    GGUFError(.laterPart, "GGUF: \"\(path)\" is a later part of a model; name the first one, \"\(first)\"", path: first)
  }

  /// ``Code/missingPart``.
  public static func missingPart(path: String, part: Int, count: Int) -> GGUFError {
    GGUFError(.missingPart, "GGUF: part \(part) of \(count) is not there: \"\(path)\"; fetch it, too", path: path)
  }

  /// ``Code/malformedParts``.
  public static func malformedParts(path: String, problem: String) -> GGUFError {
    GGUFError(.malformedParts, "GGUF: \"\(path)\" \(problem)", path: path)
  }

  /// What is wrong with one of the later parts of a model: the error's own code, and its sentence with the part's path.
  public static func inPart(path: String, error: GGUFError) -> GGUFError {
    GGUFError(error.code, "\(error) (in \"\(path)\")", path: path)
  }
}
