// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Calls that are JSON objects: each has the tool's name and its arguments, in either order.

/// Where the reading of objects stands.
struct ObjectCalls: Sendable {
  enum Phase: Sendable {
    /// Behind the mark.
    case opening
    case object
    /// Behind the arguments, inside of the object.
    case tail
    /// Behind an object.
    case between
  }

  enum Reading: Sendable { case nothing, key, name, arguments, argumentsText, other }

  enum Event { case nothing, broken, named, argumentsEnded, ended }

  var phase = Phase.opening
  var isBare = false
  var isInList = false
  /// A separator stands before the next object.
  var isSeparated = false

  var scanner = JSONScanner()
  var reading = Reading.nothing
  private var isFirstKey = true
  private var key: [UInt8] = []
  /// The text of the string that is read, as it is written, if anybody wants it.
  private var raw: [UInt8] = []
  private var discarded: [UInt8] = []
  var name: String?
  var hasBegun = false
  /// Arguments that were read and not given out.
  var arguments: [UInt8] = []
  var argumentsAreWhole = false
  private var hasArguments = false

  init(isBare: Bool = false) { self.isBare = isBare }

  mutating func beginObject() {
    phase = .object
    scanner = JSONScanner()
    (reading, isFirstKey, key, raw, name) = (.nothing, true, [], [], nil)
    (hasBegun, arguments, argumentsAreWhole, hasArguments) = (false, [], false, false)
  }

  mutating func take(_ byte: UInt8, _ syntax: CallSyntax.Objects) -> Event {
    if scanner.depth == 1, reading == .nothing {
      switch scanner.place {
      case .key, .keyOrEnd:
        if byte == UInt8(ascii: "\"") { (reading, raw) = (.key, []) }
      case .value where !JSONBytes.isBlank(byte):
        guard beginValue(byte, syntax) else { return .broken }
      default: break
      }
    }
    let isValid: Bool
    switch reading {
    case .arguments: isValid = scanner.push(byte, into: &arguments)
    case .key, .name, .argumentsText: isValid = scanner.push(byte, into: &raw)
    case .nothing, .other:
      isValid = scanner.push(byte, into: &discarded)
      discarded.removeAll(keepingCapacity: true)
    }
    guard isValid else { return .broken }
    if scanner.isDone { return .ended }
    guard scanner.depth == 1 else { return .nothing }
    switch (reading, scanner.place) {
    case (.key, .colon):
      reading = .nothing
      key = JSONBytes.unquoted(raw)
      defer { isFirstKey = false }
      // A bare object is no call if it begins with something else: what is said in JSON is not held back.
      if isBare, isFirstKey, key != syntax.nameKey.bytes, !syntax.argumentKeys.contains(where: { $0.bytes == key }),
        key != Array("type".utf8)
      {
        return .broken
      }
      return .nothing
    case (.name, .commaOrEnd):
      reading = .nothing
      name = String(decoding: JSONBytes.unquoted(raw), as: UTF8.self)
      return .named
    case (.arguments, .commaOrEnd):
      reading = .nothing
      argumentsAreWhole = true
      return .argumentsEnded
    case (.argumentsText, .commaOrEnd):
      reading = .nothing
      let text = JSONBytes.trimmed(JSONBytes.unquoted(raw)[...])
      guard text.isEmpty || text.first == UInt8(ascii: "{") && JSONBytes.value(text) != nil else { return .broken }
      arguments = text.isEmpty ? Array("{}".utf8) : JSONBytes.value(text) ?? []
      argumentsAreWhole = true
      return .argumentsEnded
    case (.other, .commaOrEnd):
      reading = .nothing
      return .nothing
    default: return .nothing
    }
  }

  private mutating func beginValue(_ byte: UInt8, _ syntax: CallSyntax.Objects) -> Bool {
    reading = .other
    if syntax.keyIsName {
      guard name == nil, byte == UInt8(ascii: "{") else { return false }
      (name, reading, hasArguments) = (String(decoding: key, as: UTF8.self), .arguments, true)
    } else if key == syntax.nameKey.bytes, name == nil {
      guard byte == UInt8(ascii: "\"") else { return false }
      (reading, raw) = (.name, [])
    } else if !hasArguments, syntax.argumentKeys.contains(where: { $0.bytes == key }) {
      hasArguments = true
      switch byte {
      case UInt8(ascii: "{"): reading = .arguments
      case UInt8(ascii: "\""): (reading, raw) = (.argumentsText, [])
      case UInt8(ascii: "n"): hasArguments = false  // null: a call without arguments
      default: return false
      }
    }
    return true
  }
}

