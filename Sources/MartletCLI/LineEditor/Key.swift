// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// What a person did at the keyboard, free of how terminals write it.
package enum Key: Sendable, Hashable {
  /// Typed text; never a control character but the tab.
  case text(String)
  /// Text that came in one piece, marked as such by the terminal; its lines end in line feeds.
  case paste(String)
  case enter
  /// A line feed inside of the text (Alt-Enter).
  case newline
  case tab
  case left, right, up, down, home, end
  case wordLeft, wordRight
  case backspace, delete
  case killWordLeft, killWordRight, killToStart, killToEnd
  case yank, transpose
  /// Ctrl-P and Ctrl-N: an earlier or a later line, wherever the cursor is.
  case earlier, later
  case search
  case clearScreen
  case interrupt
  /// Ctrl-D: deletes forwards, or ends the input where there is nothing to delete.
  case endOfInput
  case suspend
  case escape
}

/// Makes keys of the bytes that a terminal sends, however they are cut into pieces.
package struct KeyDecoder: Sendable {
  private var bytes: [UInt8] = []
  /// Inside of a paste: what has come of it.
  private var pasted: [UInt8]?

  private static let pasteBegin = Array("\u{1B}[200~".utf8)
  private static let pasteEnd = Array("\u{1B}[201~".utf8)
  /// The longest escape sequence that is waited for; what is longer is no key.
  private static let longestSequence = 32

  package init() {}

  /// Whether bytes wait for more, so that an escape alone cannot be told from the beginning of a sequence.
  package var isIncomplete: Bool { !bytes.isEmpty || pasted != nil }

  /// Whether a paste has begun and not ended.
  package var isInPaste: Bool { pasted != nil }

  /// The keys that are whole now.
  package mutating func decode(_ new: some Sequence<UInt8>) -> [Key] {
    bytes += new
    return keys(isLast: false)
  }

  /// Takes what waits for more as it is, a paste without its end too: nothing has come for a while.
  package mutating func flush() -> [Key] {
    var keys = keys(isLast: true)
    if let text = pasted {
      // What else there is would be the beginning of the end mark.
      pasted = nil
      bytes = []
      keys.append(.paste(Self.clean(String(decoding: text, as: UTF8.self))))
    }
    return keys
  }

  private mutating func keys(isLast: Bool) -> [Key] {
    var keys: [Key] = []
    var place = 0
    while place < bytes.count {
      if pasted != nil {
        guard let end = takePaste(from: &place) else { break }
        keys.append(end)
        continue
      }
      guard let (key, count) = next(at: place, isLast: isLast) else { break }
      place += count
      guard let key else { continue }
      if case .text(let text) = key, case .text(let before)? = keys.last {
        keys[keys.count - 1] = .text(before + text)
      } else {
        keys.append(key)
      }
    }
    bytes.removeFirst(place)
    return keys
  }

  /// Takes bytes up to the end of the paste; nil where that has not come yet.
  private mutating func takePaste(from place: inout Int) -> Key? {
    var rest = bytes[place...]
    var end: Int?
    while let escape = rest.firstIndex(of: Self.pasteEnd[0]) {
      let tail = bytes[escape...].prefix(Self.pasteEnd.count)
      if tail.elementsEqual(Self.pasteEnd) {
        end = escape
        break
      }
      // The mark itself may have come in part.
      if Self.pasteEnd.starts(with: tail) { break }
      rest = bytes[(escape + 1)...]
    }
    guard let end else {
      // All but what may be the beginning of the mark.
      let kept = (0..<Self.pasteEnd.count).reversed().first { bytes[place...].suffix($0).elementsEqual(Self.pasteEnd.prefix($0)) } ?? 0
      let stop = max(place, bytes.count - kept)
      pasted? += bytes[place..<stop]
      place = stop
      return nil
    }
    let text = (pasted ?? []) + bytes[place..<end]
    pasted = nil
    place = end + Self.pasteEnd.count
    return .paste(Self.clean(String(decoding: text, as: UTF8.self)))
  }

  /// Line ends as line feeds, and no other control characters: shown as they are, they would command the terminal.
  package static func clean(_ text: String) -> String {
    var result = String.UnicodeScalarView()
    var wasReturn = false
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\r": result.append("\n")
      case "\n": if !wasReturn { result.append("\n") }
      case "\t": result.append("\t")
      default: if scalar.properties.generalCategory != .control { result.append(scalar) }
      }
      wasReturn = scalar == "\r"
    }
    return String(result)
  }

  /// The key at a place and how many bytes it takes; nil where it is not whole. A key that is none of ours is nil too.
  private mutating func next(at place: Int, isLast: Bool) -> (key: Key?, count: Int)? {
    let byte = bytes[place]
    if byte == 0x1B { return sequence(at: place, isLast: isLast) }
    if byte < 0x20 || byte == 0x7F { return (Self.control(byte), 1) }
    let count = byte < 0x80 ? 1 : byte < 0xC0 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4
    let piece = bytes[place...].prefix(count)
    if piece.count < count && !isLast && piece.dropFirst().allSatisfy({ $0 & 0xC0 == 0x80 }) { return nil }
    guard let text = String(validating: piece, as: UTF8.self) else { return (nil, 1) }
    return (Self.clean(text).isEmpty ? nil : .text(text), count)
  }

  private static func control(_ byte: UInt8) -> Key? {
    switch byte {
    case 0x01: .home  // A
    case 0x02: .left  // B
    case 0x03: .interrupt
    case 0x04: .endOfInput
    case 0x05: .end  // E
    case 0x06: .right  // F
    case 0x07: .escape  // G
    case 0x08, 0x7F: .backspace
    case 0x09: .tab
    case 0x0A, 0x0D: .enter
    case 0x0B: .killToEnd  // K
    case 0x0C: .clearScreen  // L
    case 0x0E: .later  // N
    case 0x10: .earlier  // P
    case 0x12: .search  // R
    case 0x14: .transpose  // T
    case 0x15: .killToStart  // U
    case 0x17: .killWordLeft  // W
    case 0x19: .yank  // Y
    case 0x1A: .suspend
    default: nil
    }
  }

  /// What begins with an escape.
  private mutating func sequence(at place: Int, isLast: Bool) -> (key: Key?, count: Int)? {
    let rest = bytes[place...].prefix(Self.longestSequence)
    guard rest.count > 1 else { return isLast ? (.escape, 1) : nil }
    let second = rest[place + 1]
    switch second {
    case UInt8(ascii: "["), UInt8(ascii: "O"):
      // Parameters and what stands between, up to the letter or tilde that ends them.
      guard let end = rest.dropFirst(2).firstIndex(where: { !(0x20...0x3F).contains($0) }) else {
        if rest.count == Self.longestSequence { return (nil, rest.count) }
        return isLast ? (rest.count == 2 ? .escape : nil, rest.count) : nil
      }
      if rest[place..<end + 1].elementsEqual(Self.pasteBegin) {
        pasted = []
        return (nil, end + 1 - place)
      }
      // A control character inside is a key of its own, and ends what is no sequence.
      if rest[end] < 0x20 { return (nil, end - place) }
      return (Self.key(parameters: String(decoding: rest[(place + 2)..<end], as: UTF8.self), final: rest[end]), end + 1 - place)
    case 0x0D, 0x0A: return (.newline, 2)
    case 0x7F, 0x08: return (.killWordLeft, 2)
    case UInt8(ascii: "b"): return (.wordLeft, 2)
    case UInt8(ascii: "f"): return (.wordRight, 2)
    case UInt8(ascii: "d"): return (.killWordRight, 2)
    case 0x1B: return (.escape, 1)
    default: return (nil, second < 0x80 ? 2 : 1)
    }
  }

  /// `ESC [ parameters final`, as xterm and those that follow it write keys.
  private static func key(parameters: String, final: UInt8) -> Key? {
    let numbers = parameters.split(separator: ";", omittingEmptySubsequences: false).map { Int($0) }
    let first = numbers.first ?? nil
    // Shift is 1, Alt 2, Ctrl 4, and one is added.
    let isByWord = numbers.count > 1 && ((numbers[1] ?? 1) - 1) & 6 != 0
    switch final {
    case UInt8(ascii: "A"): return .up
    case UInt8(ascii: "B"): return .down
    case UInt8(ascii: "C"): return isByWord ? .wordRight : .right
    case UInt8(ascii: "D"): return isByWord ? .wordLeft : .left
    case UInt8(ascii: "H"): return .home
    case UInt8(ascii: "F"): return .end
    case UInt8(ascii: "M"): return parameters.isEmpty ? .enter : nil  // of the keypad; with parameters a mouse's
    case UInt8(ascii: "~"):
      switch first {
      case 1, 7: return .home
      case 4, 8: return .end
      case 3: return isByWord ? .killWordRight : .delete
      default: return nil
      }
    default: return nil
    }
  }
}
