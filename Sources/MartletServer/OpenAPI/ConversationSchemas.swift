// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import MartletTemplates

/// What conversations and tools look like in OpenAI's APIs, as far as they are read.
enum ConversationSchemas {
  private typealias S = Schema

  private static let partType = S.oneOf("text", "input_text", "output_text", "refusal")
  private static let part: JSON = S.any(
    S.object(["text": S.text], optional: ["type": partType]),
    [
      "type": "object", "required": ["refusal"], "properties": ["type": partType, "refusal": S.text], "not": ["required": ["text"]],
    ])
  /// A text, or its parts.
  static let content: JSON = S.any(S.text, S.array(part))

  private static let toolCall: JSON = S.any(
    S.object(["function": S.object(["name": S.text])]),
    ["type": "object", "required": ["name"], "properties": ["name": S.text], "not": ["required": ["function"]]])

  /// A message of chat.
  static let message: JSON = S.any(
    S.object(
      ["role": S.oneOf("system", "developer", "user", "tool", "function"), "content": content],
      optional: [
        "name": S.nullable(S.text), "tool_call_id": S.nullable(S.text), "tool_calls": ["type": ["array", "null"], "items": toolCall],
      ]),
    S.object(
      ["role": S.const("assistant")],
      optional: [
        "content": S.nullable(content), "name": S.nullable(S.text), "tool_call_id": S.nullable(S.text),
        "tool_calls": ["type": ["array", "null"], "items": toolCall],
      ]))

  private static let function: JSON = S.object(
    ["name": ["type": "string", "minLength": 1]], optional: ["description": S.nullable(S.text), "parameters": S.nullable(S.anyObject)])

  /// A tool of chat.
  static let tool: JSON = S.object(["function": function])

  /// A tool of responses: flat, in chat's form, or one that is left out beside them.
  static let flatTool: JSON = S.any(
    [
      "type": "object", "required": ["type", "name"],
      "properties": [
        "type": S.const("function"), "name": ["type": "string", "minLength": 1], "description": S.nullable(S.text),
        "parameters": S.nullable(S.anyObject),
      ], "not": ["required": ["function"]],
    ],
    S.object(["type": S.const("function"), "function": function]),
    S.object(["type": ["enum": .array(ResponseRequest.standing.map { .string($0) })]]))

  /// Of the tools of responses: what is left out is so beside a function.
  static let standingRule: JSON.Object = [
    "allOf": [["anyOf": [["maxItems": 0], ["contains": S.object(["type": S.const("function")])]]]]
  ]

  private static let allowed: JSON = S.object(["tools": S.array(.object([:]))], optional: ["mode": S.const("auto")])

  static let toolChoice: JSON = S.any(
    S.oneOf("none", "auto"), S.object(["type": S.const("allowed_tools"), "allowed_tools": allowed]),
    [
      "type": "object", "required": ["type", "tools"],
      "properties": ["type": S.const("allowed_tools"), "tools": S.array(.object([:])), "mode": S.const("auto")],
      "not": ["required": ["allowed_tools"]],
    ])

  /// An item of responses.
  static let item: JSON = S.any(
    S.object(
      ["role": S.oneOf("system", "developer", "user", "assistant"), "content": content], optional: ["type": ["enum": ["message", .null]]]),
    S.object(["type": S.const("function_call"), "call_id": S.text, "name": S.text, "arguments": S.text]),
    S.object(["type": S.const("function_call_output"), "call_id": S.text, "output": content]),
    S.object(["type": S.const("reasoning")]))
}
#endif
