// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletFormats

/// Writes a JSON value as Python's `json.dumps(value, ensure_ascii=False)` does, keys in their order and numbers as they are in the file.
func written(_ value: JSONValue, compact: Bool) -> String {
  let (comma, colon) = compact ? (",", ":") : (", ", ": ")
  switch value.kind {
  case .null: return "null"
  case .bool: return value.bool! ? "true" : "false"
  case .number: return value.numberText!
  case .string: return quoted(value.string!)
  case .array: return "[" + value.elements.map { written($0, compact: compact) }.joined(separator: comma) + "]"
  case .object:
    return "{" + value.members.map { quoted($0.key.string!) + colon + written($0.value, compact: compact) }.joined(separator: comma) + "}"
  }
}

private func quoted(_ text: String) -> String {
  var result = "\""
  for scalar in text.unicodeScalars {
    switch scalar {
    case "\"": result += "\\\""
    case "\\": result += "\\\\"
    case "\n": result += "\\n"
    case "\r": result += "\\r"
    case "\t": result += "\\t"
    case "\u{8}": result += "\\b"
    case "\u{C}": result += "\\f"
    default:
      if scalar.value < 0x20 {
        let digits = String(scalar.value, radix: 16)
        result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
      } else {
        result.unicodeScalars.append(scalar)
      }
    }
  }
  return result + "\""
}
