// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import HTTPTypes
import Martlet
import MartletServer
import MartletTemplates
import MartletTestSupport
import MartletTokenizers
import Testing

/// Requests with every field wrong in every way: an error that names the field, and never a trap.
@Suite struct RequestFieldTests {
  /// A route's body: what it is read by, and the least that is a request.
  struct Route: Sendable, CustomTestStringConvertible {
    let name: String
    let table: [any AnyField]
    let least: JSON.Object
    let read: @Sendable (JSON) throws -> Void
    var testDescription: String { name }
  }

  static let routes: [Route] = {
    let server = ServerConfiguration()
    let user: JSON = [["role": "user", "content": "x"]]
    return [
      Route(name: "chat", table: ChatCompletionRequest.table, least: ["messages": user, "stream": true, "logprobs": true]) {
        _ = try ChatCompletionRequest($0, id: "r", server: server)
      },
      Route(name: "completions", table: CompletionRequest.table, least: ["prompt": "x", "stream": true]) {
        _ = try CompletionRequest($0, id: "r", server: server)
      },
      Route(name: "responses", table: ResponseRequest.table, least: ["input": "x"]) {
        _ = try ResponseRequest($0, id: "r", server: server)
      },
      Route(name: "messages", table: MessagesRequest.table, least: ["messages": user, "max_tokens": 1]) {
        _ = try MessagesRequest($0, id: "r", server: server)
      },
    ]
  }()

  /// One value of every type, and the ends of numbers.
  static let values: [JSON] = [
    true, false, 0, 1, -1, 3.5, -0.0, .number(1e300), .number(-1e300), .integer(.max), .integer(.min),
    .largeInteger("99999999999999999999"), "",
    "text", [], [.null], [1], [[]], ["a"], [[:]], .object([:]), ["type": "none"], ["a": .null], .array([.array([.array([1])])]),
  ]

  /// Whether a schema's own types allow a value: only `type`, `enum`, `const` and `anyOf` at its top are looked at.
  static func allowsType(_ schema: JSON, _ value: JSON) -> Bool {
    if let cases = schema["anyOf"]?.array { return cases.contains { allowsType($0, value) } }
    if let values = schema["enum"]?.array { return values.contains(value) }
    if let const = schema["const"] { return const == value }
    let types = schema["type"]?.array?.compactMap(\.string) ?? schema["type"]?.string.map { [$0] } ?? []
    if types.isEmpty { return true }
    return types.contains { type in
      switch (type, value) {
      case ("string", .string), ("boolean", .bool), ("array", .array), ("object", .object), ("null", .null): true
      case ("integer", _): value.wholeNumber != nil
      case ("number", _): value.anyNumber != nil
      default: false
      }
    }
  }

