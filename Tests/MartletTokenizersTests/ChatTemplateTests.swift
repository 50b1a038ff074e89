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
      template.render(conversation)
        == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\n a\nb <|im_end|>\n<|im_start|>assistant\n"
    )
    #expect(template.render([conversation[0]], addsGenerationPrompt: false) == "<|im_start|>user\nHi<|im_end|>\n")
    #expect(template.render([]) == "<|im_start|>assistant\n")
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
    #expect(template.render([conversation[0]]).hasPrefix("<|im_start|>system\n\(message)<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"))
    let own = ChatMessage(role: "system", content: "Own")
    #expect(template.render([own, conversation[0]]).hasPrefix("<|im_start|>system\nOwn<|im_end|>\n<|im_start|>user\n"))
  }

  @Test(arguments: [
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{% endfor %}",
    #"{{ '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}"#,
    "<|im_start|>system\n{{ system }}<|im_end|>",
    "{{ '<|im_start|>system\n<|im_end|>' }}",
    "{{ '<|im_start|>system\nopen", "{% '", "<|im_start|><|im_end|>{",
  ]) func `a template without a whole default has none`(source: String) throws {
    #expect(try ChatTemplate(source: "{# <|im_start|> <|im_end|> #}" + source).defaultSystemMessage == nil)
  }

  @Test func `another format is an error that says how to name one`() throws {
    #expect(throws: TokenizerError.unrecognisedChatTemplate(known: ["chatml"])) { try ChatTemplate(source: "[INST] {{ m }} [/INST]") }
    #expect(throws: TokenizerError.unknownChatTemplate("alpaca", known: ["chatml"])) { try ChatTemplate(named: "alpaca") }
    var writer = GGUFWriter()
    #expect(throws: TokenizerError.noChatTemplate(known: ["chatml"])) { try ChatTemplate(from: GGUFFile(bytes: writer.bytes())) }
    writer.add("tokenizer.chat_template", .uint32(1))
    #expect(throws: TokenizerError.format(.wrongType(key: "tokenizer.chat_template", found: "uint32", expected: "a string"))) {
      try ChatTemplate(from: GGUFFile(bytes: writer.bytes()))
    }
    for error in [TokenizerError.unrecognisedChatTemplate(known: ["chatml"]), .noChatTemplate(known: ["chatml"])] {
      #expect(error.description.contains("--chat-template chatml"))
    }
  }
}
