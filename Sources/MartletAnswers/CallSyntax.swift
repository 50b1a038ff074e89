// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// The marks of a family's calls, as its ``AnswerFormat/ToolCalls`` describes them.
enum CallSyntax: Sendable {
  /// JSON objects, each with a name and arguments, alone or in a list.
  struct Objects: Sendable {
    var opens: [Mark] = []
    var close: Mark?
    /// A call may stand without a mark where the content begins.
    var isBare = false
    var nameKey = Mark("name")
    var argumentKeys = [Mark("arguments"), Mark("parameters")]
    /// An object's only key is the tool's name, and its value the arguments.
    var keyIsName = false
  }

  /// A line with the name, then JSON.
  struct Headed: Sendable {
    var sectionOpen: Mark?
    var sectionClose: Mark?
    var open: Mark
    var close: Mark?
    /// Takes the name out of what stands before the arguments.
    var name: @Sendable (ArraySlice<UInt8>) -> [UInt8]
    /// What a list of objects behind `open` is.
    var objects: Objects?
  }

  /// Markup with an element for every parameter.
  struct Markup: Sendable {
    var outerOpen: Mark?
    var outerClose: Mark?
    var open: Mark
    /// nil: the name ends where a line or a mark begins.
    var nameEnd: Mark?
    var close: Mark
    var keyOpen: Mark
    var keyEnd: Mark
    var valueOpen: Mark?
    var valueClose: Mark
    /// Values stand on lines of their own.
    var trimsNewline = false
  }

  /// A notation of its own, read when it is whole.
  struct Whole: Sendable {
    var open: Mark
    var close: Mark
    var read: @Sendable (ArraySlice<UInt8>) -> [WholeCall]?
  }

  case none
  case objects(Objects)
  case headed(Headed)
  case markup(Markup)
  case whole(Whole)
  case channels

  init(_ calls: AnswerFormat.ToolCalls) {
    let cohereKeys = (name: Mark("tool_name"), arguments: [Mark("parameters")])
    switch calls {
    case .none: self = .none
    case .channels: self = .channels
    case .taggedJSON: self = .objects(Objects(opens: [Mark("<tool_call>")], close: Mark("</tool_call>")))
    case .granite: self = .objects(Objects(opens: [Mark("<|tool_call|>")], close: Mark("<|/tool_call|>")))
    case .nemotron: self = .objects(Objects(opens: [Mark("<TOOLCALL>")], close: Mark("</TOOLCALL>")))
    case .taggedJSONLines: self = .objects(Objects(opens: [Mark("<tool_calls>")], close: Mark("</tool_calls>")))
    case .functools: self = .objects(Objects(opens: [Mark("functools")], close: nil))
    case .apertus: self = .objects(Objects(opens: [Mark("<|tools_prefix|>")], close: Mark("<|tools_suffix|>"), keyIsName: true))
    case .cohere:
      self = .objects(
        Objects(
          opens: [Mark("<|START_ACTION|>")], close: Mark("<|END_ACTION|>"), nameKey: cohereKeys.name, argumentKeys: cohereKeys.arguments))
    case .commandR:
      self = .objects(
        Objects(
          opens: [Mark("Action: ```json"), Mark("Action:```json")], close: Mark("```"), nameKey: cohereKeys.name,
          argumentKeys: cohereKeys.arguments))
    case .llama: self = .objects(Objects(opens: [Mark("<|python_tag|>")], isBare: true))
    case .mistral:
      self = .headed(
        Headed(open: Mark("[TOOL_CALLS]"), name: { Array(JSONBytes.trimmed($0.prefix { $0 != UInt8(ascii: "[") })) }, objects: Objects()))
    case .deepSeek:
      self = .headed(
        Headed(
          sectionOpen: Mark("<｜tool▁calls▁begin｜>"), sectionClose: Mark("<｜tool▁calls▁end｜>"), open: Mark("<｜tool▁call▁begin｜>"),
          close: Mark("<｜tool▁call▁end｜>"), name: Self.deepSeekName))
    case .kimi:
      self = .headed(
        Headed(
          sectionOpen: Mark("<|tool_calls_section_begin|>"), sectionClose: Mark("<|tool_calls_section_end|>"),
          open: Mark("<|tool_call_begin|>"), close: Mark("<|tool_call_end|>"), name: Self.kimiName))
    case .functionMarkup: self = .markup(Self.functionMarkup("<tool_call>", "</tool_call>"))
    case .seed: self = .markup(Self.functionMarkup("<seed:tool_call>", "</seed:tool_call>"))
    case .miniMax:
      self = .markup(
        Markup(
          outerOpen: Mark("<minimax:tool_call>"), outerClose: Mark("</minimax:tool_call>"), open: Mark("<invoke name=\""),
          nameEnd: Mark("\">"), close: Mark("</invoke>"), keyOpen: Mark("<parameter name=\""), keyEnd: Mark("\">"),
          valueClose: Mark("</parameter>")))
    case .glm:
      self = .markup(
        Markup(
          open: Mark("<tool_call>"), close: Mark("</tool_call>"), keyOpen: Mark("<arg_key>"), keyEnd: Mark("</arg_key>"),
          valueOpen: Mark("<arg_value>"), valueClose: Mark("</arg_value>")))
    case .gemma: self = .whole(Whole(open: Mark("<|tool_call>"), close: Mark("<tool_call|>"), read: GemmaCalls.read))
    case .pythonCalls:
      self = .whole(Whole(open: Mark("<|tool_call_start|>"), close: Mark("<|tool_call_end|>"), read: PythonCalls.read))
    }
  }

