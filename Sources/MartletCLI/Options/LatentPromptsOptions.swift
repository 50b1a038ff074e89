// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import MartletAttention

/// In which form latent attention reads prompts.
struct LatentPromptsOptions: ParsableArguments {
  @Option(
    name: .customLong("latent-prompts"),
    help: ArgumentHelp(
      "How models with latent attention (MLA) read prompts. absorbed: as they generate, to the same bits in whatever chunks; expanded: chunks long enough "
        + "by keys and values of every head, in fewer operations, differing by rounding with the chunks; expanded:96: those of 96 tokens or more.",
      valueName: "form"))
  var latentPromptsArgument = LatentPromptsArgument(.absorbed)

  var latentPrompts: LatentPrompts { latentPromptsArgument.latentPrompts }
}

/// `absorbed`, `expanded`, `expanded:96`.
struct LatentPromptsArgument: ExpressibleByArgument {
  var latentPrompts: LatentPrompts

  init(_ latentPrompts: LatentPrompts) { self.latentPrompts = latentPrompts }

  init?(argument: String) {
    guard let latentPrompts = LatentPrompts(argument.lowercased()) else { return nil }
    self.latentPrompts = latentPrompts
  }

  static var defaultCompletionKind: CompletionKind { .list(["absorbed", "expanded"]) }
  var defaultValueDescription: String { latentPrompts.description }
}
