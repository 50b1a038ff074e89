// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletAnswers
import Testing

/// What holds for every text in every format.
@Suite struct AnswerLawTests {
  /// Texts with calls, each in its format.
  static let examples: [(AnswerFormat.ToolCalls, String)] = [
    (
      .taggedJSON,
      "<think>\nhm\n\nso\n</think>\n\nLook:\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Zürich\", \"days\": 2}}\n</tool_call>\n<tool_call>\n{\"arguments\": {\"text\": \"a\\n\\u00e9\\\\\"}, \"name\": \"note\"}\n</tool_call>"
    ),
    (.llama, "{\"name\": \"weather\", \"parameters\": {\"city\": \"Ulm\"}}; {\"name\": \"clock\", \"parameters\": {}}"),
    (.llama, "<|python_tag|>{\"type\": \"function\", \"name\": \"note\", \"parameters\": {\"tags\": [\"a\", \"b\"]}}"),
    (
      .mistral,
      "[THINK]hm[/THINK]Yes.[TOOL_CALLS] [{\"name\": \"weather\", \"arguments\": {\"city\": \"Ulm\"}, \"id\": \"abcdefghi\"}, {\"name\": \"clock\", \"arguments\": {}, \"id\": \"abcdefghj\"}]"
    ),
    (.mistral, "[TOOL_CALLS]weather[CALL_ID]abcdefghi[ARGS]{\"city\": \"Ulm\"}[TOOL_CALLS]clock[ARGS]{}"),
    (
      .functionMarkup,
      "<think>\nhm\n</think>\n\nI look.\n\n<tool_call>\n<function=weather>\n<parameter=city>\nBad \"Ems\"\n</parameter>\n<parameter=days>\n3\n</parameter>\n<parameter=exact>\nTrue\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=note>\n<parameter=text>\nline\n\nline <b>\n\n</parameter>\n<parameter=tags>\n[\"a\"]\n</parameter>\n</function>\n</tool_call>"
    ),
    (
      .seed,
      "<seed:think>hm</seed:think><seed:tool_call>\n<function=note>\n<parameter=weight>1.5</parameter>\n</function>\n</seed:tool_call>"
    ),
    (
      .miniMax,
      "<think>\nhm\n</think>\n\nOn it.\n<minimax:tool_call>\n<invoke name=\"weather\">\n<parameter name=\"city\">Ulm</parameter>\n</invoke>\n<invoke name=\"clock\">\n</invoke>\n</minimax:tool_call>"
    ),
    (
      .glm,
      "\n<think>hm</think>\nLook.\n<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Ulm</arg_value>\n<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n</tool_call><tool_call>clock</tool_call>"
    ),
    (
      .channels,
      "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{\"city\": \"Ulm\"}<|call|>"
    ),
    (.channels, " to=functions.clock<|channel|>commentary json<|message|>{}<|call|>"),
    (.channels, "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>It is < 4 <|x|> so.<|return|>"),
    (
      .deepSeek,
      "<think>\nhm\n</think>\n\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{\"city\": \"Ulm\"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>clock\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    ),
    (.deepSeek, "Yes.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"city\": \"Ulm\"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"),
    (
      .kimi,
      "Yes.<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>{\"city\": \"Ulm\"}<|tool_call_end|><|tool_call_begin|>functions.clock:1<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>"
    ),
    (
      .cohere,
      "<|START_THINKING|>hm<|END_THINKING|><|START_ACTION|>[\n    {\"tool_call_id\": \"0\", \"tool_name\": \"weather\", \"parameters\": {\"city\": \"Ulm\"}}\n]<|END_ACTION|>"
    ),
    (.cohere, "<|START_RESPONSE|>It rains.<|END_RESPONSE|>"),
    (
      .commandR,
      "Action: ```json\n[\n    {\n        \"tool_name\": \"weather\",\n        \"parameters\": {\n            \"city\": \"Ulm\"\n        }\n    }\n]```"
    ),
    (.granite, "<|tool_call|>[{\"name\": \"weather\", \"arguments\": {\"city\": \"Ulm\"}}]"),
    (
      .nemotron,
      "<think>hm</think><TOOLCALL>[{\"name\": \"weather\", \"arguments\": {\"city\": \"Ulm\"}}, {\"name\": \"clock\", \"arguments\": {}}]</TOOLCALL>"
    ),
    (
      .taggedJSONLines,
      "<think>hm</think>\n<tool_calls>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Ulm\"}}\n{\"name\": \"clock\", \"arguments\": {}}\n</tool_calls>"
    ),
    (.apertus, "Yes.<|tools_prefix|>[{\"weather\": {\"city\": \"Ulm\"}}, {\"clock\": {}}]<|tools_suffix|>"),
    (.functools, "functools[{\"name\": \"weather\", \"arguments\": {\"city\": \"Ulm\"}}]"),
    (
      .gemma,
      "<|channel>thought\nhm\n<channel|>Yes.<|tool_call>call:note{text:<|\"|>a \"b\" {c}<|\"|>,tags:[<|\"|>x<|\"|>],place:{x:1.5,y:null},weight:-2}<tool_call|>"
    ),
    (
      .pythonCalls,
      "<|tool_call_start|>[weather(city='Ulm', days=2, exact=True), note(text=\"it's \\\"so\\\"\", tags=['a', \"b\"], place={'x': None})]<|tool_call_end|>Then."
    ),
    (.none, "<think>hm</think>\n\n4 < 5 <tool_call>"),
  ]

  /// A cut in every place, one after every character, and seeded random ones.
  @Test func `however a text is cut into pieces, its parts are the same`() {
    var random = Random(seed: 7)
    var cuts = 0
    for (calls, text) in Self.examples {
      let format = AnswerFormat.every.first { $0.toolCalls == calls } ?? AnswerFormat()
      let whole = Reading(text, format)
      #expect(whole.faults.isEmpty, "\(text)")
      if calls != .none, !text.contains("RESPONSE"), !text.contains("<|return|>") {
        #expect(!whole.calls.isEmpty && whole.calls.allSatisfy { $0.end == .whole }, "\(calls): \(whole)")
      }
      let scalars = Array(text.unicodeScalars).map { String($0) }
      #expect(Reading(scalars, format) == whole, "\(text)")
      for cut in 0...scalars.count {
        #expect(Reading([scalars[..<cut].joined(), scalars[cut...].joined()], format) == whole, "\(calls), cut at \(cut)")
        cuts += 1
      }
      for _ in 0..<30 {
        var pieces: [String] = []
        var rest = scalars[...]
        while !rest.isEmpty {
          let count = min(Int.random(in: 0...9, using: &random), rest.count)
          pieces.append(rest.prefix(count).joined())
          rest = rest.dropFirst(count)
        }
        #expect(Reading(pieces, format) == whole, "\(pieces)")
        cuts += 1
      }
    }
    #expect(cuts > 4000)
  }

  /// An answer that ends anywhere: nothing is lost before the end, and what is a call stays one.
  @Test func `an answer that is cut off begins like the whole one`() {
    for (calls, text) in Self.examples {
      let format = AnswerFormat.every.first { $0.toolCalls == calls } ?? AnswerFormat()
      let whole = Reading(text, format)
      let scalars = Array(text.unicodeScalars).map { String($0) }
      for end in 0..<scalars.count {
        let part = Reading(scalars[..<end].joined(), format)
        #expect(part.faults.isEmpty, "\(part)")
        #expect(part.calls.count <= whole.calls.count)
        for (call, wholeCall) in zip(part.calls, whole.calls) {
          #expect(call.name == wholeCall.name)
          if call.end == .whole { #expect(call.arguments == wholeCall.arguments) }
        }
      }
    }
  }

  @Test func `a text without marks is content, byte for byte, in every format`() {
    let texts = [
      "", "a", " ", "\n", "\n\nYes.\n\n", "  two\n\n\nthree  ", "a < b, [x] and {\"a\": 1}\n", "Zürich 👩‍👩‍👧‍👦\r\n\r\n é\u{0}", "functoo",
      "Actio", "\u{FFFD}",
      "to", " tomorrow", "```json\n{}\n```", "<|", "<", "{", "{\"", "[TOOL", "<think", "{\"name\": \"Anna\", \"parameters\": 3}",
      "{\"parameters\": {}, \"x\": 1}", "{\"name\": \"weather\"}",
    ]
    for format in AnswerFormat.every {
      for text in texts {
        for pieces in [[text], text.unicodeScalars.map { String($0) }] {
          let reading = Reading(pieces, format)
          #expect(Array(reading.content.utf8) == Array(text.utf8) && reading.parts.count == (text.isEmpty ? 0 : 1), "\(format): \(text)")
        }
      }
    }
  }

  /// Where no tool was offered and reasoning is not asked for, nothing is ever taken out; gpt-oss's headers and Cohere's wrappers are no text.
  @Test func `without tools and reasoning, every text is content`() {
    for (_, text) in Self.examples {
      for format in AnswerFormat.every where format.toolCalls != .channels && format.toolCalls != .cohere {
        let reading = Reading(text, format, tools: [], parsesReasoning: false)
        #expect(reading.parts == [.content(text)], "\(format)")
      }
    }
  }

  /// Pieces of marks, of JSON and of text in any order.
  static let shards: [String] =
    examples.flatMap { $0.1.split(separator: " ", omittingEmptySubsequences: false).map(String.init) } + [
      "<tool_call>", "</tool_call>", "<think>", "</think>", "{", "}", "[", "]", "\"", "\\", ",", ":",
      "{\"name\": \"weather\", \"arguments\": ", "{\"city\": \"",
      "\n", "\n\n", " ", "\u{0}", "é", "👍", "1", "-", "e9", "null", "weather", "clock", "<function=weather>", "<function=clock>",
      "<parameter=city>",
      "<parameter=days>", "</parameter>", "</function>", "<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|call|>", "analysis",
      "commentary to=functions.weather",
      "[TOOL_CALLS]", "[ARGS]", "weather[ARGS]{", "<|python_tag|>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>",
      "<tool_call>weather",
      "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "weather<｜tool▁sep｜>", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>",
      "<|tool_call_begin|>functions.weather:0",
      "<|tool_call_argument_begin|>", "<invoke name=\"weather\">", "<parameter name=\"days\">", "</invoke>", "call:note{", "<|\"|>",
      "<tool_call|>", "<|tool_call>",
      "<|tool_call_start|>[", "weather(", "city='", ")", "<|tool_call_end|>", "{\"weather\": {", "\\ud83d", "\\u00", "\\x",
    ]

  @Test(arguments: 0..<4) func `shards of marks in any order are read without a fault, and however they are cut`(seed: Int) {
    var random = Random(seed: UInt64(seed))
    var (calls, broken) = (0, 0)
    for _ in 0..<150 {
      let shards = (0..<Int.random(in: 1...14, using: &random)).map { _ in Self.shards.randomElement(using: &random) ?? "" }
      let promptEnd =
        ["", "<think>\n", "<think>\n\n</think>\n\n", "<|start|>assistant", "<|start|>assistant<|channel|>final<|message|>"].randomElement(
          using: &random) ?? ""
      for format in AnswerFormat.every {
        let whole = Reading([shards.joined()], format, promptEnd: promptEnd)
        #expect(whole.faults.isEmpty, "\(format): \(shards)")
        #expect(Reading(shards, format, promptEnd: promptEnd) == whole, "\(format): \(shards)")
        #expect(
          Reading(shards.joined().unicodeScalars.map { String($0) }, format, promptEnd: promptEnd) == whole, "\(format): \(shards)")
        calls += whole.calls.count
        broken += whole.calls.count { $0.end == .broken }
      }
    }
    // The shards do meet.
    #expect(calls > 20 && broken > 5, "\(calls), \(broken)")
  }

  @Test func `random bytes of JSON are read without a fault`() {
    var random = Random(seed: 99)
    let letters = Array("{}[]\",:\\ 0123e-+.tfnaulrse\n")
    for _ in 0..<4000 {
      let json = String((0..<Int.random(in: 0...40, using: &random)).map { _ in letters.randomElement(using: &random) ?? " " })
      let text = "<tool_call>{\"name\": \"note\", \"arguments\": {\(json)</tool_call>after"
      let reading = Reading(text, AnswerFormat(toolCalls: .taggedJSON))
      #expect(reading.faults.isEmpty, "\(text)")
      #expect(reading.calls.count == 1)
      if reading.calls.first?.end == .broken { #expect(reading.content == "after" || reading.content.isEmpty, "\(text)") }
    }
  }

  /// Times are no tests, but what takes the square of the time would not end here.
  @Test func `hostile texts of many thousand marks end`() {
    let count = 5_000
    let texts = [
      String(repeating: "\n", count: count * 8), String(repeating: "<", count: count * 8), String(repeating: "<tool_call>", count: count),
      String(repeating: "<tool_call>{\"a\":\"", count: count), "<tool_call>{\"arguments\": " + String(repeating: "[", count: count),
      String(repeating: "{\"name\": \"weather\", \"parameters\": {", count: count), String(repeating: "[TOOL_CALLS]", count: count),
      "<tool_call><function=note><parameter=tags>" + String(repeating: "</parameter", count: count),
      "<tool_call><function=note><parameter=text>" + String(repeating: "\n</parameter", count: count),
      String(repeating: "<|channel|>analysis", count: count), String(repeating: "<|start|>", count: count),
      "<|tool_call>" + String(repeating: "{a:", count: count) + "<tool_call|>",
      "<|tool_call_start|>" + String(repeating: "[", count: count) + "<|tool_call_end|>",
      "<think>" + String(repeating: "\n<", count: count),
    ]
    for text in texts {
      for format in AnswerFormat.every {
        let reading = Reading(text, format)
        #expect(reading.faults.isEmpty)
      }
      // In pieces of a few bytes: what is held back is neither moved nor read again and again.
      let format = AnswerFormat(reasoning: AnswerFormat.think, toolCalls: .functionMarkup)
      for format in [
        format, AnswerFormat(reasoning: AnswerFormat.think, toolCalls: .taggedJSON), AnswerFormat(toolCalls: .gemma),
        AnswerFormat(reasoning: .channels, toolCalls: .channels),
      ] {
        var parser = AnswerParser(format: format, tools: Tools.all)
        var rest = text.utf8[...]
        while !rest.isEmpty {
          _ = parser.append(String(rest.prefix(5)) ?? "")
          rest = rest.dropFirst(5)
        }
        _ = parser.finish()
      }
    }
  }
}
