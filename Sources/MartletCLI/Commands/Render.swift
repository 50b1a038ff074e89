// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Foundation
import Martlet
import MartletTemplates
import MartletTokenizers

struct Render: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Writes a conversation as a model's chat template has it.",
    discussion: """
      The rendered text goes to standard output as it is, without a newline at its end; at a terminal control characters are shown. FILE is a JSON array as OpenAI's API has it: messages, \
      tools, documents. Where the template raises an error, that is said, and the exit status is 1.
      """)

  @Option(
    help: ArgumentHelp("Name or path of the model whose template is taken (default: \(KnownModel.default.name)).", valueName: "model"))
  var model: String?

  @Option(name: .customLong("chat-template"), help: ChatTemplate.help)
  var chatTemplate: String?

  @Option(parsing: .unconditional, help: ArgumentHelp("What the template finds in bos_token, with --chat-template.", valueName: "text"))
  var bos: String?

  @Option(parsing: .unconditional, help: ArgumentHelp("What the template finds in eos_token, with --chat-template.", valueName: "text"))
  var eos: String?

  @Option(help: ArgumentHelp("The messages.", valueName: "file"))
  var messages: String

  @Option(help: ArgumentHelp("The tools that the model may call.", valueName: "file"))
  var tools: String?

  @Option(help: ArgumentHelp("Documents, for templates that take them.", valueName: "file"))
  var documents: String?

  @Option(name: .customLong("set"), parsing: .unconditionalSingleValue, help: ChatVariables.help)
  var settings: [String] = []

  @Flag(name: .customLong("no-generation-prompt"), help: "Do not begin the assistant's answer.")
  var hasNoGenerationPrompt = false

  @Flag(name: .customLong("continue-final-message"), help: "End where the last message ends, so that the model goes on with it.")
  var continuesFinalMessage = false

  @Option(
    help: ArgumentHelp(
      "What the template's clock shows, such as 2026-11-29T12:34:56 (default: now); a zone changes nothing.", valueName: "time"))
  var now: String?

  @Flag(help: "Write the token ids instead, as a JSON array; with --chat-template those of --model's tokenizer.")
  var tokens = false

  @Flag(name: .customLong("parse-special-tokens"), help: SpecialTokensInContent.help)
  var parsesSpecialTokens = false

  func validate() throws {
    if (bos != nil || eos != nil) && chatTemplate == nil { throw ValidationError("--bos and --eos go with --chat-template") }
    if parsesSpecialTokens && !tokens { throw ValidationError("--parse-special-tokens is of use with --tokens only") }
    if tokens && chatTemplate != nil && model == nil {
      throw ValidationError("--tokens needs a tokenizer: name a model with --model too")
    }
    if let now, LocalTime(now) == nil { throw ValidationError("--now is \(now); it must be a time such as 2026-11-29T12:34:56") }
    _ = try ConversationFile.variables(settings)
  }

  func run() async throws {
    // Only a pull has something to tidy up; a template that takes its time is ended at once.
    var path: String?
    if chatTemplate == nil || model != nil {
      let model = model ?? KnownModel.default.name
      path = try await interruptible { try await ModelFile.path(of: model) }
    }
    try render(modelPath: path)
  }

  private func render(modelPath: String?) throws {
    var options = ChatOptions(
      addsGenerationPrompt: !hasNoGenerationPrompt && !continuesFinalMessage, continuesFinalMessage: continuesFinalMessage,
      variables: try ConversationFile.variables(settings), now: .now)
    if let now { options.now = LocalTime(now) }
    let messages = try ConversationFile.array(messages, of: "messages")
    let tools = try tools.map { try ConversationFile.array($0, of: "tools") }
    let documents = try documents.map { try ConversationFile.array($0, of: "documents") }
    var tokenizer: (any Tokenizer)?
    let template: ChatTemplate
    if let modelPath {
      let files = try ModelFile.reading(modelPath) { try ModelFiles(path: modelPath).readTokenizer() }
      tokenizer = files.tokenizer
      // The model's own tokens, but those that are given.
      let tokens = files.tokenizer.templateTokens.merging(given) { $1 }
      template = try chatTemplate.map { try ChatTemplate(nameOrPath: $0, specialTokens: tokens) } ?? files.chatTemplate.get()
    } else {
      template = try ChatTemplate(nameOrPath: chatTemplate ?? "", specialTokens: given)
    }
    let text = try template.render(json: messages, tools: tools, documents: documents, options: options)
    if let tokenizer, tokens {
      let ids = tokenizer.promptTokens(of: text, specialTokensInContent: parsesSpecialTokens ? .parsed : .text)
      try Terminal.write("[" + ids.map { "\($0)" }.joined(separator: ", ") + "]\n")
    } else {
      try Terminal.show(text.text)
    }
  }

  private var given: [String: String] {
    var tokens: [String: String] = [:]
    tokens["bos_token"] = bos
    tokens["eos_token"] = eos
    return tokens
  }
}

enum ChatVariables {
  /// Of `--set`.
  static let help = ArgumentHelp(
    "A variable of the template, such as enable_thinking=false; may be given more than once.", valueName: "name=json")
}

enum SpecialTokensInContent {
  /// Of `--parse-special-tokens`.
  static let help = ArgumentHelp("Let marks in messages be tokens, as if the template had written them: for messages of your own only.")
}
