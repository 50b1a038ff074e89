// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Foundation
import MartletFormats
import MartletTemplates
import MartletTokenizers

/// The options of `martlet serve` from the three places where they may stand, as one command line: so a name or a value that is wrong in a file
/// is told as one on the command line is. (swift-configuration, 1.4, gives the default in place of a value that it cannot read.)
package enum ServeSettings {
  /// An option as the help has it.
  private struct Option {
    var name: String
    /// Whether it is followed by a value.
    var takesValue: Bool
  }

  /// What may be given several times.
  private static let lists: Set = ["api-key", "alias", "cors-origin", "allowed-host", "set"]
  private static let prefix = "MARTLET_SERVE_"

  /// What was given on the command line, after what the environment and the file say beyond it.
  ///
  /// - Parameter arguments: behind `martlet serve`.
  package static func merged(arguments: [String], environment: [String: String]) throws -> [String] {
    let options = Dictionary(uniqueKeysWithValues: known().map { ($0.name, $0) })
    var given: Set<String> = []
    for argument in arguments.prefix(while: { $0 != "--" }) where argument.hasPrefix("--") {
      let name = String(argument.dropFirst(2).prefix { $0 != "=" })
      if !given.insert(name).inserted, options[name] != nil, !lists.contains(name) {
        throw ValidationError("--\(name) is given twice")
      }
    }
    var further: [String] = []
    var file = value(of: "config", in: arguments)
    for (key, value) in environment.sorted(by: { $0.key < $1.key }) where key.hasPrefix(prefix) {
      let name = key.dropFirst(prefix.count).lowercased().replacingOccurrences(of: "_", with: "-")
      guard let option = options[name] else { throw ValidationError("\(key) is set, and there is no option --\(name)") }
      // Nothing between two quotes is mostly a variable that somebody forgot to fill, and would take a key away or the next argument with it.
      if value.allSatisfy(\.isWhitespace) { throw ValidationError("\(key) is empty; give it a value, or unset it") }
      if name == "config" { file = file ?? value }
      if given.contains(name) { continue }
      given.insert(name)
      if option.takesValue {
        // Several keys in one variable stand on lines of their own.
        let values = lists.contains(name) ? value.split(whereSeparator: \.isNewline).map(String.init) : [value]
        further += values.map { "--\(name)=\($0)" }
      } else {
        guard let flag = ["true": true, "1": true, "false": false, "0": false][value.lowercased()] else {
          throw ValidationError("\(key) is \(value); it must be true or false")
        }
        if flag { further.append("--\(name)") }
      }
    }
    if let file { further += try fileArguments(in: file, options, given) }
    return further + arguments
  }

  private static func fileArguments(in file: String, _ options: [String: Option], _ given: Set<String>) throws -> [String] {
    let text = try ConversationFile.text(file)
    let json: JSONValue
    do { json = try JSONValue(parsing: Array(text.utf8)) } catch { throw CommandError("\(file) is not JSON: \(error.reason)") }
    guard json.kind == .object else { throw CommandError("\(file) holds no object of options, such as {\"port\": 8080}") }
    var arguments: [String] = []
    var names: Set<String> = []
    for (key, member) in json.members {
      let (name, value) = (key.string ?? "", JSON(member))
      if !names.insert(name).inserted { throw CommandError("\(file) has \"\(name)\" twice") }
      guard let option = options[name], name != "config" else { throw CommandError("\(file): there is no option \"\(name)\"") }
      if given.contains(name) { continue }
      switch value {
      case .bool(let flag) where !option.takesValue: if flag { arguments.append("--\(name)") }
      case .array(let elements) where lists.contains(name):
        if elements.isEmpty, name == "api-key" { throw CommandError("\(file): \"\(name)\" holds no key") }
        for element in elements {
          guard let text = element.string, !text.isEmpty else {
            throw CommandError("\(file): \"\(name)\" must hold strings that are not empty")
          }
          arguments.append("--\(name)=\(text)")
        }
      case .string(let text) where option.takesValue:
        if text.isEmpty { throw CommandError("\(file): \"\(name)\" is empty; give it a value, or leave it out") }
        arguments.append("--\(name)=\(text)")
      case .integer where option.takesValue && !lists.contains(name), .number where option.takesValue && !lists.contains(name):
        arguments.append("--\(name)=\(value.text)")
      default:
        throw CommandError(
          "\(file): \"\(name)\" must be \(lists.contains(name) ? "an array of strings" : option.takesValue ? "a string or a number" : "true or false")"
        )
      }
    }
    return arguments
  }

  /// From the help, which lists them all.
  private static func known() -> [Option] {
    var options: [String: Option] = [:]
    for line in Serve.helpMessage(columns: 10_000).split(separator: "\n") {
      let words = line.split(separator: " ")
      guard let first = words.first, first.hasPrefix("--"), line.hasPrefix("  -") else { continue }
      let name = String(first.dropFirst(2))
      options[name] = Option(name: name, takesValue: words.count > 1 && words[1].hasPrefix("<"))
    }
    return Array(options.values)
  }

  private static func value(of name: String, in arguments: [String]) -> String? {
    for (index, argument) in arguments.enumerated() {
      if argument == "--\(name)", index + 1 < arguments.count { return arguments[index + 1] }
      if argument.hasPrefix("--\(name)=") { return String(argument.dropFirst(name.count + 3)) }
    }
    return nil
  }
}
