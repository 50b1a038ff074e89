// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import Martlet
import MartletTestSupport
import Testing

/// Requests and answers as files and queues keep them. The types are named by `import Martlet` alone.
@Suite("Values in JSON")
struct CodingTests {
  private static func text(_ value: some Encodable) throws -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    return String(decoding: try encoder.encode(value), as: UTF8.self)
  }

  private static func value<T: Decodable>(_ text: String, as type: T.Type = T.self) throws -> T {
    try JSONDecoder().decode(type, from: Data(text.utf8))
  }

  @Test("of prompts come back as they were, in a form that a person can write")
  func prompts() throws {
    let options = ChatOptions(variables: ["enable_thinking": false])
    let prompts: [(Prompt, String)] = [
      ("hello", #"{"text":"hello"}"#), (.tokenIDs([1, 2]), #"{"token_ids":[1,2]}"#),
      (
        .placedTokenIDs([1, 2], TokenPositions(time: [0, 1], height: [0, 2], width: [0, 3])),
        #"{"positions":{"height":[0,2],"time":[0,1],"width":[0,3]},"token_ids":[1,2]}"#
      ),
      (.chat([ChatMessage(role: "user", content: "hi")]), #"{"messages":[{"content":"hi","role":"user"}]}"#),
    ]
    for (prompt, text) in prompts {
      #expect(try Self.text(prompt) == text)
      #expect(try Self.value(text) == prompt)
    }
    let full = Prompt.chat(
      [ChatMessage(role: "user", content: "hi")], tools: [.object(["type": "function"])], documents: [], options: options)
    #expect(try Self.value(Self.text(full)) == full)
    for wrong in ["{}", #"{"text":"a","token_ids":[1]}"#] {
      #expect(throws: DecodingError.self) { try Self.value(wrong, as: Prompt.self) }
    }
  }

  @Test("of sampling parameters leave out what has its default, and come back as they were")
  func sampling() throws {
    #expect(try Self.value("{}") == SamplingParams())
    for wrong in [#"{"timeout":1e300}"#, #"{"timeout":-1e300}"#] {
      #expect(throws: DecodingError.self) { try Self.value(wrong, as: SamplingParams.self) }
    }
    #expect(throws: LLMError.self) { try SamplingParams(timeout: .seconds(Int64.max)).validate() }
    #expect(
      try Self.value(#"{"temperature":0.5,"max_tokens":3,"logit_bias":{"7":-100}}"#)
        == SamplingParams(temperature: 0.5, logitBias: [7: -100], maxTokens: 3))
    let all = SamplingParams(
      temperature: 0.7, topK: 3, topP: 0.9, minP: 0.1, repetitionPenalty: 1.1, presencePenalty: 0.2, frequencyPenalty: -0.3,
      logitBias: [5: 1.5], seed: .max, maxTokens: 9, timeout: .milliseconds(1500), stop: ["a", "b"], stopTokenIDs: [3, 1], logprobs: 2,
      promptLogprobs: 0, cacheRetention: .high, ignoresEndTokens: true, showsControlTokens: true)
    let text = try Self.text(all)
    #expect(text.contains(#""timeout":1.5"#) && text.contains(#""stop_token_ids":[1,3]"#) && text.contains(#""cache_retention":"high""#))
    #expect(try Self.value(text) == all && text.contains(#""show_control_tokens":true"#))
  }

  @Test("of answers and statistics come back as they were")
  func outputs() async throws {
    let llm = try Tiny.llm(TinyModel(.llama, seed: 51))
    let output = try await llm.generate(
      "code", sampling: SamplingParams(maxTokens: 3, logprobs: 2, promptLogprobs: 0, ignoresEndTokens: true),
      options: RequestOptions(id: "x", metadata: ["a": "b"])
    ).output()
    #expect(output.logprobs.count == 3 && output.promptLogprobs.count == output.promptTokenIDs.count - 1)
    #expect(try Self.value(Self.text(output)) == output)
    let statistics = llm.statistics
    let text = try Self.text(statistics)
    #expect(try Self.value(text) == statistics && text.contains(#""length":1"#))
    let error = LLMError.overloaded(requests: 1, waitingRequests: 3, limit: 3)
    #expect(try Self.text(error.code) == #""overloaded""#)
  }
}
