// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Metadata in the type that the reader needs. `integer("k")` fails without the key; `integer(ifPresent: "k")` is nil without it.
/// Both fail if the value has another type: a file that says something else is not read as if it said nothing.
extension GGUFFile {
  /// A string.
  public func string(_ key: String) throws(GGUFError) -> String { try required(key, string(ifPresent: key)) }
  /// Any of the integer types.
  public func integer(_ key: String) throws(GGUFError) -> Int { try required(key, integer(ifPresent: key)) }
  /// A float32, or a float64 rounded to one.
  public func float(_ key: String) throws(GGUFError) -> Float { try required(key, float(ifPresent: key)) }
  /// A Boolean.
  public func bool(_ key: String) throws(GGUFError) -> Bool { try required(key, bool(ifPresent: key)) }
  /// An array, as a view.
  public func array(_ key: String) throws(GGUFError) -> GGUFArray { try required(key, array(ifPresent: key)) }

  /// A string; nil without the key.
  public func string(ifPresent key: String) throws(GGUFError) -> String? {
    guard let value = value(key) else { return nil }
    guard case .string(let string) = value else { throw wrongType(key, value, "a string") }
    guard !repairedKeys.contains(key) else { throw .malformed(field: "metadata \"\(key)\"", problem: "is not valid UTF-8") }
    return string
  }

  /// An integer; nil without the key.
  public func integer(ifPresent key: String) throws(GGUFError) -> Int? {
    guard let value = value(key) else { return nil }
    guard let integer = value.integer else { throw wrongType(key, value, "an integer") }
    return integer
  }

  /// A floating-point number; nil without the key.
  public func float(ifPresent key: String) throws(GGUFError) -> Float? {
    guard let value = value(key) else { return nil }
    guard let float = value.float else { throw wrongType(key, value, "a floating-point number") }
    return float
  }

  /// A Boolean; nil without the key.
  public func bool(ifPresent key: String) throws(GGUFError) -> Bool? {
    guard let value = value(key) else { return nil }
    guard case .bool(let bool) = value else { throw wrongType(key, value, "a bool") }
    return bool
  }

  /// An array; nil without the key.
  public func array(ifPresent key: String) throws(GGUFError) -> GGUFArray? {
    guard let value = value(key) else { return nil }
    guard case .array(let array) = value else { throw wrongType(key, value, "an array") }
    return array
  }

  private func required<T>(_ key: String, _ value: T?) throws(GGUFError) -> T {
    guard let value else { throw .missingKey(key) }
    return value
  }

  private func wrongType(_ key: String, _ value: GGUFValue, _ expected: String) -> GGUFError {
    .wrongType(key: key, found: value.typeDescription, expected: expected)
  }
}
