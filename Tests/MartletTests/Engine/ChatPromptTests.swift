// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Martlet
import MartletFormats
import MartletTemplates
import MartletTestSupport
import MartletTokenizers
import Testing

/// How a conversation becomes tokens: templates write the model's own begin and end of text, and never twice.
@Suite struct ChatPromptTests {
  private static let gemma = """
    {% for m in messages %}{{ '<start_of_turn>' + m.role + '\\n' + m.content | trim + '<end_of_turn>\\n' }}{% endfor %}
    {% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}
    """
  private static let mistral = """
    {{ bos_token }}{% for m in messages %}
    {% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}{% elif m.role == 'assistant' %}{{ m.content + eos_token }}
    {% else %}{{ raise_exception('no ' + m.role) }}{% endif %}{% endfor %}
    """

  private func tokens(template: String, addsBOS: Bool, _ messages: [ChatMessage]) throws -> [Int] {
    var model = TinyModel(.llama, seed: 1)
    model.overrides = [
      "tokenizer.chat_template": .string(template), "tokenizer.ggml.add_bos_token": .bool(addsBOS),
      "tokenizer.ggml.bos_token_id": .uint32(256), "tokenizer.ggml.eos_token_id": .uint32(258),
    ]
    return try LLM(file: model.file()).tokenIDs(of: .chat(messages))
  }

  @Test(arguments: [
    (template: "{{ bos_token }}" + gemma, addsBOS: true, begins: 1), (template: "{{ bos_token }}" + gemma, addsBOS: false, begins: 1),
    (template: gemma, addsBOS: true, begins: 1), (template: gemma, addsBOS: false, begins: 0),
  ]) func `a text begins once, whether the template, the tokenizer or both would begin it`(
    template: String, addsBOS: Bool, begins: Int
  ) throws {
    let tokens = try tokens(template: template, addsBOS: addsBOS, [ChatMessage(role: "user", content: "Hi")])
    // This tokenizer has a token for every byte.
    let text = Array("<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n".utf8).map { Int($0) }
    #expect(tokens.count == text.count + begins)
    #expect(tokens.prefix(begins).allSatisfy { $0 == 256 } && !tokens.dropFirst(begins).contains(256))
  }

  @Test func `an earlier answer ends with the model's own end of text`() throws {
    let messages = [("user", "a"), ("assistant", "b"), ("user", "c")].map { ChatMessage(role: $0.0, content: $0.1) }
    let tokens = try tokens(template: Self.mistral, addsBOS: true, messages)
    #expect(tokens.filter { $0 == 256 }.count == 1 && tokens.first == 256)
    // After "[INST] a [/INST]" and "b".
    #expect(tokens.firstIndex(of: 258) == 1 + "[INST] a [/INST]b".utf8.count)
  }

  @Test func `tools, documents and variables reach the template`() throws {
    var model = TinyModel(.llama, seed: 1)
    model.overrides["tokenizer.chat_template"] = .string("{{ tools[0].name }}{{ documents[0].text }}{{ effort }}{{ messages[0].content }}")
    let options = ChatOptions(variables: ["effort": "c"])
    let prompt = Prompt.chat(
      [ChatMessage(role: "user", content: "d")], tools: [["name": "a"]], documents: [["text": "b"]], options: options)
    let tokens = try LLM(file: model.file()).tokenIDs(of: prompt)
    #expect(tokens.suffix(4) == Array("abcd".utf8).map { Int($0) }[...])
  }

  @Test func `the template's clock is the machine's, unless it is handed in`() throws {
    let clock = "{{ strftime_now('%Y') }}"
    func year(_ options: ChatOptions) throws -> Int? {
      var model = TinyModel(.llama, seed: 1)
      model.overrides["tokenizer.chat_template"] = .string(clock)
      let tokens = try LLM(file: model.file()).tokenIDs(of: .chat([ChatMessage(role: "user", content: "d")], options: options))
      return Int(String(decoding: tokens.suffix(4).map { UInt8($0) }, as: UTF8.self))
    }
    #expect(try year(ChatOptions(now: LocalTime("1999-12-31"))) == 1999)
    #expect(try (year(ChatOptions()) ?? 0) >= 2026)
  }

  @Test func `what the template refuses is the request's error`() throws {
    let messages = [("system", "a"), ("user", "b")].map { ChatMessage(role: $0.0, content: $0.1) }
    #expect(throws: TokenizerError.self) { try tokens(template: Self.mistral, addsBOS: true, messages) }
  }
}
