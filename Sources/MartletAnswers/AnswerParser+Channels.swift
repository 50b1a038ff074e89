// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Answers in messages with headers, as gpt-oss writes them: `<|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…`

/// Where the reading of such messages stands.
struct Channels: Sendable {
  enum Phase: Sendable {
    /// Where a header may begin.
    case beginning
    case header
    case body(AnswerParser.Output.Kind)
    /// The message is text, its marks included.
    case raw
    /// Before the arguments of a call.
    case call(String)
    case arguments
    case after
    /// Text without a header.
    case plain
  }

  /// What a header says of its message.
  enum Destination: Sendable, Equatable {
    case content, reasoning
    case tool(String)
  }

  static let maximumHeaderByteCount = 512
  static let (channel, message, start, constrain, recipient) =
    (Mark("<|channel|>"), Mark("<|message|>"), Mark("<|start|>"), Mark("<|constrain|>"), Mark("to="))
  static let ends = [Mark("<|end|>"), Mark("<|call|>"), Mark("<|return|>")]

  var phase = Phase.beginning
  /// What the prompt says of the header already.
  var header: [UInt8] = []
  var parsesReasoning = true

  init() {}

  init(promptEnd: String, parsesReasoning: Bool) {
    self.parsesReasoning = parsesReasoning
    var rest = Array(promptEnd.utf8)[...]
    while let place = Self.start.first(in: rest) { rest = rest[(place + Self.start.bytes.count)...] }
    guard rest.count < promptEnd.utf8.count else { return }
    if let place = Self.message.first(in: rest) {
      // The prompt has begun the message.
      if Self.ends.allSatisfy({ $0.first(in: rest) == nil }) { phase = phase(of: Self.destination(rest[..<place])) }
    } else {
      header = Array(rest)
      if Self.channel.first(in: rest) != nil || Self.recipient.first(in: rest) != nil { phase = .header }
    }
  }

  func phase(of destination: Destination) -> Phase {
    switch destination {
    case .content: .body(.content)
    case .reasoning: parsesReasoning ? .body(.reasoning) : .raw
    case .tool(let name): .call(name)
    }
  }

  static func destination(_ header: ArraySlice<UInt8>) -> Destination {
    func word(behind mark: Mark) -> String? {
      guard let place = mark.first(in: header) else { return nil }
      let rest = header[(place + mark.bytes.count)...].drop { JSONBytes.isBlank($0) }
      return String(decoding: rest.prefix { !JSONBytes.isBlank($0) && $0 != UInt8(ascii: "<") }, as: UTF8.self)
    }
    if let recipient = word(behind: recipient), !recipient.isEmpty, recipient != "user", recipient != "assistant" {
      return .tool(recipient)
    }
    return word(behind: channel) == "analysis" ? .reasoning : .content
  }
}

extension AnswerParser {
  mutating func stepChannels() -> Bool {
    switch channels.phase {
    case .beginning:
      guard nextSolid() != nil else {
        if isFinal { give(.content, to: scan) }
        return false
      }
      var isPossible = false
      for mark in [Channels.channel, Channels.message, Channels.start, Channels.constrain, Channels.recipient] {
        switch match(mark, at: scan) {
        case .whole:
          channels.phase = .header
          return true
        case .part: isPossible = true
        case .none: break
        }
      }
      if isPossible { return false }
      scan = start
      channels.phase = .plain
      return true
    case .header: return stepHeader()
    case .body(let kind): return stepMessage(kind, isRaw: false)
    case .raw: return stepMessage(.content, isRaw: true)
    case .call(let name): return stepCall(name)
    case .arguments:
      if let goesOn = stepArguments(closes: Channels.ends) { return goesOn }
      channels.phase = .after
      return true
    case .after:
      guard nextSolid() != nil else { return false }
      // Whatever stands behind the arguments is no part of them.
      channels.phase = .body(.content)
      start = scan
      return true
    case .plain:
      while scan < input.count {
        switch (match(Channels.channel, at: scan), match(Channels.start, at: scan)) {
        case (.whole, _), (_, .whole):
          give(.content, to: scan)
          channels.phase = .header
          return true
        case (.part, _), (_, .part):
          give(.content, to: scan)
          return false
        default: scan += 1
        }
      }
      give(.content, to: scan)
      return false
    }
  }

  private mutating func stepHeader() -> Bool {
    while scan < input.count, scan - start <= Channels.maximumHeaderByteCount {
      switch match(Channels.message, at: scan) {
      case .part: return false
      case .none: scan += 1
      case .whole:
        let header = channels.header + input[start..<scan]
        channels.header = []
        scan += Channels.message.bytes.count
        let destination = Channels.destination(header[...])
        channels.phase = channels.phase(of: destination)
        switch channels.phase {
        case .call(let recipient):
          guard let name = offered(recipient) else {
            channels.phase = .raw
            break
          }
          // The header is text again if no arguments follow.
          channels.phase = .call(name)
        case .raw: break
        default: start = scan
        }
        return true
      }
    }
    guard isFinal || scan - start > Channels.maximumHeaderByteCount else { return false }
    give(.content, to: scan)
    channels.phase = .plain
    return true
  }

  /// A tool of the request has its name behind `functions.`, one of the model's own stands alone.
  private func offered(_ recipient: String) -> String? {
    let prefix = "functions."
    let name = recipient.utf8.starts(with: prefix.utf8) ? String(recipient.dropFirst(prefix.count)) : recipient
    return tools.offers(name) ? name : tools.offers(recipient) ? recipient : nil
  }

  /// - Parameter isRaw: the mark at the end is text too.
  private mutating func stepMessage(_ kind: Output.Kind, isRaw: Bool) -> Bool {
    while scan < input.count {
      var isPossible = false
      for mark in Channels.ends + [Channels.start] where mark.bytes[0] == input[scan] {
        switch match(mark, at: scan) {
        case .part: isPossible = true
        case .none: continue
        case .whole:
          let end = scan + (mark == Channels.start ? 0 : mark.bytes.count)
          give(kind, to: isRaw ? end : scan)
          start = end
          return endMessage()
        }
      }
      if isPossible { break }
      scan += 1
    }
    give(kind, to: scan)
    return false
  }

  private mutating func stepCall(_ name: String) -> Bool {
    guard let byte = nextSolid() else {
      if isFinal { give(.content, to: scan) }
      return false
    }
    let ends = Channels.ends.map { match($0, at: scan) }
    if byte == UInt8(ascii: "{") || ends.contains(.whole) {
      begin(offered(name) ?? name)
      start = scan
      arguments = JSONScanner()
      channels.phase = .arguments
      if byte != UInt8(ascii: "{") {
        giveArguments("{}".utf8)
        end()
        channels.phase = .after
      }
      return true
    }
    if ends.contains(.part) { return false }
    channels.phase = .raw
    return true
  }

  /// The next message may begin.
  mutating func endMessage() -> Bool {
    skip(to: start)
    mode = .channels
    channels.phase = .beginning
    return true
  }
}
