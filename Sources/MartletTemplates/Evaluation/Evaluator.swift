// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// One rendering: the variables, what has been written, and what it may still cost.
final class Evaluator {
  let limits: TemplateLimits
  let now: LocalTime
  private(set) var frame: Frame
  /// What the innermost macro, block or the program itself has written.
  var output = Text()
  /// Of the tag that runs, for errors.
  var position = Position(line: 0, column: 0)
  /// The bounds of ``TemplateLimits``, with what the values handed in add to them.
  private var maximumSteps: Int
  private var maximumOutputByteCount: Int
  private var stepsLeft: Int
  private var outputLeft: Int
  /// What the loops were at that the error has ended, the innermost first.
  private(set) var failed: [Value] = []
  /// Of macros inside each other, in nodes of their trees.
  private var depth = 0
  /// What may hold itself, and is taken apart at the end.
  private var namespaces: [Namespace] = []
  private var frames: [Frame] = []

  init(limits: TemplateLimits, now: LocalTime, root: Frame) {
    self.limits = limits
    self.now = now
    frame = root
    frames = [root]
    maximumSteps = limits.maximumSteps
    maximumOutputByteCount = limits.maximumOutputByteCount
    stepsLeft = maximumSteps
    outputLeft = maximumOutputByteCount
  }

  /// Raises the bounds for values of so many bytes from outside. Before the program runs: nothing has been spent yet.
  func allow(inputByteCount: Int) {
    func raised(_ bound: Int, _ perByte: Int) -> Int {
      let (more, isTooMuch) = inputByteCount.multipliedReportingOverflow(by: perByte)
      let (sum, isTooMuchTogether) = bound.addingReportingOverflow(more)
      return isTooMuch || isTooMuchTogether ? Int.max : sum
    }
    maximumSteps = raised(maximumSteps, limits.stepsPerInputByte)
    maximumOutputByteCount = raised(maximumOutputByteCount, limits.outputBytesPerInputByte)
    stepsLeft = maximumSteps
    outputLeft = maximumOutputByteCount
  }

  /// Breaks every circle of references, one object after the other, so that nothing leaks and no chain is given back by recursion.
  func close() {
    for namespace in namespaces { namespace.removeAll() }
    for frame in frames { frame.removeAll() }
  }

  func keep(_ namespace: Namespace) { namespaces.append(namespace) }

  /// A loop at this value is ended by an error.
  func fail(at value: Value) { if failed.count < TemplateLimits.maximumDepth { failed.append(value) } }

  // MARK: Costs

  /// Counts steps: one for each node that runs, and more for what takes time or memory with its size.
  @inline(__always)
  func spend(_ steps: Int = 1) throws(TemplateError) {
    stepsLeft -= steps
    if stepsLeft < 0 { throw outOfSteps() }
  }

  private func outOfSteps() -> TemplateError {
    stepsLeft = 0
    return TemplateError(.limit, "the template takes more than \(maximumSteps) steps")
  }

  /// Filters, tests and methods may go through the whole of a text.
  func spend(reading value: Value) throws(TemplateError) {
    if case .string(let text) = value { try spend(text.count / 4) }
  }

  func spend(bytes: Int) throws(TemplateError) { try spend(bytes / 16) }
  func spend(elements: Int) throws(TemplateError) { try spend(elements > Int.max / 4 ? Int.max / 4 : elements * 2) }

  /// Whether two values are equal, at its cost: lists that share parts may have more of them than memory could hold.
  func areEqual(_ left: Value, _ right: Value) throws(TemplateError) -> Bool {
    try spend(comparing: left, right)
    return left == right
  }

  /// The value as a key, once it is known that it can be one.
  func key(_ value: Value) throws(TemplateError) -> Value {
    try spend(comparing: value, value)
    guard value.isHashable else { throw .type("unhashable type: '\(value.typeName)'") }
    return value
  }

  /// Comparing takes as long as the smaller of two values has parts.
  func spend(comparing left: Value, _ right: Value) throws(TemplateError) {
    switch (left, right) {
    case (.string(let left), .string(let right)): try spend(bytes: min(left.count, right.count))
    case (.list, .list), (.tuple, .tuple), (.dict, .dict), (.view, .view):
      try spend(Self.size(left, atMost: stepsLeft + 1))
    default: break
    }
  }

  /// Parts of a value, those inside its parts included.
  private static func size(_ value: Value, atMost limit: Int) -> Int {
    var (size, open) = (0, [value])
    while let value = open.popLast(), size <= limit {
      size += 1
      switch value {
      case .string(let text): size += text.count / 16
      case .list(let elements), .tuple(let elements): open += elements.values
      case .dict(let dictionary): open += dictionary.values
      case .view(let view): open += view.dictionary.values
      default: break
      }
    }
    return size
  }

  func write(_ text: Text) throws(TemplateError) {
    try spend(bytes: text.count)
    outputLeft -= text.count
    if outputLeft < 0 { throw TemplateError(.limit, "the template writes more than \(maximumOutputByteCount) bytes") }
    output.append(text)
  }

  // MARK: Frames

