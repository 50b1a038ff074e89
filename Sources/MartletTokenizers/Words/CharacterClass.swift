// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// What regular expressions ask about a character: its general category, coarsely, and whether it is white space.
struct CharacterProperties: OptionSet, Sendable, Hashable {
  let rawValue: UInt16

  static let uppercase = CharacterProperties(rawValue: 1 << 0)
  static let lowercase = CharacterProperties(rawValue: 1 << 1)
  static let titlecase = CharacterProperties(rawValue: 1 << 2)
  static let modifierLetter = CharacterProperties(rawValue: 1 << 3)
  static let otherLetter = CharacterProperties(rawValue: 1 << 4)
  static let mark = CharacterProperties(rawValue: 1 << 5)
  static let digit = CharacterProperties(rawValue: 1 << 6)
  static let otherNumber = CharacterProperties(rawValue: 1 << 7)
  static let punctuation = CharacterProperties(rawValue: 1 << 8)
  static let symbol = CharacterProperties(rawValue: 1 << 9)
  /// The property White_Space, which is no category.
  static let space = CharacterProperties(rawValue: 1 << 10)

  static let letter: CharacterProperties = [.uppercase, .lowercase, .titlecase, .modifierLetter, .otherLetter]
  static let number: CharacterProperties = [.digit, .otherNumber]

  init(rawValue: UInt16) { self.rawValue = rawValue }

  init(_ scalar: Unicode.Scalar) {
    let properties = scalar.properties
    var result: CharacterProperties =
      switch properties.generalCategory {
      case .uppercaseLetter: .uppercase
      case .lowercaseLetter: .lowercase
      case .titlecaseLetter: .titlecase
      case .modifierLetter: .modifierLetter
      case .otherLetter: .otherLetter
      case .nonspacingMark, .spacingMark, .enclosingMark: .mark
      case .decimalNumber: .digit
      case .letterNumber, .otherNumber: .otherNumber
      case .connectorPunctuation, .dashPunctuation, .openPunctuation, .closePunctuation, .initialPunctuation, .finalPunctuation,
        .otherPunctuation:
        .punctuation
      case .mathSymbol, .currencySymbol, .modifierSymbol, .otherSymbol: .symbol
      default: []
      }
    if properties.isWhitespace { result.insert(.space) }
    self = result
  }

  /// What `\p{name}` stands for; nil for a name that this build does not know.
  init?(category name: String) {
    switch name {
    case "L": self = .letter
    case "Lu": self = .uppercase
    case "Ll": self = .lowercase
    case "Lt": self = .titlecase
    case "Lm": self = .modifierLetter
    case "Lo": self = .otherLetter
    case "M": self = .mark
    case "N": self = .number
    case "Nd": self = .digit
    case "P": self = .punctuation
    case "S": self = .symbol
    default: return nil
    }
  }
}

/// A character of a text, looked up once and asked many times.
struct ScannedCharacter {
  let scalar: UInt32
  let properties: CharacterProperties
  /// Where the next one begins.
  let end: Int

  /// The character at `position`.
  /// - Precondition: `text` is valid UTF-8 and a character begins at `position`.
  init(_ text: [UInt8], at position: Int) {
    let lead = text[position]
    if lead < 0x80 {
      scalar = UInt32(lead)
      end = position + 1
      switch lead {
      case UInt8(ascii: "a")...UInt8(ascii: "z"): properties = .lowercase
      case UInt8(ascii: "A")...UInt8(ascii: "Z"): properties = .uppercase
      case UInt8(ascii: "0")...UInt8(ascii: "9"): properties = .digit
      case 0x09...0x0D, 0x20: properties = .space
      case UInt8(ascii: "$"), UInt8(ascii: "+"), UInt8(ascii: "<"), UInt8(ascii: "="), UInt8(ascii: ">"), UInt8(ascii: "^"),
        UInt8(ascii: "`"), UInt8(ascii: "|"), UInt8(ascii: "~"):
        properties = .symbol
      case 0x21...0x7E: properties = .punctuation
      default: properties = []
      }
      return
    }
    let length = scalarByteCount(lead: lead)
    var value = UInt32(lead) & (0x7F >> UInt32(length))
    for index in 1..<length { value = value << 6 | UInt32(text[position + index] & 0x3F) }
    scalar = value
    end = position + length
    properties = CharacterProperties(Unicode.Scalar(value)!)
  }
}

/// A set of characters, as a regular expression writes it: `\p{L}`, `[^\s\p{L}\p{N}]`, `[A-Za-z]`.
struct CharacterClass: Sendable, Hashable {
  var properties: CharacterProperties = []
  var ranges: [ClosedRange<UInt32>] = []
  var isNegated = false

  static let space = CharacterClass(properties: .space)

  func contains(_ character: ScannedCharacter) -> Bool {
    var isIn = !properties.isDisjoint(with: character.properties)
    for range in ranges where range.contains(character.scalar) { isIn = true }
    return isIn != isNegated
  }
}
