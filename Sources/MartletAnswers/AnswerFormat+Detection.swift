// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

extension AnswerFormat {
  /// The format of the answers that a chat template writes into a prompt, by the marks in its text; its comments do not count.
  ///
  /// A mark names a family only if no family above it in the table is named. Marks that belong to one family alone come first. The last are those
  /// that say least: JSON with "name" and "parameters" without any mark is what Llama 3 writes.
  ///
  /// - Parameters:
  ///   - template: a Jinja program.
  ///   - specialTokens: the model's special tokens; where they are known, a mark of reasoning that the template leaves to the model is found too.
  public init(template: String, specialTokens: [String] = []) {
    let text = Self.withoutComments(Array(template.utf8))
    let marks = MarkSet(text)
    self.init(reasoning: .none, toolCalls: .none)
    toolCalls = Self.families.first { $0.marks.allSatisfy { marks.contains($0) } }?.calls ?? .none
    if toolCalls == .channels {
      reasoning = .channels
      return
    }
    let tokens = Set(specialTokens)
    let pair = Self.reasoningMarks.first { marks.contains($0.close) || marks.contains($0.open) || tokens.contains($0.close) }
    if let pair { reasoning = .between(open: pair.open, close: pair.close) }
  }

  private struct Family: Sendable {
    var calls: ToolCalls
    /// All of them.
    var marks: [String]
  }

  private static var families: [Family] {
    [
      Family(calls: .channels, marks: ["<|channel|>", "<|message|>", "analysis"]),
      Family(calls: .deepSeek, marks: ["<｜tool▁call▁begin｜>"]),
      Family(calls: .kimi, marks: ["<|tool_calls_section_begin|>"]),
      Family(calls: .cohere, marks: ["<|START_ACTION|>"]),
      Family(calls: .mistral, marks: ["[TOOL_CALLS]"]),
      Family(calls: .miniMax, marks: ["<minimax:tool_call>"]),
      Family(calls: .seed, marks: ["<seed:tool_call>"]),
      Family(calls: .gemma, marks: ["<|tool_call>", "call:"]),
      Family(calls: .glm, marks: ["<tool_call>", "<arg_key>"]),
      Family(calls: .functionMarkup, marks: ["<tool_call>", "<function=", "<parameter="]),
      Family(calls: .taggedJSON, marks: ["<tool_call>"]),
      Family(calls: .apertus, marks: ["<|tools_prefix|>"]),
      Family(calls: .nemotron, marks: ["<TOOLCALL>"]),
      Family(calls: .pythonCalls, marks: ["<|tool_call_start|>"]),
      Family(calls: .functools, marks: ["functools["]),
      Family(calls: .granite, marks: ["<|tool_call|>", "tool_calls"]),
      Family(calls: .taggedJSONLines, marks: ["<tool_calls>", "tool_calls"]),
      Family(calls: .commandR, marks: ["Action:", "```json", "tool_name", "tool_calls"]),
      Family(calls: .llama, marks: ["<|python_tag|>"]),
      Family(calls: .llama, marks: ["\"name\": ", "\"parameters\": ", "tool_calls"]),
    ]
  }

  private static var reasoningMarks: [(open: String, close: String)] {
    [
      ("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>"), ("<|START_THINKING|>", "<|END_THINKING|>"),
      ("<|channel>thought", "<channel|>"), ("<|inner_prefix|>", "<|inner_suffix|>"), ("<think>", "</think>"),
    ]
  }

  /// Without `{# … #}`.
  private static func withoutComments(_ source: [UInt8]) -> [UInt8] {
    var text: [UInt8] = []
    text.reserveCapacity(source.count)
    var index = 0
    while index < source.count {
      if source[index] == UInt8(ascii: "{"), index + 1 < source.count, source[index + 1] == UInt8(ascii: "#") {
        index += 2
        while index < source.count, !(source[index - 1] == UInt8(ascii: "#") && source[index] == UInt8(ascii: "}")) { index += 1 }
        index += 1
      } else {
        text.append(source[index])
        index += 1
      }
    }
    return text
  }
}

/// Whether texts occur in a text.
private struct MarkSet {
  let text: [UInt8]
  init(_ text: [UInt8]) { self.text = text }

  func contains(_ mark: String) -> Bool {
    let mark = Array(mark.utf8)
    guard let first = mark.first, text.count >= mark.count else { return false }
    for index in 0...(text.count - mark.count) where text[index] == first && text[index..<(index + mark.count)].elementsEqual(mark) {
      return true
    }
    return false
  }
}
