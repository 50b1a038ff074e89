// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletTemplates

extension ChatTemplate {
  /// In which forms a program renders what can be said in two: found once, by rendering a small conversation both ways.
  ///
  /// Of the published templates that render tool calls about a third take arguments only as an object and a few only as a string; half render a
  /// content that is a list of parts. The others raise an error, or write the form itself into the prompt.
  struct Abilities: Sendable {
    var takesArgumentObjects = true
    var takesArgumentStrings = true
    var takesText = true
    var takesParts = true

    init() {}

    init(of program: Template, _ specialTokens: [String: String]) {
      func render(_ messages: [JSON], hasTools: Bool) -> String? {
        var variables = specialTokens.mapValues { Template.Variable.mark($0) }
        variables["messages"] = .content(.array(messages))
        variables["tools"] = .content(hasTools ? Self.tools : .null)
        variables["documents"] = .content(.null)
        variables["add_generation_prompt"] = .content(true)
        return try? program.render(variables).text
      }
      func call(_ arguments: JSON) -> String? {
        let call: JSON = ["id": "call00001", "type": "function", "function": ["name": "probe", "arguments": arguments]]
        return render(
          [
            ["role": "user", "content": "probe"], ["role": "assistant", "content": "", "tool_calls": [call]],
            ["role": "tool", "tool_call_id": "call00001", "name": "probe", "content": "probe"], ["role": "user", "content": "probe"],
          ], hasTools: true)
      }
      // An object that is written as JSON or in the template's own way has no backslash before its quotes; a string that is written as one
      // more JSON string has.
      let object = call(["needle": "found"]).map { $0.contains("needle") && $0.contains("found") && !$0.contains("\\\"needle") } ?? false
      let string = call("{\"needle\": \"found\"}").map { $0.contains("needle") && !$0.contains("\\\"needle") } ?? false
      // A template that writes no calls at all is given what there is.
      if object || string { (takesArgumentObjects, takesArgumentStrings) = (object, string) }

      func says(_ content: JSON) -> Bool {
        guard let text = render([["role": "user", "content": content]], hasTools: false) else { return false }
        return text.contains("needle") && !text.contains("'type'") && !text.contains("\"type\"")
      }
      let (text, parts) = (says("needle"), says([["type": "text", "text": "needle"]]))
      if text || parts { (takesText, takesParts) = (text, parts) }
    }

    private static let tools: JSON = [
      [
        "type": "function",
        "function": [
          "name": "probe", "description": "A probe.",
          "parameters": [
            "type": "object", "properties": ["needle": ["type": "string", "description": "A needle."]], "required": ["needle"],
          ],
        ],
      ]
    ]

    /// The message in the forms that the program takes.
    func adapt(_ message: ChatMessage) -> ChatMessage {
      var message = message
      switch message.content {
      case .parts(let parts) where !takesParts && parts.allSatisfy({ $0["type"]?.string ?? "text" == "text" && $0["text"]?.string != nil }):
        message.content = .text(message.text)
      case .text(let text) where !takesText: message.content = .parts([["type": "text", "text": .string(text)]])
      default: break
      }
      for index in message.toolCalls.indices {
        switch message.toolCalls[index].arguments {
        case .string(let text) where !takesArgumentStrings:
          // What is no JSON stays what it is: the template may still say something of it.
          if let value = try? JSON(parsing: text), value.object != nil { message.toolCalls[index].arguments = value }
        case .object where !takesArgumentObjects:
          message.toolCalls[index].arguments = .string(message.toolCalls[index].arguments.text)
        default: break
        }
      }
      return message
    }
  }
}
