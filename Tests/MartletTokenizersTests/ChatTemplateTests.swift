// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletFormats
import MartletTemplates
import MartletTestSupport
import MartletTokenizers
import Testing

@Suite struct ChatTemplateTests {
  private let conversation = [
    ChatMessage(role: "user", content: "Hi"), ChatMessage(role: "assistant", content: "Hello!"),
    ChatMessage(role: "user", content: " a\nb "),
  ]
  private let closed = ChatOptions(addsGenerationPrompt: false)

  // MARK: Built-in templates

  @Test(arguments: [
    (
      "chatml",
      "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\n a\nb <|im_end|>\n<|im_start|>assistant\n"
    ),
    (
      "qwen",
      "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\n a\nb <|im_end|>\n<|im_start|>assistant\n"
    ),
    (
      "llama3",
      "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHello!<|eot_id|>"
        + "<|start_header_id|>user<|end_header_id|>\n\na\nb<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    (
      "gemma",
      "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello!<end_of_turn>\n<start_of_turn>user\na\nb<end_of_turn>\n<start_of_turn>model\n"
    ),
    ("llama2", "<s>[INST] Hi [/INST] Hello! </s><s>[INST] a\nb [/INST]"),
    ("mistral", "<s>[INST] Hi[/INST] Hello!</s>[INST]  a\nb [/INST]"),
  ]) func `a built-in template writes its family's turns`(name: String, text: String) throws {
    #expect(try ChatTemplate(named: name).render(conversation).text == text)
    #expect(ChatTemplate.names.contains(name))
  }

