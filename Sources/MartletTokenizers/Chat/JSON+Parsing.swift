// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletFormats
public import MartletTemplates

extension JSON {
  /// The value of a JSON text, in the order in which it is written. Integers stay integers: 2 is not 2.0.
  /// - Throws: `JSONError` with the byte where the text is no JSON, as `JSONValue` reads it.
  public init(parsing text: String) throws(JSONError) { self.init(try JSONValue(parsing: Array(text.utf8))) }

  /// A value that was read from a file. It nests at most `JSONValue.maximumDepth` deep.
  public init(_ value: JSONValue) {
    switch value.kind {
    case .null: self = .null
    case .bool: self = .bool(value.bool ?? false)
    case .string: self = .string(value.string ?? "")
    case .array: self = .array(value.elements.map { JSON($0) })
    case .object: self = .object(Object(value.members.map { (key: $0.key.string ?? "", value: JSON($0.value)) }))
    case .number:
      let text = value.numberText ?? "0"
      if let integer = Int(text) {
        self = .integer(integer)
      } else if text.utf8.allSatisfy({ $0 == UInt8(ascii: "-") || (0x30...0x39).contains($0) }) {
        self = .largeInteger(text)
      } else {
        self = .number(Double(text) ?? .nan)
      }
    }
  }
}
