// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletFormats
// The standard library normalises for `String`'s own comparisons and keeps the functions behind this name; a copy of Unicode's tables would be
// the alternative, as Foundation may not be imported on this floor.
@_spi(_Unicode) import Swift

/// What `tokenizer.json` does to a text before it is cut: its `normalizer`, step by step.
struct TextNormalizer: Sendable {
  enum Step: Sendable {
    case nfc, nfd, compatibility, lowercase, stripAccents, nmt
    /// BERT's: characters that are left out, and spaces; ideographs as words of their own; nonspacing marks left out.
    case cleanText, separateIdeographs, stripNonspacingMarks
    case prepend([UInt8])
    case replace(TextSplitter.Pattern, [UInt8])
    case strip(left: Bool, right: Bool)
    case precompiled(CharacterMap)
  }

  private var steps: [Step] = []

  /// How many times as long a file may make a text: what no tokenizer needs would let a small file fill the memory.
  private static let mostGrowth = 1024

  private static let supported = [
    "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "Prepend", "Replace", "Strip", "Precompiled", "BertNormalizer",
    "Sequence",
  ]

  /// - Parameter field: `normalizer`; missing, nothing is changed.
  init(_ field: JSONField) throws(TokenizerError) {
    var growth = 1
    for part in try field.sequence("normalizers") {
      let type = try part["type"].string()
      switch type {
      case "NFC": steps.append(.nfc)
      case "NFD": steps.append(.nfd)
      case "NFKC", "NFKD":
        growth = growth &* CompatibilityForms.mostGrowth
        steps += [.compatibility, type == "NFKC" ? .nfc : .nfd]
      case "Lowercase": steps.append(.lowercase)
      case "StripAccents": steps.append(.stripAccents)
      case "Nmt": steps.append(.nmt)
      case "BertNormalizer":
        steps += Self.bertSteps(
          cleans: try part["clean_text"].bool(or: true), separatesIdeographs: try part["handle_chinese_chars"].bool(or: true),
          stripsAccents: try part["strip_accents"].boolIfPresent(), lowercase: try part["lowercase"].bool(or: true))
      case "Strip": steps.append(.strip(left: try part["strip_left"].bool(or: true), right: try part["strip_right"].bool(or: true)))
      case "Prepend":
        let text = try part["prepend"].bytes()
        guard text.count <= 64 else { throw part["prepend"].malformed("has \(text.count) bytes") }
        steps.append(.prepend(text))
      case "Replace":
        let content = try part["content"].bytes()
        growth = growth &* max(1, content.count)
        steps.append(.replace(try part["pattern"].pattern(), content))
      case "Precompiled":
        let map = part["precompiled_charsmap"]
        guard let bytes = decodeBase64(try map.bytes()) else { throw map.malformed("is not base64") }
        // An empty map maps nothing.
        if !bytes.isEmpty {
          let map = try CharacterMap(bytes, field: map.name)
          growth = growth &* map.longestReplacement
          steps.append(.precompiled(map))
        }
      default: throw part["type"].unsupported(type, supported: Self.supported)
      }
      guard growth <= Self.mostGrowth else { throw part.malformed("would make a text more than \(Self.mostGrowth) times as long") }
    }
  }

  /// BERT's, as GGUF files have it.
  init(bertLowercase lowercase: Bool, stripsAccents: Bool?) {
    steps = Self.bertSteps(cleans: true, separatesIdeographs: true, stripsAccents: stripsAccents, lowercase: lowercase)
  }

  /// - Parameter stripsAccents: nil: where letters become small ones.
  private static func bertSteps(cleans: Bool, separatesIdeographs: Bool, stripsAccents: Bool?, lowercase: Bool) -> [Step] {
    var steps: [Step] = []
    if cleans { steps.append(.cleanText) }
    if separatesIdeographs { steps.append(.separateIdeographs) }
    if stripsAccents ?? lowercase { steps += [.nfd, .stripNonspacingMarks] }
    if lowercase { steps.append(.lowercase) }
    return steps
  }

  func normalized(_ text: [UInt8]) -> [UInt8] { normalized(MarkedBytes(text)).bytes }

  func normalized(_ text: MarkedBytes) -> MarkedBytes {
    var text = text
    for step in steps {
      var rewriting = MarkedRewriting(text)
      Self.apply(step, text.bytes, &rewriting)
      text = rewriting.result
    }
    return text
  }

