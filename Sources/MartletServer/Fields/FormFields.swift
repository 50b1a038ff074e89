// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import Martlet
import MartletTemplates

/// A form of answers, and the member of the request that says it: what its errors name.
struct AskedForm: Sendable {
  var form: AnswerForm
  var param: String
}

/// What the text of an answer must be: OpenAI's fields, and vLLM's.
enum FormFields {
  static let responseFormat = Field<AskedForm?>(
    name: "response_format", schema: schema(nested: "json_schema"),
    about: "What the answer's text must be: anything, a JSON object, or JSON that is valid by a JSON Schema. Held exactly, or refused."
  ) { value, param in try format(value, param, nested: "json_schema") }

  static let structuredOutputs = Field<AskedForm?>(
    name: "structured_outputs",
    schema: [
      "type": "object", "additionalProperties": false,
      "properties": [
        "json": Schema.any(Schema.anyObject, Schema.flag, Schema.text, Schema.null), "json_object": Schema.nullable(Schema.flag),
        "regex": Schema.nullable(Schema.text), "grammar": Schema.nullable(Schema.text),
        "choice": ["type": ["array", "null"], "items": Schema.text, "minItems": 1],
        "disable_fallback": Schema.nullable(Schema.flag), "disable_any_whitespace": Schema.nullable(Schema.flag),
      ],
    ],
    about:
      "The same in vLLM's words, one of json (a JSON Schema, or its text), json_object, regex (ECMAScript's), choice and grammar (GBNF). Nothing falls back, and JSON has no white space between its parts."
  ) { value, param in try structuredOutputs(value, param) }

  static let table: [any AnyField] =
    [responseFormat, structuredOutputs]
    + ["guided_json", "guided_regex", "guided_choice", "guided_grammar", "grammar", "json_schema"].map {
      Field.refused($0, "say it as response_format or structured_outputs")
    } as [any AnyField]

  /// The form that a request asks for.
  static func read(_ fields: Fields) throws -> AskedForm? {
    let format = try fields(responseFormat) ?? nil
    let outputs = try fields(structuredOutputs) ?? nil
    if format != nil, let outputs {
      throw APIError.invalid(outputs.param, "structured_outputs and response_format both ask for a form; an answer has one")
    }
    return format ?? outputs
  }

  // MARK: OpenAI's formats

  /// JSON Schema of a format.
  /// - Parameters:
  ///   - nested: the member that holds name and schema; nil where the format has them itself.
  ///   - types: those that the API has.
  static func schema(nested: String?, types: [String] = ["text", "json_object", "json_schema"]) -> JSON {
    let about: JSON.Object = [
      "name": Schema.nullable(Schema.text), "description": Schema.nullable(Schema.text), "strict": Schema.nullable(Schema.flag),
    ]
    let cases = types.map { type -> JSON in
      guard type == "json_schema" else { return Schema.object(["type": Schema.const(type)]) }
      let schema: JSON = ["schema": Schema.any(Schema.anyObject, Schema.flag)]
      guard let nested else {
        return Schema.object(JSON.Object([("type", Schema.const(type))] + (schema.object?.members ?? [])), optional: about)
      }
      return Schema.object(["type": Schema.const(type), nested: Schema.object(schema.object ?? [:], optional: about)])
    }
    return ["anyOf": .array(cases)]
  }

