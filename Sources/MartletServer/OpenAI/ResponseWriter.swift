// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import Martlet
package import MartletAnswers
package import MartletTemplates

/// The events of `/v1/responses`. An item is added, grows and is done, each time under the same id and at the same place; every item is done before
/// the response is. Clients rely on all of it: OpenAI's helper finds an item by its `output_index`, and nothing without one.
package struct ResponseWriter: AnswerWriter {
  private enum Kind { case message, reasoning, call(id: String, name: String) }

  private struct Item {
    let id: String
    let kind: Kind
    /// The answer's text, the thoughts, or the arguments of the call.
    var text = ""
    /// Of the tokens of a message's text.
    var logprobs: [JSON] = []
    var status = "in_progress"
  }

  private let id: String
  private let created: Int
  private let model: String
  private let echo: JSON.Object
  private var items: [Item] = []
  /// The item that texts go to.
  private var open: Int?
  /// Where calls stand among the items, by their number.
  private var calls: [Int: Int] = [:]
  private var sequence = 0
  private var status = "in_progress"
  private var incompleteReason: String?
  private var error: APIError?
  private var usage: Usage?

  package static let silence: String? = nil

  package init(id: String, created: Int, model: String, echo: JSON.Object) {
    self.id = id
    self.created = created
    self.model = model
    self.echo = echo
  }

  // MARK: Events

  package mutating func begin() -> [JSON] {
    [event("response.created", ["response": reply]), event("response.in_progress", ["response": reply])]
  }

  package mutating func add(_ parts: [AnswerPart], logprobs: [JSON]) -> [JSON] {
    var events: [JSON] = []
    var logprobs = logprobs
    for part in parts {
      switch part {
      case .content(let text):
        add(text, to: .message, logprobs: logprobs, &events)
        logprobs = []
      case .reasoning(let text): add(text, to: .reasoning, &events)
      case .callBegan(let index, let name):
        closeText("completed", &events)
        calls[index] = items.count
        add(Item(id: "fc_" + RandomName.make(), kind: .call(id: "call_" + RandomName.make(), name: name)), &events)
      case .callArguments(let index, let text):
        guard let place = calls[index], items[place].status == "in_progress" else { continue }
        items[place].text += text
        events.append(event("response.function_call_arguments.delta", of: place, ["delta": .string(text)]))
      case .callEnded(let index): if let place = calls[index] { close(place, "completed", &events) }
      case .callBroke(let index): if let place = calls[index] { close(place, "incomplete", &events) }
      }
    }
    return events
  }

  package mutating func end(_ end: AnswerEnd) -> [JSON] {
    var events: [JSON] = []
    // Clients look for a message where there is nothing else.
    if items.isEmpty { add("", to: .message, &events) }
    let isCut = end.finish == .length || end.finish == .deadline
    for place in items.indices { close(place, isCut ? "incomplete" : "completed", &events) }
    usage = end.usage
    status = isCut ? "incomplete" : "completed"
    if isCut { incompleteReason = "max_output_tokens" }
    return events + [event("response." + status, ["response": reply])]
  }

  package mutating func fail(_ error: APIError) -> [JSON] {
    var events: [JSON] = []
    for place in items.indices { close(place, "incomplete", &events) }
    self.error = error
    status = "failed"
    return events + [event("response.failed", ["response": reply])]
  }

  /// Adds to the open item, or to a new one.
  private mutating func add(_ text: String, to kind: Kind, logprobs: [JSON] = [], _ events: inout [JSON]) {
    let place: Int
    switch (open.map { items[$0].kind }, kind) {
    case (.message?, .message), (.reasoning?, .reasoning): place = open ?? 0
    default:
      closeText("completed", &events)
      place = items.count
      let isMessage = if case .message = kind { true } else { false }
      add(Item(id: (isMessage ? "msg_" : "rs_") + RandomName.make(), kind: kind), &events)
      open = place
      events.append(event("response.content_part.added", of: place, ["content_index": 0, "part": Self.part(items[place])]))
    }
    if text.isEmpty { return }
    items[place].text += text
    items[place].logprobs += logprobs
    var delta: JSON.Object = ["content_index": 0, "delta": .string(text)]
    if case .message = kind { delta["logprobs"] = Self.withoutBytes(logprobs) }
    events.append(event("response.\(Self.textName(kind)).delta", of: place, delta))
  }

  private mutating func add(_ item: Item, _ events: inout [JSON]) {
    items.append(item)
    events.append(event("response.output_item.added", ["output_index": .integer(items.count - 1), "item": Self.json(item, added: true)]))
  }

  private mutating func closeText(_ status: String, _ events: inout [JSON]) {
    if let open { close(open, status, &events) }
  }

  private mutating func close(_ place: Int, _ status: String, _ events: inout [JSON]) {
    guard items[place].status == "in_progress" else { return }
    items[place].status = status
    if open == place { open = nil }
    let item = items[place]
    switch item.kind {
    case .message, .reasoning:
      var done: JSON.Object = ["content_index": 0, "text": .string(item.text)]
      if case .message = item.kind { done["logprobs"] = Self.withoutBytes(item.logprobs) }
      events.append(event("response.\(Self.textName(item.kind)).done", of: place, done))
      events.append(event("response.content_part.done", of: place, ["content_index": 0, "part": Self.part(item)]))
    case .call(_, let name):
      events.append(
        event("response.function_call_arguments.done", of: place, ["name": .string(name), "arguments": .string(item.text)]))
    }
    events.append(event("response.output_item.done", ["output_index": .integer(place), "item": Self.json(item)]))
  }

  private mutating func event(_ type: String, of place: Int, _ members: JSON.Object) -> JSON {
    var object: JSON.Object = ["item_id": .string(items[place].id), "output_index": .integer(place)]
    for (key, value) in members.members { object[key] = value }
    return event(type, object)
  }

  private mutating func event(_ type: String, _ members: JSON.Object) -> JSON {
    var object: JSON.Object = ["type": .string(type), "sequence_number": .integer(sequence)]
    for (key, value) in members.members { object[key] = value }
    sequence += 1
    return .object(object)
  }

  // MARK: Items

  private static func textName(_ kind: Kind) -> String { if case .message = kind { "output_text" } else { "reasoning_text" } }

  private static func part(_ item: Item) -> JSON {
    if case .message = item.kind {
      return ["type": "output_text", "text": .string(item.text), "annotations": [], "logprobs": .array(item.logprobs)]
    }
    return ["type": "reasoning_text", "text": .string(item.text)]
  }

  /// In the events of a text OpenAI leaves the bytes out, which the part has.
  private static func withoutBytes(_ logprobs: [JSON]) -> JSON {
    .array(
      logprobs.map { entry in
        var entry = entry.object ?? [:]
        entry["bytes"] = nil
        if let top = entry["top_logprobs"]?.array { entry["top_logprobs"] = withoutBytes(top) }
        return .object(entry)
      })
  }

  /// - Parameter added: as it is when it is added, before its first part.
  private static func json(_ item: Item, added: Bool = false) -> JSON {
    let content: JSON = added ? [] : [part(item)]
    switch item.kind {
    case .message:
      return ["id": .string(item.id), "type": "message", "status": .string(item.status), "role": "assistant", "content": content]
    case .reasoning:
      return ["id": .string(item.id), "type": "reasoning", "status": .string(item.status), "summary": [], "content": content]
    case .call(let callID, let name):
      return [
        "id": .string(item.id), "type": "function_call", "status": .string(item.status), "call_id": .string(callID),
        "name": .string(name),
        "arguments": .string(item.text),
      ]
    }
  }

  // MARK: The whole

  package var reply: JSON {
    var object: JSON.Object = [
      "id": .string(id), "object": "response", "created_at": .integer(created), "status": .string(status), "model": .string(model),
      "output": .array(items.map { Self.json($0) }), "error": .null, "incomplete_details": .null, "usage": .null,
    ]
    if let error { object["error"] = ["code": "server_error", "message": .string(error.message)] }
    if let incompleteReason { object["incomplete_details"] = ["reason": .string(incompleteReason)] }
    if let usage { object["usage"] = usage.responseJSON }
    if status == "completed" { object["completed_at"] = .integer(UnixTime.now) }
    for (key, value) in echo.members { object[key] = value }
    return .object(object)
  }
}

extension Usage {
  /// As `/v1/responses` has it.
  var responseJSON: JSON {
    [
      "input_tokens": .integer(promptTokens), "input_tokens_details": ["cached_tokens": .integer(cachedTokens), "cache_write_tokens": 0],
      "output_tokens": .integer(completionTokens), "output_tokens_details": ["reasoning_tokens": .integer(reasoningTokens ?? 0)],
      "total_tokens": .integer(promptTokens + completionTokens),
    ]
  }
}
#endif