  @Test(arguments: routes) func `a value of the wrong type is a 400 that names the field`(route: Route) throws {
    try route.read(.object(route.least))
    var refused = 0
    for field in route.table {
      for value in Self.values {
        var body = route.least
        body[field.name] = value
        do {
          try route.read(.object(body))
          #expect(Self.allowsType(field.schema, value), "\(field.name) took \(value.text)")
        } catch let error as APIError {
          refused += 1
          #expect(error.status == .badRequest, "\(field.name): \(value.text)")
          #expect(!error.message.isEmpty && error.message.utf8.count < 400, "\(field.name): \(value.text)")
          // Two of them are about one another.
          let param = error.param.map { String($0.prefix { $0 != "[" && $0 != "." }) }
          let related = [
            "stream": "stream_options", "logprobs": "top_logprobs", "n": "best_of", "max_tokens": "max_tokens", "echo": "max_tokens",
          ]
          #expect(
            param == field.name || param == related[field.name], "\(field.name) = \(value.text) is blamed on \(error.param ?? "nothing")")
        }
      }
    }
    #expect(refused > route.table.count * 5)
  }

  @Test(arguments: routes) func `null is as absent, and unknown fields are ignored`(route: Route) throws {
    for field in route.table where route.least[field.name] == nil {
      var body = route.least
      body[field.name] = .null
      body["unknown to all"] = ["a": 1]
      #expect(throws: Never.self, "\(field.name)") { try route.read(.object(body)) }
    }
  }

  @Test(arguments: routes) func `a body that is no object, or has too little, is a 400`(route: Route) throws {
    for body: JSON in [.null, [], "x", 1, .object([:])] {
      let error = #expect(throws: APIError.self) { try route.read(body) }
      #expect(error?.status == .badRequest)
    }
  }

  @Test func `elements of conversations are checked one by one`() {
    let cases: [(Int, JSON, String)] = [
      (0, ["messages": [["role": "user", "content": [["type": "image_url", "image_url": ["url": "x"]]]]]], "messages[0].content[0]"),
      (0, ["messages": [["role": "king", "content": "x"]]], "messages[0].role"),
      (2, ["input": [1]], "input[0]"), (2, ["input": [["role": "user"]]], "input[0].content"),
      (2, ["input": [["role": "user", "content": "x"], ["type": "function_call", "name": "f"]]], "input[1].call_id"),
      (2, ["input": [["type": "item_reference", "id": "x"]]], "input[0]"),
      (2, ["input": "x", "tools": [["type": "function"]]], "tools[0].name"),
      (2, ["input": "x", "text": ["format": ["type": "json_schema"]]], "text.format.schema"),
      (2, ["input": "x", "text": ["format": ["type": "grammar"]]], "text.format.type"),
      (0, ["messages": [["role": "user", "content": "x"]], "response_format": ["type": "json_schema"]], "response_format.json_schema"),
      (
        0,
        [
          "messages": [["role": "user", "content": "x"]],
          "response_format": ["type": "json_schema", "json_schema": ["schema": [:], "strict": "yes"]],
        ], "response_format.json_schema.strict"
      ),
      (1, ["prompt": "x", "structured_outputs": ["regex": "a", "choice": ["b"]]], "structured_outputs"),
      (1, ["prompt": "x", "structured_outputs": ["choice": ["a", 1]]], "structured_outputs.choice"),
      (1, ["prompt": "x", "structured_outputs": ["whitespace_pattern": " "]], "structured_outputs"),
      (1, ["prompt": "x", "response_format": ["type": "json_object"], "structured_outputs": ["regex": "a"]], "structured_outputs.regex"),
      (1, ["prompt": "x", "response_format": ["type": "json_object"], "ignore_eos": true], "ignore_eos"),
      (1, ["prompt": "x", "guided_regex": "a"], "guided_regex"),
      (
        2,
        [
          "input": "x", "text": ["format": ["type": "json_object"]],
          "tools": [["type": "function", "name": "f", "parameters": ["type": "object"]]],
        ], "text.format"
      ),
      (
        3, ["max_tokens": 1, "messages": [["role": "user", "content": "x"]], "output_config": ["format": ["type": "json_object"]]],
        "output_config.format.type"
      ),
      (2, ["input": "x", "previous_response_id": "resp_1"], "previous_response_id"),
      (2, ["input": "x", "conversation": "conv_1"], "conversation"), (2, ["input": "x", "background": true], "background"),
      (2, ["input": "x", "tool_choice": "required"], "tool_choice"), (2, ["input": "x", "tools": [["type": "web_search"]]], "tools[0]"),
      (2, ["input": "x", "tools": [["type": "function", "name": "f"], ["type": "file_search"]]], "tools[1]"),
      (2, ["input": "x", "tools": [["type": "mcp"], ["type": "function", "name": "f"]]], "tools[0]"),
      (2, ["input": "x", "top_logprobs": 3], "top_logprobs"),
      (2, ["input": "x", "include": ["message.output_text.logprobs"], "top_logprobs": 21], "top_logprobs"),
      (3, ["max_tokens": 1, "messages": [["role": "user", "content": [["type": "image", "source": [:]]]]]], "messages[0].content[0]"),
      (
        3, ["max_tokens": 1, "messages": [["role": "user", "content": [["type": "tool_result"]]]]], "messages[0].content[0].tool_use_id"
      ),
      (3, ["messages": [["role": "user", "content": "x"]]], "max_tokens"),
      (3, ["max_tokens": 1, "messages": [["role": "user", "content": "x"]], "tools": [["name": "f"]]], "tools[0].input_schema"),
      (3, ["max_tokens": 1, "messages": [["role": "user", "content": "x"]], "tool_choice": ["type": "any"]], "tool_choice"),
      (
        3,
        [
          "max_tokens": 1, "messages": [["role": "user", "content": "x"]],
          "tools": [["type": "web_search_20250305", "name": "web_search"]],
        ],
        "tools[0]"
      ), (3, ["max_tokens": 1, "messages": [["role": "user", "content": "x"]], "mcp_servers": [["type": "url"]]], "mcp_servers"),
    ]
    for (route, body, param) in cases {
      let error = #expect(throws: APIError.self, "\(param)") { try Self.routes[route].read(body) }
      #expect(error?.param == param)
      #expect(error?.status == .badRequest)
    }
  }

  @Test func `forms are those that the fields of each API say`() throws {
    let schema: JSON = ["type": "object", "properties": ["b": [:], "a": ["type": "number", "maximum": 0.5]]]
    let text = #"{"type": "object", "properties": {"b": {}, "a": {"type": "number", "maximum": 0.5}}}"#
    let cases: [(JSON.Object, AnswerForm?)] = [
      (["response_format": ["type": "text"]], nil), (["response_format": .null, "structured_outputs": .null], nil),
      (["response_format": ["type": "json_object"]], .json),
      (
        ["response_format": ["type": "json_schema", "json_schema": ["name": "n", "strict": true, "schema": schema]]], .jsonSchema(text)
      ), (["structured_outputs": ["json": schema, "disable_fallback": true, "regex": .null]], .jsonSchema(text)),
      (["structured_outputs": ["json": .string(text)]], .jsonSchema(text)), (["structured_outputs": ["json_object": true]], .json),
      (["structured_outputs": ["regex": "a+"]], .regex("a+")), (["structured_outputs": ["choice": ["a", ""]]], .choice(["a", ""])),
      (["structured_outputs": ["grammar": "root ::= \"a\""]], .grammar("root ::= \"a\"")),
    ]
    for (members, form) in cases {
      var chat = members
      chat["messages"] = [["role": "user", "content": "x"]]
      #expect(try ChatCompletionRequest(.object(chat), id: "r", server: ServerConfiguration()).chat.sampling.form == form)
      var completion = members
      completion["prompt"] = "x"
      #expect(try CompletionRequest(.object(completion), id: "r", server: ServerConfiguration()).sampling.form == form)
    }
    let format: JSON = ["type": "json_schema", "name": "n", "schema": schema]
    let response = try ResponseRequest(["input": "x", "text": ["format": format]], id: "r", server: ServerConfiguration())
    #expect(response.chat.sampling.form == .jsonSchema(text) && response.echo["text"] == ["format": format])
    let plain = try ResponseRequest(["input": "x"], id: "r", server: ServerConfiguration())
    #expect(plain.chat.sampling.form == nil && plain.echo["text"] == ["format": ["type": "text"]])
    let message = try MessagesRequest(
      [
        "max_tokens": 1, "messages": [["role": "user", "content": "x"]],
        "output_config": ["format": ["type": "json_schema", "schema": schema]],
      ], id: "r", server: ServerConfiguration())
    #expect(message.chat.sampling.form == .jsonSchema(text))
  }

  @Test func `a tool that the server has not is named, with the way out`() {
    let tools: JSON = [["type": "code_interpreter", "container": ["type": "auto"]]]
    let response = #expect(throws: APIError.self) { try Self.routes[2].read(["input": "x", "tools": tools]) }
    #expect(response?.message.contains("\"code_interpreter\"") == true && response?.message.contains("take it out") == true)
    let message = #expect(throws: APIError.self) {
      try Self.routes[3].read([
        "max_tokens": 1, "messages": [["role": "user", "content": "x"]], "tools": [["type": "computer_20250124", "name": "computer"]],
      ])
    }
    #expect(message?.message.contains("\"computer_20250124\"") == true && message?.message.contains("input_schema") == true)
  }
}

