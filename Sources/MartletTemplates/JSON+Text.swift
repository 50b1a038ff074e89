// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

extension JSON {
  /// The value as one line of JSON, in the order of its members: `{"a": 1, "b": [2.0, null]}`, spaced as Python and most training data have it.
  public var text: String {
    var text = ""
    append(to: &text)
    return text
  }

  private func append(to text: inout String) {
    switch self {
    case .null: text += "null"
    case .bool(let value): text += value ? "true" : "false"
    case .integer(let value): text += "\(value)"
    case .largeInteger(let digits): text += digits
    case .number(let value): text += value.isNaN ? "NaN" : value.isInfinite ? (value < 0 ? "-Infinity" : "Infinity") : FloatText.repr(value)
    case .string(let value): Self.append(value, to: &text)
    case .array(let elements):
      text += "["
      for (index, element) in elements.enumerated() {
        if index > 0 { text += ", " }
        element.append(to: &text)
      }
      text += "]"
    case .object(let object):
      text += "{"
      for (index, member) in object.members.enumerated() {
        if index > 0 { text += ", " }
        Self.append(member.key, to: &text)
        text += ": "
        member.value.append(to: &text)
      }
      text += "}"
    }
  }

  private static func append(_ string: String, to text: inout String) {
    text += "\""
    for scalar in string.unicodeScalars {
      if let escaped = JSONWriter.escaped(scalar) { text += escaped } else { text.unicodeScalars.append(scalar) }
    }
    text += "\""
  }
}
