// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Reads one JSON value a byte at a time, and knows at every byte where in it that byte stands.
///
/// What models write wrong in strings and what can be put right at once is put right in the output: control characters and backslashes that
/// escape nothing are escaped. Everything else that is no JSON breaks the value.
struct JSONScanner: Sendable {
  enum Place: Sendable, Equatable {
    case value, valueOrEnd, key, keyOrEnd, colon, commaOrEnd
    case string, escape, hex
    case minus, zero, integer, point, fraction, exponentSign, exponentDigit, exponent
    case literal
    case done
  }

  /// Containers deeper than this break the value: whoever reads the text afterwards has a stack.
  static let maximumDepth = 128

  private(set) var place = Place.value
  /// The containers that are open, as their opening brackets.
  private var stack: [UInt8] = []
  private var stringIsKey = false
  private var hexDigits = 0
  private var literal = [UInt8]()[...]

  var depth: Int { stack.count }
  var isDone: Bool { place == .done }

  /// Whether the value is whole if nothing follows: a number ends with its text.
  var isWhole: Bool {
    switch place {
    case .done: true
    case .zero, .integer, .fraction, .exponent: stack.isEmpty
    default: false
    }
  }

  /// Takes the next byte and appends what it is in valid JSON; a backslash is appended together with the byte behind it.
  /// - Returns: whether the text is still JSON.
  mutating func push(_ byte: UInt8, into output: inout [UInt8]) -> Bool {
    switch place {
    case .done: return JSONBytes.isBlank(byte)
    case .string:
      switch byte {
      case UInt8(ascii: "\""): endString()
      case UInt8(ascii: "\\"):
        place = .escape
        return true
      default:
        JSONBytes.appendEscaped(control: byte, to: &output)
        return true
      }
    case .escape:
      place = .string
      switch byte {
      case UInt8(ascii: "u"):
        hexDigits = 0
        place = .hex
        output.append(UInt8(ascii: "\\"))
      case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"), UInt8(ascii: "b"), UInt8(ascii: "f"), UInt8(ascii: "n"),
        UInt8(ascii: "r"), UInt8(ascii: "t"):
        output.append(UInt8(ascii: "\\"))
      default:
        output += [UInt8(ascii: "\\"), UInt8(ascii: "\\")]
        JSONBytes.appendEscaped(control: byte, to: &output)
        return true
      }
    case .hex:
      guard JSONBytes.isHexDigit(byte) else { return false }
      hexDigits += 1
      if hexDigits == 4 { place = .string }
    case .minus, .zero, .integer, .point, .fraction, .exponentSign, .exponentDigit, .exponent:
      guard let next = numberPlace(after: byte) else {
        guard [.zero, .integer, .fraction, .exponent].contains(place) else { return false }
        endValue()
        return push(byte, into: &output)
      }
      place = next
    case .literal:
      guard byte == literal.first else { return false }
      literal = literal.dropFirst()
      if literal.isEmpty { endValue() }
    case .value, .valueOrEnd, .key, .keyOrEnd, .colon, .commaOrEnd:
      guard JSONBytes.isBlank(byte) || step(byte) else { return false }
    }
    output.append(byte)
    return true
  }

  /// Takes a byte that is punctuation or begins something.
  private mutating func step(_ byte: UInt8) -> Bool {
    switch (place, byte) {
    case (.valueOrEnd, UInt8(ascii: "]")): close()
    case (.value, _), (.valueOrEnd, _): return beginValue(byte)
    case (.keyOrEnd, UInt8(ascii: "}")): close()
    case (.key, UInt8(ascii: "\"")), (.keyOrEnd, UInt8(ascii: "\"")):
      stringIsKey = true
      place = .string
    case (.colon, UInt8(ascii: ":")): place = .value
    case (.commaOrEnd, UInt8(ascii: ",")): place = stack.last == UInt8(ascii: "{") ? .key : .value
    case (.commaOrEnd, UInt8(ascii: "}")) where stack.last == UInt8(ascii: "{"): close()
    case (.commaOrEnd, UInt8(ascii: "]")) where stack.last == UInt8(ascii: "["): close()
    default: return false
    }
    return true
  }

  private mutating func beginValue(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "{"), UInt8(ascii: "["):
      guard stack.count < Self.maximumDepth else { return false }
      stack.append(byte)
      place = byte == UInt8(ascii: "{") ? .keyOrEnd : .valueOrEnd
    case UInt8(ascii: "\""):
      stringIsKey = false
      place = .string
    case UInt8(ascii: "-"): place = .minus
    case UInt8(ascii: "0"): place = .zero
    case UInt8(ascii: "1")...UInt8(ascii: "9"): place = .integer
    case UInt8(ascii: "t"): (place, literal) = (.literal, [UInt8]("rue".utf8)[...])
    case UInt8(ascii: "f"): (place, literal) = (.literal, [UInt8]("alse".utf8)[...])
    case UInt8(ascii: "n"): (place, literal) = (.literal, [UInt8]("ull".utf8)[...])
    default: return false
    }
    return true
  }

  /// nil where the byte is no part of a number.
  private func numberPlace(after byte: UInt8) -> Place? {
    let isDigit = (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
    let isExponent = byte == UInt8(ascii: "e") || byte == UInt8(ascii: "E")
    return switch place {
    case .minus: !isDigit ? nil : byte == UInt8(ascii: "0") ? .zero : .integer
    case .zero: byte == UInt8(ascii: ".") ? .point : isExponent ? .exponentSign : nil
    case .integer: isDigit ? .integer : byte == UInt8(ascii: ".") ? .point : isExponent ? .exponentSign : nil
    case .point: isDigit ? .fraction : nil
    case .fraction: isDigit ? .fraction : isExponent ? .exponentSign : nil
    case .exponentSign: isDigit ? .exponent : byte == UInt8(ascii: "+") || byte == UInt8(ascii: "-") ? .exponentDigit : nil
    case .exponentDigit, .exponent: isDigit ? .exponent : nil
    default: nil
    }
  }

  private mutating func endString() {
    if stringIsKey { place = .colon } else { endValue() }
  }

  private mutating func close() {
    stack.removeLast()
    endValue()
  }

  private mutating func endValue() { place = stack.isEmpty ? .done : .commaOrEnd }
}

