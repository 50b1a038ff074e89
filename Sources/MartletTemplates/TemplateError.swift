// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Why a program cannot be compiled, or a rendering was given up: never half a text.
public struct TemplateError: Error, Sendable, Hashable {
  /// What kind of failure it is. More kinds may come.
  public struct Code: RawRepresentable, Sendable, Hashable, Codable {
    /// One word.
    public let rawValue: String
    public init(rawValue: String) { self.rawValue = rawValue }

    /// The program is no Jinja, or names a filter, test or tag that does not exist.
    public static let syntax = Code(rawValue: "syntax")
    /// A variable or attribute that is not there was used.
    public static let undefined = Code(rawValue: "undefined")
    /// A value of the wrong type.
    public static let type = Code(rawValue: "type")
    /// A value of the right type that cannot be used.
    public static let value = Code(rawValue: "value")
    /// Anything else that Jinja refuses while it runs.
    public static let runtime = Code(rawValue: "runtime")
    /// What the sandbox forbids: changing a list or a dictionary, names of the interpreter's own.
    public static let security = Code(rawValue: "security")
    /// The program itself called `raise_exception`; the message is its own.
    public static let raised = Code(rawValue: "raised")
    /// A bound of ``TemplateLimits`` was met.
    public static let limit = Code(rawValue: "limit")
  }

  /// What kind of failure it is.
  public var code: Code
  /// In words, without the place.
  public var message: String
  /// Of the tag where it happened, from 1; 0 if the place is not in the program.
  public var line: Int
  /// In Unicode code points, from 1; 0 if the place is not in the program.
  public var column: Int
  /// What of the values handed in a loop of the program was at, such as "messages[2]"; nil where that is not known.
  public var element: String?
  /// The file that the program is from; nil where who ran it did not say.
  public var file: String?

  public init(_ code: Code, _ message: String, line: Int = 0, column: Int = 0, element: String? = nil, file: String? = nil) {
    self.code = code
    self.message = message
    self.line = line
    self.column = column
    self.element = element
    self.file = file
  }
}

extension TemplateError: CustomStringConvertible {
  public var description: String {
    let program = file ?? "the template"
    var place: [String] = []
    if line > 0 { place.append("line \(line), column \(column) of \(program)") } else if file != nil { place.append("in \(program)") }
    if let element { place.append("at \(element)") }
    return place.isEmpty ? message : "\(message) (\(place.joined(separator: ", ")))"
  }
}

extension TemplateError {
  static func type(_ message: String) -> TemplateError { TemplateError(.type, message) }
  static func value(_ message: String) -> TemplateError { TemplateError(.value, message) }
  static func runtime(_ message: String) -> TemplateError { TemplateError(.runtime, message) }
}
