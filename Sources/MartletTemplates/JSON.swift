// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// A JSON value whose objects keep the order of their members, and whose integers are not floating-point numbers.
///
/// What a conversation is made of where a type says no more: arguments of tool calls, schemas, a template's own variables.
public enum JSON: Sendable, Hashable {
  case null
  case bool(Bool)
  case integer(Int)
  /// An integer beyond 64 bits, as it is written.
  case largeInteger(String)
  case number(Double)
  case string(String)
  case array([JSON])
  case object(Object)

  /// Members in their order. Two objects are equal if their members are, in whatever order.
  public struct Object: Sendable {
    /// A key with its value.
    public typealias Member = (key: String, value: JSON)

    /// In their order; no key twice.
    public private(set) var members: [Member]

    /// `{}`
    public init() { members = [] }

    /// Of members with the same key the last value counts, at the place of the first, as in Python and JavaScript.
    public init(_ members: some Sequence<Member>) {
      self.init()
      var places: [[UInt8]: Int] = [:]
      for member in members {
        let key = Array(member.key.utf8)
        if let place = places[key] {
          self.members[place].value = member.value
        } else {
          places[key] = self.members.count
          self.members.append(member)
        }
      }
    }

    /// Of members.
    public var count: Int { members.count }
    /// Whether there are no members.
    public var isEmpty: Bool { members.isEmpty }

    /// The value of a key, O(members). Keys are the same if their bytes are. Setting nil takes the member out.
    public subscript(key: String) -> JSON? {
      get { members.first { $0.key.utf8.elementsEqual(key.utf8) }?.value }
      set {
        let place = members.firstIndex { $0.key.utf8.elementsEqual(key.utf8) }
        switch (place, newValue) {
        case (let place?, let value?): members[place].value = value
        case (let place?, nil): members.remove(at: place)
        case (nil, let value?): members.append((key, value))
        case (nil, nil): break
        }
      }
    }
  }
}

/// Such as the variables of a template: `["enable_thinking": false]`.
extension JSON.Object: ExpressibleByDictionaryLiteral {
  public init(dictionaryLiteral elements: (String, JSON)...) { self.init(elements.map { (key: $0.0, value: $0.1) }) }
}

extension JSON.Object: Hashable {
  public static func == (left: Self, right: Self) -> Bool {
    guard left.count == right.count else { return false }
    // Values are compared once, in whichever way: twice at every depth would double the time with each.
    if zip(left.members, right.members).allSatisfy({ $0.key.utf8.elementsEqual($1.key.utf8) }) {
      return zip(left.members, right.members).allSatisfy { $0.value == $1.value }
    }
    var values: [[UInt8]: JSON] = [:]
    for member in right.members { values[Array(member.key.utf8)] = member.value }
    return left.members.allSatisfy { values[Array($0.key.utf8)] == $0.value }
  }

  public func hash(into hasher: inout Hasher) {
    // In whatever order the members are.
    let all = members.reduce(0) { sum, member in
      var own = Hasher()
      own.combine(member.key)
      own.combine(member.value)
      return sum ^ own.finalize()
    }
    hasher.combine(count)
    hasher.combine(all)
  }
}

extension JSON: ExpressibleByStringLiteral, ExpressibleByBooleanLiteral, ExpressibleByIntegerLiteral, ExpressibleByFloatLiteral,
  ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral, ExpressibleByNilLiteral
{
  public init(stringLiteral value: String) { self = .string(value) }
  public init(booleanLiteral value: Bool) { self = .bool(value) }
  public init(integerLiteral value: Int) { self = .integer(value) }
  public init(floatLiteral value: Double) { self = .number(value) }
  public init(arrayLiteral elements: JSON...) { self = .array(elements) }
  public init(dictionaryLiteral elements: (String, JSON)...) { self = .object(Object(elements.map { (key: $0.0, value: $0.1) })) }
  public init(nilLiteral: ()) { self = .null }
}

extension JSON {
  /// nil if the value is no string.
  public var string: String? { if case .string(let string) = self { string } else { nil } }
  /// nil if the value is no object.
  public var object: Object? { if case .object(let object) = self { object } else { nil } }
  /// nil if the value is no array.
  public var array: [JSON]? { if case .array(let array) = self { array } else { nil } }
  /// Whether the value is `null`.
  public var isNull: Bool { if case .null = self { true } else { false } }
  /// The value of a member; nil without it, or if the value is no object.
  public subscript(key: String) -> JSON? { object?[key] }
}

/// As the ``JSON`` that it is.
extension JSON.Object: Codable {
  public init(from decoder: any Decoder) throws {
    guard let object = try JSON(from: decoder).object else {
      throw DecodingError.typeMismatch(
        JSON.Object.self, DecodingError.Context(codingPath: decoder.codingPath, debugDescription: "an object is needed"))
    }
    self = object
  }

  public func encode(to encoder: any Encoder) throws { try JSON.object(self).encode(to: encoder) }
}

/// Through a coder, members keep their order as far as the coder keeps it: Foundation's decoder does not. Texts are read with their order by
/// `JSON(parsing:)` in MartletTokenizers, and written by ``text``.
extension JSON: Codable {
  private struct MemberKey: CodingKey {
    var stringValue: String
    var intValue: Int? { nil }
    init(stringValue: String) { self.stringValue = stringValue }
    init?(intValue: Int) { nil }
  }

  public init(from decoder: any Decoder) throws {
    if let container = try? decoder.container(keyedBy: MemberKey.self) {
      self = .object(Object(try container.allKeys.map { ($0.stringValue, try container.decode(JSON.self, forKey: $0)) }))
      return
    }
    if var container = try? decoder.unkeyedContainer() {
      var elements: [JSON] = []
      while !container.isAtEnd { elements.append(try container.decode(JSON.self)) }
      self = .array(elements)
      return
    }
    let container = try decoder.singleValueContainer()
    if container.decodeNil() {
      self = .null
    } else if let value = try? container.decode(Bool.self) {
      self = .bool(value)
    } else if let value = try? container.decode(Int.self) {
      self = .integer(value)
    } else if let value = try? container.decode(Double.self) {
      self = .number(value)
    } else {
      self = .string(try container.decode(String.self))
    }
  }

  public func encode(to encoder: any Encoder) throws {
    switch self {
    case .object(let object):
      var container = encoder.container(keyedBy: MemberKey.self)
      for (key, value) in object.members { try container.encode(value, forKey: MemberKey(stringValue: key)) }
    case .array(let elements):
      var container = encoder.unkeyedContainer()
      for element in elements { try container.encode(element) }
    case .null:
      var container = encoder.singleValueContainer()
      try container.encodeNil()
    case .bool(let value):
      var container = encoder.singleValueContainer()
      try container.encode(value)
    case .integer(let value):
      var container = encoder.singleValueContainer()
      try container.encode(value)
    case .number(let value):
      var container = encoder.singleValueContainer()
      try container.encode(value)
    case .largeInteger(let digits):
      var container = encoder.singleValueContainer()
      guard let value = Double(digits) else {
        throw EncodingError.invalidValue(
          self, EncodingError.Context(codingPath: encoder.codingPath, debugDescription: "\(digits) is no integer"))
      }
      try container.encode(value)
    case .string(let value):
      var container = encoder.singleValueContainer()
      try container.encode(value)
    }
  }
}
