// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCLI
import Testing

/// What `martlet bench serve` reads out of servers' replies, byte for byte as they may come.
@Suite struct BenchServeTests {
  // MARK: Server-sent events

  /// Events of the standard's own examples and of servers that are not tidy; what they are is written by hand.
  @Test(arguments: [
    ("data: a\n\ndata:b\n\n", ["a", "b"]), (": keep-alive\n\ndata: a\n\n", ["a"]), ("data: a\r\n\r\ndata: b\r\n\r\n", ["a", "b"]),
    ("data: a\r\rdata: b\r\r", ["a", "b"]), ("data: one\ndata: two\n\n", ["one\ntwo"]), ("data\n\ndata\ndata\n\n", ["", "\n"]),
    ("event: x\nid: 1\nretry: 5\ndata: a\n\nevent: y\n\n", ["a"]), ("\u{FEFF}data: a\n\n", ["a"]), ("data: lost", []), ("data: lost\n", []),
    ("data:  two spaces\n\n", [" two spaces"]), ("data: a:b\n\n", ["a:b"]), ("database: no\n\n", []),
    ("data: é\u{2028}😀\n\n", ["é\u{2028}😀"]),
  ])
  func `events are the same in whichever pieces they come`(_ text: String, _ expected: [String]) {
    let bytes = Array(text.utf8)
    for size in 1...max(1, bytes.count) {
      var events = ServerSentEvents()
      var found: [String] = []
      for start in stride(from: 0, to: bytes.count, by: size) { found += events.add(bytes[start..<min(start + size, bytes.count)]) }
      #expect(found == expected, "pieces of \(size)")
    }
  }

  // MARK: Replies

  private static func answer(_ pieces: [(String, Double)], status: Int = 200, type: String = "text/event-stream; charset=utf-8")
    -> RecordedAnswer
  {
    var answer = RecordedAnswer()
    answer.status = status
    answer.contentType = type
    for (text, time) in pieces {
      answer.bytes += Array(text.utf8)
      answer.pieces.append((answer.bytes.count, time))
    }
    answer.ended = pieces.last?.1 ?? 0
    return answer
  }

  private static func text(_ text: String, finish: String = "null") -> String {
    "data: {\"choices\": [{\"index\": 0, \"text\": \"\(text)\", \"finish_reason\": \(finish)}]}\n\n"
  }

  @Test func `times are those of the pieces in which events end`() {
    let sample = Self.answer([
      (": wait\n\n", 0.5), (Self.text("a"), 1), (String(Self.text("b").dropLast(8)), 2), (String(Self.text("b").suffix(8)), 3),
      (Self.text("c") + Self.text("", finish: "\"length\""), 3.5),
      (
        "data: {\"choices\": [], \"usage\": {\"prompt_tokens\": 7, \"completion_tokens\": 4, \"prompt_tokens_details\": {\"cached_tokens\": 2}}}\n\n",
        4
      ),
      ("data: [DONE]\n\n", 4),
    ]).sample
    #expect(sample.failure == nil && sample.timeToFirstToken == 1 && sample.betweenEvents == [2, 0.5] && sample.events == 3)
    #expect(
      sample.promptTokens == 7 && sample.completionTokens == 4 && sample.cachedTokens == 2 && sample.lastEvent == 3.5 && sample.ended == 4)
  }

  @Test func `a chat's role is no token; its text, thoughts and calls are`() {
    func delta(_ delta: String, _ finish: String = "null") -> String {
      "data: {\"choices\": [{\"index\": 0, \"delta\": \(delta), \"finish_reason\": \(finish)}]}\n\n"
    }
    let sample = Self.answer([
      (delta(#"{"role": "assistant", "content": ""}"#), 1), (delta(#"{"role": "assistant", "content": null}"#), 1.5),
      (delta(#"{"reasoning_content": "hm"}"#), 2), (delta(#"{"content": "x"}"#), 3),
      (delta(#"{"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]}"#), 4), (delta("{}", "\"stop\""), 5),
    ]).sample
    #expect(sample.failure == nil && sample.timeToFirstToken == 2 && sample.events == 3 && sample.completionTokens == nil)
  }

  @Test func `whatever is no answer has a name`() {
    let refused = Self.answer(
      [(#"{"error": {"message": "too many", "type": "overloaded_error", "code": "overloaded"}}"#, 1)], status: 503, type: "application/json"
    ).sample
    #expect(refused.failure == "HTTP 503, overloaded" && refused.message == "too many")
    #expect(Self.answer([("<html>", 1)], status: 502, type: "text/html").sample.failure == "HTTP 502")
    #expect(Self.answer([("{}", 1)], type: "application/json").sample.failure == "no stream of events, but application/json")
    #expect(Self.answer([(Self.text("a"), 1)]).sample.failure == "a stream without its end")
    #expect(Self.answer([("data: {\n\n", 1)]).sample.failure == "an event that is not JSON")
    let broken = Self.answer([(Self.text("a"), 1), ("data: {\"error\": {\"message\": \"m\", \"type\": \"server_error\"}}\n\n", 2)]).sample
    #expect(broken.failure == "an error event, server_error" && broken.message == "m")
    #expect(RecordedAnswer().sample.failure == "no answer")
  }

  // MARK: The report

  @Test func `what failed is counted and is in no number`() throws {
    var good = Self.answer([(Self.text("a"), 1), (Self.text("b"), 2), (Self.text("c", finish: "\"stop\""), 4)]).sample
    good.completionTokens = 5
    var late = Self.answer([(Self.text("a", finish: "\"stop\""), 1)]).sample
    late.began = 9
    var failed = ServeBenchReport.Sample(ended: 0.25)
    failed.failure = "HTTP 503"
    failed.message = "busy"
    let report = ServeBenchReport(
      url: "u", model: "m", seed: 1, prompts: "words", samples: [good, failed, late], promptTokens: [10, 20, 40], clientSeconds: 0)
    #expect(
      report.requests == 3 && report.completed == 2 && report.errors == ["HTTP 503": 1] && report.errorMessages == ["HTTP 503": "busy"])
    #expect(report.seconds == 10 && report.promptTokens == 50 && report.generatedTokens == 6 && report.generationRate == 0.6)
    #expect(!report.tokensAreServers && report.timeToFirstToken?.max == 1 && report.interTokenTime?.max == 2)
    // Three seconds between the first of five tokens and the last.
    #expect(report.timePerOutputToken?.p50 == 0.75)
    #expect(report.text.contains("2 of 3 requests") && report.text.contains("1 failed: HTTP 503 (busy)"))
  }
}
