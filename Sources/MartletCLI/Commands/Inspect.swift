// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Foundation
import Martlet
import MartletAttention
import MartletCPU
import MartletFormats
import MartletModels

struct Inspect: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Shows what a model file or directory is, what can run it, and the memory it takes.",
    discussion: "Reads the files' heads only; no weights are loaded.")

  @OptionGroup var arguments: ModelArguments

  /// A model, as it once had to be given.
  @Argument(help: .hidden) var argument: String?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("The context length to compute memory for (default: the model's, at most 8192).", valueName: "n"))
  var context: Int?

  @OptionGroup var choice: DeviceChoiceOptions
  @OptionGroup(title: "Cache options") var cache: CacheFormatOptions

  @Flag(help: "Print one JSON object.")
  var json = false

  private var model: String { arguments.named ?? argument ?? KnownModel.default.name }

  func validate() throws { try validatePositive(context, "--context") }

  func run() async throws {
    // Not in `validate`, which comes before the parser names an option that is none.
    if let argument, arguments.named != nil { throw ValidationError("\"\(argument)\" is a second model; give one with --model") }
    try await interruptible { [self] in
      if argument != nil { ModelArguments.note(model) }
      let path = try await ModelFile.path(of: model)
      let inspection = try ModelFile.reading(path) {
        try Inspection(
          ModelFiles(path: path), path: path, device: choice.makeDevice { try CPUDevice() }, cache: cache.kvCache,
          quantConfig: cache.quantConfig,
          contextLength: context)
      }
      if json { try Terminal.writeJSON(inspection) } else { try Terminal.show(inspection.text) }
    }
  }
}
