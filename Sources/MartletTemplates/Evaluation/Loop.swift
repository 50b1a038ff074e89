// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// The variable `loop`: where a `for` is. It looks ahead only when it is asked to, because a filter of the loop may depend on what its body does.
final class Loop {
  private(set) var index0 = -1
  private(set) var current = Value.none
  private var previous: Value?
  /// What was read before its turn. Its first ``aheadGiven`` elements have had theirs: taking them out one by one would move all others each time.
  private var ahead: [Value] = []
  private var aheadGiven = 0
  private var source: (() throws(TemplateError) -> Value?)?
  let depth0: Int
  /// Runs the loop's body over other elements: `loop(…)` of a recursive loop.
  private var recursion: ((Evaluator, Value, Int) throws(TemplateError) -> Value)?
  private var lastChanged: [Value]?

  init(
    depth0: Int, recursion: ((Evaluator, Value, Int) throws(TemplateError) -> Value)?,
    _ source: @escaping () throws(TemplateError) -> Value?
  ) {
    self.depth0 = depth0
    self.recursion = recursion
    self.source = source
  }

  func close() {
    source = nil
    recursion = nil
    previous = nil
    current = .none
    ahead = []
    lastChanged = nil
  }

  /// Goes to the next element; false if there is none.
  func advance() throws(TemplateError) -> Bool {
    let next: Value?
    if ahead.isEmpty {
      next = try source?()
    } else {
      next = ahead[aheadGiven]
      aheadGiven += 1
      if aheadGiven == ahead.count {
        ahead.removeAll(keepingCapacity: true)
        aheadGiven = 0
      }
    }
    guard let next else { return false }
    previous = index0 >= 0 ? current : nil
    current = next
    index0 += 1
    return true
  }

  private func peek() throws(TemplateError) -> Value? {
    if ahead.isEmpty, let value = try source?() { ahead.append(value) }
    return ahead.isEmpty ? nil : ahead[aheadGiven]
  }

  func length() throws(TemplateError) -> Int {
    while let value = try source?() { ahead.append(value) }
    source = nil
    return index0 + 1 + ahead.count - aheadGiven
  }

  func recurse(_ evaluator: Evaluator, _ arguments: Arguments) throws(TemplateError) -> Value {
    guard let recursion else {
      throw .type("The loop must have the 'recursive' marker to be called recursively.")
    }
    guard let values = try arguments.bound(to: "loop", ["iterable"], required: 1)[0] else { return .none }
    return try recursion(evaluator, values, depth0 + 1)
  }

  /// nil where the loop has no such attribute.
  func attribute(_ name: Text) throws(TemplateError) -> Value? {
    switch name.string {
    case "index": return .int(index0 + 1)
    case "index0": return .int(index0)
    case "revindex": return .int(try length() - index0)
    case "revindex0": return .int(try length() - index0 - 1)
    case "first": return .bool(index0 == 0)
    case "last": return .bool(try peek() == nil)
    case "length": return .int(try length())
    case "depth": return .int(depth0 + 1)
    case "depth0": return .int(depth0)
    case "previtem": return previous ?? .undefined(Missing("there is no previous item"))
    case "nextitem": return try peek() ?? .undefined(Missing("there is no next item"))
    case "cycle":
      return .callable(
        Callable("cycle", .method) { [index0] (_, arguments) throws(TemplateError) in
          guard !arguments.positional.isEmpty else { throw .type("no items for cycling given") }
          return arguments.positional[index0 % arguments.positional.count]
        })
    case "changed":
      return .callable(
        Callable("changed", .method) { [weak self] (evaluator, arguments) throws(TemplateError) in
          guard let self else { return .bool(true) }
          for argument in arguments.positional { try evaluator.spend(comparing: argument, argument) }
          defer { lastChanged = arguments.positional }
          return .bool(lastChanged != arguments.positional)
        })
    default: return nil
    }
  }
}
