// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletTemplates

/// The tools of a request: which names are calls, and of which type their parameters are.
struct OfferedTools: Sendable {
  /// Types by parameter, by tool.
  private var types: [String: [String: [String]]] = [:]

  var isEmpty: Bool { types.isEmpty }

  /// - Parameter tools: functions as OpenAI's API describes them; the function's object may stand alone.
  init(_ tools: [JSON]) {
    for tool in tools {
      let function = tool["function"] ?? tool
      guard let name = function["name"]?.string, !name.isEmpty else { continue }
      var parameters: [String: [String]] = [:]
      let schema = function["parameters"] ?? function["input_schema"]
      for (key, value) in schema?["properties"]?.object?.members ?? [] { parameters[key] = Self.types(of: value, depth: 0) }
      types[name] = parameters
    }
  }

  func offers(_ name: String) -> Bool { types[name] != nil }

  /// In the order in which the schema names them; none where it names none.
  func types(of parameter: String, of tool: String) -> [String] { types[tool]?[parameter] ?? [] }

  private static func types(of schema: JSON, depth: Int) -> [String] {
    guard depth < 8 else { return [] }
    var types: [String] = []
    if let type = schema["type"]?.string { types.append(type) }
    types += schema["type"]?.array?.compactMap(\.string) ?? []
    for key in ["anyOf", "oneOf"] {
      for choice in schema[key]?.array?.prefix(64) ?? [] { types += Self.types(of: choice, depth: depth + 1) }
    }
    if schema["nullable"] == .bool(true), !types.contains("null") { types.append("null") }
    return types
  }
}

/// Values that are written as bare text, and get their type from the tool's schema.
enum TypedText {
  /// Whether a parameter of these types is a string whatever its text is.
  static func isString(_ types: [String]) -> Bool {
    types.allSatisfy { !["integer", "number", "boolean", "null", "object", "array"].contains($0) }
  }

  /// The value as JSON: of the first of the types that the text is a value of, else a string of the text as it stands.
  static func json(_ text: ArraySlice<UInt8>, types: [String]) -> [UInt8] {
    let word = JSONBytes.trimmed(text)
    let lowercase = word.count <= 5 ? String(decoding: word, as: UTF8.self).lowercased() : ""
    for type in types {
      switch type {
      case "boolean":
        if lowercase == "true" || lowercase == "1" { return Array("true".utf8) }
        if lowercase == "false" || lowercase == "0" { return Array("false".utf8) }
      case "null":
        if lowercase == "null" || lowercase == "none" { return Array("null".utf8) }
      case "integer", "number":
        guard let first = word.first, first == UInt8(ascii: "-") || (0x30...0x39).contains(first), let value = JSONBytes.value(word) else {
          continue
        }
        if type == "number" { return value }
        if let integer = integer(value) { return integer }
      case "object", "array":
        guard word.first == UInt8(ascii: type == "object" ? "{" : "["), let value = JSONBytes.value(word) else { continue }
        return value
      default: continue
      }
    }
    return JSONBytes.quoted(text)
  }

  /// A number's text as an integer's: 3.0 is 3 to a JSON schema, and 3.5 is none.
  private static func integer(_ number: [UInt8]) -> [UInt8]? {
    if number.contains(UInt8(ascii: "e")) || number.contains(UInt8(ascii: "E")) {
      guard let value = Double(String(decoding: number, as: UTF8.self)), let integer = Int(exactly: value) else { return nil }
      return Array(String(integer).utf8)
    }
    guard let point = number.firstIndex(of: UInt8(ascii: ".")) else { return number }
    return number[(point + 1)...].allSatisfy { $0 == UInt8(ascii: "0") } ? Array(number[..<point]) : nil
  }
}
