// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletAnswers
import MartletTemplates
import Testing

/// What is a call and what stays text, and when a part is certain.
@Suite struct AnswerParserTests {
  private static let tagged = AnswerFormat(reasoning: AnswerFormat.think, toolCalls: .taggedJSON)
  private static let markup = AnswerFormat(reasoning: AnswerFormat.think, toolCalls: .functionMarkup)
  private static let channels = AnswerFormat(reasoning: .channels, toolCalls: .channels)
  private static func format(_ calls: AnswerFormat.ToolCalls) -> AnswerFormat { AnswerFormat(toolCalls: calls) }

  // MARK: Text stays text

  static let noCalls: [(AnswerFormat.ToolCalls, String)] = [
    // Marks in prose.
    (.taggedJSON, "Write <tool_call> before a call and </tool_call> behind it.\n"), (.taggedJSON, "<tool_call>\n\n"),
    (.mistral, "Put [TOOL_CALLS] there."), (.mistral, "[TOOL_CALLS][]"), (.kimi, "<|tool_calls_section_begin|> and no more"),
    (.functionMarkup, "a <function=weather> b"), (.functionMarkup, "<tool_call><function=weather>"), (.glm, "<tool_call>weather"),
    (.glm, "<tool_call>weather\nforecast</tool_call>"), (.gemma, "<|tool_call>call:weather{city:Ulm"),
    (.pythonCalls, "<|tool_call_start|>[weather(city=Ulm)]<|tool_call_end|>"),
    // No valid call.
    (.taggedJSON, "\n<tool_call>\n{\"name\": \"weather\"\n</tool_call>"),
    (.taggedJSON, "<tool_call>{\"arguments\": {\"city\": \"Ulm\"}}</tool_call>"),
    (.taggedJSON, "<tool_call>{\"name\": 5, \"arguments\": {}}</tool_call>"),
    (.taggedJSON, "<tool_call>{\"name\": \"weather\", \"arguments\": [1]}</tool_call>"),
    (.taggedJSON, "<tool_call>{\"name\": \"weather\", \"arguments\": \"no object\"}</tool_call>"),
    (.taggedJSON, "<tool_call>{\"arguments\": {\"city\": \"Ulm\"}, \"name\": \"weath"), (.taggedJSON, "<tool_call>['name']</tool_call>"),
    // Of tools that were not offered.
    (.taggedJSON, "Yes.\n<tool_call>\n{\"name\": \"rm\", \"arguments\": {\"path\": \"/\"}}\n</tool_call>\n"),
    (.functionMarkup, "<tool_call>\n<function=rm>\n<parameter=path>\n/\n</parameter>\n</function>\n</tool_call>"),
    (.glm, "<tool_call>rm\n<arg_key>path</arg_key>\n<arg_value>/</arg_value>\n</tool_call>"),
    (.llama, "{\"name\": \"rm\", \"parameters\": {\"path\": \"/\"}}"), (.llama, "<|python_tag|>{\"name\": \"rm\", \"parameters\": {}}"),
    (.llama, "<|python_tag|>print(1)"),
    (.mistral, "[TOOL_CALLS]rm[ARGS]{\"path\": \"/\"}"), (.mistral, "[TOOL_CALLS] [{\"name\": \"rm\", \"arguments\": {}}]"),
    (.miniMax, "<minimax:tool_call>\n<invoke name=\"rm\">\n</invoke>\n</minimax:tool_call>"),
    (.deepSeek, "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>rm<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"),
    (
      .kimi,
      "<|tool_calls_section_begin|><|tool_call_begin|>functions.rm:0<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>"
    ),
    (.gemma, "<|tool_call>call:rm{path:<|\"|>/<|\"|>}<tool_call|>"), (.pythonCalls, "<|tool_call_start|>[rm(path='/')]<|tool_call_end|>"),
    (.apertus, "<|tools_prefix|>[{\"rm\": {\"path\": \"/\"}}]<|tools_suffix|>"),
    (.functools, "functools[{\"name\": \"rm\", \"arguments\": {}}]"),
    // Llama's calls have no mark: only where the content begins, and with what a call has.
    (.llama, "Here: {\"name\": \"weather\", \"parameters\": {}}"),
    (.llama, "{\"city\": \"Ulm\", \"name\": \"weather\", \"parameters\": {}}"), (.llama, "[{\"name\": \"weather\", \"parameters\": {}}]"),
  ]

