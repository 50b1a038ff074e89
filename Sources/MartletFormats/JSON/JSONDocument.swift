// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// A parsed JSON text: its values in the order in which they begin, one node each, and the bytes of all strings and numbers in one run.
///
/// A container is followed by its contents (an object's by key, value, key, value …) and knows where they end, so that a reader steps over what
/// it does not want. Two arrays for the whole document: a vocabulary of 262 144 entries makes no object per entry.
///
/// Foundation's readers were not taken: `JSONSerialization` recurses, forgets the order of members, silently keeps one of two equal keys and rounds
/// numbers; `JSONDecoder` compares keys as `String`s, so that two tokens that differ only in Unicode's composition are one.
final class JSONDocument: Sendable {
  enum Kind: UInt8 { case null, `true`, `false`, number, string, array, object }

  struct Node {
    let kind: Kind
    /// Strings and numbers: where their bytes begin in `text`.
    let start: UInt32
    /// Strings and numbers: bytes. Containers: elements or members.
    var length: UInt32
    /// The node after this value and all that is inside it.
    var next: UInt32
  }

  /// The root is the first.
  let nodes: [Node]
  /// Strings with their escapes resolved, and numbers as written.
  private let text: [UInt8]

  init(_ source: UnsafeRawBufferPointer) throws(JSONError) {
    guard source.count < Int(Int32.max) else {
      throw .malformed(offset: 0, problem: "the text has \(source.count) bytes, which is not below 2147483647")
    }
    var parser = JSONParser(source)
    try parser.parse()
    nodes = parser.nodes
    text = parser.text
  }

  func withText<T>(of node: Node, _ body: (UnsafeBufferPointer<UInt8>) throws -> T) rethrows -> T {
    try text.withUnsafeBufferPointer { all in
      try body(UnsafeBufferPointer(rebasing: all[Int(node.start)..<Int(node.start) + Int(node.length)]))
    }
  }
}

/// Reads a text front to back with a stack of its own, so that nesting costs no stack of the thread.
struct JSONParser {
  private let source: UnsafeRawBufferPointer
  /// Never past `source.count`.
  private var offset = 0
  /// The containers that are open, outermost first.
  private var open: [Int] = []
  private(set) var nodes: [JSONDocument.Node] = []
  private(set) var text: [UInt8] = []

  init(_ source: UnsafeRawBufferPointer) { self.source = source }

  mutating func parse() throws(JSONError) {
    try checkUTF8()
    var isComplete = false
    while !isComplete {
      skipSpace()
      if try openContainer() { continue }
      isComplete = try closeContainers()
    }
    skipSpace()
    guard offset == source.count else { throw unexpected("the end of the text") }
  }

