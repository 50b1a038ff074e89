// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import Martlet
import MartletFormats
import MartletKVCache
import MartletTemplates
import MartletTestSupport
import MartletTokenizers
import Testing

/// What a conversation tells the model, against the prompts that are written out for it.
@Suite struct ConversationTests {
  /// One mark a message, and a byte a token: lengths can be counted by hand.
  private static let template = """
    {%- if tools -%}{{- '[tools]' -}}{%- endif -%}
    {%- for message in messages -%}{{- '<' + message.role[0] + '>' + (message.content or '-') -}}{%- endfor -%}
    {%- if add_generation_prompt -%}{{- '<a>' -}}{%- endif -%}
    """

  private static func llm(context: Int = 128, budget: KVCacheConfig.Budget = .automatic, template: String = template) throws -> LLM {
    try Tiny.llm(
      TinyModel(.llama, seed: 3) { $0.overrides["tokenizer.chat_template"] = .string(template) }, budget: budget, context: context)
  }

  private static func text(_ tokens: [Int]) -> String { String(decoding: tokens.map { UInt8($0) }, as: UTF8.self) }

  private let sampling = SamplingParams(maxTokens: 2)

  @Test func `the model is told everything that was said, the system message first`() throws {
    let llm = try Self.llm()
    var conversation = Conversation(system: "S", tools: [["name": "t"]])
    #expect(Self.text(try conversation.ask("one", of: llm, sampling: sampling).generation.promptTokenIDs) == "[tools]<s>S<u>one<a>")
    #expect(conversation.lastAnswer == nil)
    conversation.note(answer: "1")
    #expect(conversation.lastAnswer?.text == "1")
    conversation.system = nil
    let reply = try conversation.ask("two", of: llm, sampling: sampling)
    #expect(Self.text(reply.generation.promptTokenIDs) == "[tools]<u>one<a>1<u>two<a>" && reply.forgotten.isEmpty)
    conversation.note(answer: "2")
    conversation.system = "T"
    #expect(conversation.transcript.map(\.role) == ["system", "user", "assistant", "user", "assistant"])
    #expect(conversation.transcript.map(\.text) == ["T", "one", "1", "two", "2"])
    conversation.clear()
    #expect(conversation.transcript.map(\.text) == ["T"] && conversation.tools != nil)
    // A transcript goes on where it ended.
    let again = Conversation(system: "no", messages: [("system", "S"), ("user", "a")].map { ChatMessage(role: $0.0, content: $0.1) })
    #expect(again.system == "S" && again.messages.map(\.text) == ["a"])
  }

