// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import Martlet
import MartletCPU
import MartletFormats
import MartletTemplates
import MartletTestSupport
import MartletTokenizers
import Testing

/// Answers that come back in a conversation are the tokens that they were, and nothing else changes.
@Suite(.timeLimit(.minutes(45)))
struct AnswerMemoryTests {
  /// Calls as many models write them: on lines of their own, as JSON with spaces. Thoughts are written as long as no question follows.
  private static let template = """
    {%- macro turn(role, text) %}{{ '<|im_start|>' + role + '\\n' + text + '<|im_end|>\\n' }}{% endmacro %}
    {%- if tools %}{{ turn('system', tools | tojson) }}{% endif %}
    {%- set ns = namespace(last=0) %}
    {%- for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
    {%- for m in messages %}
        {%- if m.role == 'assistant' %}
            {%- set ns.text = m.content or '' %}
            {%- if m.reasoning_content and loop.index0 > ns.last %}
                {%- set ns.text = '<think>\\n' + m.reasoning_content + '\\n</think>\\n\\n' + ns.text %}
            {%- endif %}
            {%- for c in m.tool_calls or [] %}
                {%- set id = ', "id": "' + c.id + '"' if writes_ids else '' %}
                {%- set ns.text = ns.text + '\\n<tool_call>\\n{"name": "' + c.function.name + '", "arguments": ' + c.function.arguments | tojson + id + '}\\n</tool_call>' %}
            {%- endfor %}
            {{- turn('assistant', ns.text) }}
        {%- else %}
            {{- turn(m.role, m.content) }}
        {%- endif %}
    {%- endfor %}
    {%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
    """
  private static let tools: [JSON] = [
    ["type": "function", "function": ["name": "weather", "parameters": ["type": "object", "properties": ["city": ["type": "string"]]]]]
  ]
  private static let (begin, end, otherEnd) = (257, 258, 256)

  private static func llm(remembered: Int = 1 << 24, context: Int = 8192, reusesPrefixes: Bool = true) throws -> LLM {
    let model = TinyModel(.llama, seed: 111) {
      $0.contextLength = context
      $0.overrides["tokenizer.chat_template"] = .string(template)
    }
    return try LLM(
      file: model.file(),
      configuration: EngineConfiguration(
        device: CPUDevice(threads: 2), kvCache: KVCacheConfig(pageSize: .tokens(16), reusesPrefixes: reusesPrefixes),
        maxSequenceLength: context, maxBatchSize: 2, rememberedAnswers: remembered))
  }

  private static func user(_ text: String) -> ChatMessage { ChatMessage(role: "user", content: text) }
  private static func call(_ city: String, id: String? = "call_1", thought: String? = nil) -> ChatMessage {
    ChatMessage(role: "assistant", toolCalls: [ToolCall(id: id, name: "weather", arguments: ["city": .string(city)])], reasoning: thought)
  }
  private static func result(_ text: String) -> ChatMessage { ChatMessage(role: "tool", content: .text(text), toolCallID: "call_1") }

  /// Lets the model answer with these tokens, whatever it thinks.
  private static func saying(_ tokens: [Int]) -> RequestOptions {
    RequestOptions { logits, context in
      let place = context.tokenIDs.count - context.promptTokenCount
      for index in logits.indices { logits[index] = index == tokens[min(place, tokens.count - 1)] ? 0 : -.infinity }
    }
  }

  /// Asks, gets the answer of these tokens, and has it remembered as the message.
  private static func answer(
    _ messages: [ChatMessage], with tokens: [Int], as message: ChatMessage, _ llm: LLM, sampling: SamplingParams = SamplingParams(),
    options: ChatOptions = ChatOptions(), tools: [JSON]? = tools
  ) async throws -> GenerationOutput {
    var sampling = sampling
    sampling.maxTokens = sampling.maxTokens ?? tokens.count
    let generation = try llm.generate(.chat(messages, tools: tools, options: options), sampling: sampling, options: saying(tokens))
    let output = try await generation.output()
    #expect(output.tokenIDs == Array(tokens.prefix(output.tokenIDs.count)))
    generation.remember(message, tokenIDs: output.tokenIDs, finishReason: output.finishReason)
    return output
  }

  private static func tokens(_ text: String, _ llm: LLM) -> [Int] {
    llm.tokenizer.encode(text, parsesSpecialTokens: true).map(Int.init)
  }

  // MARK: What it is for

