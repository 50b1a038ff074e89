// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// The fields of requests. One table says a field's name, what may stand there and what it is for: requests are read by it, and the OpenAPI
// document is written from it.

#if HTTPServer
package import MartletTemplates

/// One field of a request.
struct Field<Value: Sendable>: Sendable {
  package let name: String
  /// JSON Schema, without the description.
  package let schema: JSON
  package let about: String
  /// - Parameter param: how an error calls the value.
  let read: @Sendable (_ value: JSON, _ param: String) throws -> Value
}

/// A field whatever its type, for tables.
package protocol AnyField: Sendable {
  var name: String { get }
  var schema: JSON { get }
  var about: String { get }
  /// Throws where the field's value cannot be taken.
  func check(_ fields: Fields) throws
}

extension Field: AnyField {
  package func check(_ fields: Fields) throws { _ = try fields(self) }
}

/// The members of a request's object.
package struct Fields: Sendable {
  let object: JSON.Object
  /// What the names of errors begin with: `messages[2].`
  let prefix: String

  private static let mostMembers = 1024

  init(_ json: JSON, prefix: String = "") throws {
    guard let object = json.object else {
      throw APIError.invalid(
        prefix.isEmpty ? nil : prefix, "\(prefix.isEmpty ? "the body" : prefix) must be an object; it is \(json.kindName)")
    }
    // Every field is looked for among the members.
    if object.count > Self.mostMembers {
      throw APIError.invalid(
        prefix.isEmpty ? nil : prefix,
        "\(prefix.isEmpty ? "the body" : prefix) has \(object.count) members; at most \(Self.mostMembers) are taken")
    }
    self.object = object
    self.prefix = prefix.isEmpty ? "" : prefix + "."
  }

  /// The value of a field; nil where it is absent or null.
  func callAsFunction<Value>(_ field: Field<Value>) throws -> Value? {
    guard let value = object[field.name], !value.isNull else { return nil }
    return try field.read(value, prefix + field.name)
  }

  /// The same where it must be there.
  func require<Value>(_ field: Field<Value>) throws -> Value {
    guard let value = try self(field) else {
      throw APIError.invalid(prefix + field.name, "\(prefix + field.name) is missing", code: "missing_required_parameter")
    }
    return value
  }

  /// Checks every field of a table, also those of which only the form matters: what the OpenAPI document says of a field holds for all of them.
  func check(_ table: [any AnyField]) throws {
    for field in table { try field.check(self) }
  }
}

// MARK: - Kinds of fields

extension Field where Value == String {
  static func string(_ name: String, _ about: String, in allowed: [String]? = nil) -> Field {
    var schema: JSON.Object = ["type": "string"]
    if let allowed { schema["enum"] = .array(allowed.map { .string($0) }) }
    return Field(name: name, schema: .object(schema), about: about) { value, param in
      guard let text = value.string else { throw APIError.invalid(param, "\(param) must be a string; it is \(value.shown)") }
      if let allowed, !allowed.contains(text) {
        throw APIError.invalid(param, "\(param) must be one of \(allowed.joined(separator: ", ")); it is \(value.shown)")
      }
      return text
    }
  }
}

extension Field where Value == Bool {
  static func bool(_ name: String, _ about: String) -> Field {
    Field(name: name, schema: ["type": "boolean"], about: about) { value, param in
      guard let flag = value.flag else { throw APIError.invalid(param, "\(param) must be true or false; it is \(value.shown)") }
      return flag
    }
  }
}

extension Field where Value == Int {
  static func integer(_ name: String, _ about: String, in range: ClosedRange<Int>) -> Field {
    // 64 bits are a limit too.
    let schema: JSON = ["type": "integer", "minimum": .integer(range.lowerBound), "maximum": .integer(range.upperBound)]
    return Field(name: name, schema: schema, about: about) { value, param in
      guard let number = value.wholeNumber, range.contains(number) else {
        throw APIError.invalid(param, "\(param) must be \(range.words); it is \(value.shown)")
      }
      return number
    }
  }
}

extension Field where Value == Double {
  static func number(_ name: String, _ about: String, in range: ClosedRange<Double>) -> Field {
    Field(
      name: name, schema: ["type": "number", "minimum": .number(range.lowerBound), "maximum": .number(range.upperBound)], about: about
    ) { value, param in
      guard let number = value.anyNumber, range.contains(number) else {
        throw APIError.invalid(param, "\(param) must be a number from \(range.lowerBound) to \(range.upperBound); it is \(value.shown)")
      }
      return number
    }
  }
}

extension Field where Value == JSON {
  /// A value that is looked at elsewhere.
  static func any(_ name: String, _ about: String, schema: JSON = .object([:])) -> Field {
    Field(name: name, schema: schema, about: about) { value, _ in value }
  }

  /// What would change the answer, and cannot be done here: it may be absent or null.
  /// - Parameter reason: why, and the way out.
  static func refused(_ name: String, _ reason: String = "it would change the answer") -> Field {
    Field(name: name, schema: ["type": "null"], about: "Not supported: \(reason).") { _, param in
      throw APIError.unsupported(param, "\(param) is not supported: \(reason)")
    }
  }
}