  private static func apply(_ step: Step, _ text: [UInt8], _ result: inout MarkedRewriting) {
    switch step {
    case .nfc: normalize(text, &result) { Array($0._nfc) }
    case .nfd: normalize(text, &result) { Array($0._nfd) }
    case .compatibility:
      forEachScalar(of: text) { scalar, range in
        if let form = CompatibilityForms.shared[scalar] { result.replace(range, with: form) } else { result.copy(range) }
      }
    case .lowercase:
      // Scalar by scalar: a final sigma is like any other.
      forEachScalar(of: text) { scalar, range in
        if scalar.isASCII && !("A"..."Z").contains(scalar) {
          result.copy(range)
        } else {
          result.replace(range, with: scalar.properties.lowercaseMapping.utf8)
        }
      }
    case .stripAccents:
      forEachScalar(of: text) { scalar, range in
        if scalar.isASCII || CharacterProperties(scalar).isDisjoint(with: .mark) { result.copy(range) }
      }
    case .stripNonspacingMarks:
      forEachScalar(of: text) { scalar, range in
        if scalar.isASCII || !BertCharacters.isAccent(scalar) { result.copy(range) }
      }
    case .cleanText:
      forEachScalar(of: text) { scalar, range in
        if BertCharacters.isLeftOut(scalar) { return }
        if scalar != " ", scalar.properties.isWhitespace {
          result.replace(range, with: CollectionOfOne(UInt8(ascii: " ")))
        } else {
          result.copy(range)
        }
      }
    case .separateIdeographs:
      forEachScalar(of: text) { scalar, range in
        if scalar.isASCII || !BertCharacters.isIdeograph(scalar) { return result.copy(range) }
        result.replace(range, with: [UInt8(ascii: " ")] + text[range] + [UInt8(ascii: " ")])
      }
    case .nmt:
      forEachScalar(of: text) { scalar, range in
        switch scalar.value {
        // Control characters go, and what else divides words is a space.
        case 0x01...0x08, 0x0B, 0x0E...0x1F, 0x7F, 0x8F, 0x9F: break
        case 0x09, 0x0A, 0x0C, 0x0D, 0x1680, 0x200B...0x200F, 0x2028, 0x2029, 0x2581, 0xFEFF, 0xFFFD:
          result.replace(range, with: CollectionOfOne(UInt8(ascii: " ")))
        default: result.copy(range)
        }
      }
    case .prepend(let prefix):
      if !text.isEmpty { result.replace(0..<0, with: prefix) }
      result.copy(0..<text.count)
    case .replace(let pattern, let content):
      pattern.forEachPart(in: text, 0..<text.count) { part, isMatch in
        if isMatch { result.replace(part, with: content) } else { result.copy(part) }
      }
    case .strip(let left, let right): result.copy(stripped(text, left: left, right: right))
    case .precompiled(let map): write(text, mappedBy: map, to: &result)
    }
  }

  private static func forEachScalar(of text: [UInt8], _ body: (Unicode.Scalar, Range<Int>) -> Void) {
    var position = 0
    while position < text.count {
      let character = ScannedCharacter(text, at: position)
      body(Unicode.Scalar(character.scalar)!, position..<character.end)
      position = character.end
    }
  }

  /// Writes `text` in a normal form, from one ASCII character to the next: no form joins one to what is before it.
  private static func normalize(_ text: [UInt8], _ result: inout MarkedRewriting, _ form: (String) -> [Unicode.Scalar]) {
    var start = 0
    while start < text.count {
      // A run of ASCII is as it is, but for its last character, which marks may follow.
      var ascii = start
      while ascii < text.count, text[ascii] < 0x80 { ascii += 1 }
      if ascii == text.count { return result.copy(start..<ascii) }
      if start < ascii - 1 { result.copy(start..<ascii - 1) }
      let first = max(start, ascii - 1)
      var end = ascii
      while end < text.count, text[end] >= 0x80 { end += 1 }
      let bytes = encoded(form(String(decoding: text[first..<end], as: UTF8.self)))
      replace(first..<end, of: text, with: bytes, &result)
      start = end
    }
  }

