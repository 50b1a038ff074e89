// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletFormats

/// Reads the members of a JSON object by name and type, and knows which were read. `null` reads as missing.
final class ConfigReader {
  private let object: JSONValue
  /// Before a member's name in messages, such as "rope_scaling.".
  private let prefix: String
  private var read: Set<String> = []

  init(_ object: JSONValue, prefix: String = "") {
    self.object = object
    self.prefix = prefix
  }

  func value(_ name: String) -> JSONValue? {
    read.insert(name)
    return object[name].flatMap { $0.isNull ? nil : $0 }
  }

  func integer(_ name: String) throws -> Int? { try typed(name, "an integer", value(name)) { $0.integer } }
  /// A number within float32's range.
  func double(_ name: String) throws -> Double? {
    try typed(name, "a number within float32's range", value(name)) { $0.double.flatMap { Float($0).isFinite ? $0 : nil } }
  }
  func bool(_ name: String) throws -> Bool? { try typed(name, "true or false", value(name)) { $0.bool } }
  func string(_ name: String) throws -> String? { try typed(name, "a string", value(name)) { $0.string } }

  func doubles(_ name: String) throws -> [Double]? { try list(name, "a list of numbers") { $0.double } }
  func strings(_ name: String) throws -> [String]? { try list(name, "a list of strings") { $0.string } }

  /// A reader of the object under `name`.
  func object(_ name: String) throws -> ConfigReader? {
    try typed(name, "an object", value(name)) { $0.kind == .object ? ConfigReader($0, prefix: "\(prefix)\(name).") : nil }
  }

  func invalid(_ name: String, _ value: Any, _ reason: String) -> ModelError {
    .invalid(key: prefix + name, value: "\(value)", reason: reason)
  }

  /// - Throws: ``ModelError/unknownSetting(_:value:)`` for the first member that was not read, is not null, and may have an effect.
  func finish(withoutEffect: Set<String> = []) throws {
    for (key, value) in object.members {
      let name = key.string!
      if read.contains(name) || value.isNull || withoutEffect.contains(name) || name.hasPrefix("_") { continue }
      throw ModelError.unknownSetting(prefix + name, value: "\(value)")
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