/// Bytes of JSON texts.
enum JSONBytes {
  static func isBlank(_ byte: UInt8) -> Bool {
    byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\n") || byte == UInt8(ascii: "\t") || byte == UInt8(ascii: "\r")
  }

  static func isHexDigit(_ byte: UInt8) -> Bool { hexValue(byte) != nil }

  private static func hexValue(_ byte: UInt8) -> UInt32? {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt32(byte - UInt8(ascii: "0"))
    case UInt8(ascii: "a")...UInt8(ascii: "f"): UInt32(byte - UInt8(ascii: "a") + 10)
    case UInt8(ascii: "A")...UInt8(ascii: "F"): UInt32(byte - UInt8(ascii: "A") + 10)
    default: nil
    }
  }

  /// Appends a byte of a string; a control character as its escape.
  static func appendEscaped(control byte: UInt8, to output: inout [UInt8]) {
    switch byte {
    case UInt8(ascii: "\n"): output += "\\n".utf8
    case UInt8(ascii: "\r"): output += "\\r".utf8
    case UInt8(ascii: "\t"): output += "\\t".utf8
    case 0..<0x20:
      let digits = String(byte, radix: 16)
      output += "\\u00\(digits.utf8.count < 2 ? "0" : "")\(digits)".utf8
    default: output.append(byte)
    }
  }

  /// Appends text as what stands between a string's quotes.
  static func appendEscaped(_ bytes: some Sequence<UInt8>, to output: inout [UInt8]) {
    for byte in bytes {
      if byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") { output.append(UInt8(ascii: "\\")) }
      appendEscaped(control: byte, to: &output)
    }
  }

  static func quoted(_ bytes: some Sequence<UInt8>) -> [UInt8] {
    var output: [UInt8] = [UInt8(ascii: "\"")]
    appendEscaped(bytes, to: &output)
    output.append(UInt8(ascii: "\""))
    return output
  }

  /// The text of a JSON string that a scanner found whole, quotes included. Halves of surrogate pairs that stand alone become U+FFFD.
  static func unquoted(_ bytes: some Collection<UInt8>) -> [UInt8] {
    var output: [UInt8] = []
    var rest = Array(bytes.dropFirst().dropLast())[...]
    func unit(_ rest: ArraySlice<UInt8>) -> UInt32? {
      guard rest.count >= 6, rest[rest.startIndex] == UInt8(ascii: "\\"), rest[rest.startIndex + 1] == UInt8(ascii: "u") else { return nil }
      return rest.dropFirst(2).prefix(4).reduce(into: 0) { $0 = $0 << 4 | (hexValue($1) ?? 0) }
    }
    while let byte = rest.first {
      guard byte == UInt8(ascii: "\\"), rest.count > 1 else {
        output.append(byte)
        rest = rest.dropFirst()
        continue
      }
      if var scalar = unit(rest) {
        rest = rest.dropFirst(6)
        if (0xD800..<0xDC00).contains(scalar), let low = unit(rest), (0xDC00..<0xE000).contains(low) {
          scalar = 0x10000 + (scalar - 0xD800) << 10 + (low - 0xDC00)
          rest = rest.dropFirst(6)
        }
        output += String(Unicode.Scalar(scalar) ?? "\u{FFFD}").utf8
        continue
      }
      switch rest[rest.startIndex + 1] {
      case UInt8(ascii: "n"): output.append(UInt8(ascii: "\n"))
      case UInt8(ascii: "t"): output.append(UInt8(ascii: "\t"))
      case UInt8(ascii: "r"): output.append(UInt8(ascii: "\r"))
      case UInt8(ascii: "b"): output.append(8)
      case UInt8(ascii: "f"): output.append(12)
      case let other: output.append(other)
      }
      rest = rest.dropFirst(2)
    }
    return output
  }

  /// The text as JSON if it is one whole value, put right as JSONScanner does, without blanks around it.
  static func value(_ bytes: some Sequence<UInt8>) -> [UInt8]? {
    var scanner = JSONScanner()
    var output: [UInt8] = []
    for byte in bytes { guard scanner.push(byte, into: &output) else { return nil } }
    guard scanner.isWhole else { return nil }
    return Array(trimmed(output[...]))
  }

  static func trimmed(_ bytes: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
    var bytes = bytes
    while let first = bytes.first, isBlank(first) { bytes = bytes.dropFirst() }
    while let last = bytes.last, isBlank(last) { bytes = bytes.dropLast() }
    return bytes
  }
}
