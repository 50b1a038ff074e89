// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletTemplates

/// Reads what a model writes while it writes it: what it thinks, what it says, and which tools it wants called.
///
/// ```swift
/// var parser = AnswerParser(format: format, tools: tools, promptEnd: String(prompt.suffix(200)))
/// for try await chunk in generation {
///   for part in parser.append(chunk.text) { … }
/// }
/// for part in parser.finish() { … }
/// ```
///
/// Every part comes as soon as it is certain. The parts do not depend on how the text is cut into pieces, but for their own cuts. What is held
/// back is what may still be the beginning of a mark, newlines that a mark may follow, and a call until its name is known to be one of a tool
/// that was offered.
///
/// **Text that is no call stays text**, byte for byte: a mark without a call behind it, a call of a tool that was not offered, a call that is cut
/// off before its name and the beginning of its arguments are known. From then on it is a call, whatever follows: if its JSON breaks, or the answer
/// ends in it, the rest is passed on as it stands and the call ends with ``AnswerPart/callBroke(index:)``. The arguments' whole JSON makes a call
/// whole; a closing mark that is missing behind it changes nothing.
///
/// **Newlines around marks** belong to the marks, as templates write them: those at both ends of the reasoning, those between it and the content,
/// and those between the content and a call. Calls inside of the reasoning are reasoning.
///
/// Takes time in proportion to the text, and no text is an error.
public struct AnswerParser: Sendable {
  enum Mode: Sendable { case text, reasoning, objects, headed, markup, whole, channels, broken }

  /// What a mark in the content begins.
  enum Opening: Sendable { case reasoning, ignored, objects, section, headed, markup, markupCall, whole }

  let tools: OfferedTools
  let syntax: CallSyntax
  private let reasoningOpen: Mark?
  private let reasoningClose: Mark?
  private let openings: [(mark: Mark, opening: Opening)]
  private let opensBare: Bool
  private let holdsNewlines: Bool

  /// What is not given out yet begins at `start`, and what was not looked at yet at `scan`; everything before `start` is done with.
  var input: [UInt8] = []
  var start = 0
  var scan = 0
  /// How many bytes of the text stood before `input`.
  private var before = 0
  /// Where in the text the content stands that the last piece made certain, in bytes from the text's beginning.
  package private(set) var contentRanges: [Range<Int>] = []
  /// No more text comes.
  var isFinal = false
  var output = Output()
  var mode = Mode.text

  /// Behind the last byte of the text that is no newline, if that lies behind `start`.
  private var solid = 0
  /// Something was said that is no blank, since the beginning, the reasoning or the last call.
  private var hasContent = false
  private var followsCall = false
  /// Newlines here belong to the mark before them.
  private var trimsNewlines = false
  /// The model may write the mark again that the prompt ended with.
  private var mayRepeatOpen = false

  /// How many calls have begun.
  var callCount = 0
  var objects = ObjectCalls()
  var headed = HeadedCall()
  var markup = MarkupCall()
  var channels = Channels()
  /// Of the JSON behind a call's name, where it is given as it stands.
  var arguments = JSONScanner()
  /// Where a broken call ends.
  var brokenCloses: [Mark] = []

