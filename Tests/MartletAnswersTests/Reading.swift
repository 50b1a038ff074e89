// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletAnswers
import MartletTemplates
import MartletTokenizers

/// What was read of an answer: its parts, however they were cut.
struct Reading: Hashable, CustomStringConvertible {
  struct Call: Hashable {
    var name: String
    var arguments = ""
    var end = End.open
  }

  enum End: Hashable { case open, whole, broken }

  /// Parts that follow one another are one; a call stands where it began.
  var parts: [AnswerPart] = []
  var calls: [Call] = []
  /// Parts that may not be where they are.
  var faults: [String] = []

  var content: String { parts.reduce(into: "") { if case .content(let text) = $1 { $0 += text } } }
  var reasoning: String { parts.reduce(into: "") { if case .reasoning(let text) = $1 { $0 += text } } }
  var description: String { "\(parts)" }

  /// Reads a text that comes in pieces.
  init(
    _ pieces: [String], _ format: AnswerFormat, tools: [JSON] = Tools.all, promptEnd: String = "", parsesReasoning: Bool = true
  ) {
    var parser = AnswerParser(format: format, tools: tools, promptEnd: promptEnd, parsesReasoning: parsesReasoning)
    var ranges: [Range<Int>] = []
    for piece in pieces {
      parser.append(piece).forEach { append($0) }
      ranges += parser.contentRanges
    }
    parser.finish().forEach { append($0) }
    ranges += parser.contentRanges
    let text = Array(pieces.joined().utf8)
    if ranges.flatMap({ text[$0] }) != Array(content.utf8) { faults.append("the content is not where it is said to stand: \(ranges)") }
    if calls.contains(where: { $0.end == .open }) { faults.append("a call has no end") }
  }

  init(_ text: String, _ format: AnswerFormat, tools: [JSON] = Tools.all, promptEnd: String = "", parsesReasoning: Bool = true) {
    self.init([text], format, tools: tools, promptEnd: promptEnd, parsesReasoning: parsesReasoning)
  }

  private mutating func append(_ part: AnswerPart) {
    switch (part, parts.last) {
    case (.content(let text), .content(let before)?): parts[parts.count - 1] = .content(before + text)
    case (.reasoning(let text), .reasoning(let before)?): parts[parts.count - 1] = .reasoning(before + text)
    case (.callArguments(let index, let text), .callArguments(let last, let before)?) where index == last:
      parts[parts.count - 1] = .callArguments(index: index, before + text)
    default: parts.append(part)
    }
    switch part {
    case .content(let text), .reasoning(let text): if text.isEmpty { faults.append("an empty part") }
    case .callBegan(let index, let name):
      if index != calls.count { faults.append("call \(index) begins as number \(calls.count)") }
      calls.append(Call(name: name))
    case .callArguments(let index, let text):
      if index == calls.count - 1, calls[index].end == .open {
        calls[index].arguments += text
      } else {
        faults.append("arguments of no open call")
      }
    case .callEnded(let index):
      if index == calls.count - 1, calls[index].end == .open { calls[index].end = .whole } else { faults.append("the end of no open call") }
      if (try? JSON(parsing: calls[index].arguments))?.object == nil { faults.append("arguments are no object: \(calls[index].arguments)") }
    case .callBroke(let index):
      if index == calls.count - 1, calls[index].end == .open {
        calls[index].end = .broken
      } else {
        faults.append("the end of no open call")
      }
    }
  }

  /// Names, and arguments as values.
  var values: [JSON] {
    calls.map { call in
      var value = JSON.Object()
      value["name"] = .string(call.name)
      value["arguments"] = (try? JSON(parsing: call.arguments)) ?? .string(call.arguments)
      return .object(value)
    }
  }
}

enum Tools {
  static func tool(_ name: String, _ properties: JSON.Object) -> JSON {
    [
      "type": "function",
      "function": [
        "name": .string(name), "description": "A tool.",
        "parameters": ["type": "object", "properties": .object(properties), "required": []],
      ],
    ]
  }

  static let weather = tool("weather", ["city": ["type": "string"], "days": ["type": "integer"], "exact": ["type": "boolean"]])
  static let note = tool(
    "note",
    [
      "text": ["type": "string"], "tags": ["type": "array", "items": ["type": "string"]], "place": ["type": "object"],
      "weight": ["type": "number"], "maybe": ["anyOf": [["type": "integer"], ["type": "null"]]],
    ])
  static let clock = tool("clock", JSON.Object())
  static let all = [weather, note, clock]
}

extension AnswerFormat {
  static let think = Reasoning.between(open: "<think>", close: "</think>")

  /// Every way in which calls are written, with a way to reason that fits.
  static let every = ToolCalls.allCases.map { calls in
    let reasoning: Reasoning =
      switch calls {
      case .channels: .channels
      case .cohere: .between(open: "<|START_THINKING|>", close: "<|END_THINKING|>")
      case .mistral: .between(open: "[THINK]", close: "[/THINK]")
      case .seed: .between(open: "<seed:think>", close: "</seed:think>")
      case .gemma: .between(open: "<|channel>thought", close: "<channel|>")
      default: think
      }
    return AnswerFormat(reasoning: reasoning, toolCalls: calls)
  }
}

/// SplitMix64.
struct Random: RandomNumberGenerator {
  private var state: UInt64
  init(seed: UInt64) { state = seed }
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}