  /// Ten answers of an agent, calls and texts in turn, as clients send them back.
  /// - Returns: cached prompt tokens, and prompt tokens that were seen before: the prompt and the answer of the turn before.
  private static func agent(_ llm: LLM, remembers: Bool) async throws -> (cached: Int, seen: Int) {
    var messages = [user("What is the weather in all of these cities?")]
    var (cached, seen, before) = (0, 0, 0)
    for turn in 0..<10 {
      let isCall = turn % 2 == 0
      let said =
        isCall ? #"<tool_call>{"arguments":{"city":"City \#(turn)"},"name":"weather"}</tool_call>"# : "\n\nIt rains in city \(turn). "
      let sampling = SamplingParams(maxTokens: 200)
      let generation = try llm.generate(.chat(messages, tools: tools), sampling: sampling, options: saying(tokens(said, llm) + [end]))
      let output = try await generation.output()
      #expect(output.finishReason == .endToken)
      cached += turn == 0 ? 0 : output.cachedPromptTokens
      seen += before
      before = output.promptTokenIDs.count + output.tokenIDs.count
      // As a client sends it: arguments as a string with spaces, the text trimmed.
      var message = ChatMessage(role: "assistant", content: "It rains in city \(turn).")
      if isCall {
        message = ChatMessage(
          role: "assistant", toolCalls: [ToolCall(id: "call_\(turn)", name: "weather", arguments: .string(#"{ "city": "City \#(turn)" }"#))]
        )
      }
      if remembers { generation.remember(message, tokenIDs: output.tokenIDs, finishReason: output.finishReason) }
      messages += [message, isCall ? result("12 °C and rain") : user("And the next one?")]
    }
    return (cached, seen)
  }

  @Test func `an agent's prompts begin with what was computed before, call after call`() async throws {
    let with = try await Self.agent(Self.llm(), remembers: true)
    let without = try await Self.agent(Self.llm(), remembers: false)
    let off = try await Self.agent(Self.llm(remembered: 0), remembers: true)
    print("an agent's prompt tokens that were cached, of those seen before: with \(with), without \(without)")
    // All but the last token of each answer, which was never fed.
    #expect(with.cached == with.seen - 9)
    #expect(Double(with.cached) >= 0.95 * Double(with.seen))
    // Every answer is read again.
    #expect(without.seen - without.cached > 30 * 9 && without == off)
  }

  @Test func `a real model's answers come back token for token, also where its text has other tokens`() async throws {
    let llm = try await RealModel.llm("smollm2-135m", context: 2048)
    var messages: [ChatMessage] = []
    var (before, cached, seen) = ([Int](), 0, 0)
    for turn in 0..<4 {
      messages.append(Self.user("Tell me something about the number \(turn)."))
      // Letters one by one, as no encoding of the text would have them.
      let said = "It is the number \(turn).".flatMap { Self.tokens(String($0), llm) } + [Int(llm.tokenizer.eosToken ?? 0)]
      let message = ChatMessage(role: "assistant", content: "It is the number \(turn).")
      let output = try await Self.answer(messages, with: said, as: message, llm, tools: nil)
      #expect(output.finishReason == .endToken && output.promptTokenIDs.starts(with: before))
      (cached, seen) = (cached + (turn == 0 ? 0 : output.cachedPromptTokens), seen + before.count)
      before = output.promptTokenIDs + output.tokenIDs
      messages.append(message)
    }
    #expect(cached == seen - 3)
  }

  @Test func `the prompt is that of the turn before, the answer's own tokens, and what is new`() async throws {
    let llm = try Self.llm()
    let question = [Self.user("Paris?")]
    let said = Self.tokens(#"<tool_call>{"name":"weather","arguments":{"city":"Paris"}}</tool_call>"#, llm)
    let rest = "\n<|im_start|>tool\n12 °C<|im_end|>\n<|im_start|>assistant\n"
    func check(_ given: [Int], end: [Int], _ comment: Comment, _ sampling: SamplingParams = SamplingParams()) async throws {
      let llm = try Self.llm()
      let output = try await Self.answer(question, with: given, as: Self.call("Paris"), llm, sampling: sampling)
      let next = try llm.tokenIDs(of: .chat(question + [Self.call("Paris"), Self.result("12 °C")], tools: Self.tools))
      #expect(next == output.promptTokenIDs + said + end + Self.tokens(rest, llm), comment)
    }
    try await check(said + [Self.end], end: [Self.end], "the end of the turn is not doubled")
    try await check(said + [Self.otherEnd], end: [Self.end], "the template ends the turn as it does")
    try await check(said, end: [Self.end], "an answer that was cut is ended")
    let stop = SamplingParams(maxTokens: 1000, stopTokenIDs: [65])
    try await check(said + [65], end: [Self.end], "a stop token is no text", stop)
  }

  @Test func `an answer is the same to the bit as after the same tokens`() async throws {
    let (llm, plain) = (try Self.llm(), try Self.llm(remembered: 0, reusesPrefixes: false))
    var messages = [Self.user("Paris?")]
    for turn in 0..<4 {
      let said = Self.tokens(#"<tool_call>{"name":"weather","arguments":{"city":"Paris \#(turn)"}}</tool_call>"#, llm) + [Self.end]
      _ = try await Self.answer(messages, with: said, as: Self.call("Paris \(turn)"), llm)
      messages += [Self.call("Paris \(turn)"), Self.result("\(turn) °C")]
    }
    let sampling = SamplingParams(maxTokens: 20, logprobs: 5, ignoresEndTokens: true)
    let output = try await llm.generate(.chat(messages, tools: Self.tools), sampling: sampling).output()
    let truth = try await plain.generate(.tokenIDs(output.promptTokenIDs), sampling: sampling).output()
    #expect(output.bits == truth.bits && output.text == truth.text && truth.cachedPromptTokens == 0)
    #expect(output.cachedPromptTokens > output.promptTokenIDs.count * 9 / 10)
    #expect(try output.promptTokenIDs != plain.tokenIDs(of: .chat(messages, tools: Self.tools)))
  }

  // MARK: What it must not do

  @Test func `whatever else was said, shown or written, the text is encoded as it is`() async throws {
    let (llm, plain) = (try Self.llm(), try Self.llm(remembered: 0))
    let question = [Self.user("Paris?")]
    let said = Self.tokens("<think>Hm.</think><tool_call>…</tool_call>", llm) + [Self.end]
    let answer = Self.call("Paris", thought: "Hm.")
    _ = try await Self.answer(question, with: said, as: answer, llm)
    func isReplaced(
      _ messages: [ChatMessage], tools: [JSON]? = Self.tools, options: ChatOptions = ChatOptions()
    ) throws -> Bool {
      let prompt = Prompt.chat(messages, tools: tools, options: options)
      let (own, text) = try (llm.tokenIDs(of: prompt), plain.tokenIDs(of: prompt))
      if own != text {
        let place = own.count - said.count
        #expect((0...place).contains { own[$0..<$0 + said.count] == said[...] })
      }
      return own != text
    }
    let result = Self.result("12 °C")
    #expect(try isReplaced(question + [answer, result]))
    #expect(try isReplaced(question + [answer]))
    // White space at the ends, other names of calls that nobody writes, arguments as a string, what is empty: the same message.
    var sent = Self.call("Paris", id: "call_2", thought: " Hm.\n")
    sent.content = ""
    sent.toolCalls[0].arguments = #"{"city" : "Paris"}"#
    sent.further = ["refusal": nil, "annotations": []]
    #expect(try isReplaced(question + [sent, result]))
    // Another message, another question, other tools.
    #expect(try !isReplaced(question + [Self.call("Rome", thought: "Hm."), result]))
    #expect(try !isReplaced(question + [Self.call("Paris", thought: "Hm?"), result]))
    #expect(try !isReplaced(question + [Self.call("Paris"), result]))
    #expect(try !isReplaced([Self.user("Paris!"), answer, result]))
    #expect(try !isReplaced([Self.user("Before."), Self.call("Rome")] + question + [answer, result]))
    #expect(try !isReplaced(question + [answer, result], tools: nil))
    #expect(try !isReplaced(question + [answer, result], options: ChatOptions(specialTokensInContent: .parsed)))
    #expect(try !isReplaced(question))
    // The template leaves the thought out as soon as a question follows.
    #expect(try !isReplaced(question + [answer, result, Self.user("And now?")]))
  }

  @Test func `a template that writes the names of calls is given the answer with its own name only`() async throws {
    let (llm, plain) = (try Self.llm(), try Self.llm(remembered: 0))
    let options = ChatOptions(variables: ["writes_ids": true])
    let question = [Self.user("Paris?")]
    _ = try await Self.answer(question, with: Self.tokens("call_1!", llm) + [Self.end], as: Self.call("Paris"), llm, options: options)
    for (id, isReplaced) in [("call_1", true), ("call_2", false)] {
      let prompt = Prompt.chat(question + [Self.call("Paris", id: id), Self.result("12 °C")], tools: Self.tools, options: options)
      #expect(try (llm.tokenIDs(of: prompt) != plain.tokenIDs(of: prompt)) == isReplaced)
    }
  }

  @Test func `where an answer writes the mark of an end, its turn ends with the template's`() async throws {
    let llm = try Self.llm()
    let text = "The mark is <|im_end|>, and that is <|im_end|>"
    let said = llm.tokenizer.encode(text, parsesSpecialTokens: false).map(Int.init)
    let message = ChatMessage(role: "assistant", content: .text(text))
    let output = try await Self.answer([Self.user("?")], with: said.map { $0 } + [Self.end], as: message, llm)
    let next = try llm.tokenIDs(of: .chat([Self.user("?"), message, Self.user("!")], tools: Self.tools))
    let rest = Self.tokens("\n<|im_start|>user\n!<|im_end|>\n<|im_start|>assistant\n", llm)
    #expect(next == output.promptTokenIDs + said + [Self.end] + rest)
  }

  @Test func `an answer that a stop string ended is not remembered, nor one to more of an answer`() async throws {
    let (llm, plain) = (try Self.llm(), try Self.llm(remembered: 0))
    let message = ChatMessage(role: "assistant", content: "One, ")
    let said = Self.tokens("One, two, three", llm)
    let output = try await Self.answer(
      [Self.user("?")], with: said, as: message, llm, sampling: SamplingParams(maxTokens: 100, stop: ["two"]))
    #expect(output.finishReason == .stopString && output.text == "One, ")
    let options = ChatOptions(addsGenerationPrompt: false, continuesFinalMessage: true)
    _ = try await Self.answer(
      [Self.user("?"), message], with: said, as: ChatMessage(role: "assistant", content: "One, One, two, three"), llm, options: options)
    #expect(llm.rememberedAnswerSize.answers == 0)
    let prompt = Prompt.chat([Self.user("?"), message, Self.user("!")], tools: Self.tools)
    #expect(try llm.tokenIDs(of: prompt) == plain.tokenIDs(of: prompt))
  }

  @Test func `what is remembered is bounded, and what was of use last stays`() async throws {
    let llm = try Self.llm(remembered: 12_000)
    func prompt(_ number: Int) -> [ChatMessage] { [Self.user("Question \(number)?")] }
    let said = Self.tokens("So it is?!", llm) + [Self.end]
    let message = ChatMessage(role: "assistant", content: "So it is.")
    func isKnown(_ number: Int) throws -> Bool {
      let tokens = try llm.tokenIDs(of: .chat(prompt(number) + [message, Self.user("!")], tools: Self.tools))
      return (0...tokens.count - said.count).contains { tokens[$0..<$0 + said.count] == said[...] }
    }
    for number in 0..<30 {
      _ = try await Self.answer(prompt(number), with: said, as: message, llm)
      #expect(try isKnown(number) && isKnown(0))
      #expect(llm.rememberedAnswerSize.byteCount <= 12_000 && llm.rememberedAnswerSize.answers <= number + 1)
    }
    #expect(llm.rememberedAnswerSize.answers >= 3)
    #expect(try !isKnown(1) && isKnown(29))
    #expect(throws: LLMError.self) { try Self.llm(remembered: -1) }
  }

  /// Answers whose tokens are just what the template would have them be: no prompt's text may change by them.
  @Test func `with honest answers every family's prompts are what they are without`() async throws {
    let fixtures = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
      .appendingPathComponent("MartletTemplatesTests/Fixtures")
    let root = JSON(try JSONValue(path: fixtures.appendingPathComponent("families.json").path))
    let conversations = try #require(root["conversations"]?.object).members.map(\.value)
    var (replaced, families) = (0, Set<String>())
    for name in try FileManager.default.contentsOfDirectory(atPath: fixtures.appendingPathComponent("families").path).sorted() {
      // This tokenizer has these marks, and a byte a token else: two encodings of a text are the same.
      let source = try String(contentsOf: fixtures.appendingPathComponent("families/\(name)"), encoding: .utf8)
      let model = TinyModel(.llama, seed: 112) {
        $0.contextLength = 8192
        $0.overrides["tokenizer.chat_template"] = .string(source)
      }
      let (llm, plain) = try (LLM(file: model.file()), LLM(file: model.file(), configuration: EngineConfiguration(rememberedAnswers: 0)))
      for conversation in conversations {
        let messages = try #require(conversation["messages"]?.array).map { try ChatMessage($0) }
        let tools = conversation["tools"]?.array
        for index in messages.indices where messages[index].role == "assistant" && index > 0 {
          let before = Prompt.chat(Array(messages[..<index]), tools: tools)
          let said = Prompt.chat(Array(messages[...index]), tools: tools, options: ChatOptions(addsGenerationPrompt: false))
          guard let prompt = try? plain.tokenIDs(of: before), let whole = try? plain.tokenIDs(of: said), whole.starts(with: prompt) else {
            continue
          }
          var tokens = Array(whole[prompt.count...])
          while let last = tokens.last, ![Self.end, Self.otherEnd].contains(last) { tokens.removeLast() }
          if tokens.count < 2 { continue }
          let generation = try llm.generate(before, sampling: SamplingParams(maxTokens: 1))
          generation.remember(messages[index], tokenIDs: tokens, finishReason: .endToken)
          generation.cancel()
          for end in index..<messages.count {
            let prompt = Prompt.chat(
              Array(messages[...end]), tools: tools, options: ChatOptions(addsGenerationPrompt: messages[end].role != "assistant"))
            guard let truth = try? plain.tokenIDs(of: prompt) else { continue }
            let uses = llm.rememberedAnswerUses
            #expect(try llm.tokenIDs(of: prompt) == truth, "\(name), message \(index) of \(end)")
            if llm.rememberedAnswerUses > uses {
              replaced += 1
              families.insert(name)
            }
          }
        }
      }
    }
    print("answers replaced in \(replaced) prompts of \(families.count) families: \(families.sorted())")
    #expect(families.count >= 10 && replaced > 150)
  }

  // MARK: The library's own conversation

  @Test func `a conversation that is noted with its outputs goes on after its own tokens`() async throws {
    let llm = try Self.llm()
    var conversation = Conversation(system: "S")
    let said = Self.tokens("  An answer\n", llm) + [Self.end]
    var before: [Int] = []
    for number in 0..<4 {
      let reply = try conversation.ask(
        "Question \(number)", of: llm, sampling: SamplingParams(maxTokens: 50), requestOptions: Self.saying(said))
      let output = try await reply.generation.output()
      #expect(output.promptTokenIDs.starts(with: before) && output.cachedPromptTokens == max(before.count - 1, 0))
      before = output.promptTokenIDs + output.tokenIDs
      let message = number % 2 == 0 ? nil : ChatMessage(role: "assistant", content: "An answer.")
      let isTakenIn = conversation.note(output, of: reply, as: message)
      #expect(isTakenIn)
      #expect(conversation.lastAnswer?.text == (message?.text ?? "  An answer\n"))
    }
    let (answers, messages) = (llm.rememberedAnswerSize.answers, conversation.messages.count)
    #expect(answers == 4)
    // An empty answer is none.
    let reply = try conversation.ask("?", of: llm, sampling: SamplingParams(maxTokens: 50), requestOptions: Self.saying([Self.end]))
    conversation.note(try await reply.generation.output(), of: reply)
    #expect(llm.rememberedAnswerSize.answers == answers && conversation.messages.count == messages)
  }

  @Test func `a conversation takes in the answer to what was asked last, and none twice`() async throws {
    let llm = try Self.llm()
    var conversation = Conversation(system: "S")
    func asking(_ question: String, _ answer: String) throws -> Conversation.Reply {
      try conversation.ask(
        question, of: llm, sampling: SamplingParams(maxTokens: 50), requestOptions: Self.saying(Self.tokens(answer, llm) + [Self.end]))
    }
    let (first, second) = (try asking("One?", "1"), try asking("Two?", "2"))
    let outputs = (try await first.generation.output(), try await second.generation.output())
    // One that was written and read meanwhile awaits the same.
    conversation = try JSONDecoder().decode(Conversation.self, from: JSONEncoder().encode(conversation))
    let isFirstTakenIn = conversation.note(outputs.0, of: first)
    #expect(!isFirstTakenIn && conversation.messages.map(\.text) == ["Two?"])
    let isSecondTakenIn = conversation.note(outputs.1, of: second)
    #expect(isSecondTakenIn && conversation.messages.map(\.text) == ["Two?", "2"])
    let isTakenInAgain = (conversation.note(outputs.1, of: second), conversation.note(outputs.0, of: first))
    #expect(isTakenInAgain == (false, false))
    #expect(conversation.messages.map(\.text) == ["Two?", "2"] && llm.rememberedAnswerSize.answers == 1)
  }
}