  func lookUp(_ name: Name) -> Value {
    var next: Frame? = frame
    while let frame = next {
      if let value = frame[name.id] { return value }
      next = frame.parent
    }
    return .undefined(Missing(name: name.text))
  }

  func set(_ name: Name, _ value: Value) { frame[name.id] = value }

  /// Runs `body` in a frame.
  func inFrame<T>(_ frame: Frame, _ body: () throws(TemplateError) -> T) throws(TemplateError) -> T {
    // Macros that make macros could make a chain without an end, which every look-up of a name would walk.
    guard frame.level <= TemplateLimits.maximumFrameLevel else {
      throw TemplateError(.limit, "scopes nest more than \(TemplateLimits.maximumFrameLevel) deep")
    }
    let outer = self.frame
    self.frame = frame
    defer { self.frame = outer }
    return try body()
  }

  /// A frame inside of the one that runs.
  func makeFrame() -> Frame { Frame(parent: frame) }

  /// Keeps the frame that runs for a macro that is made in it.
  func capturedFrame() -> Frame {
    var next: Frame? = frame
    while let frame = next, !frame.isKept {
      frame.isKept = true
      if frame.parent != nil { frames.append(frame) }
      next = frame.parent
    }
    return frame
  }

  /// What `body` writes, as a value.
  func capture(_ body: () throws(TemplateError) -> Void) throws(TemplateError) -> Text {
    let outer = output
    output = Text()
    defer { output = outer }
    try body()
    return output
  }

  /// Runs `body`, which may recurse, `levels` deeper.
  func nest<T>(_ levels: Int = 1, _ body: () throws(TemplateError) -> T) throws(TemplateError) -> T {
    depth += levels
    defer { depth -= levels }
    guard depth <= TemplateLimits.maximumDepth else { throw TemplateError(.limit, "macros call each other too deep") }
    return try body()
  }

  // MARK: Calls

  func apply(_ filter: Filters.Function, _ input: Value, _ arguments: Arguments) throws(TemplateError) -> Value {
    try spend(reading: input)
    return try filter(self, input, arguments)
  }

  func call(_ callee: Value, _ arguments: Arguments) throws(TemplateError) -> Value {
    switch callee {
    case .callable(let callable):
      let place = position
      defer { position = place }
      return try callable.body(self, arguments)
    case .loop(let loop): return try loop.recurse(self, arguments)
    case .undefined(let missing): throw missing.error
    default: throw .type("'\(callee.typeName)' object is not callable")
    }
  }
}

/// The variables of one scope. The outermost has a place for each name of the program, so that it is found at once; inner ones have few.
final class Frame {
  let parent: Frame?
  /// Frames around it.
  let level: Int
  private var slots: [Value?]
  private var names: [Int] = []
  private var values: [Value] = []
  /// A macro was made in it.
  var isKept = false

  init(parent: Frame) {
    self.parent = parent
    level = parent.level + 1
    slots = []
  }

  init(rootWithNames count: Int) {
    parent = nil
    level = 0
    slots = Array(repeating: nil, count: count)
    isKept = true
  }

  subscript(id: Int) -> Value? {
    get {
      if parent == nil { return id < slots.count ? slots[id] : nil }
      for index in names.indices where names[index] == id { return values[index] }
      return nil
    }
    set {
      guard let newValue else { return }
      if parent == nil {
        slots[id] = newValue
      } else if let index = names.firstIndex(of: id) {
        values[index] = newValue
      } else {
        names.append(id)
        values.append(newValue)
      }
    }
  }

  /// What it holds goes, and with it every circle through it.
  func removeAll() {
    slots.removeAll()
    names.removeAll(keepingCapacity: true)
    values.removeAll(keepingCapacity: true)
  }
}

/// What stands between a call's parentheses.
struct Arguments {
  var positional: [Value] = []
  var named: [(name: String, value: Value)] = []

  subscript(name: String) -> Value? { named.first { $0.name == name }?.value }

  /// The values of `names`, by place or by name; nil where none is given.
  /// - Throws: what Python says of too many, unknown or missing ones.
  func bound(to function: String, _ names: [String], required: Int = 0) throws(TemplateError) -> [Value?] {
    guard positional.count <= names.count else {
      throw .type("\(function)() takes at most \(names.count) arguments (\(positional.count) given)")
    }
    var values: [Value?] = positional
    values += Array(repeating: nil, count: names.count - positional.count)
    for (name, value) in named {
      guard let place = names.firstIndex(of: name) else { throw .type("\(function)() got an unexpected keyword argument '\(name)'") }
      if values[place] != nil { throw .type("\(function)() got multiple values for argument '\(name)'") }
      values[place] = value
    }
    for place in 0..<required where values[place] == nil {
      throw .type("\(function)() missing required argument: '\(names[place])'")
    }
    return values
  }

  /// The same of a method of Python's own, which takes no names.
  func placed(_ function: String, _ names: [String], required: Int = 0) throws(TemplateError) -> [Value?] {
    guard named.isEmpty else { throw .type("\(function)() takes no keyword arguments") }
    return try bound(to: function, names, required: required)
  }
}

/// A name of a program, and its place in the outermost frame.
struct Name: Sendable, Hashable {
  let id: Int
  let text: String
}