  private static func functionMarkup(_ open: String, _ close: String) -> Markup {
    Markup(
      outerOpen: Mark(open), outerClose: Mark(close), open: Mark("<function="), nameEnd: Mark(">"), close: Mark("</function>"),
      keyOpen: Mark("<parameter="), keyEnd: Mark(">"), valueClose: Mark("</parameter>"), trimsNewline: true)
  }

  /// `NAME<｜tool▁sep｜>` of V3.1, or `function<｜tool▁sep｜>NAME` with a fence of V3 and R1.
  private static func deepSeekName(_ header: ArraySlice<UInt8>) -> [UInt8] {
    let separator = Mark("<｜tool▁sep｜>")
    guard let place = separator.first(in: header) else { return [] }
    var rest = JSONBytes.trimmed(header[(place + separator.bytes.count)...])
    for fence in ["```json", "```"] where rest.suffix(fence.utf8.count).elementsEqual(fence.utf8) {
      rest = rest.dropLast(fence.utf8.count)
    }
    rest = JSONBytes.trimmed(rest)
    return Array(rest.isEmpty ? JSONBytes.trimmed(header[..<place]) : rest)
  }

  /// `functions.NAME:0`
  private static func kimiName(_ header: ArraySlice<UInt8>) -> [UInt8] {
    guard let place = Mark("<|tool_call_argument_begin|>").first(in: header) else { return [] }
    var name = JSONBytes.trimmed(header[..<place])
    if name.starts(with: "functions.".utf8) { name = name.dropFirst("functions.".utf8.count) }
    if let colon = name.lastIndex(of: UInt8(ascii: ":")), name[(colon + 1)...].allSatisfy({ (0x30...0x39).contains($0) }) {
      name = name[..<colon]
    }
    return Array(name)
  }
}

/// A text that means something.
struct Mark: Sendable, Hashable {
  let bytes: [UInt8]
  init(_ text: String) { bytes = Array(text.utf8) }

  func first(in text: ArraySlice<UInt8>) -> Int? {
    guard text.count >= bytes.count else { return nil }
    return (text.startIndex...(text.endIndex - bytes.count)).first {
      text[$0] == bytes[0] && text[$0..<($0 + bytes.count)].elementsEqual(bytes)
    }
  }
}

/// A call that was read at once.
struct WholeCall: Sendable {
  var name: String
  /// JSON.
  var arguments: [UInt8]
}
