// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import MartletTemplates
import MartletTokenizers

/// Which chat template, and its variables.
struct ChatTemplateOptions: ParsableArguments {
  @Option(name: .customLong("chat-template"), help: ChatTemplate.help)
  var name: String?

  @Option(name: .customLong("set"), parsing: .unconditionalSingleValue, help: ChatVariables.help)
  var settings: [String] = []

  func validate() throws { _ = try variables() }

  /// Whether any of them is given.
  var areGiven: Bool { name != nil || !settings.isEmpty }

  func template() throws -> ChatTemplate? { try name.map { try ChatTemplate(nameOrPath: $0) } }

  func variables() throws -> JSON.Object { try ConversationFile.variables(settings) }
}
