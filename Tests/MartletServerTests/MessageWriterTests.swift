// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import HTTPTypes
import Martlet
import MartletServer
import MartletTemplates
import MartletTestSupport
import Testing

/// The order that Anthropic's helper relies on: the message starts, blocks start, grow and stop one after the other, the message ends.
@Suite struct MessageWriterTests {
  private static func run(
    _ parts: [[AnswerPart]], finish: FinishReason = .endToken, stop: String? = nil
  ) -> (events: [JSON], reply: JSON) {
    var writer = MessageWriter(id: "msg_1", model: "m", promptTokens: 7)
    var events = writer.begin()
    for some in parts { events += writer.add(some) }
    events += writer.end(AnswerEnd(finish: finish, stop: stop, usage: Usage(promptTokens: 7, cachedTokens: 2, completionTokens: 3)))
    return (events, writer.reply)
  }

  private static func types(_ events: [JSON]) -> [String] { events.map { $0["type"]?.string ?? "?" } }

  @Test func `a text is one block`() {
    let (events, reply) = Self.run([[.content("Hel")], [.content("lo")]])
    #expect(
      Self.types(events) == [
        "message_start", "ping", "content_block_start", "content_block_delta", "content_block_delta", "content_block_stop",
        "message_delta",
        "message_stop",
      ])
    #expect(events[0]["message"]?["content"] == [])
    #expect(events[0]["message"]?["stop_reason"] == .null)
    #expect(events[2]["content_block"] == ["type": "text", "text": ""])
    #expect(events[3]["delta"] == ["type": "text_delta", "text": "Hel"])
    #expect(events[6]["delta"] == ["stop_reason": "end_turn", "stop_sequence": .null])
    #expect(reply["content"] == [["type": "text", "text": "Hello"]])
    #expect(
      reply["usage"]
        == ["input_tokens": 5, "output_tokens": 3, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 2])
  }

  @Test func `thoughts and calls are blocks, and a call's input comes as JSON in pieces`() {
    let (events, reply) = Self.run([
      [.reasoning("Hm.")],
      [.callBegan(index: 0, name: "f"), .callArguments(index: 0, "{\"a\":"), .callArguments(index: 0, " [1]}"), .callEnded(index: 0)],
    ])
    #expect(events[2]["content_block"] == ["type": "thinking", "thinking": "", "signature": ""])
    let start = events.first { $0["content_block"]?["type"] == "tool_use" }
    #expect(start?["content_block"]?["input"] == .object([:]))
    #expect(start?["index"] == 1)
    #expect(events.compactMap { $0["delta"]?["partial_json"]?.string }.joined() == "{\"a\": [1]}")
    let block = reply["content"]?.array?.last
    #expect(block?["input"] == ["a": [1]])
    #expect(block?["id"] == start?["content_block"]?["id"])
    #expect(reply["stop_reason"] == "tool_use")
  }

  @Test func `blocks never overlap, whatever comes`() {
    var generator = SeededGenerator(seed: 5)
    for round in 0..<300 {
      var parts: [AnswerPart] = []
      var calls = 0
      for _ in 0..<Int.random(in: 0...12, using: &generator) {
        switch Int.random(in: 0...4, using: &generator) {
        case 0: parts.append(.content("c"))
        case 1: parts.append(.reasoning("r"))
        case 2:
          parts.append(.callBegan(index: calls, name: "f"))
          calls += 1
        case 3: parts.append(.callArguments(index: Int.random(in: 0...max(0, calls), using: &generator), "{}"))
        default: parts.append(.callEnded(index: Int.random(in: 0...max(0, calls), using: &generator)))
        }
      }
      let (events, reply) = Self.run([parts])
      var (open, count): (Int?, Int) = (nil, 0)
      for event in events {
        let index = event["index"]?.wholeNumber
        switch event["type"]?.string {
        case "content_block_start":
          #expect(open == nil && index == count, "round \(round)")
          (open, count) = (index, count + 1)
        case "content_block_delta": #expect(open != nil && index == open, "round \(round)")
        case "content_block_stop":
          #expect(open != nil && index == open, "round \(round)")
          open = nil
        case "message_delta": #expect(open == nil, "round \(round)")
        default: break
        }
      }
      #expect(reply["content"]?.array?.count == count, "round \(round)")
      #expect(Self.types(events).suffix(2) == ["message_delta", "message_stop"], "round \(round)")
    }
  }

  @Test(arguments: [
    (FinishReason.endToken, "end_turn"), (.stopString, "stop_sequence"), (.length, "max_tokens"), (.deadline, "max_tokens"),
  ])
  func `how it ended is said in Anthropic's words`(finish: FinishReason, word: String) {
    let (_, reply) = Self.run([[.content("x")]], finish: finish, stop: finish == .stopString ? "END" : nil)
    #expect(reply["stop_reason"]?.string == word)
    #expect(reply["stop_sequence"] == (finish == .stopString ? "END" : .null))
  }

  @Test func `a call that was cut off at the limit is no call to be made`() {
    let (_, reply) = Self.run(
      [[.callBegan(index: 0, name: "f"), .callArguments(index: 0, "{\"a"), .callBroke(index: 0)]], finish: .length)
    #expect(reply["stop_reason"] == "max_tokens")
    #expect(reply["content"]?.array?.first?["input"] == .object([:]))
  }

  @Test func `a failure is one event in Anthropic's form`() {
    var writer = MessageWriter(id: "msg_1", model: "m", promptTokens: 7)
    #expect(
      writer.fail(APIError(.serviceUnavailable, "Full."))
        == [["type": "error", "error": ["type": "overloaded_error", "message": "Full."]]])
  }

  @Test func `a prompt that is too long is said in the words that clients look for`() {
    let error = APIError.contextExceeded(promptTokens: 9, context: 8, param: "messages")
    #expect(ErrorForm.anthropic.json(error)["error"]?["message"]?.string?.hasPrefix("prompt is too long: 9 tokens > 8 maximum") == true)
    #expect(error.message.contains("maximum context length is 8 tokens") && error.message.contains("prompt is too long"))
  }
}
#endif
