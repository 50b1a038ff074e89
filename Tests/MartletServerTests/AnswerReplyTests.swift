// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import HTTPTypes
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

  @Test func `an answer has the form that is asked for, in every API that answers with one`() async throws {
    let server = try Self.server()
    let schema: JSON = [
      "type": "object", "properties": ["ok": ["type": "boolean"], "n": ["type": "integer", "minimum": 0, "maximum": 99]],
      "required": ["ok", "n"], "additionalProperties": false,
    ]
    let reply = try await server.response(
      to: [
        "input": "abc", "max_output_tokens": 40, "temperature": 1, "seed": 3,
        "text": ["format": ["type": "json_schema", "name": "n", "strict": true, "schema": schema]],
      ])
    let text = try #require(reply["output"]?.array?.first?["content"]?.array?.first?["text"]?.string)
    let value = try JSON(parsing: text)
    #expect(value.object?.count == 2 && value["n"]?.wholeNumber.map { (0...99).contains($0) } == true, "\(text)")
    #expect([.bool(true), .bool(false)].contains(value["ok"]) && reply["status"] == "completed")
    let message = try await server.message(
      to: [
        "messages": [["role": "user", "content": "abc"]], "max_tokens": 40, "temperature": 1, "seed": 3,
        "output_config": ["format": ["type": "json_schema", "schema": schema]],
      ])
    #expect(message["content"]?.array?.first?["text"]?.string == text && message["stop_reason"] == "end_turn")
  }

  @Test func `a form that cannot be held is a 400 with its field and its place`() async throws {
    let server = try Self.server()
    let schema: JSON = ["type": "object", "properties": ["maxTokens": ["type": "string", "format": "rhyme"]]]
    let error = await #expect(throws: APIError.self) {
      try await server.response(to: ["input": "abc", "text": ["format": ["type": "json_schema", "schema": schema]]])
    }
    #expect(error?.status == .badRequest && error?.param == "text.format.schema" && error?.code == "invalid_form")
    #expect(error?.message.contains("#/properties/maxTokens/format") == true, "\(error?.message ?? "")")
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

  @Test func `the tokens of a response's text come with their log-probabilities, those of chat`() async throws {
    let server = try Self.server()
    let asked: JSON.Object = ["input": "abc", "max_output_tokens": 40, "include": ["message.output_text.logprobs"], "top_logprobs": 2]
    let reply = try await server.response(to: Self.asking(asked))
    let part = reply["output"]?.array?.first?["content"]?.array?.first
    let entries = part?["logprobs"]?.array ?? []
    // The model writes bytes, half of which are no character by themselves: what their tokens are named for is looked at by the bytes.
    let bytes = entries.flatMap { $0["bytes"]?.array?.compactMap(\.wholeNumber).map { UInt8($0) } ?? [] }
    #expect(!entries.isEmpty && String(decoding: bytes, as: UTF8.self) == part?["text"]?.string)
    for entry in entries {
      #expect((entry["logprob"]?.anyNumber ?? 1) <= 0)
      #expect(entry["top_logprobs"]?.array?.count == 2)
    }
    #expect(reply["top_logprobs"] == 2)
    let plain = try await server.response(to: Self.asking(["input": "abc", "max_output_tokens": 40]))
    #expect(plain["output"]?.array?.first?["content"]?.array?.first?["logprobs"] == [])
  }

  @Test func `the seed that was drawn gives the same answer again, in every API`() async throws {
    let server = try Self.server()
    let noise: JSON.Object = ["temperature": 1.0, "ignore_eos": true, "logit_bias": ["256": -100, "257": -100, "258": -100]]
    func text(_ members: JSON.Object, _ reply: (JSON) async throws -> JSON) async throws -> (JSON?, [JSON]) {
      let reply = try await reply(.object(JSON.Object(members.members + noise.members)))
      return (reply["seed"], (reply["output"]?.array?.first ?? reply)["content"]?.array?.compactMap { $0["text"] } ?? [])
    }
    let input: JSON.Object = ["input": "abc", "max_output_tokens": 30]
    let (seed, answer) = try await text(input) { try await server.response(to: $0) }
    #expect(seed?.wholeNumber != nil && !answer.isEmpty)
    let again = try await text(JSON.Object(input.members + [(key: "seed", value: seed ?? .null)])) { try await server.response(to: $0) }
    #expect(again.1 == answer)
    let conversation: JSON.Object = ["messages": [["role": "user", "content": "abc"]], "max_tokens": 30]
    let first = try await text(conversation) { try await server.message(to: $0) }
    #expect(first.0?.wholeNumber != nil && first.0 != seed)
    let second = try await text(JSON.Object(conversation.members + [(key: "seed", value: first.0 ?? .null)])) {
      try await server.message(to: $0)
    }
    #expect(second.1 == first.1)
  }

  @Test func `what came over no connection is booked as what it became`() async throws {
    let registry = PrometheusRegistry()
    let llm = try LLM(file: TinyModel(.llama, seed: 3) { $0.hasOutput = true }.file())
    let server = ModelServer(llm, configuration: ServerConfiguration(metricsFactory: registry))
    _ = try await server.response(to: Self.asking(["input": "abc", "max_output_tokens": 2]))
    await #expect(throws: APIError.self) { _ = try await server.response(to: ["input": []]) }
    await #expect(throws: APIError.self) { _ = try await server.message(to: ["messages": []]) }
    await #expect(throws: APIError.self) {
      _ = try await server.message(to: ["model": "x", "max_tokens": 1, "messages": [["role": "user", "content": "a"]]])
    }
    await llm.shutdown(gracePeriod: .zero)
    await #expect(throws: APIError.self) { _ = try await server.response(to: ["input": "abc"]) }
    let text = registry.text(names: try PrometheusNames("martlet"), modelName: "m", statistics: nil)
    for (route, status, count) in [("responses", "2xx", 1), ("responses", "4xx", 1), ("messages", "4xx", 2), ("responses", "5xx", 1)] {
      #expect(text.contains("martlet_http_requests_total{route=\"/v1/\(route)\",status=\"\(status)\"} \(count)"), "\(text)")
    }
    #expect(!text.contains("route=\"/v1/messages\",status=\"2xx\""))
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
