// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// A value of a JSON text (RFC 8259): a small view into the parsed document, which it keeps.
///
/// ```swift
/// let config = try JSONValue(path: "config.json")
/// let layers = config["num_hidden_layers"]?.integer
/// for (key, value) in config["weight_map"]!.members { … }
/// ```
///
/// The reader is for files that others made. Parsing takes time and memory in proportion to the bytes (at most about 10 bytes per byte), nests
/// at most ``maximumDepth`` deep without recursion, and either gives a document or a ``JSONError`` that names the byte:
///
/// - The text is valid UTF-8 without a byte order mark; `\u` escapes may not leave half a surrogate pair.
/// - **A key that an object has twice is an error**: of two readers one would take the first value, the other the last. Keys are the same if
///   their bytes are, escapes resolved; Unicode's equivalences do not count. (They do count for `==` of `String`, which is why a caller who
///   collects strings in a dictionary, such as a vocabulary's, keys it by bytes.)
/// - No comments, no trailing commas, no `NaN`, nothing after the value.
///
/// Objects keep their members in the text's order. A number keeps its text, so that no digit is lost before the reader says what it wants.
public struct JSONValue: Sendable {
  public enum Kind: Sendable, Hashable { case null, bool, number, string, array, object }

  /// Arrays and objects inside each other: a deeper text is refused.
  public static let maximumDepth = 128

  let document: JSONDocument
  /// Of the node in the document.
  let index: Int

  /// Parses a text.
  /// - Precondition: none on the bytes; 2³¹ of them and more are an error.
  public init(parsing text: [UInt8]) throws(JSONError) {
    try self.init(parsing: text.span.bytes)
  }

  /// Parses a text, which is not needed afterwards.
  public init(parsing text: RawSpan) throws(JSONError) {
    let result = text.withUnsafeBytes { bytes in Result { () throws(JSONError) in try JSONValue(bytes) } }
    self = try result.get()
  }

  /// Parses the file at `path`.
  public init(path: String) throws(JSONError) {
    let file: FileBytes
    do { file = try FileBytes(path: path) } catch { throw .cannotOpen(path: path, reason: error.reason) }
    self = try withExtendedLifetime(file) { () throws(JSONError) in try JSONValue(file.bytes) }
  }

  init(_ text: UnsafeRawBufferPointer) throws(JSONError) { self.init(try JSONDocument(text), 0) }

  init(_ document: JSONDocument, _ index: Int) {
    self.document = document
    self.index = index
  }

  var node: JSONDocument.Node { document.nodes[index] }

  public var kind: Kind {
    switch node.kind {
    case .null: .null
    case .true, .false: .bool
    case .number: .number
    case .string: .string
    case .array: .array
    case .object: .object
    }
  }

  public var isNull: Bool { node.kind == .null }

  /// nil if the value is no Boolean.
  public var bool: Bool? {
    switch node.kind {
    case .true: true
    case .false: false
    default: nil
    }
  }

  /// The string, escapes resolved; nil if the value is none.
  public var string: String? {
    withStringBytes { String(decoding: $0, as: UTF8.self) }
  }

  /// Calls `body` with the string's UTF-8, escapes resolved, without making a `String`; nil if the value is no string.
  public func withStringBytes<T>(_ body: (UnsafeBufferPointer<UInt8>) throws -> T) rethrows -> T? {
    guard node.kind == .string else { return nil }
    return try document.withText(of: node, body)
  }

  /// The number as it is written, such as "1e-05"; nil if the value is none.
  public var numberText: String? {
    guard node.kind == .number else { return nil }
    return document.withText(of: node) { String(decoding: $0, as: UTF8.self) }
  }

  /// nil if the value is no number, has a fraction or an exponent, or does not fit.
  public var integer: Int? { numberText.flatMap { Int($0) } }

  /// The nearest double; nil if the value is no number or beyond the largest double.
  public var double: Double? { numberText.flatMap { Double($0) }.flatMap { $0.isFinite ? $0 : nil } }

  /// Elements of an array, members of an object; 0 for anything else.
  public var count: Int {
    switch node.kind {
    case .array, .object: Int(node.length)
    default: 0
    }
  }

  /// The value of a member, O(members): read a large object front to back with ``members`` instead. nil without the key, or if the value is no
  /// object.
  public subscript(key: String) -> JSONValue? {
    var key = key
    return key.withUTF8 { wanted in
      for (name, value) in members {
        let isSame = name.withStringBytes { $0.count == wanted.count && $0.elementsEqual(wanted) }
        if isSame == true { return value }
      }
      return nil
    }
  }

  /// The elements of an array, in order; none for anything else.
  public var elements: Elements { Elements(self) }

  /// The members of an object, in the text's order; none for anything else. Every key is a string.
  public var members: Members { Members(self) }

  /// The elements of an array.
  public struct Elements: Sequence, IteratorProtocol, Sendable {
    private let document: JSONDocument
    private var index: Int
    private var remaining: Int

    init(_ array: JSONValue) {
      document = array.document
      index = array.index + 1
      remaining = array.node.kind == .array ? array.count : 0
    }

    public var underestimatedCount: Int { remaining }

    public mutating func next() -> JSONValue? {
      guard remaining > 0 else { return nil }
      let element = JSONValue(document, index)
      index = Int(element.node.next)
      remaining -= 1
      return element
    }
  }

  /// The members of an object.
  public struct Members: Sequence, IteratorProtocol, Sendable {
    private let document: JSONDocument
    private var index: Int
    private var remaining: Int

    init(_ object: JSONValue) {
      document = object.document
      index = object.index + 1
      remaining = object.node.kind == .object ? object.count : 0
    }

    public var underestimatedCount: Int { remaining }

    public mutating func next() -> (key: JSONValue, value: JSONValue)? {
      guard remaining > 0 else { return nil }
      let key = JSONValue(document, index)
      let value = JSONValue(document, index + 1)
      index = Int(value.node.next)
      remaining -= 1
      return (key, value)
    }
  }
}

extension JSONValue: CustomStringConvertible {
  /// What the value is, in a few words: for messages.
  public var description: String {
    switch node.kind {
    case .null: "null"
    case .true: "true"
    case .false: "false"
    case .number: numberText!
    case .string: "\"\(string!)\""
    case .array: "an array of \(count)"
    case .object: "an object of \(count)"
    }
  }
}
