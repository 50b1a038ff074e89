// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletFormats
// The standard library normalises for `String`'s own comparisons and keeps the functions behind this name; a copy of Unicode's tables would be
// the alternative, as Foundation may not be imported on this floor.
@_spi(_Unicode) import Swift

/// What `tokenizer.json` does to a text before it is cut: its `normalizer`, step by step.
struct TextNormalizer: Sendable {
  enum Step: Sendable {
    case nfc, nfd, lowercase
    case prepend([UInt8])
    case replace(TextSplitter.Pattern, [UInt8])
    case strip(left: Bool, right: Bool)
    case precompiled(CharacterMap)
  }

  private var steps: [Step] = []

  /// How many times as long a file may make a text: what no tokenizer needs would let a small file fill the memory.
  private static let mostGrowth = 1024

  private static let supported = ["NFC", "NFD", "Lowercase", "Prepend", "Replace", "Strip", "Precompiled", "Sequence"]

  /// - Parameter field: `normalizer`; missing, nothing is changed.
  init(_ field: JSONField) throws(TokenizerError) {
    var growth = 1
    for part in try field.sequence("normalizers") {
      let type = try part["type"].string()
      switch type {
      case "NFC": steps.append(.nfc)
      case "NFD": steps.append(.nfd)
      case "Lowercase": steps.append(.lowercase)
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

  func normalized(_ text: ArraySlice<UInt8>) -> [UInt8] {
    var bytes = Array(text)
    for step in steps { bytes = Self.apply(step, bytes) }
    return bytes
  }

  private static func apply(_ step: Step, _ text: [UInt8]) -> [UInt8] {
    switch step {
    case .nfc: text.allSatisfy { $0 < 0x80 } ? text : encoded(String(decoding: text, as: UTF8.self)._nfc)
    case .nfd: text.allSatisfy { $0 < 0x80 } ? text : encoded(String(decoding: text, as: UTF8.self)._nfd)
    case .lowercase:
      // Scalar by scalar: a final sigma is like any other.
      Array(String(decoding: text, as: UTF8.self).unicodeScalars.map(\.properties.lowercaseMapping).joined().utf8)
    case .prepend(let prefix): text.isEmpty ? text : prefix + text
    case .replace(let pattern, let content): replacing(pattern, with: content, in: text)
    case .strip(let left, let right): stripped(text, left: left, right: right)
    case .precompiled(let map): mapped(text, map)
    }
  }

  private static func encoded(_ scalars: some Sequence<Unicode.Scalar>) -> [UInt8] {
    var bytes: [UInt8] = []
    for scalar in scalars { bytes += UTF8.encode(scalar)! }
    return bytes
  }

  private static func replacing(_ pattern: TextSplitter.Pattern, with content: [UInt8], in text: [UInt8]) -> [UInt8] {
    var result: [UInt8] = []
    result.reserveCapacity(text.count)
    pattern.forEachPart(in: text, 0..<text.count) { part, isMatch in
      if isMatch { result += content } else { result += text[part] }
    }
    return result
  }

  private static func stripped(_ text: [UInt8], left: Bool, right: Bool) -> [UInt8] {
    let isSpace = { (scalar: Unicode.Scalar) in scalar.properties.isWhitespace }
    var scalars = Substring(String(decoding: text, as: UTF8.self)).unicodeScalars
    if left { scalars = scalars.drop(while: isSpace) }
    if right { while let last = scalars.last, isSpace(last) { scalars.removeLast() } }
    return Array(String(scalars).utf8)
  }

  /// As the `tokenizers` package maps: a short user-perceived character as a whole by the shortest key that it begins with, else scalar by scalar.
  /// (SentencePiece takes the longest key at each place.)
  private static func mapped(_ text: [UInt8], _ map: CharacterMap) -> [UInt8] {
    var result: [UInt8] = []
    result.reserveCapacity(text.count)
    for character in String(decoding: text, as: UTF8.self) {
      let whole = Array(character.utf8)
      if whole.count < 6, let (bytes, _) = map.replacement(whole, at: 0, end: whole.count, shortest: true) {
        result += bytes
        continue
      }
      for scalar in character.unicodeScalars {
        let one = Array(UTF8.encode(scalar)!)
        if let (bytes, _) = map.replacement(one, at: 0, end: one.count, shortest: true) { result += bytes } else { result += one }
      }
    }
    return result
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
