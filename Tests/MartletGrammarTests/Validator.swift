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
    case "integer": return ExactNumber(instance)?.isMultiple(of: 1) ?? false
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
  case "minimum": return ExactNumber(instance).map { $0 >= ExactNumber(value)! } ?? true
  case "maximum": return ExactNumber(instance).map { $0 <= ExactNumber(value)! } ?? true
  case "exclusiveMinimum": return ExactNumber(instance).map { $0 > ExactNumber(value)! } ?? true
  case "exclusiveMaximum": return ExactNumber(instance).map { $0 < ExactNumber(value)! } ?? true
  case "multipleOf":
    // The fractions among the steps are powers of two: so that the step is whole, both are taken 4 times.
    return ExactNumber(instance).map { $0.isMultiple(of: Int(value.double! * 4), times: 4) } ?? true
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
  case .number: return ExactNumber(a)! == ExactNumber(b)!
  case .string: return Array(a.string!.utf8) == Array(b.string!.utf8)
  case .array: return a.count == b.count && zip(a.elements, b.elements).allSatisfy { isEqual($0, $1) }
  case .object:
    return a.count == b.count && a.members.allSatisfy { member in b[member.key.string!].map { isEqual(member.value, $0) } ?? false }
  }
}

/// A number as its digits: a Double would round those of long numbers.
private struct ExactNumber: Comparable {
  private var isNegative: Bool
  /// Without zeros at either end; empty for 0.
  private var digits: [Int]
  /// How many of them stand before the point; below 0, how many zeros stand behind it first.
  private var point: Int

  /// nil if the value is no number.
  init?(_ value: JSONValue) {
    guard let text = value.numberText else { return nil }
    let parts = text.lowercased().split(separator: "e")
    let mantissa = parts[0].drop { $0 == "-" }
    let all = mantissa.compactMap { $0.wholeNumberValue }
    let zeros = all.prefix { $0 == 0 }.count
    digits = Array(all[zeros...])
    while digits.last == 0 { digits.removeLast() }
    isNegative = text.hasPrefix("-") && !digits.isEmpty
    point = 0
    if !digits.isEmpty {
      // An exponent that does not fit is beyond all numbers of the schemas.
      let beyond = Int.max / 4
      let exponent = parts.count == 1 ? 0 : Int(parts[1]) ?? (parts[1].hasPrefix("-") ? -beyond : beyond)
      point = max(-beyond, min(beyond, exponent)) + mantissa.prefix { $0 != "." }.count - zeros
    }
  }

  static func < (a: ExactNumber, b: ExactNumber) -> Bool {
    if a.isNegative != b.isNegative { return a.isNegative }
    return a.isNegative ? b.isCloserToZero(than: a) : a.isCloserToZero(than: b)
  }

  private func isCloserToZero(than other: ExactNumber) -> Bool {
    if digits.isEmpty || other.digits.isEmpty { return digits.isEmpty && !other.digits.isEmpty }
    return point == other.point ? digits.lexicographicallyPrecedes(other.digits) : point < other.point
  }

  /// Whether the number times `factor` is a multiple of `step`. The factor divides 100, so that more than two digits behind the point are too many.
  func isMultiple(of step: Int, times factor: Int = 1) -> Bool {
    if digits.isEmpty { return true }
    let numBehind = digits.count - point
    guard numBehind <= 2 else { return false }
    // Read as hundredths. Beyond 64 zeros, further ones change nothing: what 2 and 5 divide of the step is then divided already.
    let hundredths = digits + [Int](repeating: 0, count: min(2 - numBehind, 66))
    return hundredths.reduce(0) { ($0 * 10 + $1 * factor) % (step * 100) } == 0
  }
}

/// Whether the text has a match, by the standard library's regular expressions on Unicode scalars.
private func matches(_ text: String, _ pattern: String) -> Bool {
  guard let regex = try? Regex(pattern).matchingSemantics(.unicodeScalar).asciiOnlyDigits() else { return false }
  return text.firstMatch(of: regex) != nil
}
