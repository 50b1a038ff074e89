// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletFormats
import MartletTemplates

extension JSON {
  /// With the order of members, and whole numbers as such.
  init(_ value: JSONValue) {
    switch value.kind {
    case .null: self = .null
    case .bool: self = .bool(value.bool!)
    case .string: self = .string(value.string!)
    case .array: self = .array(value.elements.map { JSON($0) })
    case .object: self = .object(JSON.Object(value.members.map { ($0.key.string!, JSON($0.value)) }))
    case .number:
      let text = value.numberText!
      if let integer = Int(text) {
        self = .integer(integer)
      } else if text.contains(where: { ".eE".contains($0) }) {
        self = .number(Double(text)!)
      } else {
        self = .largeInteger(text)
      }
    }
  }
}
