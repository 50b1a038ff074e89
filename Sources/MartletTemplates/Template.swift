// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// A Jinja program, compiled: one value serves every task.
///
/// ```swift
/// let template = try Template("{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}")
/// let output = try template.render(["messages": [["role": "user", "content": "Hi"]]])
/// ```
///
/// What jinja2 3.1.6 writes in the environment that the transformers package builds for chat templates is written here, to the byte: the immutable
/// sandbox, `trim_blocks`, `lstrip_blocks`, loop controls, `{% generation %}`, its `tojson`, `raise_exception` and `strftime_now`. What it
/// raises is a ``TemplateError`` here, and so is a program that goes beyond ``TemplateLimits``.
///
/// Source: Jinja's documentation, and its behaviour, recorded.
public struct Template: Sendable {
  /// What a rendering is given besides the program.
  public enum Variable: Sendable, Hashable {
    /// Somebody's words: what the program writes of them is ``TemplateOutput/contents``.
    case content(JSON)
    /// Text that counts as written by the program, such as the beginning-of-text token's.
    case mark(String)
  }

  /// The program.
  public let source: String
  /// What a rendering may cost.
  public let limits: TemplateLimits
  let program: Program

  /// Compiles a program.
  /// - Throws: ``TemplateError`` with the line and column of what is no Jinja.
  public init(_ source: String, limits: TemplateLimits = TemplateLimits()) throws(TemplateError) {
    guard source.utf8.count <= limits.maximumSourceByteCount else {
      throw TemplateError(.limit, "the template has \(source.utf8.count) bytes, and \(limits.maximumSourceByteCount) are the most")
    }
    self.source = source
    self.limits = limits
    program = try Parser.program(source)
  }

  /// The names that the program speaks of: variables, those it sets itself included.
  public var names: [String] { program.names.map(\.text) }

  /// Whether the program speaks of a variable.
  public func mentions(_ name: String) -> Bool { program.names.contains { $0.text == name } }

  /// Runs the program.
  ///
  /// - Parameters:
  ///   - variables: by name; all others are undefined.
  ///   - now: what `strftime_now` tells.
  public func render(_ variables: [String: Variable], now: LocalTime = LocalTime.epoch) throws(TemplateError) -> TemplateOutput {
    let root = Frame(rootWithNames: program.names.count)
    let evaluator = Evaluator(limits: limits, now: now, root: root)
    defer { evaluator.close() }
    var lists: [(name: String, elements: Elements)] = []
    do {
      var inputByteCount = 0
      for name in program.names {
        guard case .content(let json)? = variables[name.text] else { continue }
        inputByteCount += try json.templateByteCount()
      }
      evaluator.allow(inputByteCount: inputByteCount)
      for name in program.names {
        switch variables[name.text] {
        case .content(let json):
          let value = try Value(json, evaluator)
          if case .list(let elements) = value { lists.append((name.text, elements)) }
          root[name.id] = value
        case .mark(let text): root[name.id] = .string(Text(text))
        case nil:
          if let function = Functions.all[name.text] {
            let callable = Callable(name.text, .function, function)
            callable.attributes = Functions.attributes(of: name.text)
            root[name.id] = .callable(callable)
          } else if name.text == "self" {
            root[name.id] = .namespace(Namespace())
          }
        }
      }
      _ = try program.body.run(evaluator)
    } catch {
      var error = error
      if error.line == 0 {
        error.line = Int(evaluator.position.line)
        error.column = Int(evaluator.position.column)
      }
      error.element = Template.element(of: evaluator.failed, lists)
      throw error
    }
    let output = evaluator.output
    return TemplateOutput(text: output.string, contents: output.contents)
  }

  /// Which element of a list handed in is the first of these values. It is the same object, also where a loop goes over a part of the list.
  private static func element(of values: [Value], _ lists: [(name: String, elements: Elements)]) -> String? {
    for case .dict(let value) in values {
      for list in lists {
        let place = list.elements.values.firstIndex { if case .dict(let element) = $0 { element === value } else { false } }
        if let place { return "\(list.name)[\(place)]" }
      }
    }
    return nil
  }

  /// The same of values that all come from outside.
  public func render(_ variables: JSON.Object, now: LocalTime = LocalTime.epoch) throws(TemplateError) -> TemplateOutput {
    var all: [String: Variable] = [:]
    for (name, value) in variables.members { all[name] = .content(value) }
    return try render(all, now: now)
  }
}

extension Template: Hashable {
  public static func == (left: Template, right: Template) -> Bool { left.source == right.source && left.limits == right.limits }
  public func hash(into hasher: inout Hasher) { hasher.combine(source) }
}

/// What a program wrote.
public struct TemplateOutput: Sendable, Hashable {
  /// All of it.
  public var text: String
  /// Which UTF-8 bytes of ``text`` came from values handed in, and not from the program: ascending ranges that neither overlap nor touch.
  public var contents: [Range<Int>]