  /// Replaces no more than what differs, so that what only stands beside it keeps its marks.
  private static func replace(_ range: Range<Int>, of text: [UInt8], with bytes: [UInt8], _ result: inout MarkedRewriting) {
    let (lower, upper) = (range.lowerBound, range.upperBound)
    var prefix = 0
    while prefix < min(range.count, bytes.count), text[lower + prefix] == bytes[prefix] { prefix += 1 }
    var suffix = 0
    while suffix < min(range.count, bytes.count) - prefix, text[upper - 1 - suffix] == bytes[bytes.count - 1 - suffix] { suffix += 1 }
    if prefix > 0 { result.copy(lower..<lower + prefix) }
    if prefix + suffix < max(range.count, bytes.count) {
      result.replace(lower + prefix..<upper - suffix, with: bytes[prefix..<bytes.count - suffix])
    }
    if suffix > 0 { result.copy(upper - suffix..<upper) }
  }

  private static func encoded(_ scalars: some Sequence<Unicode.Scalar>) -> [UInt8] {
    var bytes: [UInt8] = []
    for scalar in scalars { bytes += UTF8.encode(scalar)! }
    return bytes
  }

  /// What white space at the ends leaves.
  private static func stripped(_ text: [UInt8], left: Bool, right: Bool) -> Range<Int> {
    var (start, end) = (0, text.count)
    while left, start < end {
      let character = ScannedCharacter(text, at: start)
      guard character.properties.contains(.space) else { break }
      start = character.end
    }
    while right, end > start {
      var last = end - 1
      while last > start, text[last] & 0xC0 == 0x80 { last -= 1 }
      guard ScannedCharacter(text, at: last).properties.contains(.space) else { break }
      end = last
    }
    return start..<end
  }

  /// As the `tokenizers` package maps: a short user-perceived character as a whole by the shortest key that it begins with, else scalar by scalar.
  /// (SentencePiece takes the longest key at each place.)
  private static func write(_ text: [UInt8], mappedBy map: CharacterMap, to result: inout MarkedRewriting) {
    var position = 0
    for character in String(decoding: text, as: UTF8.self) {
      let whole = position..<position + character.utf8.count
      position = whole.upperBound
      if whole.count < 6, let (bytes, _) = map.replacement(text, at: whole.lowerBound, end: whole.upperBound, shortest: true) {
        result.replace(whole, with: bytes)
        continue
      }
      var start = whole.lowerBound
      while start < whole.upperBound {
        let one = start..<start + scalarByteCount(lead: text[start])
        if let (bytes, _) = map.replacement(text, at: one.lowerBound, end: one.upperBound, shortest: true) {
          result.replace(one, with: bytes)
        } else {
          result.copy(one)
        }
        start = one.upperBound
      }
    }
  }
}

/// Decodes base64 (RFC 4648) with or without its padding; nil if it is something else.
func decodeBase64(_ text: [UInt8]) -> [UInt8]? {
  var bytes: [UInt8] = []
  bytes.reserveCapacity(text.count / 4 * 3)
  var (bits, count): (UInt32, Int) = (0, 0)
  var end = text.count
  while end > 0, text[end - 1] == UInt8(ascii: "=") { end -= 1 }
  guard text.count - end <= 2, end % 4 != 1 else { return nil }
  for byte in text[..<end] {
    let value: UInt8
    switch byte {
    case UInt8(ascii: "A")...UInt8(ascii: "Z"): value = byte - UInt8(ascii: "A")
    case UInt8(ascii: "a")...UInt8(ascii: "z"): value = byte - UInt8(ascii: "a") + 26
    case UInt8(ascii: "0")...UInt8(ascii: "9"): value = byte - UInt8(ascii: "0") + 52
    case UInt8(ascii: "+"): value = 62
    case UInt8(ascii: "/"): value = 63
    default: return nil
    }
    bits = bits << 6 | UInt32(value)
    count += 6
    if count >= 8 {
      count -= 8
      bytes.append(UInt8(truncatingIfNeeded: bits >> UInt32(count)))
    }
  }
  return bytes
}

extension JSONField {
  /// The text of `{"String": …}`; nil for another kind of pattern.
  func literal() throws(TokenizerError) -> [UInt8]? {
    let text = self["String"]
    guard text.value != nil else { return nil }
    let bytes = try text.bytes()
    guard !bytes.isEmpty, bytes.count <= 256 else { throw text.malformed("has \(bytes.count) bytes") }
    return bytes
  }

  /// `{"String": …}` or `{"Regex": …}`.
  func pattern() throws(TokenizerError) -> TextSplitter.Pattern {
    if let text = try literal() { return .text(text) }
    let expression = try self["Regex"].string()
    do { return .words(try WordPattern(expression)) } catch {
      throw .unsupportedPart(
        field: self["Regex"].name, found: error.alternative,
        supported: ["words of letters, marks, digits and spaces as the known models cut them"])
    }
  }
}