  @Test func `a full context forgets whole turns from the oldest on, never the system message, and makes room for some to come`() throws {
    let llm = try Self.llm()
    var conversation = Conversation(system: "S")
    // A turn takes 3 + 13 and 3 + 1 tokens, what stands around them 7; a quarter of 128 is free for the answer, so that 96 hold four turns and a
    // question; then another quarter is made free, and 64 hold two.
    var forgotten: [Int] = []
    for number in 1...9 {
      let reply = try conversation.ask("question    \(number)", of: llm)
      reply.generation.cancel()
      forgotten.append(reply.forgotten.count)
      let first = forgotten.reduce(0, +) / 2 + 1
      let expected = (first..<number).map { "<u>question    \($0)<a>\($0)" }.joined() + "<u>question    \(number)<a>"
      #expect(Self.text(reply.generation.promptTokenIDs) == "<s>S" + expected)
      #expect(
        reply.forgotten == Array(conversation.messages[(conversation.forgottenCount - reply.forgotten.count)..<conversation.forgottenCount])
      )
      conversation.note(answer: "\(number)")
    }
    #expect(forgotten == [0, 0, 0, 0, 4, 0, 4, 0, 4])
    #expect(conversation.transcript.count == 19 && conversation.forgottenCount == 12)
  }

  @Test func `room is left for the answer that is asked for, and for no more than that`() throws {
    let llm = try Self.llm()
    func forgotten(_ sampling: SamplingParams, room: Int? = nil) throws -> Int {
      var conversation = Conversation(
        messages: (0..<4).map { ChatMessage(role: $0 % 2 == 0 ? "user" : "assistant", content: "sixteen letters!") })
      conversation.roomForAnswer = room
      // 4 · 19 + 3 + 16 + 3 = 98 tokens.
      let reply = try conversation.ask("sixteen letters!", of: llm, sampling: sampling)
      reply.generation.cancel()
      return reply.forgotten.count
    }
    #expect(try forgotten(SamplingParams(maxTokens: 30)) == 0)
    #expect(try forgotten(SamplingParams(maxTokens: 31)) > 0)
    #expect(try forgotten(SamplingParams(), room: 30) == 0)
    #expect(try forgotten(SamplingParams(maxTokens: 1), room: 31) > 0)
    // Never more than half of the context: what was said goes, and the question is asked all the same.
    #expect(try forgotten(SamplingParams(), room: 1000) == 4)
  }

  @Test func `calls of tools and their results go with their turn`() throws {
    let llm = try Self.llm()
    var conversation = Conversation()
    _ = try conversation.ask(String(repeating: "x", count: 30), of: llm, sampling: sampling)
    conversation.note(answer: ChatMessage(role: "assistant", toolCalls: [ToolCall(name: "t", arguments: [:])]))
    let results = ["r", "s"].map { ChatMessage(role: "tool", content: $0) }
    let second = try conversation.ask(results, of: llm, sampling: sampling)
    #expect(Self.text(second.generation.promptTokenIDs).hasSuffix("<a>-<t>r<t>s<a>"))
    conversation.note(answer: "done")
    let reply = try conversation.ask(String(repeating: "y", count: 60), of: llm)
    #expect(reply.forgotten.map(\.role) == ["user", "assistant", "tool", "tool", "assistant"])
    #expect(Self.text(reply.generation.promptTokenIDs) == "<u>" + String(repeating: "y", count: 60) + "<a>")
  }

  @Test func `a cache that is smaller than the context makes it forget too`() async throws {
    let llm = try Self.llm(context: 256, budget: .bytes(64 * 512))
    // A token takes 2 layers · 2 heads · 32 numbers, twice, in bf16: 512 bytes.
    var conversation = Conversation()
    let short = SamplingParams(maxTokens: 4)
    _ = try conversation.ask("twenty letters here.", of: llm, sampling: short)
    conversation.note(answer: "twenty letters again")
    let reply = try conversation.ask("twenty letters here.", of: llm, sampling: short)
    #expect(reply.forgotten.count == 2)
    #expect(try await reply.generation.output().tokenIDs.count == 4)
  }

  @Test func `what cannot be asked changes nothing`() throws {
    let llm = try Self.llm(
      template: "{%- if messages[-1].content == 'no' -%}{{- raise_exception('not that') -}}{%- endif -%}" + Self.template)
    var conversation = Conversation(system: "S")
    _ = try conversation.ask("one", of: llm, sampling: sampling)
    conversation.note(answer: "1")
    let before = conversation
    #expect(throws: LLMError.promptTooLong(tokens: 210, maxSequenceLength: 128)) {
      try conversation.ask(String(repeating: "x", count: 200), of: llm)
    }
    #expect(conversation == before)
    #expect(throws: TokenizerError.self) { try conversation.ask("no", of: llm) }
    #expect(conversation == before)
    #expect(throws: LLMError.self) { try conversation.continueAnswer(of: llm, sampling: SamplingParams(topP: 2)) }
    #expect(throws: LLMError.self) { try conversation.retry(of: llm, sampling: SamplingParams(topP: 2)) }
    #expect(conversation == before)
    // A question without an answer goes, whether that is said or another one is asked.
    _ = try conversation.ask("two", of: llm, sampling: sampling)
    _ = try conversation.ask("three", of: llm, sampling: sampling)
    conversation.note(answer: "")
    #expect(conversation == before)
  }

  @Test func `a transcript of two thousand turns is cut in little time, and to as much as fits`() throws {
    let llm = try Self.llm()
    let messages = (0..<2000).flatMap { [ChatMessage(role: "user", content: "q\($0)"), ChatMessage(role: "assistant", content: "a")] }
    var conversation = Conversation(messages: messages)
    let duration = try processorTime {
      let reply = try conversation.ask("now", of: llm, sampling: sampling)
      // The room of an answer and a quarter of the context are free, and one turn more would not have left them.
      let length = reply.generation.promptTokenIDs.count
      #expect(length <= 128 - 2 - 32 && length > 128 - 2 - 32 - 12)
      #expect(reply.forgotten == Array(messages.prefix(conversation.forgottenCount)))
    }
    #expect(duration < .seconds(20), "\(duration)")
  }

  @Test func `what was forgotten for a question without an answer is remembered again`() throws {
    let llm = try Self.llm()
    var conversation = Conversation()
    _ = try conversation.ask(String(repeating: "x", count: 60), of: llm, sampling: sampling)
    conversation.note(answer: "1")
    let before = conversation
    let reply = try conversation.ask(String(repeating: "y", count: 60), of: llm, sampling: sampling)
    #expect(reply.forgotten.count == 2)
    conversation.note(answer: "")
    #expect(conversation == before && conversation.lastAnswer?.text == "1")
  }

  @Test func `absurd numbers are refused or limited`() throws {
    let llm = try Self.llm()
    var conversation = Conversation()
    conversation.roomForAnswer = .min
    _ = try conversation.ask("a", of: llm, sampling: sampling)
    conversation.roomForAnswer = .max
    _ = try conversation.ask("a", of: llm, sampling: sampling)
    #expect(throws: LLMError.self) { try conversation.ask("a", of: llm, sampling: SamplingParams(maxTokens: .min)) }
  }

  @Test func `another answer takes the place of the last, and comes back where there is none`() throws {
    let llm = try Self.llm()
    var conversation = Conversation()
    #expect(try conversation.retry(of: llm) == nil && conversation.continueAnswer(of: llm) == nil)
    _ = try conversation.ask("one", of: llm, sampling: sampling)
    #expect(try conversation.retry(of: llm) == nil, "nothing is answered yet")
    conversation.note(answer: "1")
    let before = conversation
    let reply = try #require(try conversation.retry(of: llm, sampling: sampling))
    #expect(Self.text(reply.generation.promptTokenIDs) == "<u>one<a>")
    conversation.note(answer: "")
    #expect(conversation == before)
    _ = try conversation.retry(of: llm, sampling: sampling)
    conversation.note(answer: "I")
    #expect(conversation.transcript.map(\.text) == ["one", "I"])
  }

  @Test func `a question that came without an answer is asked, and stays where none comes`() throws {
    let llm = try Self.llm()
    let messages = [("user", "one"), ("assistant", "1"), ("user", "two")].map { ChatMessage(role: $0.0, content: $0.1) }
    var conversation = Conversation(messages: messages)
    let before = conversation
    #expect(conversation.openQuestion?.text == "two" && conversation.lastAnswer == nil)
    let reply = try #require(try conversation.retry(of: llm, sampling: sampling))
    #expect(Self.text(reply.generation.promptTokenIDs) == "<u>one<a>1<u>two<a>")
    #expect(try conversation.retry(of: llm) == nil && conversation.openQuestion == nil, "it awaits its answer")
    conversation.note(answer: "")
    #expect(conversation == before)
    _ = try conversation.retry(of: llm, sampling: sampling)
    conversation.note(answer: "2")
    #expect(conversation.transcript.map(\.text) == ["one", "1", "two", "2"] && conversation.lastAnswer?.text == "2")
    // From here on it is an answer that is replaced.
    #expect(try conversation.openQuestion == nil && conversation.retry(of: llm, sampling: sampling) != nil)
  }

  @Test func `a cut answer is continued from its last letter, and stays one message`() throws {
    let llm = try Self.llm()
    var conversation = Conversation(system: "S")
    _ = try conversation.ask("one", of: llm, sampling: sampling)
    conversation.note(answer: "begin ")
    let before = conversation
    let reply = try #require(try conversation.continueAnswer(of: llm, sampling: sampling))
    #expect(Self.text(reply.generation.promptTokenIDs) == "<s>S<u>one<a>begin ")
    conversation.note(answer: "")
    #expect(conversation == before)
    _ = try conversation.continueAnswer(of: llm, sampling: sampling)
    conversation.note(answer: "end")
    #expect(conversation.transcript.map(\.text) == ["S", "one", "begin end"])
    _ = try conversation.continueAnswer(of: llm, sampling: sampling)
    conversation.note(answer: ChatMessage(role: "assistant", content: "all"))
    #expect(conversation.transcript.map(\.text) == ["S", "one", "all"])
    var parts = Conversation(
      messages: [
        ChatMessage(role: "user", content: "one"), ChatMessage(role: "assistant", content: .parts([["type": "text", "text": "a"]])),
      ])
    _ = try parts.continueAnswer(of: llm, sampling: sampling)
    parts.note(answer: "b")
    #expect(parts.messages[1].content == .parts([["type": "text", "text": "ab"]]))
  }

  @Test func `an answer that is cut and continued is the answer that is not cut`() async throws {
    let llm = try LLM(model: try await RealModelFile.path("smollm2-135m"))
    let question = "What is a swift?"
    let whole = try await llm.generate(
      .chat([ChatMessage(role: "user", content: question)]), sampling: SamplingParams(maxTokens: 36)
    ).output()
    var conversation = Conversation()
    conversation.note(
      answer: try await conversation.ask(question, of: llm, sampling: SamplingParams(maxTokens: 12)).generation.output().text)
    for _ in 0..<2 {
      let reply = try #require(try conversation.continueAnswer(of: llm, sampling: SamplingParams(maxTokens: 12)))
      conversation.note(answer: try await reply.generation.output().text)
    }
    #expect(conversation.lastAnswer?.text == whole.text && whole.finishReason == .length)
  }

  @Test func `it is written and read back, also while an answer is awaited`() throws {
    let llm = try Self.llm()
    let options = ChatOptions(
      variables: ["a": [1, nil, ["b": 2.5]]], now: LocalTime("2026-02-08T01:02:03"), specialTokensInContent: .parsed)
    var conversation = Conversation(system: "S", tools: [["name": "t"]], options: options)
    func readBack() throws -> Conversation { try JSONDecoder().decode(Conversation.self, from: JSONEncoder().encode(conversation)) }
    #expect(try readBack() == conversation)
    for number in 1...6 {
      _ = try conversation.ask("question \(number)", of: llm, sampling: sampling)
      #expect(try readBack() == conversation)
      conversation.note(answer: "answer \(number)")
    }
    #expect(try conversation.forgottenCount > 0 && readBack() == conversation)
    _ = try conversation.retry(of: llm, sampling: sampling)
    var copy = try readBack()
    copy.note(answer: "")
    #expect(copy.lastAnswer?.text == "answer 6")
    conversation.roomForAnswer = 5
    conversation.note(answer: "x")
    _ = try conversation.continueAnswer(of: llm, sampling: sampling)
    copy = try readBack()
    copy.note(answer: "y")
    #expect(copy.lastAnswer?.text == "xy" && copy.roomForAnswer == 5)
  }

  @Test(arguments: [
    #"{"messages": [], "forgotten": 1}"#, #"{"messages": [], "forgotten": -1}"#, #"{"messages": [], "pending": {"continuation": {}}}"#,
    #"{"messages": [], "pending": {"question": {"count": 1}}}"#, #"{"messages": [{}]}"#, #"{"messages": [], "variables": []}"#,
    #"{"messages": [], "now": "2026-02-30"}"#,
  ])
  func `what is no conversation is refused`(text: String) {
    #expect(throws: (any Error).self) { try JSONDecoder().decode(Conversation.self, from: Data(text.utf8)) }
  }

  @Test func `what the template cannot write is found before anybody asks`() throws {
    let llm = try Self.llm(
      template: "{%- if messages[0].role == 'system' -%}{{- raise_exception('no system') -}}{%- endif -%}" + Self.template)
    var conversation = Conversation(system: "S", tools: [["name": "t"]])
    #expect(throws: TokenizerError.self) { try conversation.check(for: llm) }
    conversation.system = nil
    try conversation.check(for: llm)
    #expect(try conversation.showsTools(to: llm))
    let silent = try Self.llm(template: "{% for message in messages %}{{ message.content }}{% endfor %}")
    #expect(try !conversation.showsTools(to: silent))
    conversation.tools = []
    #expect(try !conversation.showsTools(to: llm))
    conversation.system = String(repeating: "x", count: 130)
    #expect(throws: LLMError.self) { try conversation.check(for: silent) }
  }
}
