// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletGrammar

/// What the text of an answer must be: a token that would leave the form never comes.
///
/// A form is held exactly or refused: what cannot be held is an error before the request begins (``LLMError/Code/invalidForm``), never something that is
/// ignored. It speaks of the text from the first token on, thoughts included. An answer that is cut off, by ``SamplingParams/maxTokens`` or a stop string
/// say, is the beginning of a text of the form; ``FinishReason/endToken`` says that it is whole.
///
/// <doc:Forms-of-answers> has more.
public enum AnswerForm: Sendable, Hashable {
  /// Any JSON object, written without white space between its parts.
  case json
  /// JSON that is valid by a JSON Schema, which is given as its text. Keys come in the order in which the schema names them; the options say what
  /// white space there may be between the parts of the JSON: none, unless they allow it.
  case jsonSchema(String, JSONSchemaOptions = JSONSchemaOptions())
  /// What a regular expression of ECMA-262 matches as a whole.
  case regex(String)
  /// What the rule `root` of a grammar in GBNF, llama.cpp's notation, derives.
  case grammar(String)
  /// One of these texts.
  case choice([String])

  /// What an error calls it.
  var name: String {
    switch self {
    case .json: "form of JSON"
    case .jsonSchema: "JSON Schema"
    case .regex: "regular expression"
    case .grammar: "grammar"
    case .choice: "choice"
    }
  }

  /// Compiles the form and keeps nothing: whether it can be held at all is known before there is a model.
  public func check() throws(GrammarError) { _ = try source().compile() }

  /// The form as what is compiled.
  func source() throws(GrammarError) -> GrammarSource {
    switch self {
    case .json: return .jsonSchema(#"{"type": "object"}"#)
    case .jsonSchema(let schema, let options): return .jsonSchema(schema, options)
    case .regex(let pattern): return .regex(pattern)
    case .grammar(let rules): return .gbnf(rules)
    case .choice(let texts):
      if texts.isEmpty { throw GrammarError(.unsatisfiable, "there is nothing to choose from: give at least one text") }
      return .regex(texts.map(Self.escaped).joined(separator: "|"))
    }
  }

  /// A regular expression that matches this text alone. The characters are ECMA-262's SyntaxCharacter.
  private static func escaped(_ text: String) -> String {
    var pattern = ""
    for scalar in text.unicodeScalars {
      if #"^$\.*+?()[]{}|"#.unicodeScalars.contains(scalar) { pattern.unicodeScalars.append("\\") }
      pattern.unicodeScalars.append(scalar)
    }
    return pattern
  }
}
