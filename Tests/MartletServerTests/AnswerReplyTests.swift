// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import Martlet
import MartletServer
import MartletTemplates
import MartletTestSupport
import Testing

/// Answers of a real engine over a tiny model, through the writers of the APIs.
@Suite struct AnswerReplyTests {
  private static func server() throws -> ModelServer {
    ModelServer(try LLM(file: TinyModel(.llama, seed: 3) { $0.hasOutput = true }.file()))
  }

  @Test func `a response counts its tokens, and is cut at its limit`() async throws {
    let server = try Self.server()
    let reply = try await server.response(to: ["input": "abc", "max_output_tokens": 4, "temperature": 0, "ignore_eos": true])
    #expect(reply["status"] == "incomplete")
    #expect(reply["usage"]?["output_tokens"] == 4)
    #expect(reply["model"] == "tiny llama")
    let input = try await server.inputTokens(of: ["input": "abc"])
    #expect(reply["usage"]?["input_tokens"]?.wholeNumber == input)
  }

  private static let sampling: JSON.Object = [
    "temperature": 1.0, "seed": 5, "ignore_eos": true, "logit_bias": ["256": -100, "257": -100, "258": -100],
  ]

  /// Members that draw the same noise in every API, without the control tokens: half of the bytes are characters.
  private static func asking(_ members: JSON.Object) -> JSON {
    .object(JSON.Object(members.members + sampling.members))
  }

  @Test func `a message and a response to the same conversation are the same text`() async throws {
    let server = try Self.server()
    let response = try await server.response(to: Self.asking(["input": "abc", "max_output_tokens": 40]))
    let message = try await server.message(
      to: Self.asking(["messages": [["role": "user", "content": "abc"]], "max_tokens": 40]))
    let text = response["output"]?.array?.first?["content"]?.array?.first?["text"]?.string
    #expect(text?.isEmpty == false)
    #expect(message["content"]?.array?.first?["text"]?.string == text)
    let (input, cached) = (message["usage"]?["input_tokens"]?.wholeNumber, message["usage"]?["cache_read_input_tokens"]?.wholeNumber)
    #expect((input ?? 0) + (cached ?? 0) == response["usage"]?["input_tokens"]?.wholeNumber)
  }

  @Test func `of several stop sequences the answer names the one that was met`() async throws {
    let server = try Self.server()
    let conversation: JSON.Object = ["messages": [["role": "user", "content": "abc"]], "max_tokens": 40]
    let whole = try await server.message(to: Self.asking(conversation))
    let text = whole["content"]?.array?.first?["text"]?.string ?? ""
    let scalar = try #require(text.unicodeScalars.dropFirst(3).first { $0.isASCII && $0.value > 32 })
    var stopped = conversation
    stopped["stop_sequences"] = ["never in it", .string(String(scalar)), "nor this"]
    let reply = try await server.message(to: Self.asking(stopped))
    #expect(reply["stop_reason"] == "stop_sequence")
    #expect(reply["stop_sequence"]?.string == String(scalar))
  }

  @Test func `a prompt that has no room is refused in every API's words`() async throws {
    let server = try Self.server()
    let long = JSON.string(String(repeating: "x", count: 400))
    let error = await #expect(throws: APIError.self) { _ = try await server.response(to: ["input": long]) }
    #expect(error?.code == "context_length_exceeded")
    #expect(error?.param == "input")
  }
}
#endif
