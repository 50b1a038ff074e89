// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletFormats

/// A place in a JSON file that knows its name, so that every complaint about it does. A null counts as nothing.
struct JSONField {
  /// Such as `tokenizer.json: model.merges`.
  let name: String
  let value: JSONValue?

  init(_ name: String, _ value: JSONValue?) {
    self.name = name
    self.value = value.flatMap { $0.isNull ? nil : $0 }
  }

  subscript(key: String) -> JSONField { JSONField(name.hasSuffix(":") ? "\(name) \(key)" : "\(name).\(key)", value?[key]) }

  func element(_ index: Int, _ value: JSONValue) -> JSONField { JSONField("\(name)[\(index)]", value) }

  func malformed(_ problem: String) -> TokenizerError { .malformed(field: name, problem: problem) }

  func unsupported(_ found: String, supported: [String] = []) -> TokenizerError {
    .unsupportedPart(field: name, found: found, supported: supported)
  }

  private func wrong(_ expected: String) -> TokenizerError {
    guard let value else { return malformed("is missing") }
    return malformed("is \(Self.shown(value)), not \(expected)")
  }

  /// A value for a message, a long string cut.
  static func shown(_ value: JSONValue) -> String {
    let text = value.description
    return text.utf8.count > 80 ? text.prefix(60) + "…" : text
  }

  func string() throws(TokenizerError) -> String {
    guard let string = value?.string else { throw wrong("a string") }
    return string
  }

  func stringIfPresent() throws(TokenizerError) -> String? { value == nil ? nil : try string() }

  /// The UTF-8 of a string.
  func bytes() throws(TokenizerError) -> [UInt8] {
    guard let bytes = value?.withStringBytes({ Array($0) }) else { throw wrong("a string") }
    return bytes
  }

  func bool(or absent: Bool) throws(TokenizerError) -> Bool { try boolIfPresent() ?? absent }

  func boolIfPresent() throws(TokenizerError) -> Bool? {
    guard let value else { return nil }
    guard let bool = value.bool else { throw wrong("true or false") }
    return bool
  }

  func integer() throws(TokenizerError) -> Int {
    guard let integer = value?.integer else { throw wrong("an integer") }
    return integer
  }

  func object() throws(TokenizerError) -> JSONValue.Members {
    guard let value, value.kind == .object else { throw wrong("an object") }
    return value.members
  }

  func array() throws(TokenizerError) -> JSONValue.Elements {
    guard let value, value.kind == .array else { throw wrong("an array") }
    return value.elements
  }

  /// The elements with their names.
  func fields() throws(TokenizerError) -> [JSONField] {
    var fields: [JSONField] = []
    for (index, value) in try array().enumerated() { fields.append(element(index, value)) }
    return fields
  }

  /// The parts of a `Sequence`, whose list is called `list`, those of sequences inside it included; anything else is its own only part.
  func sequence(_ list: String) throws(TokenizerError) -> [JSONField] {
    guard value != nil else { return [] }
    guard try self["type"].string() == "Sequence" else { return [self] }
    var parts: [JSONField] = []
    // The depth of JSON values is bounded.
    for part in try self[list].fields() { parts += try part.sequence(list) }
    guard parts.count <= 64 else { throw malformed("has \(parts.count) parts") }
    return parts
  }
}
