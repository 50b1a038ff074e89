// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletFormats

/// Whether an instance is valid by a schema of the kind that Fixtures/make_truth.py makes: written from the specification, in the plainest way, and with
/// nothing of the compiler's.
func isValid(_ instance: JSONValue, _ schema: JSONValue) -> Bool {
  if let bool = schema.bool { return bool }
  for (key, value) in schema.members {
    guard holds(key.string!, value, instance, schema) else { return false }
  }
  return true
}

private func holds(_ keyword: String, _ value: JSONValue, _ instance: JSONValue, _ schema: JSONValue) -> Bool {
  switch keyword {
  case "type":
    switch value.string! {
    case "integer": return instance.double.map { $0 == $0.rounded() } ?? false
    case "number": return instance.kind == .number
    case "string": return instance.kind == .string
    case "boolean": return instance.kind == .bool
    case "null": return instance.kind == .null
    case "array": return instance.kind == .array
    default: return instance.kind == .object
    }
  case "const": return isEqual(value, instance)
  case "enum": return value.elements.contains { isEqual($0, instance) }
  case "anyOf": return value.elements.contains { isValid(instance, $0) }
  case "allOf": return value.elements.allSatisfy { isValid(instance, $0) }
  case "oneOf": return value.elements.count { isValid(instance, $0) } == 1
  case "not": return !isValid(instance, value)
  case "minimum": return instance.double.map { $0 >= value.double! } ?? true
  case "maximum": return instance.double.map { $0 <= value.double! } ?? true
  case "exclusiveMinimum": return instance.double.map { $0 > value.double! } ?? true
  case "exclusiveMaximum": return instance.double.map { $0 < value.double! } ?? true
  // The steps are powers of two, or the numbers whole.
  case "multipleOf": return instance.double.map { $0.remainder(dividingBy: value.double!) == 0 } ?? true
  case "minLength": return instance.string.map { $0.unicodeScalars.count >= value.integer! } ?? true
  case "maxLength": return instance.string.map { $0.unicodeScalars.count <= value.integer! } ?? true
  case "pattern": return instance.string.map { matches($0, value.string!) } ?? true
  case "items":
    guard instance.kind == .array else { return true }
    return instance.elements.dropFirst(schema["prefixItems"]?.count ?? 0).allSatisfy { isValid($0, value) }
  case "prefixItems": return instance.kind != .array || zip(instance.elements, value.elements).allSatisfy { isValid($0, $1) }
  case "minItems": return instance.kind != .array || instance.count >= value.integer!
  case "maxItems": return instance.kind != .array || instance.count <= value.integer!
  case "contains": return instance.kind != .array || instance.elements.contains { isValid($0, value) }
  case "properties": return instance.members.allSatisfy { member in value[member.key.string!].map { isValid(member.value, $0) } ?? true }
  case "patternProperties":
    return instance.members.allSatisfy { member in
      value.members.allSatisfy { !matches(member.key.string!, $0.key.string!) || isValid(member.value, $0.value) }
    }
  case "additionalProperties":
    return instance.members.allSatisfy { member in
      let key = member.key.string!
      if schema["properties"]?[key] != nil { return true }
      if let patterns = schema["patternProperties"], patterns.members.contains(where: { matches(key, $0.key.string!) }) { return true }
      return isValid(member.value, value)
    }
  case "required": return instance.kind != .object || value.elements.allSatisfy { instance[$0.string!] != nil }
  case "maxProperties": return instance.kind != .object || instance.count <= value.integer!
  case "dependentRequired":
    return value.members.allSatisfy { dependency in
      instance[dependency.key.string!] == nil || dependency.value.elements.allSatisfy { instance[$0.string!] != nil }
    }
  default: return false  // the script makes no other keyword
  }
}

private func isEqual(_ a: JSONValue, _ b: JSONValue) -> Bool {
  guard a.kind == b.kind else { return false }
  switch a.kind {
  case .null: return true
  case .bool: return a.bool == b.bool
  case .number: return a.double == b.double
  case .string: return Array(a.string!.utf8) == Array(b.string!.utf8)
  case .array: return a.count == b.count && zip(a.elements, b.elements).allSatisfy { isEqual($0, $1) }
  case .object:
    return a.count == b.count && a.members.allSatisfy { member in b[member.key.string!].map { isEqual(member.value, $0) } ?? false }
  }
}

/// Whether the text has a match, by the standard library's regular expressions on Unicode scalars.
private func matches(_ text: String, _ pattern: String) -> Bool {
  guard let regex = try? Regex(pattern).matchingSemantics(.unicodeScalar).asciiOnlyDigits() else { return false }
  return text.firstMatch(of: regex) != nil
}
