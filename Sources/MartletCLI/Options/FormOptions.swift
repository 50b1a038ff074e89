// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Martlet

/// What the text of an answer must be: one of these, or anything.
struct FormOptions: ParsableArguments {
  @Flag(name: .customLong("json-object"), help: "The answer is a JSON object.")
  var isJSONObject = false

  @Option(
    name: .customLong("json-schema"),
    help: ArgumentHelp("The answer is JSON that is valid by the JSON Schema in this file.", valueName: "file"), completion: .file())
  var schemaFile: String?

  @Option(help: ArgumentHelp("The answer is what the GBNF grammar in this file derives.", valueName: "file"), completion: .file())
  var grammar: String?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("The answer as a whole matches this regular expression (ECMAScript's).", valueName: "expression"))
  var regex: String?

  @Option(
    name: .customLong("choice"), parsing: .unconditionalSingleValue,
    help: ArgumentHelp("The answer is this text, or one of those that further --choice give.", valueName: "text"))
  var choices: [String] = []

  func validate() throws {
    if given.count > 1 { throw ValidationError("give one of \(given.joined(separator: " and ")), for an answer has one form") }
    for (file, option) in [(schemaFile, "--json-schema"), (grammar, "--grammar")] where file == TextInput.standard {
      throw ValidationError("\(option) is read from a file; standard input is for prompts")
    }
  }

  /// The options that are there.
  private var given: [String] {
    [
      (isJSONObject, "--json-object"), (schemaFile != nil, "--json-schema"), (grammar != nil, "--grammar"), (regex != nil, "--regex"),
      (!choices.isEmpty, "--choice"),
    ].filter(\.0).map(\.1)
  }

  /// The form; nil where none is asked for. What cannot be held is an error now, and not once a model is loaded.
  func form() throws -> AnswerForm? {
    guard let option = given.first else { return nil }
    let form: AnswerForm
    if let schemaFile {
      form = .jsonSchema(try TextInput.text(of: schemaFile, what: "JSON Schema"))
    } else if let grammar {
      form = .grammar(try TextInput.text(of: grammar, what: "grammar"))
    } else if let regex {
      form = .regex(regex)
    } else {
      form = isJSONObject ? .json : .choice(choices)
    }
    do { try form.check() } catch {
      // Its words stay as they are: what is named in them is in the form.
      throw CommandError("\(option)\((schemaFile ?? grammar).map { " \($0)" } ?? ""): \(error)")
    }
    return form
  }
}
