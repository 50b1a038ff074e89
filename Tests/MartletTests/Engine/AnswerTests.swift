// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Martlet
import MartletAnswers
import MartletFormats
import MartletTemplates
import MartletTestSupport
import MartletTokenizers
import Testing

/// Answers with the names of control tokens in their text, and what is read of answers.
@Suite struct AnswerTests {
  private static let template = """
    {% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' }}{% endfor %}
    {%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}{# #}{{ '<tool_call>' if tools and false }}
    """

  /// An engine whose answer is what is dictated to it.
  private func answer(_ tokens: [Int], _ prompt: Prompt, _ sampling: SamplingParams, _ llm: LLM) async throws -> [GenerationChunk] {
    let options = RequestOptions(logitsProcessor: { logits, context in
      let place = min(context.tokenIDs.count - context.promptTokenCount, tokens.count - 1)
      for token in logits.indices { logits[token] = token == tokens[place] ? 100 : -100 }
    })
    var chunks: [GenerationChunk] = []
    for try await chunk in try llm.generate(prompt, sampling: sampling, options: options) { chunks.append(chunk) }
    return chunks
  }

  private func llm() throws -> LLM {
    var model = TinyModel(.llama, seed: 3)
    model.overrides["tokenizer.chat_template"] = .string(Self.template)
    return try LLM(file: model.file())
  }

  @Test func `names of control tokens are text if that is asked for, but for the token that ends the answer`() async throws {
    let llm = try llm()
    let end = try #require(llm.tokenizer.endTokens.first)
    let control = try #require([257, 258].first { !llm.tokenizer.endTokens.contains(Int32($0)) && llm.tokenizer.isControl(Int32($0)) })
    let name = String(decoding: llm.tokenizer.bytes(of: Int32(control), showsControlTokens: true), as: UTF8.self)
    #expect(name.hasPrefix("<|"))
    let tokens = [97, control, 98, Int(end)]
    func text(_ sampling: SamplingParams) async throws -> String {
      try await answer(tokens, "Hi", sampling, llm).map(\.text).joined()
    }
    #expect(try await text(SamplingParams(maxTokens: 9)) == "ab")
    #expect(try await text(SamplingParams(maxTokens: 9, showsControlTokens: true)) == "a\(name)b")
    // Stop strings see what the reader sees.
    #expect(try await text(SamplingParams(maxTokens: 9, stop: [name])) == "ab")
    #expect(try await text(SamplingParams(maxTokens: 9, stop: [name], showsControlTokens: true)) == "a")
    #expect(try await text(SamplingParams(maxTokens: 9, stopTokenIDs: [control], showsControlTokens: true)) == "a")
  }

  @Test func `an answer is read as the message with which the conversation goes on`() async throws {
    let llm = try llm()
    #expect(llm.answerFormat == AnswerFormat(reasoning: .between(open: "<think>", close: "</think>"), toolCalls: .taggedJSON))
    let end = Int(try #require(llm.tokenizer.endTokens.first))
    let tool: JSON = ["type": "function", "function": ["name": "weather", "parameters": ["type": "object", "properties": [:]]]]
    let messages = [ChatMessage(role: "user", content: "Rain?")]
    let text =
      "Hm.\n</think>\n\nI look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Ulm\", \"days\": 2}}\n</tool_call>"
    let prompt = Prompt.chat(messages, tools: [tool])
    var parser = try llm.answerParser(for: prompt)
    var collected = AnswerMessage(firstCallNumber: 7)
    for chunk in try await answer(text.utf8.map { Int($0) } + [end], prompt, SamplingParams(maxTokens: 200), llm) {
      collected.append(parser.append(chunk.text))
    }
    collected.append(parser.finish())
    #expect(!collected.hasIncompleteCalls)
    #expect(
      collected.message
        == ChatMessage(
          role: "assistant", content: "I look.",
          toolCalls: [ToolCall(id: "call00007", name: "weather", arguments: ["city": "Ulm", "days": 2])], reasoning: "Hm."))
    // Without the conversation's tools there is no call, and without a conversation no reasoning was begun.
    var plain = try llm.answerParser(for: "Rain?")
    #expect(plain.append(text) + plain.finish() == [.content(text)])
  }

  @Test func `calls are read where a file has their marks as control tokens`() async throws {
    #expect(try !llm().answersNeedControlTokens)
    var model = TinyModel(.llama, seed: 3) { $0.vocabularySize += 2 }
    model.overrides["tokenizer.chat_template"] = .string(Self.template)
    model.furtherControlTokens = ["<tool_call>", "</tool_call>"]
    let llm = try LLM(file: model.file())
    #expect(llm.answersNeedControlTokens && !llm.answerFormat.needsControlTokens)
    let tool: JSON = ["type": "function", "function": ["name": "weather", "parameters": ["type": "object", "properties": [:]]]]
    let prompt = Prompt.chat([ChatMessage(role: "user", content: "Rain?")], tools: [tool])
    let open = model.vocabularySize - 2
    let call = #"{"name": "weather", "arguments": {}}"#.utf8.map { Int($0) }
    let answer = "</think>".utf8.map { Int($0) } + [open] + call + [open + 1, Int(try #require(llm.tokenizer.endTokens.first))]
    var parser = try llm.answerParser(for: prompt)
    var message = AnswerMessage()
    let sampling = SamplingParams(maxTokens: 200, showsControlTokens: llm.answersNeedControlTokens)
    for chunk in try await self.answer(answer, prompt, sampling, llm) { message.append(parser.append(chunk.text)) }
    message.append(parser.finish())
    #expect(message.message.toolCalls.map(\.name) == ["weather"])
  }

  @Test func `a message whose call broke has the text of its arguments`() {
    var answer = AnswerMessage()
    #expect(answer.message == ChatMessage(role: "assistant", content: ""))
    answer.append([.callBegan(index: 0, name: "weather"), .callArguments(index: 0, "{\"city\""), .callBroke(index: 0)])
    #expect(answer.hasIncompleteCalls)
    #expect(answer.message.toolCalls == [ToolCall(id: "call00000", name: "weather", arguments: .string("{\"city\""))])
    #expect(answer.message.content == nil && answer.message.reasoning == nil)
  }

  @Test func `the format is that of the template for tools, and of any template for reasoning`() throws {
    let template = try ChatTemplate(sources: ["default": "{{ '</think>' }}", "tool_use": "{{ '[TOOL_CALLS]' }}"])
    #expect(AnswerFormat(template) == AnswerFormat(reasoning: .between(open: "<think>", close: "</think>"), toolCalls: .mistral))
    #expect(try LLM(file: TinyModel(.llama, seed: 3).file()).answerFormat == AnswerFormat())
  }
}