extension Field where Value == [JSON] {
  /// - Parameter further: what else the schema says; whoever reads the field sees to it.
  static func array(
    _ name: String, _ about: String, of items: JSON, atLeast: Int = 0, atMost: Int = 1 << 20, further: JSON.Object = [:]
  ) -> Field {
    var schema: JSON.Object = ["type": "array", "items": items, "maxItems": .integer(atMost)]
    if atLeast > 0 { schema["minItems"] = .integer(atLeast) }
    for (key, value) in further.members { schema[key] = value }
    return Field(name: name, schema: .object(schema), about: about) { value, param in
      guard let elements = value.array else { throw APIError.invalid(param, "\(param) must be an array; it is \(value.shown)") }
      if elements.count < atLeast { throw APIError.invalid(param, "\(param) is empty") }
      if elements.count > atMost { throw APIError.invalid(param, "\(param) has \(elements.count) elements; at most \(atMost) are taken") }
      return elements
    }
  }
}

extension Field where Value == [String] {
  /// A string, or an array of them.
  static func strings(_ name: String, _ about: String, atMost: Int) -> Field {
    Field(
      name: name,
      schema: [
        "anyOf": [
          ["type": "string", "minLength": 1],
          ["type": "array", "items": ["type": "string", "minLength": 1], "maxItems": .integer(atMost)],
        ]
      ], about: about
    ) { value, param in
      if let text = value.string {
        if text.isEmpty { throw APIError.invalid(param, "\(param) is an empty text") }
        return [text]
      }
      guard let elements = value.array else {
        throw APIError.invalid(param, "\(param) must be a string or an array of strings; it is \(value.shown)")
      }
      if elements.count > atMost { throw APIError.invalid(param, "\(param) has \(elements.count) elements; at most \(atMost) are taken") }
      return try elements.enumerated().map { index, element in
        guard let text = element.string, !text.isEmpty else {
          throw APIError.invalid("\(param)[\(index)]", "\(param)[\(index)] must be a text that is not empty; it is \(element.shown)")
        }
        return text
      }
    }
  }
}

extension Field where Value == [String] {
  /// An array of strings.
  static func array(ofTexts name: String, _ about: String, atMost: Int) -> Field {
    let either = strings(name, about, atMost: atMost)
    return Field(
      name: name, schema: ["type": "array", "items": ["type": "string", "minLength": 1], "maxItems": .integer(atMost)], about: about
    ) { value, param in
      guard value.array != nil else { throw APIError.invalid(param, "\(param) must be an array of strings; it is \(value.shown)") }
      return try either.read(value, param)
    }
  }
}

extension Field where Value == [Int] {
  static func integers(_ name: String, _ about: String, atMost: Int = 1 << 24) -> Field {
    Field(name: name, schema: ["type": "array", "items": ["type": "integer"]], about: about) { value, param in
      guard let elements = value.array else {
        throw APIError.invalid(param, "\(param) must be an array of integers; it is \(value.shown)")
      }
      if elements.count > atMost { throw APIError.invalid(param, "\(param) has \(elements.count) elements; at most \(atMost) are taken") }
      return try elements.enumerated().map { index, element in
        guard let number = element.wholeNumber else {
          throw APIError.invalid("\(param)[\(index)]", "\(param)[\(index)] must be an integer; it is \(element.shown)")
        }
        return number
      }
    }
  }
}

extension Field where Value == JSON.Object {
  static func object(_ name: String, _ about: String, schema: JSON = ["type": "object"]) -> Field {
    Field(name: name, schema: schema, about: about) { value, param in
      guard let object = value.object else { throw APIError.invalid(param, "\(param) must be an object; it is \(value.shown)") }
      return object
    }
  }
}

// MARK: - Values in words

extension JSON {
  /// An integer, also where it is written 3.0.
  package var wholeNumber: Int? {
    switch self {
    case .integer(let number): number
    case .number(let number): Int(exactly: number)
    default: nil
    }
  }

  var flag: Bool? { if case .bool(let flag) = self { flag } else { nil } }

  /// A member that is there, and not null. (`nil` in place of a `JSON` is a null that is there.)
  func given(_ key: String) -> JSON? {
    guard let value = self[key], !value.isNull else { return .none }
    return .some(value)
  }

  package var anyNumber: Double? {
    switch self {
    case .integer(let number): Double(number)
    case .number(let number): number
    case .largeInteger(let text): Double(text)
    default: nil
    }
  }

  var kindName: String {
    switch self {
    case .null: "null"
    case .bool: "a boolean"
    case .integer, .largeInteger, .number: "a number"
    case .string: "a string"
    case .array: "an array"
    case .object: "an object"
    }
  }

  /// A value as an error shows it: short, whatever was sent.
  var shown: String {
    switch self {
    case .array, .object: kindName
    case .string(let text) where text.utf8.count > 40: "a string of \(text.utf8.count) bytes"
    case .largeInteger: "an integer beyond 64 bits"
    default: text
    }
  }
}

extension ClosedRange<Int> {
  fileprivate var words: String {
    switch (lowerBound == .min, upperBound == .max) {
    case (true, true): "an integer"
    case (false, true): "an integer of at least \(lowerBound)"
    case (true, false): "an integer of at most \(upperBound)"
    case (false, false): "an integer from \(lowerBound) to \(upperBound)"
    }
  }
}
#endif
