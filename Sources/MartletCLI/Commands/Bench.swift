// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser

/// `martlet bench …`: what is measured, each by a command of its own.
struct Bench: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measures this machine.",
    subcommands: [BenchAttention.self, BenchLatents.self, BenchModel.self, BenchEngine.self, BenchServe.self])
}
