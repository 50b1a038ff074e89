// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletTemplates
import MartletTokenizers
import Testing

/// Conversations as OpenAI's API has them, and options as they are kept: the texts here are written by hand.
@Suite struct ChatCodableTests {
  private func text(_ value: some Encodable) throws -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    return String(decoding: try encoder.encode(value), as: UTF8.self)
  }
  private func value<Value: Decodable>(_ text: String, as type: Value.Type = Value.self) throws -> Value {
    try JSONDecoder().decode(type, from: Data(text.utf8))
  }

  @Test func `messages are read and written as OpenAI's API has them`() throws {
    let messages = [
      ChatMessage(role: "system", content: "Be brief."),
      ChatMessage(role: "user", content: .parts([["type": "text", "text": "Hi"]]), name: "ann"),
      ChatMessage(
        role: "assistant", toolCalls: [ToolCall(id: "call_1", name: "weather", arguments: #"{"city":"Paris"}"#)],
        reasoning: "I must look."),
      ChatMessage(role: "tool", content: .text("12 °C"), toolCallID: "call_1"),
      ChatMessage(role: "assistant", content: .text("Cool."), further: ["weight": 0]),
    ]
    let written =
      #"[{"content":"Be brief.","role":"system"},"#
      + #"{"content":[{"text":"Hi","type":"text"}],"name":"ann","role":"user"},"#
      + #"{"reasoning_content":"I must look.","role":"assistant","#
      + #""tool_calls":[{"function":{"arguments":"{\"city\":\"Paris\"}","name":"weather"},"id":"call_1","type":"function"}]},"#
      + #"{"content":"12 °C","role":"tool","tool_call_id":"call_1"},"#
      + #"{"content":"Cool.","role":"assistant","weight":0}]"#
    #expect(try text(messages) == written)
    #expect(try value(written) == messages)
  }

  @Test func `what is no message is an error that says why`() {
    #expect(throws: TokenizerError.malformedMessage("a message has no \"role\"")) { try value("{}", as: ChatMessage.self) }
    #expect(throws: TokenizerError.malformedMessage("a tool call has no function's name")) { try value("{}", as: ToolCall.self) }
  }

  @Test func `options come back, and what they leave out has its default`() throws {
    let options = ChatOptions(
      addsGenerationPrompt: false, continuesFinalMessage: true, variables: ["enable_thinking": false, "limits": [1, 2.5, nil]],
      now: LocalTime(year: 2026, month: 2, day: 3, hour: 4, minute: 5, second: 6), specialTokensInContent: .parsed)
    let written =
      #"{"add_generation_prompt":false,"continue_final_message":true,"now":"2026-02-03T04:05:06","#
      + #""special_tokens_in_content":"parsed","variables":{"enable_thinking":false,"limits":[1,2.5,null]}}"#
    #expect(try text(options) == written)
    #expect(try value(written) == options)
    #expect(try value("{}") == ChatOptions())
    #expect(try text(ChatOptions()).contains("\"special_tokens_in_content\":\"text\""))
    #expect(throws: DecodingError.self) { try value(#"{"variables":[1]}"#, as: ChatOptions.self) }
    #expect(throws: DecodingError.self) { try value(#"{"now":"2026-02-30"}"#, as: ChatOptions.self) }
  }

  @Test func `a time is the text that it was read from`() {
    for text in ["2026-11-29T12:34:56", "0001-01-01T00:00:00", "9999-12-31T23:59:60"] { #expect(LocalTime(text)?.description == text) }
    #expect(LocalTime("2024-02-29")?.description == "2024-02-29T00:00:00")
  }
}