/// What conversations of the three APIs become.
@Suite struct ConversationFormTests {
  @Test func `one turn of the assistant in items is one message`() throws {
    let asked = try ResponseRequest(
      [
        "instructions": "Be short.",
        "input": [
          ["role": "developer", "content": "Really."], ["role": "user", "content": [["type": "input_text", "text": "Weather?"]]],
          ["type": "reasoning", "id": "rs_1", "summary": [], "content": [["type": "reasoning_text", "text": "Hm."]]],
          ["type": "message", "role": "assistant", "content": [["type": "output_text", "text": "I look."]]],
          ["type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{\"city\": \"Paris\"}"],
          ["type": "function_call", "call_id": "c2", "name": "time", "arguments": "{}"],
          ["type": "function_call_output", "call_id": "c1", "output": "Rain."],
          ["type": "function_call_output", "call_id": "c2", "output": [["type": "input_text", "text": "Noon."]]],
        ],
      ], id: "r", server: ServerConfiguration())
    #expect(
      asked.chat.messages.map(\.json) == [
        ["role": "system", "content": "Be short.\n\nReally."], ["role": "user", "content": "Weather?"],
        [
          "role": "assistant", "content": "I look.", "reasoning_content": "Hm.",
          "tool_calls": [
            ["id": "c1", "type": "function", "function": ["name": "weather", "arguments": "{\"city\": \"Paris\"}"]],
            ["id": "c2", "type": "function", "function": ["name": "time", "arguments": "{}"]],
          ],
        ],
        ["role": "tool", "content": "Rain.", "name": "weather", "tool_call_id": "c1"],
        ["role": "tool", "content": "Noon.", "name": "time", "tool_call_id": "c2"],
      ])
  }

  @Test func `flat tools become those that templates read, and what an agent offers beside them is left out, and named`() throws {
    let asked = try ResponseRequest(
      [
        "input": "x",
        "tools": [
          ["type": "web_search"], ["type": "function", "name": "f", "parameters": ["type": "object"], "strict": true],
          ["type": "custom", "name": "apply_patch"], ["type": "web_search"],
        ],
      ], id: "r", server: ServerConfiguration())
    #expect(asked.leftOut == ["web_search", "custom"])
    #expect(
      asked.chat.tools == [["type": "function", "function": ["name": "f", "parameters": ["type": "object"], "strict": true]]])
    #expect(asked.echo["tools"] == [["type": "function", "name": "f", "parameters": ["type": "object"], "strict": true]])
  }

  @Test func `blocks become messages, and results of tools are messages of their own`() throws {
    let asked = try MessagesRequest(
      [
        "max_tokens": 5,
        "system": [["type": "text", "text": "A"], ["type": "text", "text": "B", "cache_control": ["type": "ephemeral"]]],
        "messages": [
          ["role": "user", "content": "Weather?"],
          [
            "role": "assistant",
            "content": [
              ["type": "thinking", "thinking": "Hm.", "signature": "s"], ["type": "redacted_thinking", "data": "zz"],
              ["type": "text", "text": "I look."], ["type": "tool_use", "id": "t1", "name": "weather", "input": ["city": "Paris"]],
            ],
          ],
          [
            "role": "user",
            "content": [
              ["type": "tool_result", "tool_use_id": "t1", "content": [["type": "text", "text": "Rain."]]],
              ["type": "text", "text": "And?"],
            ],
          ],
        ], "tools": [["name": "weather", "input_schema": ["type": "object"]]], "stop_sequences": ["END"],
        "tool_choice": ["type": "auto", "disable_parallel_tool_use": true], "metadata": ["user_id": "u"],
      ], id: "r", server: ServerConfiguration())
    #expect(
      asked.chat.messages.map(\.json) == [
        ["role": "system", "content": "A\nB"], ["role": "user", "content": "Weather?"],
        [
          "role": "assistant", "content": "I look.", "reasoning_content": "Hm.",
          "tool_calls": [["id": "t1", "type": "function", "function": ["name": "weather", "arguments": ["city": "Paris"]]]],
        ],
        ["role": "tool", "content": "Rain.", "name": "weather", "tool_call_id": "t1"], ["role": "user", "content": "And?"],
      ])
    #expect(asked.chat.tools == [["type": "function", "function": ["name": "weather", "parameters": ["type": "object"]]]])
    #expect(asked.chat.sampling.stop == ["END"])
    #expect(!asked.chat.callsInParallel)
    #expect(asked.chat.requestOptions.fairnessKey == "u")
    #expect(!asked.chat.chatOptions.continuesFinalMessage)
  }

  @Test func `a null in an item or a block is as nothing`() throws {
    let response = try ResponseRequest(
      ["input": [["type": .null, "role": "user", "content": "x"]]], id: "r", server: ServerConfiguration())
    #expect(response.chat.messages == [ChatMessage(role: "user", content: "x")])
    let message = try MessagesRequest(
      ["max_tokens": 1, "messages": [["role": "user", "content": [["type": "tool_result", "tool_use_id": "t", "content": .null]]]]],
      id: "r",
      server: ServerConfiguration())
    #expect(message.chat.messages == [ChatMessage(role: "tool", content: .text(""), toolCallID: "t")])
  }

  /// Each result looked through all calls before it once: a megabyte took a processor a minute. Four times as many take about four times as long, where
  /// quadratic work takes sixteen times; the best of several runs counts.
  @Test func `thousands of calls, and results that answer none of them, are read in linear time`() throws {
    func read(_ count: Int) throws {
      let calls: [JSON] = (0..<count).map {
        ["type": "function_call", "call_id": .string("call \($0)"), "name": "f", "arguments": "{}"]
      }
      let outputs: [JSON] = (0..<count).map {
        ["type": "function_call_output", "call_id": .string($0 == 7 ? "call 3" : "none \($0)"), "output": "x"]
      }
      let response = try ResponseRequest(["input": .array(calls + outputs)], id: "r", server: ServerConfiguration())
      #expect(response.chat.messages.count == count + 1)
      #expect(response.chat.messages.filter { $0.name == "f" }.map(\.toolCallID) == ["call 3"])
      let uses: [JSON] = (0..<count).map { ["type": "tool_use", "id": .string("call \($0)"), "name": "f", "input": [:]] }
      let results: [JSON] = (0..<count).map {
        ["type": "tool_result", "tool_use_id": .string($0 == 7 ? "call 3" : "none \($0)"), "content": "x"]
      }
      let message = try MessagesRequest(
        [
          "max_tokens": 5,
          "messages": [["role": "assistant", "content": .array(uses)], ["role": "user", "content": .array(results)]],
        ], id: "r", server: ServerConfiguration())
      #expect(message.chat.messages.filter { $0.name == "f" }.map(\.toolCallID) == ["call 3"])
    }
    var ratio = Double.infinity
    for _ in 0..<5 where ratio >= 8 {
      let few = try processorTime { try read(4000) }
      ratio = min(ratio, try processorTime { try read(16_000) } / few)
    }
    #expect(ratio < 8)
  }

  /// Objects that differ were compared twice at every depth, which is 2 to the power of the depth.
  @Test func `deep values that differ at their end are compared once`() {
    func deep(_ end: JSON) -> JSON { (0..<120).reduce(end) { value, _ in ["a": value] } }
    #expect(deep(1) != deep(2) && deep(1) == deep(1))
    let (left, right): (JSON, JSON) = (["a": 1, "b": deep(1)], ["b": deep(1), "a": 1])
    #expect(left == right && left.hashValue == right.hashValue && left != ["b": deep(2), "a": 1])
    #expect(deep(1).hashValue != deep(2).hashValue)
  }

  @Test func `a last message of the assistant is gone on with`() throws {
    let asked = try MessagesRequest(
      ["max_tokens": 5, "messages": [["role": "user", "content": "x"], ["role": "assistant", "content": "The answer is"]]], id: "r",
      server: ServerConfiguration())
    #expect(asked.chat.chatOptions.continuesFinalMessage)
  }

  /// `martlet serve --set` was taken, and no request ever saw it.
  @Test func `the server's variables of the template are every conversation's, under its own`() throws {
    let server = ServerConfiguration(templateVariables: ["enable_thinking": false, "name": "server"])
    for (own, expected) in [
      ([:], ["enable_thinking": false, "name": "server"]), (["name": "own"], ["enable_thinking": false, "name": "own"]),
      (["more": 1], ["enable_thinking": false, "name": "server", "more": 1]),
    ] as [(JSON.Object, JSON.Object)] {
      let messages: JSON = [["role": "user", "content": "x"]]
      let kwargs = JSON.object(own)
      let requests = [
        try ChatCompletionRequest(["messages": messages, "chat_template_kwargs": kwargs], id: "r", server: server).chat,
        try ResponseRequest(["input": "x", "chat_template_kwargs": kwargs], id: "r", server: server).chat,
        try MessagesRequest(["messages": messages, "max_tokens": 1, "chat_template_kwargs": kwargs], id: "r", server: server).chat,
      ]
      for request in requests { #expect(JSON.object(request.chatOptions.variables) == .object(expected)) }
    }
    let thinks = try MessagesRequest(
      ["messages": [["role": "user", "content": "x"]], "max_tokens": 1, "thinking": ["type": "enabled"]], id: "r", server: server)
    #expect(thinks.chat.chatOptions.variables["enable_thinking"] == true)
  }

  @Test func `the line that Claude Code puts before its system message is not the model's to read`() throws {
    for (system, left) in [
      ("x-anthropic-billing-header: cc_version=2; cch=1a2b3;\nYou help.", "You help."), ("You help.\nx-anthropic-billing-header: 1", nil),
    ] as [(String, String?)] {
      let asked = try MessagesRequest(
        ["max_tokens": 5, "system": .string(system), "messages": [["role": "user", "content": "x"]]], id: "r", server: ServerConfiguration()
      )
      #expect(asked.chat.messages[0].text == left ?? system)
    }
  }
}
#endif
