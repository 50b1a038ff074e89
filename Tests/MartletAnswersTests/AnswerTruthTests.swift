// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// What transformers' own parser reads of the same texts; Fixtures/make_answers.py records it.

import Foundation
import MartletAnswers
import MartletFormats
import MartletTemplates
import MartletTokenizers
import Testing

@Suite struct AnswerTruthTests {
  private static func recorded() throws -> JSON {
    let path = try #require(Bundle.module.path(forResource: "answers", ofType: "json", inDirectory: "Fixtures"))
    return JSON(try JSONValue(path: path))
  }

  private func trimmed(_ text: String) -> String { text.trimmingCharacters(in: .whitespacesAndNewlines) }

  @Test func `answers of every family mean what transformers reads of them`() throws {
    var families: Set<String> = []
    var calls = 0
    for answer in try #require(Self.recorded()["answers"]?.array) {
      let family = try #require(answer["family"]?.string)
      let name = family.split(separator: " ").first.map(String.init) ?? ""
      let format = try #require(AnswerFormat.every.first { $0.toolCalls.rawValue == name })
      let text = try #require(answer["text"]?.string)
      let reading = Reading(text, format)
      #expect(reading.faults.isEmpty)
      // transformers strips every region; what is trimmed here is tested without it.
      #expect(trimmed(reading.content) == answer["read"]?["content"]?.string ?? "", "\(family): \(text)")
      #expect(trimmed(reading.reasoning) == answer["read"]?["thinking"]?.string ?? "", "\(family): \(text)")
      let wanted = (answer["read"]?["tool_calls"]?.array ?? []).map { call -> JSON in
        ["name": call["name"] ?? .null, "arguments": call["arguments"] ?? .null]
      }
      #expect(reading.values == wanted, "\(family): \(text)")
      families.insert(family)
      calls += wanted.count
    }
    #expect(families.count >= 13 && calls > 150)
  }

  @Test func `a bare text has the type that transformers finds for it by the tool's schema`() throws {
    var types: Set<String> = []
    for example in try #require(Self.recorded()["coerced"]?.array) {
      let schema = try #require(example["schema"])
      let text = try #require(example["text"]?.string)
      let answer = "<tool_call>\n<function=typed>\n<parameter=value>\n\(text)\n</parameter>\n</function>\n</tool_call>"
      let reading = Reading(answer, AnswerFormat(toolCalls: .functionMarkup), tools: [Tools.tool("typed", ["value": schema])])
      let value = try #require(reading.values.first?["arguments"]?["value"])
      let wanted = try #require(example["value"])
      // 1000 and 1e3 are one number: which of the two is written is nobody's business.
      if let number = Self.number(value), let wantedNumber = Self.number(wanted) {
        #expect(number == wantedNumber, "\(schema.text): \(text)")
      } else {
        #expect(value == wanted, "\(schema.text): \(text)")
      }
      types.insert(schema.text)
    }
    #expect(types.count >= 15)
  }

  private static func number(_ value: JSON) -> Double? {
    switch value {
    case .integer(let integer): Double(integer)
    case .largeInteger(let digits): Double(digits)
    case .number(let number): number
    default: nil
    }
  }
}