  /// - Parameters:
  ///   - format: how the model writes.
  ///   - tools: the request's, as OpenAI's API describes them. Without any, no call is read and the marks of calls are text.
  ///   - promptEnd: the last few hundred characters of the prompt, or all of it: it may already have begun the reasoning, as many templates do.
  ///   - parsesReasoning: whether reasoning is set apart; if not, it is content, with its marks.
  public init(format: AnswerFormat, tools: [JSON] = [], promptEnd: String = "", parsesReasoning: Bool = true) {
    self.tools = OfferedTools(tools)
    syntax = self.tools.isEmpty && format.toolCalls != .channels ? .none : CallSyntax(format.toolCalls)
    var openings: [(mark: Mark, opening: Opening)] = []
    var opensBare = false
    switch syntax {
    case .none, .channels: break
    case .objects(let syntax):
      openings += syntax.opens.map { ($0, .objects) }
      opensBare = syntax.isBare
    case .headed(let syntax):
      if let open = syntax.sectionOpen { openings.append((open, .section)) }
      openings.append((syntax.open, .headed))
    case .markup(let syntax):
      if let open = syntax.outerOpen { openings.append((open, .markup)) }
      openings.append((syntax.open, .markupCall))
    case .whole(let syntax): openings.append((syntax.open, .whole))
    }
    if format.toolCalls == .cohere { openings += ["<|START_RESPONSE|>", "<|END_RESPONSE|>"].map { (Mark($0), .ignored) } }
    if case .between(let open, let close) = format.reasoning, parsesReasoning, !open.isEmpty, !close.isEmpty {
      (reasoningOpen, reasoningClose) = (Mark(open), Mark(close))
      openings.append((Mark(open), .reasoning))
      let end = JSONBytes.trimmed(Array(promptEnd.utf8)[...])
      if end.reversed().starts(with: open.utf8.reversed()) {
        mode = .reasoning
        mayRepeatOpen = true
        trimsNewlines = true
      } else if end.reversed().starts(with: close.utf8.reversed()) {
        trimsNewlines = true
      }
    } else {
      (reasoningOpen, reasoningClose) = (nil, nil)
    }
    self.openings = openings
    self.opensBare = opensBare
    holdsNewlines = openings.contains { $0.opening != .reasoning && $0.opening != .ignored }
    if case .channels = syntax {
      mode = .channels
      channels = Channels(promptEnd: promptEnd, parsesReasoning: parsesReasoning)
    }
  }

  /// Takes the next piece of the text and gives what has become certain.
  public mutating func append(_ text: String) -> [AnswerPart] {
    input.append(contentsOf: text.utf8)
    return run()
  }

  /// Ends the text and gives what is left of it.
  public mutating func finish() -> [AnswerPart] {
    isFinal = true
    return run()
  }

  private mutating func run() -> [AnswerPart] {
    contentRanges = []
    while step() {}
    // Moved only if that is less than what was given out: the time stays in proportion to the text.
    if start > input.count / 2 {
      input.removeFirst(start)
      before += start
      scan -= start
      solid -= start
      headed.begin -= start
      markup.begin -= start
      start = 0
    }
    return output.take()
  }

  /// - Returns: whether there may be more to do without more text.
  private mutating func step() -> Bool {
    switch mode {
    case .text: stepText()
    case .reasoning: stepReasoning()
    case .objects: stepObjects()
    case .headed: stepHeaded()
    case .markup: stepMarkup()
    case .whole: stepWhole()
    case .channels: stepChannels()
    case .broken: stepBroken()
    }
  }

  // MARK: Text

  private mutating func stepText() -> Bool {
    while scan < input.count {
      let byte = input[scan]
      if trimsNewlines {
        if byte == UInt8(ascii: "\n") {
          skip(to: scan + 1)
          continue
        }
        trimsNewlines = false
      }
      switch opening(at: scan) {
      case .some(.some(let (mark, opening))): return open(opening, mark)
      case .some(.none):
        giveText()
        return false
      case .none: break
      }
      scan += 1
      if byte != UInt8(ascii: "\n") { solid = scan }
      if !JSONBytes.isBlank(byte) {
        hasContent = true
        followsCall = false
      }
    }
    if isFinal {
      if !followsCall { give(.content, to: scan) }
      skip(to: scan)
    } else {
      giveText()
    }
    return false
  }

  /// nil: nothing begins here. Some nil: something may, which takes more text to tell.
  private func opening(at index: Int) -> (mark: Mark?, opening: Opening)?? {
    if opensBare, !hasContent, input[index] == UInt8(ascii: "{") { return .some((nil, .objects)) }
    var isPossible = false
    for (mark, opening) in openings where mark.bytes[0] == input[index] {
      if opening == .reasoning, hasContent { continue }
      switch match(mark, at: index) {
      case .whole: return .some((mark, opening))
      case .part: isPossible = true
      case .none: break
      }
    }
    return isPossible ? .some(.none) : .none
  }

