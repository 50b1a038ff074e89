// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import HTTPTypes
import Martlet
import MartletServer
import MartletTemplates
import MartletTestSupport
import Testing

/// The order that OpenAI's helper relies on: created, in progress; an item is added, its part is added, grows and is done, the item is done; then
/// the response. Every event has its number, its place and the id of its item.
@Suite struct ResponseWriterTests {
  private static func writer() -> ResponseWriter { ResponseWriter(id: "resp_1", created: 5, model: "m", echo: ["temperature": 1.0]) }

  private static func run(_ parts: [[AnswerPart]], finish: FinishReason = .endToken) -> (events: [JSON], reply: JSON) {
    var writer = writer()
    var events = writer.begin()
    for some in parts { events += writer.add(some) }
    events += writer.end(AnswerEnd(finish: finish, usage: Usage(promptTokens: 7, cachedTokens: 2, completionTokens: 3)))
    return (events, writer.reply)
  }

  private static func types(_ events: [JSON]) -> [String] { events.map { $0["type"]?.string ?? "?" } }

  @Test func `a text is created, added, grown and done, in this order`() {
    let (events, reply) = Self.run([[.content("Hel")], [.content("lo")]])
    #expect(
      Self.types(events) == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
        "response.output_text.delta", "response.output_text.delta", "response.output_text.done", "response.content_part.done",
        "response.output_item.done", "response.completed",
      ])
    #expect(reply["output"]?.array?.count == 1)
    #expect(reply["output"]?.array?.first?["content"]?.array?.first?["text"] == "Hello")
    #expect(reply["status"] == "completed")
    #expect(reply["usage"]?["total_tokens"] == 10)
    #expect(reply["usage"]?["input_tokens_details"]?["cached_tokens"] == 2)
    #expect(events.last?["response"] == reply)
  }

  @Test func `thoughts, text and two calls are items of their own, each whole`() {
    let (events, reply) = Self.run([
      [.reasoning("Hm"), .reasoning(".")], [.content("I look.")],
      [
        .callBegan(index: 0, name: "f"), .callArguments(index: 0, "{\"a\":"), .callArguments(index: 0, " 1}"), .callEnded(index: 0),
        .callBegan(index: 1, name: "g"), .callArguments(index: 1, "{}"), .callEnded(index: 1),
      ],
    ])
    let items = reply["output"]?.array ?? []
    #expect(items.map { $0["type"]?.string } == ["reasoning", "message", "function_call", "function_call"])
    #expect(items.allSatisfy { $0["status"] == "completed" })
    #expect(items[0]["content"] == [["type": "reasoning_text", "text": "Hm."]])
    #expect(items[2]["arguments"] == "{\"a\": 1}")
    #expect(items[3]["name"] == "g")
    #expect(Set(items.compactMap { $0["id"]?.string }).count == 4)
    #expect(items[2]["call_id"] != items[3]["call_id"])
    #expect(Self.types(events).filter { $0 == "response.reasoning_text.delta" }.count == 2)
    #expect(Self.types(events).filter { $0 == "response.function_call_arguments.delta" }.count == 3)
    #expect(Self.types(events).filter { $0 == "response.function_call_arguments.done" }.count == 2)
  }

  @Test func `log-probabilities come with the text that they are of, and whole at its end`() {
    let entries: [JSON] = ["a", "b", "c"].map { token in
      ["token": token, "logprob": -1, "bytes": [97], "top_logprobs": [["token": token, "logprob": -1, "bytes": [97]]]]
    }
    var writer = Self.writer()
    var events = writer.begin() + writer.add([.reasoning("Hm."), .content("a")], logprobs: [entries[0]])
    events += writer.add([.content("bc")], logprobs: Array(entries[1...]))
    events += writer.end(AnswerEnd(finish: .endToken, usage: Usage(promptTokens: 1)))
    func logprobs(_ type: String) -> [[String]] {
      events.filter { $0["type"]?.string == type }.map { $0["logprobs"]?.array?.compactMap { $0["token"]?.string } ?? [] }
    }
    #expect(logprobs("response.output_text.delta") == [["a"], ["b", "c"]])
    #expect(logprobs("response.output_text.done") == [["a", "b", "c"]])
    // The package openai has no place for bytes in events.
    #expect(
      events.allSatisfy {
        $0["logprobs"]?.array?.allSatisfy { $0["bytes"] == nil && $0["top_logprobs"]?.array?[0]["bytes"] == nil } ?? true
      })
    #expect(writer.reply["output"]?.array?.last?["content"]?.array?.first?["logprobs"]?.array == entries)
  }

  /// Laws that hold for whatever comes, in whatever order.
  private static func check(_ events: [JSON], _ words: Comment) {
    #expect(events.enumerated().allSatisfy { $1["sequence_number"]?.wholeNumber == $0 }, words)
    var (added, done, texts): ([String: Int], Set<String>, [String: String]) = ([:], [], [:])
    for event in events {
      let type = event["type"]?.string ?? ""
      if let item = event["item"] {
        let id = item["id"]?.string ?? ""
        let place = event["output_index"]?.wholeNumber
        if type == "response.output_item.added" {
          #expect(place == added.count, words)
          #expect(item["status"] == "in_progress", words)
          added[id] = place
        } else {
          #expect(type == "response.output_item.done" && added[id] == place && done.insert(id).inserted, words)
          let whole = item["arguments"]?.string ?? item["content"]?.array?.first?["text"]?.string
          #expect(whole == texts[id] ?? "", words)
        }
      } else if let id = event["item_id"]?.string {
        #expect(added[id] == event["output_index"]?.wholeNumber && !done.contains(id), words)
        if !type.contains("function_call") { #expect(event["content_index"] == 0, words) }
        if let delta = event["delta"]?.string { texts[id, default: ""] += delta }
        if type.hasSuffix("text.done") { #expect(event["text"]?.string == texts[id] ?? "", words) }
      } else {
        #expect(event["response"]?["id"] == "resp_1", words)
      }
    }
    #expect(Set(added.keys) == done, words)
    #expect(events.last?["response"]?["output"]?.array?.count == added.count, words)
  }

  @Test func `the laws of the sequence hold for any parts in any order`() {
    var generator = SeededGenerator(seed: 12)
    for round in 0..<300 {
      var parts: [AnswerPart] = []
      var calls = 0
      for _ in 0..<Int.random(in: 0...12, using: &generator) {
        switch Int.random(in: 0...5, using: &generator) {
        case 0: parts.append(.content("c\(parts.count)"))
        case 1: parts.append(.reasoning("r\(parts.count)"))
        case 2:
          parts.append(.callBegan(index: calls, name: "f"))
          calls += 1
        case 3: parts.append(.callArguments(index: Int.random(in: 0...max(0, calls), using: &generator), "{}"))
        case 4: parts.append(.callEnded(index: Int.random(in: 0...max(0, calls), using: &generator)))
        default: parts.append(.callBroke(index: Int.random(in: 0...max(0, calls), using: &generator)))
        }
      }
      let finish: FinishReason = round % 3 == 0 ? .length : .endToken
      let (events, reply) = Self.run([parts], finish: finish)
      Self.check(events, "round \(round): \(parts)")
      #expect(reply["output"]?.array?.isEmpty == false)
      #expect(Self.types(events).last == (finish == .length ? "response.incomplete" : "response.completed"))
    }
  }

  @Test func `what is cut off at the limit is incomplete, and says why`() {
    let (events, reply) = Self.run([[.content("Hel")]], finish: .length)
    #expect(events.last?["type"] == "response.incomplete")
    #expect(reply["incomplete_details"] == ["reason": "max_output_tokens"])
    #expect(reply["output"]?.array?.first?["status"] == "incomplete")
  }

  @Test func `a failure closes what is open, and says what it was`() {
    var writer = Self.writer()
    var events = writer.begin() + writer.add([.content("Hel")])
    events += writer.fail(APIError(.internalServerError, "It broke."))
    Self.check(events, "a failure")
    #expect(events.last?["type"] == "response.failed")
    #expect(writer.reply["error"] == ["code": "server_error", "message": "It broke."])
    #expect(writer.reply["status"] == "failed")
  }

  @Test func `a response has every member that OpenAI's document requires`() {
    // From the schema Response of its OpenAPI document; metadata and the like come from the request.
    let asked = try? ResponseRequest(["input": "x"], id: "r", server: ServerConfiguration())
    let reply = ResponseWriter(id: "resp_1", created: 5, model: "m", echo: asked?.echo ?? [:]).reply
    for name in [
      "id", "object", "created_at", "model", "output", "error", "incomplete_details", "instructions", "metadata", "parallel_tool_calls",
      "temperature", "top_p", "tools", "tool_choice",
    ] { #expect(reply[name] != nil, "\(name) is missing") }
  }
}

#endif
