// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletFormats

/// Reads the members of a JSON object by name and type, and knows which were read. `null` reads as missing.
final class ConfigReader {
  private let object: JSONValue
  /// Before a member's name in messages, such as "rope_scaling.".
  private let prefix: String
  private var read: Set<String> = []
  /// What ``finish(withoutEffect:)`` passed over, by the names with their prefixes.
  private(set) var ignored: [String] = []

  init(_ object: JSONValue, prefix: String = "") {
    self.object = object
    self.prefix = prefix
  }

  /// Whether there is a member of the name, null or not.
  func has(_ name: String) -> Bool { object[name] != nil }

  func value(_ name: String) -> JSONValue? {
    read.insert(name)
    return object[name].flatMap { $0.isNull ? nil : $0 }
  }

  /// An integer, also where it is written with a fraction of 0, as programs in JavaScript or Python do that compute it.
  func integer(_ name: String) throws -> Int? {
    try typed(name, "an integer", value(name)) { value in
      value.integer ?? value.double.flatMap { abs($0) <= 0x1p53 ? Int(exactly: $0) : nil }
    }
  }
  /// A number within float32's range.
  func double(_ name: String) throws -> Double? {
    try typed(name, "a number within float32's range", value(name)) { $0.double.flatMap { Float($0).isFinite ? $0 : nil } }
  }
  func bool(_ name: String) throws -> Bool? { try typed(name, "true or false", value(name)) { $0.bool } }
  func string(_ name: String) throws -> String? { try typed(name, "a string", value(name)) { $0.string } }

  func doubles(_ name: String) throws -> [Double]? { try list(name, "a list of numbers") { $0.double } }
  func strings(_ name: String) throws -> [String]? { try list(name, "a list of strings") { $0.string } }

  func integers(_ name: String) throws -> [Int]? { try list(name, "a list of integers") { $0.integer } }
  /// A list of Booleans, or of zeros and ones.
  func flags(_ name: String) throws -> [Bool]? {
    try list(name, "a list of Booleans, or of zeros and ones") { $0.bool ?? ($0.integer == 0 ? false : $0.integer == 1 ? true : nil) }
  }

  /// A reader of the object under `name`.
  func object(_ name: String) throws -> ConfigReader? {
    try typed(name, "an object", value(name)) { $0.kind == .object ? ConfigReader($0, prefix: "\(prefix)\(name).") : nil }
  }

  func invalid(_ name: String, _ value: Any, _ reason: String) -> ModelError {
    .invalid(key: prefix + name, value: "\(value)", reason: reason)
  }

  /// - Throws: ``ModelError/Code/unknownSetting`` for the first member that was not read and may have an effect.
  func finish(withoutEffect: Set<String> = []) throws {
    for (key, value) in object.members {
      let name = key.string!
      if read.contains(name) || value.isNull || withoutEffect.contains(name) || name.hasPrefix("_") { continue }
      if CheckpointTranslation.isHarmless(name, value) {
        ignored.append(prefix + name)
        continue
      }
      throw ModelError.unknownSetting(prefix + name, value: "\(value)")
    }
  }

  /// Whether the object has every member of another, with the same value; `type` is the old name of `rope_type`. For two spellings of RoPE's settings,
  /// of which the newer may be nested by kind of layer.
  func says(_ other: ConfigReader) -> Bool {
    let mine = object["full_attention"] ?? object
    return other.object.members.allSatisfy { key, value in
      let name = key.string!
      let found = mine[name] ?? (name == "type" ? mine["rope_type"] : name == "rope_type" ? mine["type"] : nil)
      return value.isNull || found.map { $0.isSame(as: value) } ?? false
    }
  }

  private func typed<T>(_ name: String, _ wanted: String, _ value: JSONValue?, _ read: (JSONValue) -> T?) throws -> T? {
    guard let value else { return nil }
    guard let result = read(value) else { throw invalid(name, value, "\(wanted) is needed") }
    return result
  }

  private func list<T>(_ name: String, _ wanted: String, _ read: (JSONValue) -> T?) throws -> [T]? {
    try typed(name, wanted, value(name)) { value in
      guard value.kind == .array else { return nil }
      var result: [T] = []
      for element in value.elements {
        guard let element = read(element) else { return nil }
        result.append(element)
      }
      return result
    }
  }
}

extension JSONValue {
  /// Whether both say the same: numbers by value, objects in any order.
  fileprivate func isSame(as other: JSONValue) -> Bool {
    guard kind == other.kind, count == other.count else { return false }
    switch kind {
    case .null: return true
    case .bool: return bool == other.bool
    case .number: return double == other.double
    case .string: return string == other.string
    case .array: return zip(elements, other.elements).allSatisfy { $0.isSame(as: $1) }
    case .object: return members.allSatisfy { key, value in other[key.string!]?.isSame(as: value) ?? false }
    }
  }
}
