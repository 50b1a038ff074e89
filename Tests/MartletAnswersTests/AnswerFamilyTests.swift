// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Round trips: an answer as a template of the family writes it into a conversation is read back as the message that it was.

import Foundation
import MartletAnswers
import MartletTemplates
import MartletTokenizers
import Testing

@Suite struct AnswerFamilyTests {
  private static let fixtures = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .appendingPathComponent("MartletTemplatesTests/Fixtures/families")

  private static func template(_ name: String) throws -> ChatTemplate {
    let source = try String(contentsOf: fixtures.appendingPathComponent("\(name)-style.jinja"), encoding: .utf8)
    return try ChatTemplate(source: source, specialTokens: ["bos_token": "<s>", "eos_token": "</s>"])
  }

  private static func format(_ template: ChatTemplate) throws -> AnswerFormat {
    AnswerFormat(template: try #require(template.programs["default"]).source)
  }

  /// What a family's template can write, and how.
  struct Family: CustomTestStringConvertible {
    var name: String
    var calls: AnswerFormat.ToolCalls
    /// What the prompt ends with before the answer, in a conversation that goes on.
    var opening: String
    /// What ends the answer's turn.
    var ending: String
    var writesReasoning = false
    var writesSeveralCalls = true
    var writesContentWithCalls = true
    var testDescription: String { name }
  }

  static let families = [
    Family(name: "qwen3", calls: .taggedJSON, opening: "<|im_start|>assistant\n", ending: "<|im_end|>", writesReasoning: true),
    Family(name: "qwen3-xml", calls: .functionMarkup, opening: "<|im_start|>assistant\n", ending: "<|im_end|>"),
    Family(name: "nemotron", calls: .functionMarkup, opening: "<|im_start|>assistant\n", ending: "<|im_end|>", writesReasoning: true),
    Family(
      name: "llama3.1", calls: .llama, opening: "<|start_header_id|>assistant<|end_header_id|>\n\n", ending: "<|eot_id|>",
      writesSeveralCalls: false, writesContentWithCalls: false),
    Family(name: "mistral-v0.3", calls: .mistral, opening: "[/INST]", ending: "</s>", writesContentWithCalls: false),
    Family(name: "mistral-v7-tekken", calls: .mistral, opening: "[/INST]", ending: "</s>"),
    Family(
      name: "harmony", calls: .channels, opening: "<|start|>assistant", ending: "<|call|>", writesReasoning: true,
      writesSeveralCalls: false, writesContentWithCalls: false),
    Family(name: "deepseek-r1", calls: .deepSeek, opening: "<｜Assistant｜>", ending: "<｜end▁of▁sentence｜>", writesContentWithCalls: false),
    Family(name: "glm", calls: .glm, opening: "<|assistant|>", ending: "<|observation|>", writesReasoning: true),
    Family(name: "minimax", calls: .miniMax, opening: "]~b]ai\n", ending: "[e~[", writesReasoning: true),
    Family(name: "kimi", calls: .kimi, opening: "<|im_middle|>", ending: "<|im_end|>"),
    Family(
      name: "granite", calls: .granite, opening: "<|start_of_role|>assistant<|end_of_role|>", ending: "<|end_of_text|>",
      writesContentWithCalls: false),
    Family(
      name: "command-r", calls: .commandR, opening: "<|CHATBOT_TOKEN|>", ending: "<|END_OF_TURN_TOKEN|>", writesContentWithCalls: false),
    Family(name: "apertus", calls: .apertus, opening: "<|assistant_start|>", ending: "<|assistant_end|>"),
  ]

  static let arguments: [(String, JSON)] = [
    ("weather", ["city": "Ulm"]), ("weather", ["city": "Zürich \"am See\"", "days": 3, "exact": true]), ("clock", [:]),
    (
      "note",
      [
        "text": "first line\nsecond <line>\n\n  \\ {\"x\": [1]}", "tags": ["a", "b, c"], "place": ["lat": 1.5, "name": ["deep": []]],
        "weight": -0.25,
      ]
    ),
    ("note", ["text": "42", "maybe": 7]), ("note", ["text": ""]),
  ]

  @Test(arguments: families) func `a message of calls is read back as it was`(family: Family) throws {
    let template = try Self.template(family.name)
    let format = try Self.format(template)
    #expect(format.toolCalls == family.calls)
    var messages: [[ToolCall]] = Self.arguments.enumerated().map {
      [
        ToolCall(
          // Mistral's templates ask for nine letters, and Kimi's ids are where its names stand.
          id: family.calls == .kimi ? "functions.\($0.element.0):\($0.offset)" : "abcdefgh\($0.offset)", name: $0.element.0,
          arguments: $0.element.1)
      ]
    }
    if family.writesSeveralCalls { messages += [messages[0] + messages[1] + messages[3], messages[2] + messages[2]] }
    let question = ChatMessage(role: "user", content: "Do it.")
    for calls in messages {
      for content in family.writesContentWithCalls ? ["", "I look.", "Two\n\nlines."] : [""] {
        for reasoning in family.writesReasoning ? [nil, "Hm.\n\nSo it is."] : [nil] {
          let answer = ChatMessage(role: "assistant", content: .text(content), toolCalls: calls, reasoning: reasoning)
          var text = try template.render([question, answer], tools: Tools.all, options: ChatOptions(addsGenerationPrompt: false)).text
          // gpt-oss begins every message of an answer like the answer.
          let opening = try #require(text.range(of: family.opening, options: family.calls == .channels ? [] : .backwards), "\(text)")
          let prompt = String(text[..<opening.upperBound])
          text = String(text[opening.upperBound...])
          // An end token is no text.
          if let ending = text.range(of: family.ending, options: .backwards) { text = String(text[..<ending.lowerBound]) }
          for pieces in [[text], text.unicodeScalars.map { String($0) }] {
            let reading = Reading(pieces, format, promptEnd: prompt)
            #expect(reading.faults.isEmpty && reading.calls.allSatisfy { $0.end == .whole }, "\(text)")
            #expect(reading.values == calls.map { ["name": .string($0.name), "arguments": $0.arguments] }, "\(text)")
            #expect(reading.content == content, "\(text)")
            #expect(reading.reasoning == reasoning ?? "", "\(text)")
          }
        }
      }
    }
  }

  @Test(arguments: families.filter(\.writesReasoning)) func `a message of reasoning and text is read back as it was`(family: Family) throws
  {
    let template = try Self.template(family.name)
    let format = try Self.format(template)
    for content in ["Yes.", "Two\n\nlines."] {
      let answer = ChatMessage(role: "assistant", content: .text(content), reasoning: "Hm.\n\nSo it is.")
      var text = try template.render(
        [ChatMessage(role: "user", content: "Do it."), answer], tools: Tools.all, options: ChatOptions(addsGenerationPrompt: false)
      ).text
      let opening = try #require(text.range(of: family.opening, options: family.calls == .channels ? [] : .backwards), "\(text)")
      text = String(text[opening.upperBound...])
      for ending in [family.ending, "<|return|>"] { if let end = text.range(of: ending) { text = String(text[..<end.lowerBound]) } }
      let reading = Reading(text, format, promptEnd: family.opening)
      #expect(reading.parts == [.reasoning("Hm.\n\nSo it is."), .content(content)], "\(text)")
    }
  }

  /// The prompt may have begun the reasoning, or have closed it.
  @Test func `what the prompt ends with is known to the answer`() throws {
    for (name, thinks) in [("qwen3", false), ("qwen3-xml", true), ("nemotron", true), ("deepseek-r1", true), ("minimax", true)] {
      let template = try Self.template(name)
      let format = try Self.format(template)
      let prompt = try template.render([ChatMessage(role: "user", content: "<think>Why?")], tools: Tools.all).text
      let answer = thinks ? "Hm.\n</think>\n\nSo." : "<think>\nHm.\n</think>\n\nSo."
      #expect(Reading(answer, format, promptEnd: prompt).parts == [.reasoning("Hm."), .content("So.")], "\(name)")
      // A model that writes the mark again means the same.
      #expect(Reading("<think>\nHm.\n</think>\n\nSo.", format, promptEnd: prompt).parts == [.reasoning("Hm."), .content("So.")], "\(name)")
      if name == "minimax" { continue }
      let closed = try template.render(
        [ChatMessage(role: "user", content: "Why?")], tools: Tools.all, options: ChatOptions(variables: ["enable_thinking": false])
      ).text
      #expect(Reading("So.", format, promptEnd: closed).parts == [.content("So.")], "\(name)")
    }
  }
}
