// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import Martlet
package import MartletAnswers
package import MartletTemplates
import MartletTokenizers

/// The events of `/v1/messages`: a message starts, its blocks start, grow and stop one after the other, the message says how it ended, and stops.
package struct MessageWriter: AnswerWriter {
  private enum Kind { case text, thinking, call(id: String, name: String) }

  private struct Block {
    let kind: Kind
    /// The text, the thoughts, or the JSON of the call's input.
    var text = ""
  }

  private let id: String
  private let model: String
  private let promptTokens: Int
  private let seed: UInt64?
  private var blocks: [Block] = []
  private var isOpen = false
  /// Where calls stand among the blocks, by their number.
  private var calls: [Int: Int] = [:]
  /// Whether the last call is no whole one.
  private var brokeOff = false
  private var stopReason: String?
  private var stopSequence: String?
  private var usage: Usage?

  package static let silence: String? = "ping"

  /// - Parameter seed: with which the same request gives the same answer; this API has no member for it, and clients pass over those that they do not know.
  package init(id: String, model: String, promptTokens: Int, seed: UInt64? = nil) {
    self.id = id
    self.model = model
    self.promptTokens = promptTokens
    self.seed = seed
  }

  package mutating func begin() -> [JSON] { [["type": "message_start", "message": reply], ["type": "ping"]] }

  package mutating func add(_ parts: [AnswerPart], logprobs: [JSON]) -> [JSON] {
    var events: [JSON] = []
    for part in parts {
      switch part {
      case .content(let text):
        if case .text? = openKind {} else { open(Block(kind: .text), &events) }
        grow(text, ["type": "text_delta", "text": .string(text)], &events)
      case .reasoning(let text):
        if case .thinking? = openKind {} else { open(Block(kind: .thinking), &events) }
        grow(text, ["type": "thinking_delta", "thinking": .string(text)], &events)
      case .callBegan(let index, let name):
        brokeOff = false
        calls[index] = blocks.count
        open(Block(kind: .call(id: "toolu_" + RandomName.make(), name: name)), &events)
      case .callArguments(let index, let text):
        guard isOpen, calls[index] == blocks.count - 1 else { continue }
        grow(text, ["type": "input_json_delta", "partial_json": .string(text)], &events)
      case .callEnded(let index), .callBroke(let index):
        if case .callBroke = part { brokeOff = true }
        if isOpen, calls[index] == blocks.count - 1 { close(&events) }
      }
    }
    return events
  }

  package mutating func end(_ end: AnswerEnd) -> [JSON] {
    var events: [JSON] = []
    close(&events)
    usage = end.usage
    let isCut = end.finish == .length || end.finish == .deadline
    if !calls.isEmpty && !(brokeOff && isCut) {
      stopReason = "tool_use"
    } else if isCut {
      stopReason = "max_tokens"
    } else if end.finish == .stopString {
      stopReason = "stop_sequence"
      stopSequence = end.stop
    } else {
      stopReason = "end_turn"
    }
    events.append([
      "type": "message_delta", "delta": ["stop_reason": json(stopReason), "stop_sequence": json(stopSequence)], "usage": usageJSON,
    ])
    return events + [["type": "message_stop"]]
  }

  package mutating func fail(_ error: APIError) -> [JSON] { [ErrorForm.anthropic.json(error)] }

  private var openKind: Kind? { isOpen ? blocks.last?.kind : nil }

  private mutating func open(_ block: Block, _ events: inout [JSON]) {
    close(&events)
    blocks.append(block)
    isOpen = true
    events.append(["type": "content_block_start", "index": .integer(blocks.count - 1), "content_block": Self.json(block, started: true)])
  }

  private mutating func grow(_ text: String, _ delta: JSON, _ events: inout [JSON]) {
    blocks[blocks.count - 1].text += text
    events.append(["type": "content_block_delta", "index": .integer(blocks.count - 1), "delta": delta])
  }

  private mutating func close(_ events: inout [JSON]) {
    guard isOpen else { return }
    isOpen = false
    events.append(["type": "content_block_stop", "index": .integer(blocks.count - 1)])
  }

  /// - Parameter started: as it is when it starts: an input grows from nothing.
  private static func json(_ block: Block, started: Bool = false) -> JSON {
    switch block.kind {
    case .text: return ["type": "text", "text": .string(block.text)]
    // Signatures are Anthropic's own; clients want the member.
    case .thinking: return ["type": "thinking", "thinking": .string(block.text), "signature": ""]
    case .call(let id, let name):
      let input = started ? nil : (try? JSON(parsing: block.text))?.object
      return ["type": "tool_use", "id": .string(id), "name": .string(name), "input": .object(input ?? [:])]
    }
  }

  package var reply: JSON {
    var message: JSON.Object = [
      "id": .string(id), "type": "message", "role": "assistant", "model": .string(model), "content": .array(blocks.map { Self.json($0) }),
      "stop_reason": json(stopReason), "stop_sequence": json(stopSequence), "usage": usageJSON,
    ]
    if let seed { message["seed"] = seed.seedJSON }
    return .object(message)
  }

  /// What was in the cache is no input in this API, but a count of its own.
  private var usageJSON: JSON {
    let cached = usage?.cachedTokens ?? 0
    return [
      "input_tokens": .integer(promptTokens - cached), "output_tokens": .integer(usage?.completionTokens ?? 0),
      "cache_creation_input_tokens": 0, "cache_read_input_tokens": .integer(cached),
    ]
  }

  private func json(_ text: String?) -> JSON { text.map { .string($0) } ?? .null }
}
#endif