extension AnswerParser {
  mutating func stepObjects() -> Bool {
    let syntax: CallSyntax.Objects
    switch self.syntax {
    case .objects(let own): syntax = own
    case .headed(let headed): syntax = headed.objects ?? CallSyntax.Objects()
    default: return false
    }
    switch objects.phase {
    case .opening:
      guard let byte = nextSolid() else { return isFinal ? fail(at: scan) : false }
      if byte == UInt8(ascii: "["), !objects.isInList, !objects.isBare {
        objects.isInList = true
        scan += 1
      } else if byte == UInt8(ascii: "{") {
        objects.beginObject()
      } else {
        return fail(at: scan)
      }
      return true
    case .object: return stepObject(syntax)
    case .tail: return stepTail()
    case .between: return stepBetween(syntax)
    }
  }

  private mutating func stepObject(_ syntax: CallSyntax.Objects) -> Bool {
    while scan < input.count {
      let event = objects.take(input[scan], syntax)
      if event == .broken {
        guard objects.hasBegun else { return fail(at: scan) }
        giveReadArguments()
        return breakOff(closes: syntax.close.map { [$0] } ?? [])
      }
      scan += 1
      // The first byte of the arguments of a tool that was offered makes it a call.
      if let name = objects.name, !objects.hasBegun {
        guard tools.offers(name) else { return fail(at: scan) }
        if !objects.arguments.isEmpty || event == .ended {
          guard !objects.arguments.isEmpty || !objects.isBare else { return fail(at: scan) }
          begin(name)
          objects.hasBegun = true
          if objects.arguments.isEmpty {
            objects.arguments = Array("{}".utf8)
            objects.argumentsAreWhole = true
          }
        }
      }
      if objects.hasBegun {
        start = scan
        if objects.argumentsAreWhole {
          giveReadArguments()
          end()
          objects.phase = event == .ended ? .between : .tail
          return true
        }
      } else if event == .ended {
        return fail(at: scan)
      }
    }
    if objects.hasBegun { giveReadArguments() }
    guard isFinal else { return false }
    guard objects.hasBegun else { return fail(at: scan) }
    output.append(.callBroke(index: callCount - 1))
    return endCalls()
  }

  private mutating func giveReadArguments() {
    giveArguments(objects.arguments)
    objects.arguments.removeAll(keepingCapacity: true)
  }

  /// What else the object has says nothing.
  private mutating func stepTail() -> Bool {
    var discarded: [UInt8] = []
    while scan < input.count {
      guard objects.scanner.push(input[scan], into: &discarded) else {
        objects.phase = .between
        return true
      }
      scan += 1
      if objects.scanner.isDone {
        start = scan
        objects.phase = .between
        return true
      }
    }
    guard isFinal else { return false }
    start = scan
    return endCalls()
  }

  private mutating func stepBetween(_ syntax: CallSyntax.Objects) -> Bool {
    guard let byte = nextSolid() else {
      guard isFinal else { return false }
      start = scan
      return endCalls()
    }
    if let close = syntax.close {
      switch match(close, at: scan) {
      case .whole:
        start = scan + close.bytes.count
        return endCalls()
      case .part: return false
      case .none: break
      }
    }
    switch byte {
    case UInt8(ascii: "]") where objects.isInList:
      objects.isInList = false
      scan += 1
      start = scan
      objects.isSeparated = false
      return syntax.close == nil ? endCalls() : true
    case UInt8(ascii: ","), UInt8(ascii: ";"):
      guard !objects.isSeparated else { return endCalls() }
      objects.isSeparated = true
      scan += 1
    case UInt8(ascii: "{") where objects.isSeparated || syntax.close != nil || objects.isBare:
      objects.isSeparated = false
      objects.beginObject()
    default: return endCalls()
    }
    return true
  }
}