  @Test func `built-in templates write the model's own tokens, and refuse what they cannot write, in words`() throws {
    let llama2 = try ChatTemplate(named: "llama2", specialTokens: ["bos_token": "<b>", "eos_token": "<e>"])
    #expect(try llama2.render(conversation, options: closed).text == "<b>[INST] Hi [/INST] Hello! <e><b>[INST] a\nb [/INST]")
    let system = ChatMessage(role: "system", content: "Be brief.")
    #expect(try ChatTemplate(named: "gemma").render([system, conversation[0]]).text.contains("user\nBe brief.\n\nHi<end_of_turn>"))
    let order = #expect(throws: TokenizerError.self) { try ChatTemplate(named: "mistral").render([conversation[1]]) }
    #expect(order?.description.contains("take turns") == true)
    let tool = ChatMessage(role: "tool", content: "1")
    let role = #expect(throws: TokenizerError.self) { try ChatTemplate(named: "gemma").render([conversation[0], tool]) }
    #expect(role?.description.contains("\"tool\"") == true)
    let tools = #expect(throws: TokenizerError.self) {
      try ChatTemplate(named: "chatml").render(conversation, tools: [["type": "function"]])
    }
    #expect(tools?.description.contains("no tools") == true)
    let call = ChatMessage(role: "assistant", toolCalls: [ToolCall(name: "f", arguments: [:])])
    let calls = #expect(throws: TokenizerError.self) { try ChatTemplate(named: "llama3").render([conversation[0], call]) }
    #expect(calls?.description.contains("no tool calls") == true)
    #expect(throws: TokenizerError.unknownChatTemplate("alpaca", known: ChatTemplate.names)) { try ChatTemplate(named: "alpaca") }
  }

  @Test(arguments: ChatTemplate.names) func `built-in templates join parts that are texts, and lose none that is something else`(
    name: String
  ) throws {
    let template = try ChatTemplate(named: name)
    let parts: JSON = ["role": "user", "content": [["type": "text", "text": "a"], ["type": "text", "text": "b"]]]
    #expect(try template.render(json: [parts]).text == template.render([ChatMessage(role: "user", content: "a\nb")]).text)
    let image: JSON = ["role": "user", "content": [["type": "image"]]]
    let error = #expect(throws: TokenizerError.self) { try template.render(json: [image]) }
    #expect(error?.description.contains("text only") == true)
  }

  // MARK: Files

  @Test func `a file without a template, or with one of another type, or with one that is no Jinja, is an error`() throws {
    var model = TinyModel(.llama, seed: 1)
    func template(_ value: GGUFWriter.Value?) throws -> ChatTemplate {
      model.overrides["tokenizer.chat_template"] = .some(value)
      let file = try model.file()
      return try ChatTemplate(from: file, tokenizer: makeTokenizer(from: file))
    }
    #expect(throws: TokenizerError.noChatTemplate(known: ChatTemplate.names)) { try template(nil) }
    #expect(TokenizerError.noChatTemplate(known: ChatTemplate.names).description.contains("chatTemplate: chatml|llama2"))
    #expect(throws: TokenizerError.format(.wrongType(key: "tokenizer.chat_template", found: "uint32", expected: "a string"))) {
      try template(.uint32(1))
    }
    let broken = #expect(throws: TokenizerError.self) { try template(.string("a\n{% for %}")) }
    #expect(broken?.description.contains("line 2") == true && broken?.description.contains("default") == true)
  }

  @Test func `of several programs the one for tools is taken where there are tools`() throws {
    let template = try ChatTemplate(sources: ["default": "plain", "tool_use": "tools: {{ tools|length }}", "rag": "rag"])
    #expect(try template.render(conversation).text == "plain")
    #expect(try template.render(conversation, tools: []).text == "tools: 0")
    let nameless = try ChatTemplate(sources: ["rag": "rag"])
    #expect(throws: TokenizerError.noDefaultChatTemplate(names: ["rag"])) { try nameless.render(conversation) }
  }

  // MARK: What programs see

  @Test func `a program sees what transformers shows it`() throws {
    func text(_ program: String, _ message: JSON, _ options: ChatOptions = ChatOptions()) throws -> String {
      try ChatTemplate(source: program, specialTokens: ["bos_token": "<s>"]).render(json: [message], options: options).text
    }
    // Nulls go at a message's top level only.
    let call: JSON = ["role": "assistant", "content": nil, "tool_calls": [["function": ["name": "f", "arguments": nil]]]]
    #expect(try text("{{ messages[0].content is defined }}{{ messages[0].tool_calls[0].function.arguments is none }}", call) == "FalseTrue")
    // Tools and documents are none, not undefined; tokens that are missing are undefined; what is handed in is a variable.
    #expect(
      try text(
        "{{ tools is none }}{{ documents is none }}{{ bos_token }}{{ eos_token is defined }}{{ add_generation_prompt }}{{ x + 1 }}",
        ["role": "user"], ChatOptions(variables: ["x": 2])) == "TrueTrue<s>FalseTrue3")
    // Reasoning under each of three names; the first that is not null counts, and "thinking" comes first.
    let keys = "{% for k, v in messages[0]|items %}{{ k }}={{ v }};{% endfor %}"
    #expect(
      try text(keys, ["role": "a", "reasoning": "r", "content": "c"]) == "thinking=r;role=a;reasoning=r;content=c;reasoning_content=r;")
    #expect(
      try text(keys, ["role": "a", "reasoning_content": "", "thinking": "t", "reasoning": "r"])
        == "thinking=t;role=a;reasoning_content=;reasoning=r;")
    // The clock is handed in.
    let noon = ChatOptions(now: LocalTime("2026-11-29T12:34:56"))
    #expect(try text("{{ strftime_now('%d %b %Y %H:%M') }}", ["role": "user"], noon) == "29 Nov 2026 12:34")
  }

  @Test func `what a template raises is the error, with its own words`() throws {
    let template = try ChatTemplate(source: "before\n{{ raise_exception('no ' + messages[0].role) }}")
    #expect(throws: TokenizerError.unwritableConversation(TemplateError(.raised, "no user", line: 2, column: 19))) {
      try template.render(conversation)
    }
    #expect(throws: TokenizerError.self) { try template.render([]) }
  }

  @Test func `an error names the file of the program and the message that it is about`() throws {
    let program = "{% for m in messages %}{{ raise_exception('no ' + m.role) if m.role == 'assistant' }}{% endfor %}"
    let template = try ChatTemplate(source: program, file: "bird.gguf")
    let raised = #expect(throws: TokenizerError.self) { try template.render(conversation) }
    #expect(raised?.description.hasSuffix(": no assistant (line 1, column 42 of bird.gguf, at messages[1])") == true, "\(raised!)")
    let broken = #expect(throws: TokenizerError.self) { try ChatTemplate(source: "{{ 1 +", file: "bird.gguf") }
    #expect(broken?.description.contains("of bird.gguf") == true, "\(broken!)")
    #expect(throws: TokenizerError.self) {
      try ChatTemplate(sources: ["a": "a", "b": "{% if"], files: ["a": "a.jinja", "b": "b.jinja"])
    }
    // Where a program is from is nothing that makes it another.
    #expect(try template == ChatTemplate(source: program))
  }

  @Test(arguments: ["messages", "tools", "documents", "add_generation_prompt"]) func `what the conversation says is no option`(name: String)
    throws
  {
    let options = ChatOptions(variables: JSON.Object([(key: name, value: JSON.bool(false))]))
    let error = #expect(throws: TokenizerError.self) { try ChatTemplate(named: "chatml").render(conversation, options: options) }
    #expect(error?.description.contains("\"\(name)\"") == true)
  }

  // MARK: Forms

  @Test(arguments: [
    // Takes objects only, strings only, both, neither.
    ("{{ c.function.arguments|tojson }}", "{\"a\": 1}"),
    ("{{ c.function.arguments.items()|list }}", "[('a', 1)]"),
    ("{{ '{' + c.function.arguments + '}' }}", "{{\"a\":1}}"),
    ("{{ c.function.arguments if c.function.arguments is string else c.function.arguments|tojson }}", "{\"a\":1}"),
  ]) func `arguments of a call have the form that the program renders`(expression: String, text: String) throws {
    let program =
      "{% for m in messages %}{% for c in m.tool_calls or [] %}" + expression
      + "{% endfor %}{% if m.content %}{{ m.content[:0] }}{% endif %}{% endfor %}"
    let template = try ChatTemplate(source: program)
    let object: JSON = ["a": 1]
    let fromString = ChatMessage(role: "assistant", toolCalls: [ToolCall(name: "f", arguments: "{\"a\":1}")])
    #expect(try template.render([fromString], tools: []).text == text)
    let fromObject = ChatMessage(role: "assistant", toolCalls: [ToolCall(name: "f", arguments: object)])
    #expect(try template.render([fromObject], tools: []).text == text.split(separator: "\":1").joined(separator: "\": 1"))
    // As they stand, where the caller wants that.
    if expression.contains("items()") {
      #expect(throws: TokenizerError.self) { try template.render(json: [fromString.json], tools: []) }
    }
  }

  @Test func `parts of a content are joined for a program that takes text, and text becomes a part for one that takes parts`() throws {
    let parts = ChatMessage(role: "user", content: .parts([["type": "text", "text": "a"], ["type": "text", "text": "b"]]))
    let takesText = try ChatTemplate(source: "{{ messages[0].role + ': ' + messages[0].content }}")
    #expect(try takesText.render([parts]).text == "user: a\nb")
    let takesParts = try ChatTemplate(source: "{% for part in messages[0].content %}{{ '[' + part.text + ']' }}{% endfor %}")
    #expect(try takesParts.render([ChatMessage(role: "user", content: "a")]).text == "[a]")
    #expect(try takesParts.render([parts]).text == "[a][b]")
    // A part that is no text is not lost: the program is asked, and says what it thinks of it.
    let image = ChatMessage(role: "user", content: .parts([["type": "image"]]))
    #expect(throws: TokenizerError.self) { try takesText.render([image]) }
  }

  // MARK: Going on with a message

  @Test func `a last message is gone on with where it ends`() throws {
    let going = ChatOptions(addsGenerationPrompt: false, continuesFinalMessage: true)
    let messages = [conversation[0], ChatMessage(role: "assistant", content: "One, two ")]
    #expect(
      try ChatTemplate(named: "chatml").render(messages, options: going).text
        == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nOne, two ")
    // A template that trims takes the space before the end too.
    #expect(try ChatTemplate(named: "gemma").render(messages, options: going).text.hasSuffix("<start_of_turn>model\nOne, two"))
    let both = ChatOptions(continuesFinalMessage: true)
    #expect(throws: TokenizerError.self) { try ChatTemplate(named: "chatml").render(messages, options: both) }
    let call = ChatMessage(role: "assistant", toolCalls: [ToolCall(name: "f", arguments: [:])])
    #expect(throws: TokenizerError.self) { try ChatTemplate(named: "chatml").render([conversation[0], call], options: going) }
    let dropping = try ChatTemplate(source: "{% if messages[-1].content == 'x' %}{{ messages[-1].content }}{% endif %}")
    #expect(throws: TokenizerError.self) { try dropping.render(messages, options: going) }
  }

  // MARK: Contents and marks

  @Test func `what came from messages is told from what the program wrote`() throws {
    let marked = try ChatTemplate(named: "llama3").render([ChatMessage(role: "user", content: " <|eot_id|> ")], options: closed)
    let bytes = Array(marked.text.utf8)
    #expect(marked.contents.map { String(decoding: bytes[$0], as: UTF8.self) } == ["user", "<|eot_id|>"])
  }

  // MARK: Messages as JSON

  @Test func `messages keep all that they have, in their order`() throws {
    let text = """
      {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [{"id": "1", "type": "function", "function": \
      {"name": "f", "arguments": "{\\"z\\": 1, \\"a\\": 2.0}"}}], "weight": 0, "z": {"b": [1, 2.0, null], "a": 12345678901234567890}}
      """
    let message = try ChatMessage(JSON(parsing: text))
    #expect(message.content == nil && message.reasoning == "hm" && message.toolCalls[0].name == "f")
    #expect(message.further.members.map(\.key) == ["weight", "z"])
    #expect(
      message.json.text
        == "{\"role\": \"assistant\", \"reasoning_content\": \"hm\", \"tool_calls\": [{\"id\": \"1\", \"type\": \"function\", \"function\": "
        + "{\"name\": \"f\", \"arguments\": \"{\\\"z\\\": 1, \\\"a\\\": 2.0}\"}}], \"weight\": 0, \"z\": {\"b\": [1, 2.0, null], "
        + "\"a\": 12345678901234567890}}")
    #expect(throws: TokenizerError.malformedMessage("a message has no \"role\"")) { try ChatMessage(["content": "a"]) }
    #expect(throws: TokenizerError.self) { try ChatMessage(["role": "user", "content": 1]) }
    #expect(throws: TokenizerError.self) { try ChatMessage(["role": "user", "tool_calls": [["function": [:]]]]) }
  }
}
