// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// A string of a program: UTF-8 that remembers which of its bytes the program wrote, and which came from values handed in.
///
/// Equality, order and search go by bytes, as Python's go by code points; never by Swift's characters, of which two may be equal that are
/// written differently.
struct Text: Sendable {
  /// Where bytes came from.
  enum Origin: Sendable {
    case program
    case content
    /// The ranges that came from values, ascending, neither empty nor touching.
    case mixed([Range<Int>])
  }

  private(set) var bytes: [UInt8]
  private(set) var origin: Origin
  /// Jinja's `Markup`: joined with `+` to a string, it escapes that one for HTML.
  var isMarkup = false

  init() {
    bytes = []
    origin = .program
  }

  init(_ bytes: [UInt8], _ origin: Origin = .program) {
    self.bytes = bytes
    self.origin = origin
  }

  /// A text of the program.
  init(_ string: String) { self.init(Array(string.utf8)) }

  /// A text from outside.
  init(content string: String) { self.init(Array(string.utf8), .content) }

  var count: Int { bytes.count }
  var isEmpty: Bool { bytes.isEmpty }
  var string: String { String(decoding: bytes, as: UTF8.self) }

  var contents: [Range<Int>] {
    switch origin {
    case .program: []
    case .content: bytes.isEmpty ? [] : [0..<bytes.count]
    case .mixed(let ranges): ranges
    }
  }

  mutating func append(_ other: Text) {
    if other.isEmpty { return }
    defer { bytes += other.bytes }
    if isEmpty {
      origin = other.origin
      return
    }
    switch (origin, other.origin) {
    case (.program, .program), (.content, .content), (.mixed, .program): return
    case (.mixed(var ranges), _):
      origin = .program  // so that the ranges have one owner, and grow in place
      Text.add(other.contents, at: bytes.count, to: &ranges)
      origin = .mixed(ranges)
    default:
      var ranges = contents
      Text.add(other.contents, at: bytes.count, to: &ranges)
      origin = .mixed(ranges)
    }
  }

  mutating func append(program byte: UInt8) { append(Text([byte])) }

  /// Appends ranges, `offset` further on.
  static func add(_ ranges: [Range<Int>], at offset: Int, to all: inout [Range<Int>]) {
    for range in ranges {
      let moved = range.lowerBound + offset..<range.upperBound + offset
      if let last = all.last, last.upperBound == moved.lowerBound {
        all[all.count - 1] = last.lowerBound..<moved.upperBound
      } else {
        all.append(moved)
      }
    }
  }

  /// A part, given in bytes.
  subscript(range: Range<Int>) -> Text {
    if range.lowerBound == 0 && range.upperBound == bytes.count { return self }
    var part = Text(Array(bytes[range]), origin)
    part.isMarkup = isMarkup
    if case .mixed(let ranges) = origin {
      part.origin = .mixed(
        ranges.compactMap { one in
          let clipped = one.clamped(to: range)
          return clipped.isEmpty ? nil : clipped.lowerBound - range.lowerBound..<clipped.upperBound - range.lowerBound
        })
    }
    return part
  }

  /// Whether the byte at `index` came from a value.
  func isContent(at index: Int) -> Bool {
    switch origin {
    case .program: false
    case .content: true
    case .mixed(let ranges): ranges.contains { $0.contains(index) }
    }
  }

  func asMarkup(_ isMarkup: Bool = true) -> Text {
    var text = self
    text.isMarkup = isMarkup
    return text
  }
}

extension Text: Hashable {
  static func == (left: Text, right: Text) -> Bool { left.bytes == right.bytes }
  func hash(into hasher: inout Hasher) { hasher.combine(bytes) }
}

extension Text: Comparable {
  /// UTF-8 orders like code points.
  static func < (left: Text, right: Text) -> Bool { left.bytes.lexicographicallyPrecedes(right.bytes) }
}

extension Text: ExpressibleByStringLiteral {
  init(stringLiteral value: String) { self.init(value) }
}

// MARK: - Code points

extension Text {
  /// Code points.
  var scalarCount: Int { bytes.reduce(0) { $0 + ($1 & 0xC0 == 0x80 ? 0 : 1) } }

  var isASCII: Bool { bytes.allSatisfy { $0 < 0x80 } }

  /// Where each code point begins, and the end of the last.
  var scalarStarts: [Int] {
    var starts: [Int] = []
    starts.reserveCapacity(bytes.count + 1)
    for index in bytes.indices where bytes[index] & 0xC0 != 0x80 { starts.append(index) }
    starts.append(bytes.count)
    return starts
  }

  /// The code point that begins at `index`, and where it ends.
  func scalar(at index: Int) -> (Unicode.Scalar, end: Int) {
    let lead = bytes[index]
    if lead < 0x80 { return (Unicode.Scalar(lead), index + 1) }
    let length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4
    var value = UInt32(lead) & (length == 2 ? 0x1F : length == 3 ? 0x0F : 0x07)
    let end = min(index + length, bytes.count)
    for byte in bytes[(index + 1)..<end] { value = value << 6 | UInt32(byte & 0x3F) }
    return (Unicode.Scalar(value) ?? "\u{FFFD}", end)
  }

  /// The code point that ends at `end`, and where it begins.
  func scalar(before end: Int) -> (Unicode.Scalar, start: Int) {
    var start = end - 1
    while start > 0, bytes[start] & 0xC0 == 0x80 { start -= 1 }
    return (scalar(at: start).0, start)
  }

  var scalars: [Unicode.Scalar] {
    var result: [Unicode.Scalar] = []
    var index = 0
    while index < bytes.count {
      let (scalar, end) = scalar(at: index)
      result.append(scalar)
      index = end
    }
    return result
  }

  /// Every code point replaced by what `transform` gives, which has its origin; nil leaves it as it is.
  func mapScalars(_ transform: (_ scalar: Unicode.Scalar, _ index: Int) -> String?) -> Text {
    var result = Text()
    var index = 0
    // Run by run of one origin.
    var run: [UInt8] = []
    var runIsContent = false
    func flush(_ result: inout Text) {
      result.append(Text(run, runIsContent ? .content : .program))
      run.removeAll(keepingCapacity: true)
    }
    let uniform: Bool? =
      switch origin {
      case .program: false
      case .content: true
      case .mixed: nil
      }
    while index < bytes.count {
      let (scalar, end) = scalar(at: index)
      let isContent = uniform ?? isContent(at: index)
      if isContent != runIsContent {
        flush(&result)
        runIsContent = isContent
      }
      if let replacement = transform(scalar, index) {
        run += replacement.utf8
      } else if end == index + 1 {
        run.append(bytes[index])
      } else {
        run += bytes[index..<end]
      }
      index = end
    }
    flush(&result)
    result.isMarkup = isMarkup
    return result
  }
}

extension Unicode.Scalar {
  /// White space to Python: Unicode's, and four separators of ASCII.
  var isPythonSpace: Bool {
    switch value {
    case 0x09...0x0D, 0x1C...0x20, 0x85, 0xA0: true
    case 0..<0x80: false
    default: properties.isWhitespace
    }
  }

  /// Whether Python's `repr` shows it as it is.
  var isPythonPrintable: Bool {
    if value < 0x80 { return (0x20..<0x7F).contains(value) }
    switch properties.generalCategory {
    case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator, .paragraphSeparator, .spaceSeparator: return false
    default: return true
    }
  }
}
