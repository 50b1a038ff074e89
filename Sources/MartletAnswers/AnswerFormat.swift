// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// How a model writes what it thinks and which tools it wants called: found from its chat template, and what an ``AnswerParser`` reads by.
///
/// ```swift
/// let format = AnswerFormat(template: program.source)
/// var parser = AnswerParser(format: format, tools: tools, promptEnd: String(prompt.suffix(200)))
/// for try await chunk in generation { for part in parser.append(chunk.text) { show(part) } }
/// for part in parser.finish() { show(part) }
/// ```
public struct AnswerFormat: Sendable, Hashable {
  /// How what a model thinks is set apart.
  public enum Reasoning: Sendable, Hashable {
    /// Not at all.
    case none
    /// It begins and ends with marks such as `<think>` and `</think>`.
    case between(open: String, close: String)
    /// In a channel of its own, as gpt-oss has it.
    case channels
  }

  /// How calls of tools are written.
  public enum ToolCalls: String, Sendable, Hashable, CaseIterable, Codable {
    /// Not at all, or in a way that is not known.
    case none
    /// `<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>{…}<|call|>` (gpt-oss).
    case channels
    /// `<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>NAME<｜tool▁sep｜>{…}<｜tool▁call▁end｜>`, also the older form with a fence (DeepSeek V3, R1, V3.1).
    case deepSeek = "deepseek"
    /// `<|tool_calls_section_begin|><|tool_call_begin|>functions.NAME:0<|tool_call_argument_begin|>{…}<|tool_call_end|>` (Kimi K2).
    case kimi
    /// `<|START_ACTION|>[{"tool_name": …, "parameters": {…}}]<|END_ACTION|>` (Command R7B, Command A).
    case cohere
    /// `[TOOL_CALLS][{"name": …, "arguments": {…}}]` or `[TOOL_CALLS]NAME[ARGS]{…}`.
    case mistral
    /// `<minimax:tool_call><invoke name="NAME"><parameter name="KEY">value</parameter></invoke></minimax:tool_call>`
    case miniMax = "minimax"
    /// `<seed:tool_call><function=NAME><parameter=KEY>value</parameter></function></seed:tool_call>`
    case seed
    /// `<|tool_call>call:NAME{key:<|"|>text<|"|>}<tool_call|>` (Gemma 4).
    case gemma
    /// `<tool_call>NAME<arg_key>KEY</arg_key><arg_value>value</arg_value></tool_call>` (GLM 4.5 and later).
    case glm
    /// `<tool_call><function=NAME><parameter=KEY>value</parameter></function></tool_call>` (Qwen 3 Coder, Nemotron 3).
    case functionMarkup = "function_markup"
    /// `<tool_call>{"name": …, "arguments": {…}}</tool_call>` (Hermes, Qwen 2.5 and 3, SmolLM3).
    case taggedJSON = "tagged_json"
    /// `<|tool_call|>[{"name": …, "arguments": {…}}]` (Granite).
    case granite
    /// `<TOOLCALL>[{"name": …, "arguments": {…}}]</TOOLCALL>` (Nemotron Nano).
    case nemotron
    /// `<tool_calls>{"name": …, "arguments": {…}}</tool_calls>` (MiniMax M1).
    case taggedJSONLines = "tagged_json_lines"
    /// `<|tools_prefix|>[{"NAME": {…}}]<|tools_suffix|>` (Apertus).
    case apertus
    /// `functools[{"name": …, "arguments": {…}}]` (Phi 4 mini).
    case functools
    /// `<|tool_call_start|>[NAME(key="text")]<|tool_call_end|>`, as Python has it (LFM2).
    case pythonCalls = "python_calls"
    /// `Action: ` and a fenced list of `{"tool_name": …, "parameters": {…}}` (Command R).
    case commandR = "command_r"
    /// `{"name": …, "parameters": {…}}` at the beginning of the content, or behind `<|python_tag|>`; several are separated by `;` (Llama 3).
    case llama
  }

  public var reasoning: Reasoning
  public var toolCalls: ToolCalls

  public init(reasoning: Reasoning = .none, toolCalls: ToolCalls = .none) {
    self.reasoning = reasoning
    self.toolCalls = toolCalls
  }

  /// Whether marks of the format are control tokens in the models that use it, which an answer's text leaves out unless it is asked for them.
  ///
  /// `<think>` and `<tool_call>` are ordinary tokens in most vocabularies, though not in all files (``marks``); most others are control tokens.
  public var needsControlTokens: Bool {
    switch toolCalls {
    case .channels, .deepSeek, .kimi, .cohere, .mistral, .gemma, .granite, .apertus, .pythonCalls, .llama: return true
    default: break
    }
    return switch reasoning {
    case .none: false
    case .channels: true
    case .between(let open, _): open.utf8.starts(with: "<|".utf8) || open.utf8.starts(with: "[".utf8)
    }
  }

  /// The marks that some files have as control tokens and others as text, where the format does not tell (``needsControlTokens``).
  public var marks: [String] {
    let calls =
      switch toolCalls {
      case .taggedJSON, .functionMarkup: ["<tool_call>", "</tool_call>"]
      case .glm: ["<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"]
      case .miniMax: ["<minimax:tool_call>", "</minimax:tool_call>"]
      case .seed: ["<seed:tool_call>", "</seed:tool_call>"]
      case .nemotron: ["<TOOLCALL>", "</TOOLCALL>"]
      case .taggedJSONLines: ["<tool_calls>", "</tool_calls>"]
      default: [String]()
      }
    if case .between(let open, let close) = reasoning { return calls + [open, close] }
    return calls
  }
}
