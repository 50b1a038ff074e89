// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Foundation
import Martlet

/// `--model`, as `generate` and `chat` have it, for commands that take a text or a file beside it.
///
/// Such a command once took the model as its first argument. One that is obviously a model is still taken so, and the command says how to
/// write it.
struct ModelArguments: ParsableArguments {
  @Option(
    name: .customLong("model"), help: ArgumentHelp("Name or path (default: \(KnownModel.default.name)).", valueName: "model"),
    completion: .list(KnownModel.all.map(\.name)))
  var named: String?

  /// The model, and the argument that is left.
  /// - Parameters:
  ///   - arguments: as they stand, at most two.
  ///   - what: what the argument is, for errors: "TEXT".
  /// - Throws: where there are two, and the first is no model.
  func resolve(_ arguments: [String], what: String) throws -> (model: String, argument: String?, isOld: Bool) {
    if let named {
      if arguments.count > 1 { throw ValidationError("there is one \(what), and \"\(arguments[1])\" is a second one; put it in quotes") }
      return (named, arguments.first, false)
    }
    guard let first = arguments.first else { return (KnownModel.default.name, nil, false) }
    if Self.isModel(first) { return (first, arguments.dropFirst().first, true) }
    if arguments.count > 1 {
      throw ValidationError(
        "\"\(first)\" is no model; name one with --model, and give one \(what), in quotes (models: "
          + KnownModel.all.map(\.name).joined(separator: ", ") + ", or a path)")
    }
    return (KnownModel.default.name, first, false)
  }

  /// What is said where the model came as an argument.
  static func note(_ model: String) {
    Terminal.note("\(model) is taken as the model; --model \(model) says so, here as for generate and chat.")
  }

  /// A known model's name, or what looks like the path of a model.
  private static func isModel(_ text: String) -> Bool {
    if KnownModel.all.contains(where: { $0.name == text.lowercased() }) { return true }
    if text.contains(where: \.isNewline) { return false }
    if text.lowercased().hasSuffix(".gguf") { return true }
    return FileManager.default.fileExists(atPath: text + "/config.json")
  }
}