  /// Reads a format; nil where any text will do.
  static func format(
    _ value: JSON, _ param: String, nested: String?, types: [String] = ["text", "json_object", "json_schema"]
  ) throws -> AskedForm? {
    guard value.object != nil else { throw APIError.invalid(param, "\(param) must be an object; it is \(value.shown)") }
    guard let type = value["type"]?.string, types.contains(type) else {
      throw APIError.invalid(
        "\(param).type", "\(param).type must be one of \(types.joined(separator: ", ")); it is \(value["type"]?.shown ?? "missing")")
    }
    switch type {
    case "text": return nil
    case "json_object": return AskedForm(form: .json, param: param)
    default:
      let holder = nested.map { value[$0] ?? .null } ?? value
      let name = nested.map { "\(param).\($0)" } ?? param
      guard holder.object != nil else { throw APIError.invalid(name, "\(name) must be an object; it is \(holder.shown)") }
      for key in ["name", "description"] {
        if let text = holder.given(key), text.string == nil {
          throw APIError.invalid("\(name).\(key)", "\(name).\(key) must be a string; it is \(text.shown)")
        }
      }
      // Nothing is held by halves, whatever it says.
      if let strict = holder.given("strict"), strict.flag == nil {
        throw APIError.invalid("\(name).strict", "\(name).strict must be true or false; it is \(strict.shown)")
      }
      let schema = holder["schema"] ?? .null
      guard schema.object != nil || schema.flag != nil else {
        throw APIError.invalid("\(name).schema", "\(name).schema must be a JSON Schema; it is \(schema.shown)")
      }
      return AskedForm(form: .jsonSchema(schema.text), param: "\(name).schema")
    }
  }

  // MARK: vLLM's

  private static func structuredOutputs(_ value: JSON, _ param: String) throws -> AskedForm {
    guard let object = value.object else { throw APIError.invalid(param, "\(param) must be an object; it is \(value.shown)") }
    var asked: [AskedForm] = []
    for (key, value) in object.members where !value.isNull {
      let name = "\(param).\(key)"
      func text() throws -> String {
        guard let text = value.string else { throw APIError.invalid(name, "\(name) must be a string; it is \(value.shown)") }
        return text
      }
      func flag() throws -> Bool {
        guard let flag = value.flag else { throw APIError.invalid(name, "\(name) must be true or false; it is \(value.shown)") }
        return flag
      }
      switch key {
      case "json":
        guard value.object != nil || value.flag != nil || value.string != nil else {
          throw APIError.invalid(name, "\(name) must be a JSON Schema, or its text; it is \(value.shown)")
        }
        asked.append(AskedForm(form: .jsonSchema(value.string ?? value.text), param: name))
      case "json_object": if try flag() { asked.append(AskedForm(form: .json, param: name)) }
      case "regex": asked.append(AskedForm(form: .regex(try text()), param: name))
      case "grammar": asked.append(AskedForm(form: .grammar(try text()), param: name))
      case "choice":
        guard let texts = value.array?.map(\.string), !texts.contains(nil), !texts.isEmpty else {
          throw APIError.invalid(name, "\(name) must be an array of one text or more; it is \(value.shown)")
        }
        asked.append(AskedForm(form: .choice(texts.compactMap { $0 }), param: name))
      case "disable_fallback", "disable_any_whitespace": _ = try flag()
      default:
        // The name is the client's, and may be long.
        throw APIError.unsupported(
          param, "\(param) has \(JSON.string(key).shown), which is not supported; json, json_object, regex, choice and grammar are")
      }
    }
    guard asked.count == 1 else {
      throw APIError.invalid(
        param, "\(param) must have one of json, json_object, regex, choice and grammar; it has \(asked.isEmpty ? "none" : "several")")
    }
    return asked[0]
  }
}

extension ChatRequest {
  /// Takes in the form of the answers. It comes last: what it cannot be together with is known by then.
  mutating func take(_ asked: AskedForm?) throws {
    guard let asked else { return }
    if !tools.isEmpty {
      throw APIError.unsupported(
        asked.param,
        "\(asked.param) together with tools is not supported yet: an answer of a form calls none; take the tools out, or the form")
    }
    try sampling.take(asked)
    formParam = asked.param
  }
}

extension SamplingParams {
  mutating func take(_ asked: AskedForm) throws {
    if ignoresEndTokens {
      throw APIError.invalid("ignore_eos", "ignore_eos cannot be together with \(asked.param): an end token says that the form is whole")
    }
    form = asked.form
  }
}

extension ModelServer {
  /// Compiles the form of an answer, so that what cannot be held is told in its own words and by the name of its field.
  func check(_ form: AnswerForm?, named param: String, _ llm: LLM) throws {
    guard let form else { return }
    do { try llm.compile(form) } catch { throw APIError.invalid(param, "\(param) cannot be held: \(error)", code: APIError.invalidForm) }
  }
}
#endif
