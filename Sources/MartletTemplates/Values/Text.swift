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
    switch other.origin {
    case .program:
      if case .content = origin { origin = .mixed([0..<count]) }
    case .content:
      if case .content = origin { return }
      append(contents: CollectionOfOne(0..<other.count), at: count)
    case .mixed(let ranges): append(contents: ranges, at: count)
    }
  }

  /// Ranges of what stands from `offset` on.
  private mutating func append(contents: some Collection<Range<Int>>, at offset: Int) {
    var ranges = takeContents()
    for range in contents {
      let moved = range.lowerBound + offset..<range.upperBound + offset
      if let last = ranges.last, last.upperBound == moved.lowerBound {
        ranges[ranges.count - 1] = last.lowerBound..<moved.upperBound
      } else {
        ranges.append(moved)
      }
    }
    origin = .mixed(ranges)
  }

  /// ``contents``, out of the text's own hands: so they have one owner and grow in place.
  private mutating func takeContents() -> [Range<Int>] {
    guard case .mixed(let ranges) = origin else { return contents }
    origin = .program
    return ranges
  }

  /// The text `times` times.
  func repeated(_ times: Int) -> Text {
    guard times > 0, !isEmpty else { return Text().asMarkup(isMarkup) }
    var result = self
    result.bytes = []
    result.bytes.reserveCapacity(count * times)
    for _ in 0..<times { result.bytes += bytes }
    if case .mixed = origin {
      result.origin = .program
      for turn in 0..<times { result.append(contents: contents, at: turn * count) }
    }
    return result
  }

  /// A part, given in bytes.
  subscript(range: Range<Int>) -> Text {
    if range.lowerBound == 0 && range.upperBound == bytes.count { return self }
    var part = Text(Array(bytes[range]), origin)
    part.isMarkup = isMarkup
    if case .mixed(let ranges) = origin {
      var clipped: [Range<Int>] = []
      var place = Text.firstRange(of: ranges, endingAfter: range.lowerBound)
      while place < ranges.count, ranges[place].lowerBound < range.upperBound {
        let one = ranges[place].clamped(to: range)
        clipped.append(one.lowerBound - range.lowerBound..<one.upperBound - range.lowerBound)
        place += 1
      }
      part.origin = clipped.isEmpty ? .program : clipped == [0..<part.count] ? .content : .mixed(clipped)
    }
    return part
  }

  /// The place of the first range that ends after `index`: found by halving, because texts are cut into as many parts as they have ranges.
  private static func firstRange(of ranges: [Range<Int>], endingAfter index: Int) -> Int {
    var (low, high) = (0, ranges.count)
    while low < high {
      let middle = (low + high) / 2
      if ranges[middle].upperBound <= index { low = middle + 1 } else { high = middle }
    }
    return low
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
    run.reserveCapacity(count)
    var runIsContent = false
    func flush(_ result: inout Text) {
      result.append(Text(run, runIsContent ? .content : .program))
      run.removeAll(keepingCapacity: true)
    }
    let contents = contents
    var place = 0
    while index < bytes.count {
      let (scalar, end) = scalar(at: index)
      while place < contents.count, contents[place].upperBound <= index { place += 1 }
      let isContent = place < contents.count && contents[place].lowerBound <= index
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
