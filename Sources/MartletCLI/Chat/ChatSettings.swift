// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Martlet
import MartletTemplates
import MartletTokenizers

/// What a person can change in the middle of a chat: how tokens are chosen, and the template's variables.
///
/// A setting has the name of its option, without dashes.
struct ChatSettings {
  private(set) var sampling: SamplingParams
  private(set) var variables: JSON.Object
  private(set) var showsStatistics: Bool
  /// Whether the seed was chosen, by the person or by a draw that was told.
  private(set) var hasSeed: Bool
  private var answerCount: UInt64 = 0
  private let given: (sampling: SamplingParams, variables: JSON.Object, showsStatistics: Bool)

  init(sampling options: SamplingOptions, form: AnswerForm? = nil, variables: JSON.Object, showsStatistics: Bool) {
    sampling = options.params(seed: options.seed ?? 0, maxTokens: nil)
    sampling.form = form
    self.variables = variables
    self.showsStatistics = showsStatistics
    hasSeed = options.seed != nil
    given = (sampling, variables, showsStatistics)
  }

  /// Draws a seed where one is needed and none was chosen.
  /// - Returns: the seed that was drawn, to be told.
  mutating func drawSeed() -> UInt64? {
    guard sampling.temperature > 0, !hasSeed else { return nil }
    sampling.seed = UInt64.random(in: 0...UInt64(UInt32.max))
    hasSeed = true
    return sampling.seed
  }

  /// For the next answer: every one draws from a seed of its own.
  mutating func nextSampling() -> SamplingParams {
    var next = sampling
    next.seed = sampling.seed &+ answerCount
    answerCount += 1
    return next
  }

  // MARK: By name

  private struct Setting {
    var name: String
    var show: (ChatSettings) -> String
    /// nil takes what was given at the start. Returns whether the text was one.
    var set: (inout ChatSettings, _ text: String) -> Bool

    /// A number that is always there.
    static func number<Number: LosslessStringConvertible>(_ name: String, _ path: WritableKeyPath<SamplingParams, Number>) -> Setting {
      Setting(name: name, show: { "\($0.sampling[keyPath: path])" }) { settings, text in
        guard let number = Number(text) else { return false }
        settings.sampling[keyPath: path] = number
        return true
      }
    }

    /// A number that may be none.
    static func number<Number: LosslessStringConvertible>(_ name: String, _ path: WritableKeyPath<SamplingParams, Number?>) -> Setting {
      Setting(name: name, show: { $0.sampling[keyPath: path].map { "\($0)" } ?? "none" }) { settings, text in
        let number = Number(text)
        if number == nil && text != "none" { return false }
        settings.sampling[keyPath: path] = number
        return true
      }
    }
  }

  private static var all: [Setting] {
    [
      .number("temperature", \.temperature), .number("top-k", \.topK), .number("top-p", \.topP), .number("min-p", \.minP),
      .number("repetition-penalty", \.repetitionPenalty), .number("presence-penalty", \.presencePenalty),
      .number("frequency-penalty", \.frequencyPenalty), .number("max-tokens", \.maxTokens),
      Setting(name: "seed", show: { $0.hasSeed ? "\($0.sampling.seed)" : "drawn" }) { settings, text in
        guard let seed = UInt64(text) else { return false }
        settings.sampling.seed = seed
        settings.hasSeed = true
        settings.answerCount = 0
        return true
      },
      Setting(name: "timeout", show: { $0.sampling.timeout.map { "\($0.seconds)" } ?? "none" }) { settings, text in
        if text == "none" {
          settings.sampling.timeout = nil
          return true
        }
        guard let seconds = Double(text), seconds > 0, seconds <= SamplingOptions.longestTimeout else { return false }
        settings.sampling.timeout = .seconds(seconds)
        return true
      },
      Setting(name: "stop", show: { $0.sampling.stop.isEmpty ? "none" : $0.sampling.stop.map(\.debugDescription).joined(separator: ", ") })
      {
        settings, text in
        settings.sampling.stop = text == "none" ? [] : [text]
        return true
      },
      Setting(name: "stats", show: { $0.showsStatistics ? "on" : "off" }) { settings, text in
        guard ["on", "off"].contains(text) else { return false }
        settings.showsStatistics = text == "on"
        return true
      },
    ]
  }

  /// All of them with their values, a line each.
  var list: String {
    let lines = Self.all.map { "  \($0.name) \($0.show(self))" } + variables.members.map { "  \($0.key) \($0.value.text)" }
    return "Settings, and variables of the template that are set:\n" + lines.joined(separator: "\n")
  }

  /// Sets what `text` names, a name and a value, or shows it, where there is a name only.
  ///
  /// - Parameter template: where a name that is no setting's must occur to be a variable's.
  /// - Returns: what to tell the person.
  mutating func set(_ text: String, template: ChatTemplate?) -> String {
    let name = String(text.prefix { !$0.isWhitespace })
    let value = text.dropFirst(name.count).trimmingWhitespace
    if name.isEmpty { return list }
    guard let setting = Self.all.first(where: { $0.name == name }) else { return set(variable: name, value, template: template) }
    if value.isEmpty { return "\(name) is \(setting.show(self))." }
    let before = self
    if value == "default" {
      let start = ChatSettings(given: given, hasSeed: hasSeed)
      if !setting.set(&self, setting.show(start)) { self = before }
    } else if !setting.set(&self, value) {
      return "\(name) cannot be \"\(value)\"; it is still \(setting.show(self))."
    }
    do { try sampling.validate() } catch {
      self = before
      return "\(name) is still \(setting.show(self)): \(words(of: error))"
    }
    return "\(name) is now \(setting.show(self))."
  }

  private init(given: (sampling: SamplingParams, variables: JSON.Object, showsStatistics: Bool), hasSeed: Bool) {
    (sampling, variables, showsStatistics) = given
    self.hasSeed = hasSeed
    self.given = given
  }

  private mutating func set(variable name: String, _ text: String, template: ChatTemplate?) -> String {
    // The whole of a word of the template, not a part of one.
    let isKnown =
      variables[name] != nil
      || template.map { template in
        template.programs.values.contains { program in
          program.source.split { !$0.isLetter && !$0.isNumber && $0 != "_" }.contains { $0 == name }
        }
      } ?? false
    guard isKnown, !ChatTemplate.ownVariables.contains(name) else {
      return "There is no setting \(name), and the chat template has no such variable.\n\(list)"
    }
    if text.isEmpty { return variables[name].map { "\(name) is \($0.text)." } ?? "\(name) is not set." }
    if text == "default" {
      variables[name] = given.variables[name]
    } else {
      // What is not JSON is meant as a string; at the command line, where a mistake is sooner made, it is refused.
      variables[name] = (try? JSON(parsing: text)) ?? .string(text)
    }
    return variables[name].map { "\(name) is now \($0.text)." } ?? "\(name) is not set any more."
  }
}

extension Substring {
  fileprivate var trimmingWhitespace: String {
    var text = drop(while: \.isWhitespace)
    while text.last?.isWhitespace == true { text.removeLast() }
    return String(text)
  }
}