  /// Reads a scalar, or an empty container, or begins a container; true if a value must follow.
  private mutating func openContainer() throws(JSONError) -> Bool {
    switch peek {
    case UInt8(ascii: "{"):
      try push(.object)
      skipSpace()
      if peek == UInt8(ascii: "}") { return false }
      try readKey()
      return true
    case UInt8(ascii: "["):
      try push(.array)
      skipSpace()
      return peek != UInt8(ascii: "]")
    case UInt8(ascii: "\""): try readString()
    case UInt8(ascii: "t"): try readWord("true", .true)
    case UInt8(ascii: "f"): try readWord("false", .false)
    case UInt8(ascii: "n"): try readWord("null", .null)
    case let byte? where byte == UInt8(ascii: "-") || (byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9")): try readNumber()
    default: throw unexpected("a value")
    }
    countElement()
    return false
  }

  /// After a value: closes what ends here; true if the root has ended, false if another value follows.
  private mutating func closeContainers() throws(JSONError) -> Bool {
    while let container = open.last {
      skipSpace()
      let isObject = nodes[container].kind == .object
      switch peek {
      case UInt8(ascii: ","):
        offset += 1
        skipSpace()
        if isObject { try readKey() }
        return false
      case isObject ? UInt8(ascii: "}") : UInt8(ascii: "]"):
        offset += 1
        open.removeLast()
        nodes[container].next = UInt32(nodes.count)
        if isObject { try checkKeys(of: container) }
        countElement()
      default: throw unexpected(isObject ? "\",\" or \"}\"" : "\",\" or \"]\"")
      }
    }
    return true
  }

  // MARK: Containers

  private mutating func push(_ kind: JSONDocument.Kind) throws(JSONError) {
    guard open.count < JSONValue.maximumDepth else {
      throw .malformed(offset: offset, problem: "arrays and objects nest more than \(JSONValue.maximumDepth) deep")
    }
    offset += 1
    open.append(nodes.count)
    nodes.append(JSONDocument.Node(kind: kind, start: 0, length: 0, next: 0))
  }

  /// Counts a value that has ended in the container that holds it.
  private mutating func countElement() {
    if let container = open.last { nodes[container].length += 1 }
  }

  private mutating func readKey() throws(JSONError) {
    guard peek == UInt8(ascii: "\"") else { throw unexpected("a key") }
    try readString()
    skipSpace()
    guard peek == UInt8(ascii: ":") else { throw unexpected("\":\"") }
    offset += 1
  }

  /// Refuses a key that stands twice. A hash table of the standard library's seeded hash: no file can choose keys that collide.
  private func checkKeys(of object: Int) throws(JSONError) {
    let count = Int(nodes[object].length)
    guard count > 1 else { return }
    var slots = [UInt32](repeating: 0, count: 4)
    while slots.count < 2 * count { slots = [UInt32](repeating: 0, count: 2 * slots.count) }
    let mask = slots.count - 1
    var key = object + 1
    for _ in 0..<count {
      let range = Int(nodes[key].start)..<Int(nodes[key].start) + Int(nodes[key].length)
      var hasher = Hasher()
      text.withUnsafeBytes { hasher.combine(bytes: UnsafeRawBufferPointer(rebasing: $0[range])) }
      var slot = hasher.finalize() & mask
      while slots[slot] != 0 {  // 0 is the root, which is no key
        let other = nodes[Int(slots[slot])]
        if Int(other.length) == range.count && text[range].elementsEqual(text[Int(other.start)..<Int(other.start) + range.count]) {
          throw .malformed(offset: offset - 1, problem: "the object that ends here has the key \"\(name(range))\" twice")
        }
        slot = (slot + 1) & mask
      }
      slots[slot] = UInt32(key)
      key = Int(nodes[key + 1].next)
    }
  }

  /// A key for a message: the first 64 bytes of it.
  private func name(_ range: Range<Int>) -> String {
    String(decoding: text[range].prefix(64), as: UTF8.self) + (range.count > 64 ? "…" : "")
  }

  // MARK: Scalars

  private mutating func append(_ kind: JSONDocument.Kind, from start: Int) {
    nodes.append(
      JSONDocument.Node(kind: kind, start: UInt32(start), length: UInt32(text.count - start), next: UInt32(nodes.count + 1)))
  }

  private mutating func readWord(_ word: StaticString, _ kind: JSONDocument.Kind) throws(JSONError) {
    for index in 0..<word.utf8CodeUnitCount {
      guard peek == word.utf8Start[index] else { throw unexpected("\"\(word)\"") }
      offset += 1
    }
    append(kind, from: text.count)
  }

  /// `-? (0 | [1-9][0-9]*) (\.[0-9]+)? ([eE][+-]?[0-9]+)?`
  private mutating func readNumber() throws(JSONError) {
    let start = offset
    if peek == UInt8(ascii: "-") { offset += 1 }
    if peek == UInt8(ascii: "0") { offset += 1 } else { try skipDigits() }
    if peek == UInt8(ascii: ".") {
      offset += 1
      try skipDigits()
    }
    if peek == UInt8(ascii: "e") || peek == UInt8(ascii: "E") {
      offset += 1
      if peek == UInt8(ascii: "+") || peek == UInt8(ascii: "-") { offset += 1 }
      try skipDigits()
    }
    let textStart = text.count
    text.append(contentsOf: source[start..<offset])
    append(.number, from: textStart)
  }

  private mutating func skipDigits() throws(JSONError) {
    let start = offset
    while let byte = peek, byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") { offset += 1 }
    guard offset > start else { throw unexpected("a digit") }
  }

  private mutating func readString() throws(JSONError) {
    offset += 1
    let textStart = text.count
    while true {
      let runStart = offset
      while let byte = peek, byte != UInt8(ascii: "\""), byte != UInt8(ascii: "\\"), byte >= 0x20 { offset += 1 }
      text.append(contentsOf: source[runStart..<offset])
      switch peek {
      case UInt8(ascii: "\""):
        offset += 1
        append(.string, from: textStart)
        return
      case UInt8(ascii: "\\"): try readEscape()
      case nil: throw unexpected("the end of a string")
      default: throw unexpected("the end of a string, for control characters must be escaped")
      }
    }
  }

  private mutating func readEscape() throws(JSONError) {
    let start = offset
    offset += 1
    let escape = peek
    if escape != nil { offset += 1 }
    switch escape {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): text.append(escape!)
    case UInt8(ascii: "b"): text.append(0x08)
    case UInt8(ascii: "f"): text.append(0x0C)
    case UInt8(ascii: "n"): text.append(0x0A)
    case UInt8(ascii: "r"): text.append(0x0D)
    case UInt8(ascii: "t"): text.append(0x09)
    case UInt8(ascii: "u"):
      var code = try readHex()
      if code >= 0xD800 && code < 0xDC00 && peek == UInt8(ascii: "\\") {
        offset += 1
        guard peek == UInt8(ascii: "u") else { throw .malformed(offset: start, problem: "half a surrogate pair") }
        offset += 1
        let low = try readHex()
        guard low >= 0xDC00 && low < 0xE000 else { throw .malformed(offset: start, problem: "half a surrogate pair") }
        code = 0x10000 + (code - 0xD800) << 10 + (low - 0xDC00)
      }
      guard let scalar = Unicode.Scalar(code) else { throw .malformed(offset: start, problem: "half a surrogate pair") }
      text.append(contentsOf: UTF8.encode(scalar)!)
    default: throw .malformed(offset: start, problem: "an unknown escape")
    }
  }