  /// Gives the content as far as it is certain. Newlines that a mark may follow wait, and so do blanks before anything was said.
  private mutating func giveText() {
    if openings.isEmpty || hasContent && !holdsNewlines {
      give(.content, to: scan)
    } else if hasContent, solid > start {
      give(.content, to: solid)
    }
  }

  private mutating func open(_ opening: Opening, _ mark: Mark?) -> Bool {
    giveText()
    let end = scan + (mark?.bytes.count ?? 0)
    switch opening {
    case .reasoning:
      skip(to: end)
      mode = .reasoning
      trimsNewlines = true
    case .ignored:
      if hasContent { give(.content, to: scan) }
      skip(to: end)
    case .objects:
      objects = ObjectCalls(isBare: mark == nil)
      mode = .objects
      scan = end
    case .section, .headed:
      headed = HeadedCall(phase: opening == .section ? .section : .opening, begin: end)
      mode = .headed
      scan = end
    case .markup, .markupCall:
      markup = MarkupCall(phase: opening == .markup ? .outer : .name, begin: end)
      mode = .markup
      scan = end
    case .whole:
      mode = .whole
      scan = end
    }
    return true
  }

  // MARK: Reasoning

  private mutating func stepReasoning() -> Bool {
    guard let close = reasoningClose, let open = reasoningOpen else { return false }
    while scan < input.count {
      let byte = input[scan]
      if trimsNewlines {
        if byte == UInt8(ascii: "\n") {
          skip(to: scan + 1)
          continue
        }
        if mayRepeatOpen {
          switch match(open, at: scan) {
          case .whole:
            mayRepeatOpen = false
            skip(to: scan + open.bytes.count)
            continue
          case .part: return false
          case .none: break
          }
        }
        (trimsNewlines, mayRepeatOpen) = (false, false)
      }
      switch match(close, at: scan) {
      case .whole:
        if solid > start { give(.reasoning, to: solid) }
        skip(to: scan + close.bytes.count)
        mode = .text
        (hasContent, trimsNewlines) = (false, true)
        return true
      case .part:
        if solid > start { give(.reasoning, to: solid) }
        return false
      case .none: break
      }
      scan += 1
      if byte != UInt8(ascii: "\n") { solid = scan }
    }
    if isFinal { give(.reasoning, to: scan) } else if solid > start { give(.reasoning, to: solid) }
    return false
  }

  // MARK: What calls share

  enum Match { case whole, part, none }

  /// Whether a mark stands at a place; in part, if the text ends before the mark does.
  func match(_ mark: Mark, at index: Int) -> Match {
    for (offset, byte) in mark.bytes.enumerated() {
      guard index + offset < input.count else { return isFinal ? .none : .part }
      if input[index + offset] != byte { return .none }
    }
    return .whole
  }

  /// Gives what is not given out yet, up to a place.
  mutating func give(_ kind: Output.Kind, to end: Int) {
    if end > start {
      output.append(kind, input[start..<end])
      if kind == .content { contentRanges.append(before + start..<before + end) }
    }
    start = max(start, end)
  }

  /// Is done with everything before a place.
  mutating func skip(to place: Int) {
    start = place
    scan = place
    solid = place
  }

  /// The next byte that is no blank; nil where the text ends before it.
  mutating func nextSolid() -> UInt8? {
    while scan < input.count {
      if !JSONBytes.isBlank(input[scan]) { return input[scan] }
      scan += 1
    }
    return nil
  }

  /// It is no call: everything before a place is text, and the text goes on there.
  mutating func fail(at place: Int) -> Bool {
    give(.content, to: place)
    skip(to: place)
    mode = .text
    (hasContent, followsCall) = (true, false)
    return true
  }

  mutating func begin(_ name: String) {
    output.append(.callBegan(index: callCount, name: name))
    callCount += 1
  }

  mutating func giveArguments(_ bytes: some Sequence<UInt8>) { output.append(.arguments(callCount - 1), bytes) }

