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

extension ScannedCharacter {
  /// `\w` as Unicode has it (UTS #18), which is what added tokens ask: alphabetic, marks, decimal digits, connectors, and what joins characters.
  var isWordCharacter: Bool {
    if !properties.isDisjoint(with: [.letter, .mark, .digit]) { return true }
    let unicode = Unicode.Scalar(scalar)!.properties
    return unicode.isAlphabetic || unicode.generalCategory == .connectorPunctuation || unicode.isJoinControl
  }

  /// `\w` as the expressions of `tokenizer.json` have it (Oniguruma's): nothing that joins, but the powers and fractions of Latin-1.
  var isExpressionWordCharacter: Bool {
    switch scalar {
    case 0xB2, 0xB3, 0xB9, 0xBC...0xBE: true
    case 0x200C, 0x200D: false
    default: isWordCharacter
    }
  }
}

/// A set of characters, as a regular expression writes it: `\p{L}`, `[^\s\p{L}\p{N}]`, `[A-Za-z]`, `[\p{L}&&[^\p{Han}]]`.
struct CharacterClass: Sendable, Hashable {
  var properties: CharacterProperties = []
  var ranges: [ClosedRange<UInt32>] = []
  var isNegated = false
  /// Characters that are not in the set, whatever the others say: `&&[^…]`.
  var excluded: [ClosedRange<UInt32>] = []

  static let space = CharacterClass(properties: .space)

  func contains(_ character: ScannedCharacter) -> Bool {
    var isIn = !properties.isDisjoint(with: character.properties)
    for range in ranges where range.contains(character.scalar) { isIn = true }
    guard isIn != isNegated else { return false }
    for range in excluded where range.contains(character.scalar) { return false }
    return true
  }
}

extension CharacterClass {
  /// The characters whose property Script has this value (Unicode 17's Scripts.txt), which the standard library does not tell; nil for a name that
  /// this build does not know.
  static func script(_ name: String) -> [ClosedRange<UInt32>]? {
    switch name {
    case "Han":
      [
        0x2E80...0x2E99, 0x2E9B...0x2EF3, 0x2F00...0x2FD5, 0x3005...0x3005, 0x3007...0x3007, 0x3021...0x3029, 0x3038...0x303B,
        0x3400...0x4DBF, 0x4E00...0x9FFF, 0xF900...0xFA6D, 0xFA70...0xFAD9, 0x16FE2...0x16FE3, 0x16FF0...0x16FF6, 0x20000...0x2A6DF,
        0x2A700...0x2B81E, 0x2B820...0x2CEAD, 0x2CEB0...0x2EBE0, 0x2EBF0...0x2EE5D, 0x2F800...0x2FA1D, 0x30000...0x3134A, 0x31350...0x33479,
      ]
    case "Hiragana":
      [0x3041...0x3096, 0x309D...0x309F, 0x1B001...0x1B11F, 0x1B123...0x1B123, 0x1B132...0x1B132, 0x1B150...0x1B152, 0x1F200...0x1F200]
    case "Katakana":
      [
        0x30A1...0x30FA, 0x30FD...0x30FF, 0x31F0...0x31FF, 0x32D0...0x32FE, 0x3300...0x3357, 0xFF66...0xFF6F, 0xFF71...0xFF9D,
        0x1AFF0...0x1AFF3, 0x1AFF5...0x1AFFB, 0x1AFFD...0x1AFFE, 0x1B000...0x1B000, 0x1B120...0x1B122, 0x1B124...0x1B128, 0x1B155...0x1B155,
        0x1B164...0x1B168,
      ]
    case "Hangul":
      [
        0x1100...0x11FF, 0x302E...0x302F, 0x3131...0x318E, 0x3200...0x321E, 0x3260...0x327E, 0xA960...0xA97C, 0xAC00...0xD7A3,
        0xD7B0...0xD7C6, 0xD7CB...0xD7FB, 0xFFA0...0xFFBE, 0xFFC2...0xFFC7, 0xFFCA...0xFFCF, 0xFFD2...0xFFD7, 0xFFDA...0xFFDC,
      ]
    case "Thai":
      [0xE01...0xE3A, 0xE40...0xE5B]
    default: nil
    }
  }
}
