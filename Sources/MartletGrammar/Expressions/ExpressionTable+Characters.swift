// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Characters as bytes: in UTF-8, and in every way in which a JSON string may write them.

extension ExpressionTable {
  /// A digit of a number that is written in bytes: how many bits it has, and how each value is written.
  struct Digit {
    var bits: UInt32
    /// What stands before the digit.
    var prefix: [UInt8] = []
    var spellings: [ByteSet]
    var anySpelling: ByteSet

    init(bits: UInt32, after prefix: [UInt8] = [], spelling: (UInt8) -> ByteSet) {
      self.bits = bits
      self.prefix = prefix
      spellings = (0..<UInt8(1) << UInt8(bits)).map(spelling)
      anySpelling = spellings.reduce(ByteSet()) { $0.union($1) }
    }

    /// The lower six bits of a character in UTF-8.
    static let tail = Digit(bits: 6) { ByteSet(0x80 | $0) }

    static let hexSpellings = Digit.hex(4).spellings

    /// A hexadecimal digit, of either case, of a value with so many bits.
    static func hex(_ bits: UInt32, plus offset: UInt8 = 0, after prefix: [UInt8] = []) -> Digit {
      Digit(bits: bits, after: prefix) { value in
        let value = value + offset
        if value < 10 { return ByteSet(0x30 + value) }
        return ByteSet(UInt8(ascii: "a") - 10 + value).union(ByteSet(UInt8(ascii: "A") - 10 + value))
      }
    }
  }

  /// The numbers of `set` from `low` on that `digits` can write, the first digit being the highest.
  ///
  /// Digits with the same continuation share it, so that the result is as small as an automaton can be.
  private mutating func number(_ set: CodePointSet, low: UInt32, _ digits: ArraySlice<Digit>) -> ID {
    guard let digit = digits.first else { return set.overlap(low, low) == .none ? Self.nothing : Self.empty }
    let below = digits.dropFirst().reduce(0) { $0 + $1.bits }
    let overlap = set.overlap(low, low + (1 << (digit.bits + below) - 1))
    if overlap == .none { return Self.nothing }
    if overlap == .whole {
      // All continuations are the same.
      let rest = number(set, low: low, digits.dropFirst())
      return literal(digit.prefix, then: sequence(bytes(digit.anySpelling), rest))
    }
    var groups: [(rest: ID, bytes: ByteSet)] = []
    for value in 0..<UInt32(1) << digit.bits {
      let rest = number(set, low: low + value << below, digits.dropFirst())
      if rest == Self.nothing { continue }
      let bytes = digit.spellings[Int(value)]
      if let known = groups.firstIndex(where: { $0.rest == rest }) {
        groups[known].bytes = groups[known].bytes.union(bytes)
      } else {
        groups.append((rest, bytes))
      }
    }
    let choices = groups.map { sequence(bytes($0.bytes), $0.rest) }
    return literal(digit.prefix, then: choice(choices))
  }

  /// One character of `set`, in UTF-8.
  mutating func utf8(_ set: CodePointSet) -> ID {
    var choices: [ID] = []
    if let scalar = set.onlyScalar, scalar < 0x80 { return byte(UInt8(scalar)) }
    var ascii = ByteSet()
    for range in set.intersection(CodePointSet([0...0x7F])).ranges { for value in range { ascii.insert(UInt8(value)) } }
    choices.append(bytes(ascii))
    let forms: [(scalars: ClosedRange<UInt32>, lead: UInt8, leadBits: UInt32)] = [
      (0x80...0x7FF, 0xC0, 5), (0x800...0xFFFF, 0xE0, 4), (0x10000...0x10FFFF, 0xF0, 3),
    ]
    for (index, form) in forms.enumerated() {
      let part = set.intersection(.all).intersection(CodePointSet([form.scalars]))
      if part.isEmpty { continue }
      let lead = Digit(bits: form.leadBits) { ByteSet(form.lead | $0) }
      choices.append(number(part, low: 0, [lead] + repeatElement(Digit.tail, count: index + 1)))
    }
    return choice(choices)
  }

