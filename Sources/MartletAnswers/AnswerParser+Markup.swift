// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Calls in markup, with an element for every parameter: values are bare text, and the tool's schema says of which type.

/// Where the reading of such a call stands.
struct MarkupCall: Sendable {
  enum Phase: Sendable {
    /// Inside of the mark around all calls.
    case outer
    case name
    /// Between parameters.
    case body
    case key
    case valueOpening
    case value
    case after
  }

  /// A name or a key is no longer than this many bytes.
  static let maximumNameByteCount = 256

  var phase = Phase.outer
  /// Of the name, the key or the value.
  var begin = 0
  var name = ""
  var hasBegun = false
  var types: [String] = []
  var isString = true
  /// The value's first byte is not read yet.
  var isAtBeginning = true

  init(phase: Phase = .outer, begin: Int = 0) {
    self.phase = phase
    self.begin = begin
  }
}

extension AnswerParser {
  mutating func stepMarkup() -> Bool {
    guard case .markup(let syntax) = syntax else { return false }
    switch markup.phase {
    case .outer:
      guard nextSolid() != nil else { return isFinal ? fail(at: scan) : false }
      switch match(syntax.open, at: scan) {
      case .whole:
        scan += syntax.open.bytes.count
        markup = MarkupCall(phase: .name, begin: scan)
      case .part: return false
      case .none: return fail(at: scan)
      }
      return true
    case .name: return stepName(syntax)
    case .body: return stepBody(syntax)
    case .key: return stepKey(syntax)
    case .valueOpening:
      guard let open = syntax.valueOpen else { return beginValue() }
      guard nextSolid() != nil else { return isFinal ? breakMarkup(syntax) : false }
      switch match(open, at: scan) {
      case .whole:
        scan += open.bytes.count
        return beginValue()
      case .part: return false
      case .none: return breakMarkup(syntax)
      }
    case .value: return markup.isString ? stepString(syntax) : stepTyped(syntax)
    case .after: return stepAfterMarkup(syntax)
    }
  }

  private mutating func stepName(_ syntax: CallSyntax.Markup) -> Bool {
    while scan < input.count {
      if scan - markup.begin > MarkupCall.maximumNameByteCount { return fail(at: scan) }
      let byte = input[scan]
      let isBorder = byte == UInt8(ascii: "\n") || byte == UInt8(ascii: "<")
      if let end = syntax.nameEnd {
        switch match(end, at: scan) {
        case .whole: return endName(scan, behind: scan + end.bytes.count)
        case .part: return false
        case .none: if isBorder { return fail(at: scan) }
        }
      } else if isBorder {
        return endName(scan, behind: scan)
      }
      scan += 1
    }
    return isFinal ? fail(at: scan) : false
  }

  private mutating func endName(_ end: Int, behind: Int) -> Bool {
    markup.name = String(decoding: JSONBytes.trimmed(input[markup.begin..<end]), as: UTF8.self)
    guard tools.offers(markup.name) else { return fail(at: scan) }
    scan = behind
    markup.phase = .body
    return true
  }

  private mutating func stepBody(_ syntax: CallSyntax.Markup) -> Bool {
    guard nextSolid() != nil else {
      guard isFinal else { return false }
      return markup.hasBegun ? breakMarkup(syntax) : fail(at: scan)
    }
    var isPossible = false
    for (mark, isKey) in [(syntax.keyOpen, true), (syntax.close, false), (syntax.outerClose ?? syntax.close, false)] {
      switch match(mark, at: scan) {
      case .part: isPossible = true
      case .none: continue
      case .whole:
        if isKey {
          scan += mark.bytes.count
          markup.begin = scan
          markup.phase = .key
          return true
        }
        if !markup.hasBegun { begin(markup.name) }
        giveArguments((markup.hasBegun ? "}" : "{}").utf8)
        end()
        // The mark around all calls is read again behind the call.
        if mark == syntax.close { scan += mark.bytes.count }
        start = scan
        markup.phase = .after
        return true
      }
    }
    if isPossible { return false }
    return markup.hasBegun ? breakMarkup(syntax) : fail(at: scan)
  }

