// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import MartletTemplates

/// JSON Schema in few words.
enum Schema {
  static let text: JSON = ["type": "string"]
  static let integer: JSON = ["type": "integer"]
  static let count: JSON = ["type": "integer", "minimum": 0]
  static let number: JSON = ["type": "number"]
  static let flag: JSON = ["type": "boolean"]
  static let null: JSON = ["type": "null"]
  static let anyObject: JSON = ["type": "object"]

  static func const(_ text: String) -> JSON { ["const": .string(text)] }
  static func oneOf(_ texts: String...) -> JSON { ["enum": .array(texts.map { .string($0) })] }
  static func array(_ items: JSON) -> JSON { ["type": "array", "items": items] }
  static func any(_ schemas: JSON...) -> JSON { ["anyOf": .array(schemas)] }
  static func ref(_ name: String) -> JSON { ["$ref": .string("#/components/schemas/\(name)")] }

  /// An object with members that must be there, and others that may.
  static func object(_ required: JSON.Object, optional: JSON.Object = [:]) -> JSON {
    [
      "type": "object", "required": .array(required.members.map { .string($0.key) }),
      "properties": .object(JSON.Object(required.members + optional.members)),
    ]
  }

  /// The schema, or null.
  static func nullable(_ schema: JSON) -> JSON {
    guard var object = schema.object else { return schema }
    if let type = object["type"]?.string, object["const"] == nil {
      if type == "null" { return schema }
      object["type"] = [.string(type), "null"]
      if let values = object["enum"]?.array { object["enum"] = .array(values + [.null]) }
      return .object(object)
    }
    if let cases = object["anyOf"]?.array {
      object["anyOf"] = .array(cases + [null])
      return .object(object)
    }
    return object.isEmpty ? schema : any(schema, null)
  }

  /// The body of a request that is read by these fields. What may be absent may be null.
  static func body(_ table: [any AnyField], required: [String], replacing changes: JSON.Object = [:], allOf rules: [JSON] = []) -> JSON {
    var properties = JSON.Object()
    for field in table {
      var schema = (changes[field.name] ?? field.schema).object ?? [:]
      if !required.contains(field.name) { schema = nullable(.object(schema)).object ?? [:] }
      schema["description"] = .string(field.about)
      properties[field.name] = .object(schema)
    }
    var body: JSON.Object = ["type": "object", "required": .array(required.map { .string($0) }), "properties": .object(properties)]
    if !rules.isEmpty { body["allOf"] = .array(rules) }
    return .object(body)
  }
}
#endif