  public init(text: String, contents: [Range<Int>]) {
    self.text = text
    self.contents = contents
  }
}

/// What a program may cost. Beyond is an error, so that a file from anywhere can neither hang nor fill the memory of who renders it.
public struct TemplateLimits: Sendable, Hashable {
  /// Of the program.
  public var maximumSourceByteCount: Int
  /// Nodes of the tree that run; strings count for each 16 bytes that are made, lists for each half element. What is handed in adds to it.
  public var maximumSteps: Int
  /// What each byte of the values handed in adds to ``maximumSteps``: a long conversation may take long, and a short one may not. Of 343
  /// published templates none takes more than 28 steps for a byte of a conversation, and nearly all less than 3 for one of a long message.
  public var stepsPerInputByte: Int
  /// Of what it writes, what macros and blocks write for themselves included. What is handed in adds to it.
  public var maximumOutputByteCount: Int
  /// What each byte of the values handed in adds to ``maximumOutputByteCount``.
  public var outputBytesPerInputByte: Int
  /// Of `range`; more is an error in Jinja's sandbox too.
  public var maximumRangeCount: Int

  public init(
    maximumSourceByteCount: Int = 1 << 20, maximumSteps: Int = 5_000_000, stepsPerInputByte: Int = 32,
    maximumOutputByteCount: Int = 64 << 20, outputBytesPerInputByte: Int = 16, maximumRangeCount: Int = 100_000
  ) {
    self.maximumSourceByteCount = maximumSourceByteCount
    self.maximumSteps = maximumSteps
    self.stepsPerInputByte = stepsPerInputByte
    self.maximumOutputByteCount = maximumOutputByteCount
    self.outputBytesPerInputByte = outputBytesPerInputByte
    self.maximumRangeCount = maximumRangeCount
  }

  /// Lists and dictionaries inside each other.
  static let maximumValueDepth = 100
  // These fit a stack of 512 KiB, also with the address sanitizer, which about doubles what a level takes.

  /// Expressions and statements inside each other, in the program.
  static let maximumNesting = 40
  /// Nodes of the tree inside each other while it runs, over all macros that call each other.
  static let maximumDepth = 400
  /// Scopes inside each other: of the program's text, and of macros that other macros made.
  static let maximumFrameLevel = 250
  /// Of one call or one macro: they are searched one by one.
  static let maximumArgumentCount = 255

  static var valuesNestTooDeep: TemplateError { TemplateError(.limit, "values nest more than \(maximumValueDepth) deep") }
}

extension JSON {
  /// About what the value takes as text, for ``TemplateLimits/stepsPerInputByte``: its strings, and 8 bytes for each value.
  fileprivate func templateByteCount(depth: Int = 0) throws(TemplateError) -> Int {
    guard depth < TemplateLimits.maximumValueDepth else { throw TemplateLimits.valuesNestTooDeep }
    switch self {
    case .null, .bool, .integer, .number: return 8
    case .largeInteger(let text), .string(let text): return 8 + text.utf8.count
    case .array(let elements):
      var count = 8
      for element in elements { count += try element.templateByteCount(depth: depth + 1) }
      return count
    case .object(let object):
      var count = 8
      for (key, value) in object.members { count += try key.utf8.count + value.templateByteCount(depth: depth + 1) }
      return count
    }
  }
}

extension Value {
  /// A value from outside.
  init(_ json: JSON, _ evaluator: Evaluator, depth: Int = 0) throws(TemplateError) {
    // Checked here and not only where lists are made, as this function itself recurses.
    guard depth < TemplateLimits.maximumValueDepth else { throw TemplateLimits.valuesNestTooDeep }
    switch json {
    case .null: self = .none
    case .bool(let value): self = .bool(value)
    case .integer(let value): self = .int(value)
    case .largeInteger(let digits):
      guard digits.utf8.count <= LargeInteger.maximumDigitCount else { throw LargeInteger.tooLarge }
      guard let value = LargeInteger(digits) else { throw TemplateError(.value, "'\(digits)' is no integer") }
      self = try Value(value)
    case .number(let value): self = .float(value)
    case .string(let value): self = .string(Text(content: value))
    case .array(let elements):
      var values: [Value] = []
      values.reserveCapacity(elements.count)
      for element in elements { values.append(try Value(element, evaluator, depth: depth + 1)) }
      self = .list(try Elements(values, evaluator))
    case .object(let object):
      var pairs: [(Value, Value)] = []
      pairs.reserveCapacity(object.count)
      for (key, value) in object.members {
        pairs.append((.string(Text(content: key)), try Value(value, evaluator, depth: depth + 1)))
      }
      self = .dict(try ValueDictionary(pairs, evaluator))
    }
  }
}
