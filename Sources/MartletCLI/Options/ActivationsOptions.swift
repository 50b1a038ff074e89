// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import MartletCore

/// In which arithmetic products are computed.
struct ActivationsOptions: ParsableArguments {
  @Option(
    name: .customLong("activations"),
    help: ArgumentHelp(
      "How rows are rounded that are multiplied with weights. exact: 16-bit integers; bf16 (processors with avx512amx): faster for prompts, embeddings and "
        + "16 requests or more at once, slower for a few; int8 (where weights are integers): faster for prompts and embeddings on processors without AMX.",
      valueName: "type"))
  var activationsArgument = ActivationsArgument(.exact)

  var activations: Activations { activationsArgument.activations }
}

/// `exact`, `bf16`, `int8`.
struct ActivationsArgument: ExpressibleByArgument {
  var activations: Activations

  init(_ activations: Activations) { self.activations = activations }

  init?(argument: String) {
    guard let activations = Activations(rawValue: argument.lowercased()) else { return nil }
    self.activations = activations
  }

  static var allValueStrings: [String] { Activations.allCases.map(\.rawValue) }
  static var defaultCompletionKind: CompletionKind { .list(allValueStrings) }
  var defaultValueDescription: String { activations.rawValue }
}