  @Test(arguments: noCalls) func `what is no call of an offered tool is content, byte for byte`(calls: AnswerFormat.ToolCalls, text: String)
  {
    #expect(Reading(text, Self.format(calls)).parts == [.content(text)])
    #expect(Reading(text.unicodeScalars.map { String($0) }, Self.format(calls)).parts == [.content(text)])
  }

  @Test func `a call behind a mark that begins none is a call`() {
    let call = "<tool_call>{\"name\": \"clock\", \"arguments\": {}}</tool_call>"
    #expect(
      Reading("Write <tool_call> so:\n\(call)", Self.tagged).parts == [
        .content("Write <tool_call> so:"), .callBegan(index: 0, name: "clock"), .callArguments(index: 0, "{}"), .callEnded(index: 0),
      ])
    #expect(Reading("<tool_call>\(call)", Self.tagged).calls.count == 1)
    #expect(Reading("<tool_call>{\"name\": \"rm\", \"arguments\": {}}</tool_call>\n\(call)", Self.tagged).calls.map(\.name) == ["clock"])
  }

  @Test func `text between and behind calls is content, newlines around it included where no call follows`() {
    let call = "<tool_call>\n{\"name\": \"clock\", \"arguments\": {}}\n</tool_call>"
    #expect(Reading("\(call)\n\nThen:\n\(call)\nSo.\n", Self.tagged).content == "\n\nThen:\nSo.\n")
    #expect(Reading("\(call)\n", Self.tagged).content.isEmpty)
  }

  @Test func `a call inside of the reasoning is reasoning`() {
    let text = "I could <tool_call>{\"name\": \"clock\", \"arguments\": {}}</tool_call> but no."
    #expect(Reading("<think>\(text)</think>Yes.", Self.tagged).parts == [.reasoning(text), .content("Yes.")])
  }

  @Test func `reasoning that is not asked for is content, and so is a mark within the content`() {
    let text = "<think>\nhm\n</think>\n\nSo."
    #expect(Reading(text, Self.tagged, parsesReasoning: false).parts == [.content(text)])
    #expect(Reading("Write <think> first.", Self.tagged).parts == [.content("Write <think> first.")])
    #expect(Reading("<think>\nnever ends\n", Self.tagged).parts == [.reasoning("never ends\n")])
  }

  // MARK: Calls

  @Test func `the name may come behind the arguments, and arguments may be missing, null, or a string that holds them`() {
    func arguments(_ object: String) -> [String] {
      Reading("<tool_call>\(object)</tool_call>", Self.tagged).calls.map { "\($0.name)\($0.arguments)" }
    }
    #expect(arguments("{\"arguments\": {\"city\": \"Ulm\"}, \"name\": \"weather\"}") == ["weather{\"city\": \"Ulm\"}"])
    #expect(arguments("{\"id\": [1, {\"name\": \"x\"}], \"name\": \"weather\", \"arguments\": {}, \"more\": -1.5e3}") == ["weather{}"])
    #expect(arguments("{\"name\": \"clock\"}") == ["clock{}"] && arguments("{\"name\": \"clock\", \"arguments\": null}") == ["clock{}"])
    #expect(arguments("{\"name\": \"weather\", \"arguments\": \"{\\\"city\\\": \\\"U\\u006cm\\\"}\"}") == ["weather{\"city\": \"Ulm\"}"])
    #expect(arguments("{\"\\u006eame\": \"w\\u0065ather\", \"parameters\": {}}") == ["weather{}"])
  }

  @Test func `newlines and backslashes that JSON does not allow in strings are put right`() throws {
    let reading = Reading("<tool_call>{\"name\": \"note\", \"arguments\": {\"text\": \"a\nb\t\\d\\'\u{1}\"}}</tool_call>", Self.tagged)
    #expect(reading.calls.map(\.end) == [.whole])
    #expect(reading.values.first?["arguments"]?["text"] == "a\nb\t\\d\\'\u{1}")
  }

  @Test func `the answer may end behind the arguments, without the marks that close a call`() {
    for (calls, text) in [
      (AnswerFormat.ToolCalls.taggedJSON, "<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"Ulm\"}"),
      (.channels, "<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{\"city\": \"Ulm\"}"),
      (.mistral, "[TOOL_CALLS][{\"name\": \"weather\", \"arguments\": {\"city\": \"Ulm\"}"),
      (.mistral, "[TOOL_CALLS]weather{\"city\": \"Ulm\"}"),
      (.deepSeek, "<｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{\"city\": \"Ulm\"}"),
      (.llama, "{\"name\": \"weather\", \"parameters\": {\"city\": \"Ulm\"}"),
      (.functionMarkup, "<function=weather><parameter=city>Ulm</parameter></function>"),
      (.functionMarkup, "<tool_call><function=weather>\n<parameter=city>\nUlm\n</parameter>\n</tool_call>"),
    ] {
      let reading = Reading(text, Self.format(calls))
      #expect(
        reading.values == [["name": "weather", "arguments": ["city": "Ulm"]]] && reading.content.isEmpty && reading.faults.isEmpty,
        "\(text): \(reading)")
    }
  }

  /// What is given of a call that breaks is what the model wrote of it.
  @Test func `a call that breaks behind the beginning of its arguments is marked, and what follows it is read`() {
    for (calls, text, arguments, content) in [
      (
        AnswerFormat.ToolCalls.taggedJSON, "<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": Ulm}}</tool_call> Well.",
        "{\"city\": Ulm}}", " Well."
      ),
      (.taggedJSON, "<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"Ul", "{\"city\": \"Ul", ""),
      (
        .channels,
        "<|channel|>commentary to=functions.weather<|message|>{\"a\" 1}<|call|><|start|>assistant<|channel|>final<|message|>Well.",
        "{\"a\" 1}", "Well."
      ),
      (.channels, "<|channel|>commentary to=functions.weather<|message|>{\"a\": ", "{\"a\": ", ""),
      (.mistral, "[TOOL_CALLS]weather[ARGS]{\"a\": 01}", "{\"a\": 01}", ""),
      (.deepSeek, "<｜tool▁call▁begin｜>weather<｜tool▁sep｜>{a}<｜tool▁call▁end｜>", "{a}", ""),
      (.functionMarkup, "<tool_call><function=note>\n<parameter=text>\none\ntwo\n", "{\"text\": \"one\\ntwo\\n", ""),
      (.functionMarkup, "<tool_call><function=note><parameter=weight>1.", "{\"weight\": 1.", ""),
      (
        .functionMarkup, "<tool_call><function=note><parameter=text>a</parameter>junk</function></tool_call>", "{\"text\": \"a\"junk",
        "</tool_call>"
      ),
      (.glm, "<tool_call>note\n<arg_key>text</arg_key>\n<arg_value>a", "{\"text\": \"a", ""),
      (.llama, "{\"name\": \"weather\", \"parameters\": {\"city\": \"Ulm\",}}", "{\"city\": \"Ulm\",}}", ""),
    ] {
      for pieces in [[text], text.unicodeScalars.map { String($0) }] {
        let reading = Reading(pieces, Self.format(calls))
        #expect(
          reading.calls.map(\.end) == [.broken] && reading.calls.first?.arguments == arguments && reading.content == content,
          "\(text): \(reading)")
      }
    }
  }

  @Test func `JSON that nests too deep breaks the call`() {
    func nested(_ depth: Int) -> Reading {
      let list = String(repeating: "[", count: depth) + String(repeating: "]", count: depth)
      return Reading("<tool_call>{\"name\": \"note\", \"arguments\": {\"tags\": \(list)}}</tool_call>", Self.tagged)
    }
    #expect(nested(100).calls.map(\.end) == [.whole] && nested(10_000).calls.map(\.end) == [.broken])
  }

  // MARK: Streams

  /// What each piece of a text makes certain.
  private func steps(_ pieces: [String], _ format: AnswerFormat, promptEnd: String = "") -> [[AnswerPart]] {
    var parser = AnswerParser(format: format, tools: Tools.all, promptEnd: promptEnd)
    return pieces.map { parser.append($0) } + [parser.finish()]
  }

  @Test func `only what may be a mark is held back`() {
    #expect(
      steps(["He", "llo <", "b> <tool", "s> \n", "\nx"], Self.tagged) == [
        [.content("He")], [.content("llo ")], [.content("<b> ")], [.content("<tools> ")], [.content("\n\nx")], [],
      ])
    #expect(
      steps(["hm <", "/thin", "g\n", "</think>\n", "\n", "So"], Self.tagged, promptEnd: "<think>\n") == [
        [.reasoning("hm ")], [], [.reasoning("</thing")], [], [], [.content("So")], [],
      ])
    // Without tools there is no mark but the reasoning's.
    var parser = AnswerParser(format: AnswerFormat(toolCalls: .taggedJSON), tools: [])
    #expect(parser.append("<") == [.content("<")] && parser.append("\n") == [.content("\n")])
  }

  @Test func `arguments come as they are written`() {
    #expect(
      steps(["<tool_call>\n{\"na", "me\": \"weather\", \"arguments\": ", "{\"ci", "ty\": \"U\\", "n\"}", "}\n</tool_call>"], Self.tagged)
        == [
          [], [], [.callBegan(index: 0, name: "weather"), .callArguments(index: 0, "{\"ci")], [.callArguments(index: 0, "ty\": \"U")],
          [.callArguments(index: 0, "\\n\"}"), .callEnded(index: 0)], [], [],
        ])
    #expect(
      steps(
        ["<function=note><parameter=text>\none\n", "two", "\n</para", "meter><parameter=weight>1", ".5</parameter></function>"], Self.markup
      ) == [
        [.callBegan(index: 0, name: "note"), .callArguments(index: 0, "{\"text\": \"one")], [.callArguments(index: 0, "\\ntwo")], [],
        [.callArguments(index: 0, "\", \"weight\": ")], [.callArguments(index: 0, "1.5}"), .callEnded(index: 0)], [],
      ])
  }

  // MARK: Channels

  @Test func `messages of gpt-oss go where their headers say`() {
    let final = "<|channel|>final<|message|>Yes.<|return|>"
    #expect(
      Reading("<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant\(final)", Self.channels).parts == [
        .reasoning("Hm."), .content("Yes."),
      ])
    #expect(Reading("Yes.", Self.channels, promptEnd: "<|start|>assistant<|channel|>final<|message|>").parts == [.content("Yes.")])
    #expect(
      Reading("Hm.<|end|><|start|>assistant\(final)", Self.channels, promptEnd: "<|start|>assistant<|channel|>analysis<|message|>").parts
        == [.reasoning("Hm."), .content("Yes.")])
    #expect(
      Reading("<|message|>Hm.<|end|>", Self.channels, promptEnd: "<|start|>assistant<|channel|>analysis").parts == [.reasoning("Hm.")])
    // A call of a tool of the model's own, which nobody offered, and reasoning that is not asked for, are text with their marks.
    let browse = "<|channel|>commentary to=browser.search code<|message|>{}<|call|>"
    #expect(Reading(browse, Self.channels).parts == [.content(browse)])
    let thought = "<|channel|>analysis<|message|>Hm.<|end|>"
    #expect(Reading(thought + final, Self.channels, parsesReasoning: false).parts == [.content(thought + "Yes.")])
    let call = "<|channel|>commentary to=functions.weather<|message|>{}<|call|>"
    #expect(Reading(call, Self.channels, tools: []).parts == [.content(call)])
    #expect(Reading(final, Self.channels, tools: []).parts == [.content("Yes.")])
    // Names with and without the prefix, the recipient before or behind the channel, no arguments at all.
    for header in [
      "<|channel|>commentary to=functions.clock json", " to=functions.clock<|channel|>commentary ",
      "<|start|>assistant to=clock<|channel|>analysis code",
    ] {
      #expect(Reading("\(header)<|message|>{}<|call|>", Self.channels).values == [["name": "clock", "arguments": [:]]])
      #expect(Reading("\(header)<|message|><|call|>", Self.channels).values == [["name": "clock", "arguments": [:]]])
    }
    // A text without headers is content, and a header that is none too.
    let long = "<|channel|>" + String(repeating: "x", count: 2000)
    #expect(Reading(long, Self.channels).parts == [.content(long)])
    #expect(Reading("Hi <|channel|>final<|message|>there", Self.channels).parts == [.content("Hi there")])
  }
}