  private mutating func readHex() throws(JSONError) -> UInt32 {
    var code: UInt32 = 0
    for _ in 0..<4 {
      let digit: UInt8
      switch peek {
      case let byte? where byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9"): digit = byte - UInt8(ascii: "0")
      case let byte? where byte >= UInt8(ascii: "a") && byte <= UInt8(ascii: "f"): digit = byte - UInt8(ascii: "a") + 10
      case let byte? where byte >= UInt8(ascii: "A") && byte <= UInt8(ascii: "F"): digit = byte - UInt8(ascii: "A") + 10
      default: throw unexpected("a hexadecimal digit")
      }
      code = code << 4 | UInt32(digit)
      offset += 1
    }
    return code
  }

  // MARK: Bytes

  private var peek: UInt8? { offset < source.count ? source[offset] : nil }

  private mutating func skipSpace() {
    while let byte = peek, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { offset += 1 }
  }

  private func checkUTF8() throws(JSONError) {
    do {
      _ = try UTF8Span(validating: source.bindMemory(to: UInt8.self).span)
    } catch {
      throw .malformed(offset: error.byteOffsets.lowerBound, problem: "the text is not valid UTF-8 here")
    }
  }

  private func unexpected(_ expected: String) -> JSONError {
    guard let byte = peek else { return .malformed(offset: offset, problem: "the text ends where \(expected) should be") }
    let isPrintable = byte >= 0x20 && byte < 0x7F
    let found = isPrintable ? "\"\(Unicode.Scalar(byte))\"" : "the byte \(byte)"
    return .malformed(offset: offset, problem: "\(found) stands where \(expected) should be")
  }
}