  private mutating func stepKey(_ syntax: CallSyntax.Markup) -> Bool {
    while scan < input.count {
      if scan - markup.begin > MarkupCall.maximumNameByteCount { return markup.hasBegun ? breakMarkup(syntax) : fail(at: scan) }
      switch match(syntax.keyEnd, at: scan) {
      case .part: return false
      case .none: scan += 1
      case .whole:
        let key = JSONBytes.trimmed(input[markup.begin..<scan])
        markup.types = tools.types(of: String(decoding: key, as: UTF8.self), of: markup.name)
        markup.isString = TypedText.isString(markup.types)
        if !markup.hasBegun { begin(markup.name) }
        giveArguments((markup.hasBegun ? ", " : "{").utf8)
        markup.hasBegun = true
        giveArguments(JSONBytes.quoted(key))
        giveArguments(": ".utf8)
        scan += syntax.keyEnd.bytes.count
        start = scan
        markup.phase = .valueOpening
        return true
      }
    }
    guard isFinal else { return false }
    return markup.hasBegun ? breakMarkup(syntax) : fail(at: scan)
  }

  private mutating func beginValue() -> Bool {
    start = scan
    markup.begin = scan
    markup.isAtBeginning = true
    markup.phase = .value
    if markup.isString { giveArguments("\"".utf8) }
    return true
  }

  /// Streams a string; the newline at its end waits, as it may belong to the mark behind it.
  private mutating func stepString(_ syntax: CallSyntax.Markup) -> Bool {
    var isWhole = false
    search: while scan < input.count {
      if markup.isAtBeginning {
        markup.isAtBeginning = false
        if syntax.trimsNewline, input[scan] == UInt8(ascii: "\n") {
          scan += 1
          start = scan
          continue
        }
      }
      switch match(syntax.valueClose, at: scan) {
      case .whole:
        isWhole = true
        break search
      case .part: break search
      case .none: scan += 1
      }
    }
    var escaped: [UInt8] = []
    let endsInNewline = syntax.trimsNewline && scan > start && input[scan - 1] == UInt8(ascii: "\n")
    let end = endsInNewline && (isWhole || !isFinal) ? scan - 1 : scan
    JSONBytes.appendEscaped(input[start..<max(start, end)], to: &escaped)
    giveArguments(escaped)
    start = max(start, end)
    if isWhole {
      giveArguments("\"".utf8)
      scan += syntax.valueClose.bytes.count
      start = scan
      markup.phase = .body
      return true
    }
    return isFinal ? breakMarkup(syntax) : false
  }

  private mutating func stepTyped(_ syntax: CallSyntax.Markup) -> Bool {
    while scan < input.count {
      switch match(syntax.valueClose, at: scan) {
      case .part: return false
      case .none: scan += 1
      case .whole:
        var value = input[markup.begin..<scan]
        if syntax.trimsNewline {
          if value.first == UInt8(ascii: "\n") { value = value.dropFirst() }
          if value.last == UInt8(ascii: "\n") { value = value.dropLast() }
        }
        giveArguments(TypedText.json(value, types: markup.types))
        scan += syntax.valueClose.bytes.count
        start = scan
        markup.phase = .body
        return true
      }
    }
    guard isFinal else { return false }
    giveArguments(input[start..<scan])
    start = scan
    return breakMarkup(syntax)
  }

  private mutating func breakMarkup(_ syntax: CallSyntax.Markup) -> Bool { breakOff(closes: [syntax.close]) }

  private mutating func stepAfterMarkup(_ syntax: CallSyntax.Markup) -> Bool {
    guard let outer = syntax.outerClose else { return endCalls() }
    guard nextSolid() != nil else {
      guard isFinal else { return false }
      start = scan
      return endCalls()
    }
    switch (match(outer, at: scan), match(syntax.open, at: scan)) {
    case (.whole, _):
      start = scan + outer.bytes.count
      return endCalls()
    case (_, .whole):
      scan += syntax.open.bytes.count
      markup = MarkupCall(phase: .name, begin: scan)
      return true
    case (.part, _), (_, .part): return false
    default: return endCalls()
    }
  }
}
