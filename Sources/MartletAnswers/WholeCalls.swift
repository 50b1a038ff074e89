// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Reads `call:NAME{key:<|"|>text<|"|>,other:[1,true]}`: JSON with bare keys and quotes that no text contains.
enum GemmaCalls {
  static func read(_ text: ArraySlice<UInt8>) -> [WholeCall]? {
    var reader = NotationReader(text)
    guard reader.take("call:"), let name = reader.word(until: "{"), reader.gemmaObject(depth: 0), reader.isAtEnd else { return nil }
    return [WholeCall(name: name, arguments: reader.output)]
  }
}

/// Reads `[NAME(key="text", other=[1, True])]`: calls as Python writes them, with keywords only.
enum PythonCalls {
  static func read(_ text: ArraySlice<UInt8>) -> [WholeCall]? {
    var reader = NotationReader(text)
    guard reader.take("[") else { return nil }
    var calls: [WholeCall] = []
    repeat {
      reader.output = []
      guard let name = reader.word(until: "("), reader.take("("), reader.pythonArguments() else { return nil }
      calls.append(WholeCall(name: name, arguments: reader.output))
    } while reader.take(",")
    return reader.take("]") && reader.isAtEnd ? calls : nil
  }
}

/// Reads values of a notation and writes them as JSON.
private struct NotationReader {
  static let maximumDepth = 64

  private var rest: ArraySlice<UInt8>
  var output: [UInt8] = []

  init(_ text: ArraySlice<UInt8>) { rest = JSONBytes.trimmed(text) }

  var isAtEnd: Bool { rest.isEmpty }

  private mutating func skipBlanks() { rest = rest.drop { JSONBytes.isBlank($0) } }

  /// Takes a text, if it is next, and the blanks before and behind it.
  mutating func take(_ text: String) -> Bool {
    skipBlanks()
    guard rest.starts(with: text.utf8) else { return false }
    rest = rest.dropFirst(text.utf8.count)
    skipBlanks()
    return true
  }

  /// Takes what stands before a byte; nil if it is empty or the byte is not there.
  mutating func word(until border: Character) -> String? {
    skipBlanks()
    guard let border = border.asciiValue, let end = rest.firstIndex(of: border) else { return nil }
    let word = JSONBytes.trimmed(rest[..<end])
    guard !word.isEmpty else { return nil }
    rest = rest[end...]
    return String(decoding: word, as: UTF8.self)
  }

  /// Values between brackets, separated by commas.
  private mutating func list(_ close: String, _ element: (inout NotationReader) -> Bool) -> Bool {
    if take(close) { return true }
    var isFirst = true
    repeat {
      if !isFirst { output += ", ".utf8 }
      isFirst = false
      guard element(&self) else { return false }
    } while take(",")
    return take(close)
  }

  /// A number, or a word of JSON or Python.
  private mutating func scalar() -> Bool {
    let word = rest.prefix {
      !JSONBytes.isBlank($0) && ![UInt8(ascii: ","), UInt8(ascii: "]"), UInt8(ascii: "}"), UInt8(ascii: ")")].contains($0)
    }
    let json: [UInt8]
    switch String(decoding: word.prefix(6), as: UTF8.self) {
    case "true", "True": json = Array("true".utf8)
    case "false", "False": json = Array("false".utf8)
    case "null", "None": json = Array("null".utf8)
    default:
      guard let first = word.first, first == UInt8(ascii: "-") || (0x30...0x39).contains(first), let number = JSONBytes.value(word) else {
        return false
      }
      json = number
    }
    output += json
    rest = rest.dropFirst(word.count)
    return true
  }

  // MARK: Gemma

  private static let gemmaQuote = Mark("<|\"|>")

  private mutating func gemmaString() -> Bool {
    guard rest.starts(with: Self.gemmaQuote.bytes) else { return false }
    rest = rest.dropFirst(Self.gemmaQuote.bytes.count)
    guard let end = Self.gemmaQuote.first(in: rest) else { return false }
    output += JSONBytes.quoted(rest[..<end])
    rest = rest[(end + Self.gemmaQuote.bytes.count)...]
    return true
  }

  mutating func gemmaObject(depth: Int) -> Bool {
    guard depth < Self.maximumDepth, take("{") else { return false }
    output += "{".utf8
    guard
      list(
        "}",
        { reader in
          if !reader.gemmaString() {
            guard let key = reader.word(until: ":") else { return false }
            reader.output += JSONBytes.quoted(key.utf8)
          }
          guard reader.take(":") else { return false }
          reader.output += ": ".utf8
          return reader.gemmaValue(depth: depth + 1)
        })
    else { return false }
    output += "}".utf8
    return true
  }

  private mutating func gemmaValue(depth: Int) -> Bool {
    if gemmaString() { return true }
    if rest.first == UInt8(ascii: "{") { return gemmaObject(depth: depth) }
    guard take("[") else { return scalar() }
    guard depth < Self.maximumDepth else { return false }
    output += "[".utf8
    guard list("]", { $0.gemmaValue(depth: depth + 1) }) else { return false }
    output += "]".utf8
    return true
  }

  // MARK: Python

  /// `key=value, …)`
  mutating func pythonArguments() -> Bool {
    output += "{".utf8
    guard
      list(
        ")",
        { reader in
          guard let key = reader.word(until: "="), reader.take("=") else { return false }
          reader.output += JSONBytes.quoted(key.utf8) + Array(": ".utf8)
          return reader.pythonValue(depth: 0)
        })
    else { return false }
    output += "}".utf8
    return true
  }

  private mutating func pythonValue(depth: Int) -> Bool {
    guard depth < Self.maximumDepth else { return false }
    switch rest.first {
    case UInt8(ascii: "\""), UInt8(ascii: "'"): return pythonString()
    case UInt8(ascii: "["), UInt8(ascii: "("):
      let close = rest.first == UInt8(ascii: "[") ? "]" : ")"
      rest = rest.dropFirst()
      output += "[".utf8
      guard list(close, { $0.pythonValue(depth: depth + 1) }) else { return false }
      output += "]".utf8
      return true
    case UInt8(ascii: "{"):
      rest = rest.dropFirst()
      output += "{".utf8
      guard
        list(
          "}",
          { reader in
            guard reader.pythonString(), reader.take(":") else { return false }
            reader.output += ": ".utf8
            return reader.pythonValue(depth: depth + 1)
          })
      else { return false }
      output += "}".utf8
      return true
    default: return scalar()
    }
  }

  private mutating func pythonString() -> Bool {
    guard let quote = rest.first, quote == UInt8(ascii: "\"") || quote == UInt8(ascii: "'") else { return false }
    rest = rest.dropFirst()
    // As JSON has it, whose escapes are also Python's; a quote of the other kind is escaped or not.
    var string: [UInt8] = [UInt8(ascii: "\"")]
    while let byte = rest.first {
      rest = rest.dropFirst()
      if byte == quote {
        string.append(UInt8(ascii: "\""))
        guard let json = JSONBytes.value(string) else { return false }
        output += json
        return true
      }
      if byte == UInt8(ascii: "\\"), let next = rest.first {
        rest = rest.dropFirst()
        if next != UInt8(ascii: "'") { string.append(byte) }
        string.append(next)
      } else {
        if byte == UInt8(ascii: "\"") { string.append(UInt8(ascii: "\\")) }
        string.append(byte)
      }
    }
    return false
  }
}
