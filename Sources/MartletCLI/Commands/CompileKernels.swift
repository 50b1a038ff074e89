// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import MartletCUDA
import MartletCore

struct CompileKernels: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "compile-kernels", abstract: "Compiles the CUDA kernels, so that machines with a GPU need no compiler.",
    discussion: """
      Needs NVRTC (pip install nvidia-cuda-nvrtc) and no GPU. A program finds compiled kernels in ../lib/martlet/kernels beside itself. Without \
      them a GPU's kernels are compiled when it is first used, and kept in the folder of models.
      """)

  @Argument(help: "The folder to write to.")
  var folder: String

  @Option(
    name: .customLong("target"),
    help: ArgumentHelp("A target of NVRTC, such as sm_80 or sm_90a; may be given again.", valueName: "name"))
  var targets = ["sm_80", "sm_89", "sm_90a", "sm_100a", "sm_120"]

  func validate() throws {
    for target in targets where !target.hasPrefix("sm_") || target.dropFirst(3).contains(where: { !$0.isLetter && !$0.isNumber }) {
      throw ValidationError("--target is \"\(target)\"; it must be sm_ and a number, such as sm_90a")
    }
  }

  func run() async throws {
    try await interruptible { [self] in
      let compiler = KernelCompiler(Places.cudaKernels()), programs = KernelProgram.all, progress = ProgressLine()
      defer { progress.clear() }
      var byteCount = 0
      for target in targets {
        for (index, program) in programs.enumerated() {
          try Task.checkCancellation()
          progress.show("\(target): \(program.name), \(index + 1) of \(programs.count)")
          byteCount += try compiler.compile(program, target: target, into: folder)
        }
      }
      progress.clear()
      try Terminal.write("\(programs.count * targets.count) files, \(byteCount) bytes in \(folder)\n")
    }
  }
}
