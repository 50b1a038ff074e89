// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// `json.dumps` as transformers' `tojson` calls it: keys in their order, `", "` and `": "`, nothing escaped that JSON does not ask for.
struct JSONWriter {
  var ensuresASCII = false
  var indent: Text?
  var itemSeparator: Text = ", "
  var keySeparator: Text = ": "
  var sortsKeys = false

  func write(_ value: Value, _ evaluator: Evaluator) throws(TemplateError) -> Text {
    var text = Text()
    try append(value, level: 0, to: &text, evaluator)
    return text
  }

  private func append(_ value: Value, level: Int, to text: inout Text, _ evaluator: Evaluator) throws(TemplateError) {
    try evaluator.spend()
    switch value {
    case .string(let string):
      try evaluator.spend(bytes: string.count)
      append(string, to: &text)
    case .none, .bool, .int, .float, .largeInt: text.append(Text(Self.scalar(value)))
    case .list(let elements), .tuple(let elements):
      if elements.values.isEmpty {
        text.append("[]")
        return
      }
      text.append("[")
      for (index, element) in elements.values.enumerated() {
        try separate(index, level + 1, &text, evaluator)
        try append(element, level: level + 1, to: &text, evaluator)
      }
      appendLine(level, to: &text)
      text.append("]")
    case .dict(let dictionary):
      if dictionary.count == 0 {
        text.append("{}")
        return
      }
      var pairs: [(Value, Value)] = dictionary.pairs
      if sortsKeys {
        pairs = try Sorting.sorted(pairs, evaluator) { $0.0 }
      }
      text.append("{")
      for (index, (key, value)) in pairs.enumerated() {
        try separate(index, level + 1, &text, evaluator)
        try evaluator.spend(bytes: keySeparator.count)
        switch key {
        case .string(let key):
          try evaluator.spend(bytes: key.count)
          append(key, to: &text)
        case .none, .bool, .int, .float, .largeInt: append(Text(Self.scalar(key)), to: &text)
        default: throw .type("keys must be str, int, float, bool or None, not \(key.typeName)")
        }
        text.append(keySeparator)
        try append(value, level: level + 1, to: &text, evaluator)
      }
      appendLine(level, to: &text)
      text.append("}")
    default: throw .type("Object of type \(value.typeName) is not JSON serializable")
    }
  }

  /// What stands before an element.
  private func separate(_ index: Int, _ level: Int, _ text: inout Text, _ evaluator: Evaluator) throws(TemplateError) {
    try evaluator.spend(bytes: itemSeparator.count + level * (indent?.count ?? 0))
    if index > 0 { text.append(itemSeparator) }
    appendLine(level, to: &text)
  }

  private func appendLine(_ level: Int, to text: inout Text) {
    guard let indent else { return }
    text.append("\n")
    text.append(indent.repeated(level))
  }

  /// What JSON asks to be escaped; nil for all other characters.
  static func escaped(_ scalar: Unicode.Scalar) -> String? {
    switch scalar {
    case "\"": "\\\""
    case "\\": "\\\\"
    case "\n": "\\n"
    case "\r": "\\r"
    case "\t": "\\t"
    case "\u{8}": "\\b"
    case "\u{C}": "\\f"
    default: scalar.value < 0x20 ? "\\u" + Hex.padded(scalar.value, 4) : nil
    }
  }

  private static func scalar(_ value: Value) -> String {
    switch value {
    case .bool(let value): value ? "true" : "false"
    case .int(let value): "\(value)"
    case .largeInt(let value): value.digits()
    case .float(let value): value.isNaN ? "NaN" : value.isInfinite ? (value < 0 ? "-Infinity" : "Infinity") : FloatText.repr(value)
    default: "null"
    }
  }

  private func append(_ string: Text, to text: inout Text) {
    text.append("\"")
    text.append(
      string.mapScalars { scalar, _ in
        if let escaped = Self.escaped(scalar) { return escaped }
        guard ensuresASCII, scalar.value > 0x7E else { return nil }
        return UTF16.encode(scalar)!.map { "\\u" + Hex.padded(UInt32($0), 4) }.joined()
      }.asMarkup(false))
    text.append("\"")
  }
}
