// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// What Python's `str` and `repr` give.

extension Value {
  /// The value as `{{ … }}` writes it; nothing for an undefined one.
  func written(_ evaluator: Evaluator) throws(TemplateError) -> Text {
    switch self {
    case .string(let text): return text
    case .undefined: return Text()
    case .none: return "None"
    case .bool(let value): return value ? "True" : "False"
    case .int(let value): return Text("\(value)")
    default:
      var text = Text()
      try appendRepr(to: &text, evaluator)
      return text
    }
  }

  func appendRepr(to text: inout Text, _ evaluator: Evaluator) throws(TemplateError) {
    try evaluator.spend()
    switch self {
    case .string(let string):
      try evaluator.spend(bytes: string.count)
      if string.isMarkup { text.append("Markup(") }
      text.append(string.repr)
      if string.isMarkup { text.append(")") }
    case .undefined: text.append("Undefined")
    case .none: text.append("None")
    case .bool(let value): text.append(value ? "True" : "False")
    case .int(let value): text.append(Text("\(value)"))
    case .largeInt(let value): text.append(Text(value.digits()))
    case .float(let value): text.append(Text(FloatText.repr(value)))
    case .list(let elements): try Self.appendList(elements.values, "[", "]", to: &text, evaluator)
    case .tuple(let elements): try Self.appendList(elements.values, "(", elements.values.count == 1 ? ",)" : ")", to: &text, evaluator)
    case .dict(let dictionary): try Self.appendPairs(dictionary.pairs, to: &text, evaluator)
    case .range(let range):
      text.append(Text("range(\(range.start), \(range.stop)\(range.step == 1 ? "" : ", \(range.step)"))"))
    case .view(let view):
      text.append(Text("\(typeName)("))
      try Self.appendList(try view.elements(evaluator), "[", "]", to: &text, evaluator)
      text.append(")")
    case .namespace(let namespace):
      text.append("<Namespace ")
      try Self.appendPairs(zip(namespace.keys, namespace.values).map { (.string($0), $1) }, to: &text, evaluator)
      text.append(">")
    case .generator(let generator): text.append(Text("<\(generator.name) object>"))
    case .loop(let loop): text.append(Text("<LoopContext \(loop.index0 + 1)/\(try loop.length())>"))
    case .callable(let callable):
      text.append(Text(callable.kind == .macro ? "<Macro '\(callable.name)'>" : "<\(typeName) \(callable.name)>"))
    }
  }

  private static func appendList(
    _ values: [Value], _ opening: Text, _ closing: Text, to text: inout Text, _ evaluator: Evaluator
  ) throws(TemplateError) {
    text.append(opening)
    try evaluator.nest(2) { () throws(TemplateError) -> Void in
      for (index, value) in values.enumerated() {
        if index > 0 { text.append(", ") }
        try value.appendRepr(to: &text, evaluator)
      }
    }
    text.append(closing)
  }

  private static func appendPairs(_ pairs: [(Value, Value)], to text: inout Text, _ evaluator: Evaluator) throws(TemplateError) {
    text.append("{")
    try evaluator.nest(2) { () throws(TemplateError) -> Void in
      for (index, (key, value)) in pairs.enumerated() {
        if index > 0 { text.append(", ") }
        try key.appendRepr(to: &text, evaluator)
        text.append(": ")
        try value.appendRepr(to: &text, evaluator)
      }
    }
    text.append("}")
  }
}

extension Text {
  /// As a Python literal.
  var repr: Text {
    let quote: Unicode.Scalar = bytes.contains(UInt8(ascii: "'")) && !bytes.contains(UInt8(ascii: "\"")) ? "\"" : "'"
    var text = Text(String(quote))
    text.append(
      mapScalars { scalar, _ in
        switch scalar {
        case "\\": return "\\\\"
        case "\n": return "\\n"
        case "\r": return "\\r"
        case "\t": return "\\t"
        case quote: return "\\" + String(quote)
        default:
          if scalar.isPythonPrintable { return nil }
          if scalar.value < 0x100 { return "\\x" + Hex.padded(scalar.value, 2) }
          return scalar.value < 0x10000 ? "\\u" + Hex.padded(scalar.value, 4) : "\\U" + Hex.padded(scalar.value, 8)
        }
      }.asMarkup(false))
    text.append(Text(String(quote)))
    return text
  }
}

enum Hex {
  static func padded(_ value: UInt32, _ width: Int) -> String {
    let digits = String(value, radix: 16)
    return String(repeating: "0", count: max(0, width - digits.utf8.count)) + digits
  }
}

/// Markup's escaping.
enum HTML {
  static func escaped(_ text: Text) -> Text {
    text.mapScalars { scalar, _ in
      switch scalar {
      case "&": "&amp;"
      case ">": "&gt;"
      case "<": "&lt;"
      case "'": "&#39;"
      case "\"": "&#34;"
      default: nil
      }
    }
  }
}
