// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Martlet
import MartletFormats
import MartletTokenizers

struct Tokenize: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Shows the tokens of a text.",
    discussion: """
      Special tokens written in the text are recognised; no beginning-of-text token is added. Before a text that begins with a dash put --.
      """)

  @Argument(help: "Name or path.")
  var model: String

  @Argument(help: "The text.")
  var text: String

  @Flag(help: "Print one JSON object.")
  var json = false

  func run() async throws {
    try await interruptible { [self] in
      let tokenizer = try ModelFiles(path: try await ModelFile.path(of: model)).makeTokenizer()
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