  /// One character of `set` within a JSON string (RFC 8259), in any of the ways to write it: as it is, with a short escape, as `\u` and four hexadecimal
  /// digits, or as two of these.
  mutating func jsonCharacter(_ set: CodePointSet) -> ID {
    let mustEscape = CodePointSet([0...0x1F, 0x22...0x22, 0x5C...0x5C])
    let escapes = choice([shortEscape(set), hexEscape(set)])
    return choice(utf8(set.intersection(mustEscape.complement)), sequence(byte(UInt8(ascii: "\\")), escapes))
  }

  /// One character of `set` in the one way in which writers of JSON commonly write it: as it is, or with the shortest escape where it needs one.
  mutating func plainJSONCharacter(_ scalar: UInt32) -> ID {
    let set = CodePointSet(scalar)
    if scalar >= 0x20 && scalar != 0x22 && scalar != 0x5C { return utf8(set) }
    let short = scalar == 0x2F ? Self.nothing : shortEscape(set)
    return sequence(byte(UInt8(ascii: "\\")), short != Self.nothing ? short : hexEscape(set))
  }

  private mutating func shortEscape(_ set: CodePointSet) -> ID {
    var letters = ByteSet()
    let table: [(UInt32, Character)] = [
      (0x22, "\""), (0x5C, "\\"), (0x2F, "/"), (0x08, "b"), (0x0C, "f"), (0x0A, "n"), (0x0D, "r"), (0x09, "t"),
    ]
    for (scalar, letter) in table where set.overlap(scalar, scalar) != .none { letters.insert(letter.asciiValue!) }
    return bytes(letters)
  }

  /// What follows the backslash.
  private mutating func hexEscape(_ set: CodePointSet) -> ID {
    let u = Array("u".utf8)
    if let scalar = set.onlyScalar, scalar < 0x10000 {
      // Most sets are one character, of a key: each of its digits is one.
      let digits = [12, 8, 4, 0].map { shift in bytes(Digit.hexSpellings[Int(scalar >> UInt32(shift) & 15)]) }
      return literal(u, then: sequence(digits))
    }
    let hex = Digit.hex(4)
    let basic = set.intersection(CodePointSet([0...0xD7FF, 0xE000...0xFFFF]))
    let further = CodePointSet(
      set.intersection(CodePointSet([0x10000...0x10FFFF])).ranges.map { $0.lowerBound - 0x10000...$0.upperBound - 0x10000 })
    let one = basic.isEmpty ? Self.nothing : number(basic, low: 0, [.hex(4, after: u), hex, hex, hex])
    guard !further.isEmpty else { return one }
    // 0xD800 + the upper ten bits, 0xDC00 + the lower ten.
    let d = bytes(ByteSet(UInt8(ascii: "d")).union(ByteSet(UInt8(ascii: "D"))))
    let digits = [Digit.hex(2, plus: 8), hex, hex, Digit.hex(2, plus: 12), hex, hex]
    let pair = surrogates(further, digits, d)
    return choice(one, literal(u, then: sequence(d, pair)))
  }

  /// The six digits of a surrogate pair that vary; between the third and the fourth stands `\ud`.
  private mutating func surrogates(_ set: CodePointSet, _ digits: [Digit], _ d: ID) -> ID {
    var groups: [(rest: ID, upper: [UInt32])] = []
    for upper in UInt32(0)..<1024 {
      let overlap = set.overlap(upper << 10, upper << 10 + 1023)
      if overlap == .none { continue }
      if overlap == .whole, let known = groups.firstIndex(where: { set.overlap($0.upper[0] << 10, $0.upper[0] << 10 + 1023) == .whole }) {
        groups[known].upper.append(upper)
        continue
      }
      groups.append((number(set, low: upper << 10, digits[3...]), [upper]))
    }
    var choices: [ID] = []
    for group in groups {
      let upper = number(CodePointSet(group.upper.map { $0...$0 }), low: 0, digits[..<3])
      choices.append(sequence(upper, literal(Array("\\u".utf8), then: sequence(d, group.rest))))
    }
    return choice(choices)
  }
}
