// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletFormats
import MartletTokenizers
import Testing

@Suite struct ChatTemplateTests {
  private let conversation = [
    ChatMessage(role: "user", content: "Hi"), ChatMessage(role: "assistant", content: "Hello!"),
    ChatMessage(role: "user", content: " a\nb "),
  ]

  @Test func `ChatML is written turn by turn`() throws {
    let template = try ChatTemplate(named: "chatml")
    #expect(
      try template.render(conversation)
        == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\n a\nb <|im_end|>\n<|im_start|>assistant\n"
    )
    #expect(try template.render([conversation[0]], addsGenerationPrompt: false) == "<|im_start|>user\nHi<|im_end|>\n")
    #expect(try template.render([]) == "<|im_start|>assistant\n")
  }

  @Test(arguments: [
    // The message in one literal; the newlines real, and escaped.
    ("{% if a %}{{ '<|im_start|>system\nBe kind<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + m + '<|im_end|>'}}", "Be kind"),
    (#"{{- '<|im_start|>system\nIt\'s "you"<|im_end|>\n' }}"#, #"It's "you""#),
    (#"{{ "<|im_start|>system\nA\nB<|im_end|>" }}"#, "A\nB"),
    // Plain text around the tags.
    ("{% if not system %}<|im_start|>system\nPlain<|im_end|>\n{% endif %}", "Plain"),
    // A branch that joins the message from parts comes first; what it holds is not a whole message.
    (
      #"{{ '<|im_start|>system\n' + tools + '<|im_end|>' }}{# '<|im_start|>system\nno<|im_end|>' #}{{ '<|im_start|>system\nYes<|im_end|>' }}"#,
      "Yes"
    ),
  ]) func `a default system message is taken from the template's text`(source: String, message: String) throws {
    let template = try ChatTemplate(source: source)
    #expect(template.defaultSystemMessage == message)
    #expect(try template.render([conversation[0]]).hasPrefix("<|im_start|>system\n\(message)<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"))
    let own = ChatMessage(role: "system", content: "Own")
    #expect(try template.render([own, conversation[0]]).hasPrefix("<|im_start|>system\nOwn<|im_end|>\n<|im_start|>user\n"))
  }

  @Test(arguments: [
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{% endfor %}",
    #"{{ '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}"#,
    "<|im_start|>system\n{{ system }}<|im_end|>",
    "{{ '<|im_start|>system\n<|im_end|>' }}",
    "{{ '<|im_start|>system\nopen", "{% '", "<|im_start|><|im_end|>{",
  ]) func `a template without a whole default has none`(source: String) throws {
    #expect(try ChatTemplate(source: "{{ '<|im_start|>' + '<|im_end|>' }}" + source).defaultSystemMessage == nil)
  }

  @Test(arguments: [
    // Other families.
    "{{ '<|user|>\n' + m + '<|end|>' }}", "{{ '### Instruction:\n' + m }}", "", "{{", "{%", "{#",
    // Known marks with a mark of its own between (Phi-4), or reasoning written in an unknown way.
    "{{ '<|im_start|>user<|im_sep|>' + m['content'] + '<|im_end|>' }}",
    "{{ '<|im_start|>assistant\n<think>\n\n</think>\n' + m.content + '<|im_end|>' }}",
    // Marks in a comment are not written.
    "{# <|im_start|> <|im_end|> #}{{ m }}",
    // Turns that are not written from their content and marks in one tag.
    "[INST] {{ m }} [/INST]", "{{ '[INST]' }}{{ m['content'] }}{{ '[/INST]' }}{{ m['content'] + eos_token }}",
    // A system message that goes to an unknown place.
    "{{ '[INST] ' + m['content'] + ' [/INST]' }}{{ m['content'] + eos_token }}{{ system_message }}",
  ]) func `an unknown format is an error that lists the families and how to name one`(source: String) throws {
    let error = #expect(throws: TokenizerError.self) { try ChatTemplate(source: source) }
    #expect(error == .unrecognisedChatTemplate(known: ChatTemplate.names))
    #expect(error?.description.contains("--chat-template chatml|llama2|llama3|gemma|mistral|qwen") == true)
  }

  @Test func `a file without a template, or with one of another type, is an error`() throws {
    #expect(throws: TokenizerError.unknownChatTemplate("alpaca", known: ChatTemplate.names)) { try ChatTemplate(named: "alpaca") }
    var writer = GGUFWriter()
    #expect(throws: TokenizerError.noChatTemplate(known: ChatTemplate.names)) { try ChatTemplate(from: GGUFFile(bytes: writer.bytes())) }
    #expect(TokenizerError.noChatTemplate(known: ChatTemplate.names).description.contains("--chat-template chatml|llama2"))
    writer.add("tokenizer.chat_template", .uint32(1))
    #expect(throws: TokenizerError.format(.wrongType(key: "tokenizer.chat_template", found: "uint32", expected: "a string"))) {
      try ChatTemplate(from: GGUFFile(bytes: writer.bytes()))
    }
  }

  @Test func `what a template refuses is said with its reason`() throws {
    let gemma2 = try ChatTemplate(source: "{{ raise_exception('System role not supported') }}{{ '<start_of_turn>' + '<end_of_turn>' }}")
    let system = ChatMessage(role: "system", content: "Be brief.")
    let error = #expect(throws: TokenizerError.self) { try gemma2.render([system, conversation[0]]) }
    #expect(error?.description.contains("the gemma chat template") == true && error?.description.contains("system message") == true)
    let order = #expect(throws: TokenizerError.self) { try ChatTemplate(named: "mistral").render([conversation[1]]) }
    #expect(order?.description.contains("take turns") == true)
    let tool = ChatMessage(role: "tool", content: "1")
    let role = #expect(throws: TokenizerError.self) { try ChatTemplate(named: "gemma").render([conversation[0], tool]) }
    #expect(role?.description.contains("\"tool\"") == true)
  }
}