  mutating func end() { output.append(.callEnded(index: callCount - 1)) }

  /// Gives the arguments of the call as far as they are there.
  ///
  /// - Parameter closes: the marks at which the call ends where they turn out to be no JSON.
  /// - Returns: nil where they are whole; else whether there may be more to do without more text.
  mutating func stepArguments(closes: [Mark]) -> Bool? {
    var bytes: [UInt8] = []
    while scan < input.count {
      guard arguments.push(input[scan], into: &bytes) else {
        giveArguments(bytes)
        return breakOff(closes: closes)
      }
      scan += 1
      if arguments.isDone {
        giveArguments(bytes)
        end()
        start = scan
        return nil
      }
    }
    giveArguments(bytes)
    start = scan
    guard isFinal else { return false }
    output.append(.callBroke(index: callCount - 1))
    return endCalls()
  }

  /// The calls are over, up to `scan`, or for now: what is not given out yet is text.
  mutating func endCalls() -> Bool {
    skip(to: start)
    mode = .text
    (hasContent, followsCall) = (false, true)
    return true
  }

  /// The arguments that have begun are no JSON from `scan` on.
  mutating func breakOff(closes: [Mark]) -> Bool {
    start = scan
    brokenCloses = closes
    mode = .broken
    return true
  }

  private mutating func stepBroken() -> Bool {
    while scan < input.count {
      var isPossible = false
      for close in brokenCloses where close.bytes[0] == input[scan] {
        switch match(close, at: scan) {
        case .whole:
          give(.arguments(callCount - 1), to: scan)
          output.append(.callBroke(index: callCount - 1))
          start = scan + close.bytes.count
          return isChannels ? endMessage() : endCalls()
        case .part: isPossible = true
        case .none: break
        }
      }
      if isPossible { break }
      scan += 1
    }
    give(.arguments(callCount - 1), to: scan)
    if isFinal {
      output.append(.callBroke(index: callCount - 1))
      return endCalls()
    }
    return false
  }

  private var isChannels: Bool { if case .channels = syntax { true } else { false } }

  // MARK: Whole calls

  private mutating func stepWhole() -> Bool {
    guard case .whole(let syntax) = syntax else { return false }
    while scan < input.count {
      switch match(syntax.close, at: scan) {
      case .part: return false
      case .none: scan += 1
      case .whole:
        let end = scan + syntax.close.bytes.count
        var open = start
        while match(syntax.open, at: open) != .whole { open += 1 }
        guard let calls = syntax.read(input[(open + syntax.open.bytes.count)..<scan]), !calls.isEmpty,
          calls.allSatisfy({ tools.offers($0.name) })
        else { return fail(at: end) }
        for call in calls {
          begin(call.name)
          giveArguments(call.arguments)
          self.end()
        }
        start = end
        return endCalls()
      }
    }
    return isFinal ? fail(at: scan) : false
  }
}

extension AnswerParser {
  /// Joins pieces of the same kind.
  struct Output: Sendable {
    enum Kind: Sendable, Equatable { case reasoning, content, arguments(Int) }

    private var parts: [AnswerPart] = []
    private var kind = Kind.content
    private var bytes: [UInt8] = []

    mutating func append(_ kind: Kind, _ piece: some Sequence<UInt8>) {
      if kind != self.kind { flush() }
      self.kind = kind
      bytes.append(contentsOf: piece)
    }

    mutating func append(_ part: AnswerPart) {
      flush()
      parts.append(part)
    }

    private mutating func flush() {
      if bytes.isEmpty { return }
      let text = String(decoding: bytes, as: UTF8.self)
      bytes.removeAll(keepingCapacity: true)
      switch kind {
      case .reasoning: parts.append(.reasoning(text))
      case .content: parts.append(.content(text))
      case .arguments(let index): parts.append(.callArguments(index: index, text))
      }
    }

    mutating func take() -> [AnswerPart] {
      flush()
      defer { parts = [] }
      return parts
    }
  }
}
