// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletAnswers
import Testing

/// Which format a template's text names.
@Suite struct AnswerFormatTests {
  @Test func `the project's templates are detected as their families`() throws {
    let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .appendingPathComponent("MartletTemplatesTests/Fixtures/families")
    let formats: [String: AnswerFormat] = [
      "apertus": AnswerFormat(toolCalls: .apertus), "chatml-tools.jinja": AnswerFormat(toolCalls: .taggedJSON),
      "command-r": AnswerFormat(toolCalls: .commandR),
      "deepseek-r1": AnswerFormat(reasoning: AnswerFormat.think, toolCalls: .deepSeek), "gemma2": AnswerFormat(), "gemma3": AnswerFormat(),
      "glm": AnswerFormat(reasoning: AnswerFormat.think, toolCalls: .glm),
      "granite": AnswerFormat(reasoning: AnswerFormat.think, toolCalls: .granite),
      "harmony": AnswerFormat(reasoning: .channels, toolCalls: .channels), "kimi": AnswerFormat(toolCalls: .kimi), "llama2": AnswerFormat(),
      "llama3.1": AnswerFormat(toolCalls: .llama), "minimax": AnswerFormat(reasoning: AnswerFormat.think, toolCalls: .miniMax),
      "mistral-v0.3": AnswerFormat(toolCalls: .mistral), "mistral-v7-tekken": AnswerFormat(toolCalls: .mistral),
      "nemotron": AnswerFormat(reasoning: AnswerFormat.think, toolCalls: .functionMarkup), "phi3": AnswerFormat(),
      "phi4-mini": AnswerFormat(),
      "qwen3": AnswerFormat(reasoning: AnswerFormat.think, toolCalls: .taggedJSON),
      "qwen3-xml": AnswerFormat(reasoning: AnswerFormat.think, toolCalls: .functionMarkup),
      "smollm3": AnswerFormat(reasoning: AnswerFormat.think),
    ]
    for (name, format) in formats {
      let source = try String(
        contentsOf: folder.appendingPathComponent(name.hasSuffix(".jinja") ? name : "\(name)-style.jinja"), encoding: .utf8)
      #expect(AnswerFormat(template: source) == format, "\(name)")
    }
  }

  @Test func `a mark that belongs to one family goes before one that many have, and comments name none`() {
    #expect(AnswerFormat(template: "{# [TOOL_CALLS] <think> #}{{ '<tool_call>' }}") == AnswerFormat(toolCalls: .taggedJSON))
    #expect(
      AnswerFormat(template: "<tool_call><function=a><parameter=b>{\"name\": 1, \"parameters\": 2} tool_calls").toolCalls == .functionMarkup
    )
    #expect(AnswerFormat(template: "[TOOL_CALLS] <tool_call>").toolCalls == .mistral)
    #expect(AnswerFormat(template: "{\"name\": x, \"parameters\": y}").toolCalls == .none)
    #expect(AnswerFormat(template: "{{ text.split('</think>') }}").reasoning == AnswerFormat.think)
    #expect(
      AnswerFormat(template: "plain", specialTokens: ["[THINK]", "[/THINK]"]).reasoning == .between(open: "[THINK]", close: "[/THINK]"))
    #expect(AnswerFormat(template: "{#") == AnswerFormat() && AnswerFormat(template: "") == AnswerFormat())
  }

  @Test func `formats whose marks are control tokens ask for them`() {
    #expect(
      AnswerFormat(reasoning: .channels, toolCalls: .channels).needsControlTokens && AnswerFormat(toolCalls: .mistral).needsControlTokens)
    #expect(AnswerFormat(reasoning: .between(open: "[THINK]", close: "[/THINK]")).needsControlTokens)
    #expect(!AnswerFormat(reasoning: AnswerFormat.think, toolCalls: .taggedJSON).needsControlTokens && !AnswerFormat().needsControlTokens)
  }
}
