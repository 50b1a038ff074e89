// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Martlet
import MartletFormats
import MartletTokenizers

struct Tokenize: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Shows the tokens of a text.",
    discussion: """
      Special tokens written in the text are recognised; no beginning-of-text token is added. Without a text, or with -, it is read from \
      standard input, all of it. Before a text that begins with a dash put --.
      """)

  @OptionGroup var model: ModelArguments

  @Argument(help: "The text; - reads it from standard input.")
  var text: String?

  /// The text behind a model.
  @Argument(help: .hidden) var second: String?

  @Flag(help: "Print one JSON object.")
  var json = false

  func validate() throws {
    let arguments = try arguments
    if arguments.argument == nil && !TextInput.comesByItself {
      throw ValidationError("give a TEXT, or - for standard input; before a text that begins with a dash put --")
    }
  }

  private var arguments: (model: String, argument: String?, isOld: Bool) {
    get throws { try model.resolve([text, second].compactMap(\.self), what: "TEXT") }
  }

  func run() async throws {
    try await interruptible { [self] in
      let (model, argument, isOld) = try arguments
      if isOld { ModelArguments.note(model) }
      let text =
        if let text = argument, text != TextInput.standard { text } else { try TextInput.text(of: TextInput.standard, what: "text") }
      let path = try await ModelFile.path(of: model)
      let tokenizer = try ModelFile.reading(path) { try ModelFiles(path: path).makeTokenizer() }
      let tokenIDs = tokenizer.encode(text, parsesSpecialTokens: true)
      if json {
        try Terminal.writeJSON(Report(tokenIDs: tokenIDs.map(Int.init)))
      } else {
        try Terminal.write(tokenIDs.map { "\($0)\t\(Self.shown(tokenizer.bytes(of: $0, showsControlTokens: true)))\n" }.joined())
      }
    }
  }

  /// Quoted text; a token that is a part of a character as its bytes.
  private static func shown(_ bytes: [UInt8]) -> String {
    if let text = String(validating: bytes, as: UTF8.self) { return text.debugDescription }
    return bytes.map { "<0x" + String($0, radix: 16, uppercase: true) + ">" }.joined()
  }

  struct Report: Encodable {
    var tokenIDs: [Int]

    enum CodingKeys: String, CodingKey { case tokenIDs = "token_ids" }
  }
}
