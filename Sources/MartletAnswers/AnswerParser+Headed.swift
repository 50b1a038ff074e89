// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Calls that are a name, and JSON behind it.

/// Where the reading of such a call stands.
struct HeadedCall: Sendable {
  enum Phase: Sendable {
    /// Inside of the mark around all calls.
    case section
    /// Behind the mark of a call.
    case opening
    case header
    case arguments
    case after
  }

  /// A name and what stands around it are no longer than this many bytes.
  static let maximumHeaderByteCount = 512

  var phase = Phase.section
  /// Of the header.
  var begin = 0

  init(phase: Phase = .section, begin: Int = 0) {
    self.phase = phase
    self.begin = begin
  }
}

extension AnswerParser {
  mutating func stepHeaded() -> Bool {
    guard case .headed(let syntax) = syntax else { return false }
    switch headed.phase {
    case .section:
      guard nextSolid() != nil else { return isFinal ? fail(at: scan) : false }
      switch match(syntax.open, at: scan) {
      case .whole:
        scan += syntax.open.bytes.count
        headed.phase = .opening
      case .part: return false
      case .none: return fail(at: scan)
      }
    case .opening:
      headed.begin = scan
      headed.phase = .header
      guard syntax.objects != nil else { return true }
      guard let byte = nextSolid() else {
        if isFinal { return fail(at: scan) }
        headed.phase = .opening
        return false
      }
      if byte == UInt8(ascii: "[") || byte == UInt8(ascii: "{") {
        objects = ObjectCalls()
        mode = .objects
      }
    case .header:
      while scan < input.count, input[scan] != UInt8(ascii: "{") {
        if scan - headed.begin >= HeadedCall.maximumHeaderByteCount { return fail(at: scan) }
        scan += 1
      }
      guard scan < input.count else { return isFinal ? fail(at: scan) : false }
      let name = String(decoding: syntax.name(input[headed.begin..<scan]), as: UTF8.self)
      guard tools.offers(name) else { return fail(at: scan) }
      begin(name)
      start = scan
      arguments = JSONScanner()
      headed.phase = .arguments
    case .arguments:
      if let goesOn = stepArguments(closes: syntax.close.map { [$0] } ?? []) { return goesOn }
      headed.phase = .after
    case .after: return stepAfter(syntax)
    }
    return true
  }

  private mutating func stepAfter(_ syntax: CallSyntax.Headed) -> Bool {
    guard nextSolid() != nil else {
      guard isFinal else { return false }
      start = scan
      return endCalls()
    }
    // DeepSeek's arguments stand in a fence.
    let fence = Mark("```")
    var isPossible = false
    for (mark, next) in [
      (fence, HeadedCall.Phase?.some(.after)), (syntax.close, .after), (syntax.open, .opening), (syntax.sectionClose, nil),
    ] {
      guard let mark else { continue }
      switch match(mark, at: scan) {
      case .part: isPossible = true
      case .none: continue
      case .whole:
        scan += mark.bytes.count
        guard next != .opening else {
          // The mark is text again if no call follows.
          headed.phase = .opening
          return true
        }
        start = scan
        guard let next else { return endCalls() }
        headed.phase = next
        return true
      }
    }
    return isPossible ? false : endCalls()
  }
}
