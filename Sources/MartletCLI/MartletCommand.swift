// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser

/// The command line, and the composition root: the only place that reads the environment, chooses a device and names files.
///
/// What a program would read goes to standard output, everything else to standard error. Exit status: 0 done, 1 it failed, 64 it was
/// called wrong, 130 it was interrupted.
@main
struct MartletCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "martlet",
    abstract: "Runs language models on this machine, through an attention backend chosen by name.",
    discussion: """
      MODEL is the name of a known model (see `martlet pull --help`) or the path of a .gguf file or of a \
      Hugging Face directory. Known models are kept in \
      ~/.cache/martlet; MARTLET_CACHE names another folder.
      """,
    version: "0.1.0",
    subcommands: [Generate.self, Chat.self, Render.self, Tokenize.self, Perplexity.self, Inspect.self, Verify.self, Bench.self, Pull.self])
}
