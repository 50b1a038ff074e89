// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import Martlet
import MartletCLI
import MartletTemplates
import MartletTestSupport
import MartletTokenizers
import Testing

/// `martlet chat` on the real default model: lines go in through a pipe, answers come out.
@Suite(.serialized) struct ChatTests {
  private let model: String

  init() async throws { model = try await RealModelFile.path("smollm2-135m") }

  @Test func `answers are those of the whole conversation, system message and history included`() async throws {
    let system = "You answer in one short sentence."
    let questions = ["My dog is called Otto. Greet it.", "What is the name of my dog?"]
    let llm = try LLM(model: model)
    var messages = [ChatMessage(role: "system", content: system)]
    var expected = ""
    for question in questions {
      messages.append(ChatMessage(role: "user", content: question))
      let answer = try await llm.generate(.chat(messages), sampling: SamplingParams(maxTokens: 24)).output().text
      messages.append(ChatMessage(role: "assistant", content: answer))
      expected += answer + "\n"
    }
    let result = try CommandLine.run(
      ["chat", "--model", model, "--system", system, "--max-tokens", "24"], input: questions.joined(separator: "\n\n") + "\n")
    #expect(result.status == 0, "\(result.error)")
    #expect(result.output == expected)
  }

  @Test func `reset forgets, exit ends, and what is after it is not read`() throws {
    let question = "What is the capital of France?"
    let result = try CommandLine.run(
      ["chat", "--model", model, "--max-tokens", "16"], input: "\(question)\n/reset\n\(question)\r\n /exit \n\(question)\n")
    #expect(result.status == 0)
    let half = result.output.prefix(result.output.count / 2)
    #expect(result.output == half + half)
    #expect(half.contains("Paris") && half.hasSuffix("\n"))
    #expect(result.error.contains("forgotten"))
  }

  @Test func `a full context forgets the oldest turns and says so, and a question that never fits changes nothing`() throws {
    let questions = (1...4).map { "Tell me something about the number \($0)." }
    let tooLong = String(repeating: "very ", count: 200)
    let arguments = ["chat", "--model", model, "--context", "128", "--max-tokens", "20"]
    let result = try CommandLine.run(arguments, input: (questions + [tooLong, questions[0]]).joined(separator: "\n"))
    #expect(result.status == 0, "\(result.error)")
    #expect(result.error.contains("The context (128 tokens) is full: the oldest 4 messages were forgotten."), "\(result.error)")
    #expect(result.error.contains("--context"), "\(result.error)")
    let without = try CommandLine.run(arguments, input: (questions + [questions[0]]).joined(separator: "\n"))
    #expect(result.output == without.output && !result.output.isEmpty)
  }

  @Test func `an interrupt stops the answer and not the program`() throws {
    let child = try Child(["chat", "--model", model, "--max-tokens", "2000", "--context", "4096", "--stop", "\u{1}"])
    child.send("Write a very long story about a ship and its crew.\n")
    #expect(child.waitForOutput { $0.count > 20 })
    child.interrupt()
    #expect(child.waitForError { $0.contains("The answer was stopped") }, "\(child.error)")
    child.send("/reset\nWhat is the capital of France?\n")
    #expect(child.waitForOutput { $0.contains("Paris") }, "\(child.output)")
    child.send("/exit\n")
    #expect(child.waitForExit() == 0)
  }

  @Test func `a second interrupt where a question is awaited ends the program`() throws {
    let child = try Child(["chat", "--model", model, "--max-tokens", "2"])
    child.send("Hello\n")
    #expect(child.waitForError { $0.contains("cut at its limit of 2 tokens") }, "\(child.error)")
    child.interrupt()
    #expect(child.waitForError { $0.contains("Ctrl-C again") }, "\(child.error)")
    child.interrupt()
    #expect(child.waitForExit() == 130)
  }

  // MARK: Commands

  /// What a chat must write: each question asked after all that was said before, under the system message of its time.
  private func answers(_ turns: [(system: String?, question: String)], template: ChatTemplate? = nil) async throws -> [String] {
    let llm = try LLM(model: model, configuration: EngineConfiguration(chatTemplate: template))
    var messages: [ChatMessage] = []
    var answers: [String] = []
    for (system, question) in turns {
      messages.append(ChatMessage(role: "user", content: question))
      let first = system.map { [ChatMessage(role: "system", content: $0)] } ?? []
      answers.append(try await llm.generate(.chat(first + messages), sampling: SamplingParams(maxTokens: 16)).output().text)
      messages.append(ChatMessage(role: "assistant", content: answers.last ?? ""))
    }
    return answers
  }

  @Test func `the system message can change, and the conversation goes on`() async throws {
    let (first, second, third) = ("My cat is called Ida.", "What is my cat called?", "And what is a cat?")
    let expected = try await answers([("Be brief.", first), ("Answer in French.", second), (nil, third)])
    #expect(Set(expected).count == 3)
    let result = try CommandLine.run(
      ["chat", "--model", model, "--max-tokens", "16", "--system", "Be brief."],
      input: [first, "/system  Answer in French. ", second, "/system", third].joined(separator: "\n"))
    #expect(result.status == 0, "\(result.error)")
    #expect(result.output == expected.map { $0 + "\n" }.joined())
    #expect(result.error.contains("The system message is now: Answer in French.\n"), "\(result.error)")
    #expect(result.error.contains("The system message is taken away."), "\(result.error)")
  }

  @Test func `a system message that the template refuses, or that fills the context, changes nothing`() async throws {
    let folder = try TemporaryFolder()
    let source = """
      {%- for message in messages -%}
        {%- if message.role == 'system' -%}{{- raise_exception('no system message, please') -}}{%- endif -%}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}
      {%- endfor -%}
      {{- '<|im_start|>assistant\\n' -}}
      """
    let question = "What is the capital of France?"
    let expected = try await answers([(nil, question)], template: try ChatTemplate(source: source))
    let refused = try CommandLine.run(
      ["chat", "--model", model, "--max-tokens", "16", "--chat-template", try folder.write(source, to: "template.jinja")],
      input: "/system Be brief.\n\(question)\n")
    #expect(refused.status == 0 && refused.output == expected[0] + "\n", "\(refused.error)")
    #expect(refused.error.contains("stays as it was") && refused.error.contains("no system message, please"), "\(refused.error)")

    let tooLong = String(repeating: "very ", count: 200)
    let long = try CommandLine.run(
      ["chat", "--model", model, "--max-tokens", "16", "--context", "128"], input: "/system \(tooLong)\n\(question)\n")
    #expect(long.output == (try await answers([(nil, question)]))[0] + "\n", "\(long.error)")
    #expect(long.error.contains("stays as it was"), "\(long.error)")
  }

  @Test func `save writes all messages in their order, as OpenAI's API has them`() throws {
    let folder = try TemporaryFolder()
    let (file, cleared) = (folder.path + "/the chat.json", folder.path + "/cleared.json")
    let questions = ["Say \"swift\" – twice.", "And once more."]
    let result = try CommandLine.run(
      ["chat", "--model", model, "--max-tokens", "4", "--system", "Be brief."],
      input: (questions + ["/save \(file)", "/clear", "/save \(cleared)", "/system", "/save \(folder.path)/never"]).joined(separator: "\n"))
    #expect(result.status == 0, "\(result.error)")
    let text = try String(contentsOfFile: file, encoding: .utf8)
    #expect(
      text.hasPrefix(
        "[\n  {\"role\": \"system\", \"content\": \"Be brief.\"},\n  {\"role\": \"user\", \"content\": \"Say \\\"swift\\\" – twice.\"},\n"),
      "\(text)")
    #expect(text.hasSuffix("}\n]\n"))
    let messages = try JSONDecoder().decode([ChatMessage].self, from: Data(text.utf8))
    #expect(messages.map(\.role) == ["system", "user", "assistant", "user", "assistant"])
    #expect([messages[1].text, messages[3].text] == questions)
    #expect(result.output == messages[2].text + "\n" + messages[4].text + "\n")
    // The system message stays when the conversation is forgotten; with neither there is nothing to write.
    #expect(try String(contentsOfFile: cleared, encoding: .utf8) == "[\n  {\"role\": \"system\", \"content\": \"Be brief.\"}\n]\n")
    #expect(!FileManager.default.fileExists(atPath: folder.path + "/never") && result.error.contains("Nothing was said yet"))
  }

  @Test func `messages that the model has forgotten are saved too`() throws {
    let folder = try TemporaryFolder()
    let questions = (1...4).map { "Tell me something about the number \($0)." }
    let result = try CommandLine.run(
      ["chat", "--model", model, "--context", "128", "--max-tokens", "20"],
      input: (questions + ["/save \(folder.path)/chat.json"]).joined(separator: "\n"))
    #expect(result.error.contains("messages were forgotten"), "\(result.error)")
    let messages = try JSONDecoder().decode([ChatMessage].self, from: Data(contentsOf: URL(fileURLWithPath: folder.path + "/chat.json")))
    #expect(messages.filter { $0.role == "user" }.map(\.text) == questions)
  }

  @Test func `what cannot be saved is said, a file that is there stays, and the conversation goes on`() async throws {
    let folder = try TemporaryFolder()
    let (first, second) = ("My cat is called Ida.", "What is my cat called?")
    let expected = try await answers([(nil, first), (nil, second)])
    let result = try CommandLine.run(
      ["chat", "--model", model, "--max-tokens", "16"],
      input: [first, "/save /nowhere/chat.json", "/save \(folder.path)", "/save", second].joined(separator: "\n"))
    #expect(result.status == 0 && result.output == expected.map { $0 + "\n" }.joined(), "\(result.error)")
    #expect(result.error.contains("/nowhere/chat.json cannot be written: No such file or directory"), "\(result.error)")
    #expect(
      result.error.contains("\(folder.path) cannot be written: it is a folder") && result.error.contains("/save FILE"), "\(result.error)")
    var isDirectory: ObjCBool = false
    #expect(FileManager.default.fileExists(atPath: folder.path, isDirectory: &isDirectory) && isDirectory.boolValue)
  }

  @Test func `a command that there is not is refused with the list, and what only looks like one is a question`() async throws {
    let (first, second) = ("/etc/passwd is which kind of file?", "// What does this comment say?")
    let expected = try await answers([(nil, first), (nil, second)])
    let result = try CommandLine.run(
      ["chat", "--model", model, "--max-tokens", "16"],
      input: ["/quit", "/clear all", first, "/Help me", second, "/help"].joined(separator: "\n"))
    #expect(result.status == 0 && result.output == expected.map { $0 + "\n" }.joined(), "\(result.error)")
    for word in ["There is no command /quit", "There is no command /Help", "/clear takes no text"] {
      #expect(result.error.contains(word), "\(result.error)")
    }
    for command in ["/continue", "/retry", "/set NAME VALUE", "/clear", "/reset", "/system TEXT", "/save FILE", "/load FILE", "/exit"] {
      // Twice with the refusals, and once asked for.
      #expect(result.error.components(separatedBy: "  \(command)  ").count == 4, "\(command): \(result.error)")
    }
  }

  @Test func `a cut answer says so and goes on, and another one takes its place`() async throws {
    let folder = try TemporaryFolder()
    let question = "What is a swift?"
    let llm = try LLM(model: model)
    let prompt = Prompt.chat([ChatMessage(role: "user", content: question)])
    let whole = try await llm.generate(prompt, sampling: SamplingParams(maxTokens: 24)).output().text
    let cut = try CommandLine.run(
      ["chat", "--model", model],
      input: ["/continue", "/retry", "/set max-tokens 8", question, "/continue", "/continue", "/save \(folder.path)/chat.json", "/exit"]
        .joined(separator: "\n"))
    #expect(cut.output.replacing("\n", with: "") == whole.replacing("\n", with: ""), "\(cut.error)")
    #expect(cut.error.components(separatedBy: "cut at its limit of 8 tokens (max-tokens). /continue goes on").count == 4, "\(cut.error)")
    #expect(cut.error.contains("no answer to go on with") && cut.error.contains("no answer to replace"), "\(cut.error)")
    let saved = try JSONDecoder().decode([ChatMessage].self, from: Data(contentsOf: URL(fileURLWithPath: folder.path + "/chat.json")))
    #expect(saved.map(\.text) == [question, whole])

    let retried = try CommandLine.run(
      ["chat", "--model", model, "--max-tokens", "16", "--temperature", "1", "--seed", "7"], input: "\(question)\n/retry\n")
    var sampling = SamplingParams(temperature: 1, seed: 7, maxTokens: 16)
    let first = try await llm.generate(prompt, sampling: sampling).output().text
    sampling.seed = 8
    let second = try await llm.generate(prompt, sampling: sampling).output().text
    #expect(first != second && retried.output == "\(first)\n\(second)\n", "\(retried.error)")
    let same = try CommandLine.run(["chat", "--model", model, "--max-tokens", "4"], input: "\(question)\n/retry\n")
    #expect(same.error.contains("The temperature is 0") && Set(same.output.split(separator: "\n")).count == 1, "\(same.error)")
  }

  @Test func `answers of a form have it, each for itself`() throws {
    let result = try CommandLine.run(
      ["chat", "--model", model, "--choice", "yes, I am sure", "--choice", "no, I am not sure"],
      input: "Is one less than two?\nIs two less than one?\n/set max-tokens 1\nIs it?\n/continue\n")
    let lines = result.output.split(separator: "\n").map(String.init)
    #expect(result.status == 0 && lines.count == 3, "\(result.error)")
    let choices = ["yes, I am sure", "no, I am not sure"]
    for line in lines.prefix(2) { #expect(choices.contains(line)) }
    #expect(lines.last.map { last in choices.contains { $0.hasPrefix(last) && $0 != last } } == true)
    #expect(result.error.contains("limit of 1 tokens (max-tokens).\n"), "\(result.error)")
    #expect(result.error.contains("An answer of a form is not continued"), "\(result.error)")
  }

  @Test func `answers run to their end where no limit is set`() async throws {
    let question = "Count from one to thirty in words."
    let expected = try await LLM(model: model).generate(
      .chat([ChatMessage(role: "user", content: question)]), sampling: SamplingParams(maxTokens: 600)
    ).output()
    // Longer than what `generate` stops at, else this would show nothing.
    #expect(expected.tokenIDs.count > 10)
    let result = try CommandLine.run(["chat", "--model", model, "--context", "640", "--stats"], input: question)
    if expected.finishReason == .endToken {
      #expect(result.output == expected.text + "\n")
    } else {
      #expect(result.error.contains("the context of 640 tokens is full"))
    }
    #expect(result.error.contains("tokens/s") && result.error.contains(" of 640]"), "\(result.error)")
  }

  @Test func `an answer that goes round in circles is stopped, unless there is a limit`() throws {
    // At temperature 0 this one repeats a paragraph for ever.
    let question = "What is a swift?"
    let arguments = ["chat", "--model", model, "--system", "You are brief.", "--context", "4096"]
    let stopped = try CommandLine.run(arguments, input: question)
    #expect(stopped.status == 0 && stopped.error.contains("went round in circles"), "\(stopped.error)")
    let limited = try CommandLine.run(arguments + ["--max-tokens", "1000"], input: question)
    #expect(limited.output.count > stopped.output.count && limited.output.hasPrefix(stopped.output.dropLast()))
    #expect(limited.error.contains("cut at its limit of 1000 tokens"), "\(limited.error)")

    func goesInCircles(_ tokens: [Int]) -> Bool {
      var watch = RepetitionWatch()
      return tokens.contains { watch.add([$0]) }
    }
    var whole = RepetitionWatch()
    #expect(whole.add(Array(repeating: 7, count: 192)) && !goesInCircles(Array(repeating: 7, count: 191)))
    let paragraph = Array(0..<100)
    #expect(goesInCircles(paragraph + paragraph + paragraph + paragraph))
    #expect(!goesInCircles(paragraph + paragraph + paragraph + paragraph.dropLast()))
    #expect(goesInCircles([1, 2, 3] + Array((0..<5).map { _ in Array(0..<256) }.joined())))
    #expect(!goesInCircles((0..<5000).map { $0 % 257 }) && !goesInCircles((0..<5000).map { $0 * $0 % 4099 }))
  }

  @Test func `settings change in the middle, and what is none is refused`() async throws {
    let folder = try TemporaryFolder()
    let source = "{{ messages[-1].content }}{{ opening if opening is defined }}"
    let template = try folder.write(source, to: "template.jinja")
    let llm = try LLM(model: model, configuration: EngineConfiguration(chatTemplate: try ChatTemplate(source: source)))
    func answer(_ question: String, _ opening: JSON?, _ sampling: SamplingParams) async throws -> String {
      var options = ChatOptions()
      options.variables["opening"] = opening
      return try await llm.generate(.chat([ChatMessage(role: "user", content: question)], options: options), sampling: sampling).output()
        .text
    }
    let question = "A swift is"
    let result = try CommandLine.run(
      ["chat", "--model", model, "--chat-template", template, "--max-tokens", "6"],
      input: [
        question, "/set max-tokens 3", question, "/set opening  a bird that", question, "/set opening", "/set temprature 1", "/set top-p 2",
        "/set top-k x", "/set top-p", "/set messages 1", "/set max-tokens default", "/set opening default", question, "/set",
        "/set stats on",
      ].joined(separator: "\n"))
    let expected = [
      try await answer(question, nil, SamplingParams(maxTokens: 6)), try await answer(question, nil, SamplingParams(maxTokens: 3)),
      try await answer(question, "a bird that", SamplingParams(maxTokens: 3)),
      try await answer(question, nil, SamplingParams(maxTokens: 6)),
    ]
    #expect(result.status == 0 && result.output == expected.map { $0 + "\n" }.joined(), "\(result.error)")
    #expect(expected[1] != expected[2])
    for words in [
      "max-tokens is now 3.", "opening is now \"a bird that\".", "opening is \"a bird that\".", "no setting temprature",
      "top-p is still 1.0: sampling: --top-p", "top-k cannot be \"x\"; it is still none.", "top-p is 1.0.", "no setting messages",
      "max-tokens is now 6.", "opening is not set any more.", "  repetition-penalty 1.0\n", "stats is now on.",
    ] {
      #expect(result.error.contains(words), "\(words): \(result.error)")
    }
  }

  @Test func `lines of a pipe make one turn in a block and with a backslash`() async throws {
    let question = "What does this do?\n\ndef f():\n    return 1"
    let expected = try await answers([(nil, question), (nil, "one\ntwo"), (nil, "/clear"), (nil, "open\n\nend")])
    let result = try CommandLine.run(
      ["chat", "--model", model, "--max-tokens", "16"],
      input: "\"\"\"\n\(question)\n\"\"\"\none\\\ntwo\n\"\"\"/clear\"\"\"\n\"\"\"\"\"\"\n\"\"\"open\n\nend\n")
    // A block that does not end is taken as far as it goes, marks included.
    let last = try await answers([(nil, question), (nil, "one\ntwo"), (nil, "/clear"), (nil, "\"\"\"open\n\nend")])
    #expect(result.status == 0 && result.output == (expected[..<3] + last[3...]).map { $0 + "\n" }.joined(), "\(result.error)")
  }

  @Test func `a chat goes on with messages of a file`() async throws {
    let folder = try TemporaryFolder()
    let (first, second) = ("My cat is called Ida.", "What is my cat called?")
    let expected = try await answers([("Be brief.", first), ("Be brief.", second)])
    let file = folder.path + "/chat.json"
    let arguments = ["chat", "--model", model, "--max-tokens", "16"]
    _ = try CommandLine.run(arguments + ["--system", "Be brief."], input: "\(first)\n/save \(file)\n")
    let loaded = try CommandLine.run(arguments, input: "Hello\n/load \(file)\n\(second)\n")
    #expect(loaded.output.hasSuffix("\n" + expected[1] + "\n") && loaded.error.contains("3 messages of \(file)"), "\(loaded.error)")
    #expect(try CommandLine.run(arguments + ["--load", file], input: second).output == expected[1] + "\n")

    // A file that ends with a question: it can be asked.
    let open = try folder.write(#"[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "\#(first)"}]"#, to: "open.json")
    let asked = try CommandLine.run(arguments, input: "/load \(open)\n/retry\n\(second)\n/load \(open)\n/continue\n")
    #expect(asked.status == 0 && asked.output == expected.map { $0 + "\n" }.joined(), "\(asked.error)")
    #expect(asked.error.contains("2 messages of \(open) were said before. The last has no answer yet; /retry asks for one."))

    let files = [try folder.write("[]", to: "empty.json"), try folder.write("[{}]", to: "role.json")]
    let bad = files + [folder.path + "/missing.json", folder.path]
    let refused = try CommandLine.run(arguments, input: bad.map { "/load \($0)\n" }.joined() + first)
    let alone = try await answers([(nil, first)])
    #expect(refused.status == 0 && refused.output == alone[0] + "\n", "\(refused.error)")
    let said = ["empty.json has no messages", "role.json: ", "missing.json cannot be read", "Is a directory", "the chat goes on as it was"]
    for words in said {
      #expect(refused.error.contains(words), "\(words): \(refused.error)")
    }
    #expect(try CommandLine.run(arguments + ["--load", bad[0]], input: first).status == 1)
  }

  // MARK: Variables and tools

  @Test func `the template gets the variables that are set and the tools of the file`() async throws {
    let folder = try TemporaryFolder()
    let source = """
      {%- if tools -%}{{- '<|im_start|>system\\nTools: ' + tools|tojson + '<|im_end|>\\n' -}}{%- endif -%}
      {%- for message in messages -%}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}{%- endfor -%}
      {{- '<|im_start|>assistant\\n' -}}
      {%- if opening is defined -%}{{- opening -}}{%- endif -%}
      """
    let template = try folder.write(source, to: "template.jinja")
    let tools = #"[{"type": "function", "function": {"name": "weather", "description": "The weather of a town."}}]"#
    let question = "What can you do?"
    let llm = try LLM(model: model, configuration: EngineConfiguration(chatTemplate: try ChatTemplate(source: source)))
    let options = ChatOptions(variables: JSON.Object([(key: "opening", value: "In one word:")]))
    func prompt(_ tools: [JSON]?, _ options: ChatOptions = ChatOptions()) -> Prompt {
      .chat([ChatMessage(role: "user", content: question)], tools: tools, options: options)
    }
    let given = try JSON(parsing: tools).array
    let arguments = ["--model", model, "--chat-template", template, "--max-tokens", "12"]
    let cases: [(options: [String], prompt: Prompt)] = [
      ([], prompt(nil)), (["--set", #"opening="In one word:""#], prompt(nil, options)),
      (["--tools", try folder.write(tools, to: "tools.json")], prompt(given)),
    ]
    var outputs: Set<String> = []
    for (options, prompt) in cases {
      let result = try CommandLine.run(["chat"] + arguments + options, input: question)
      let expected = try await llm.generate(prompt, sampling: SamplingParams(maxTokens: 12)).output().text
      #expect(result.status == 0 && result.output == expected + "\n", "\(options): \(result.error)")
      #expect(!result.error.contains("writes no tools"))
      outputs.insert(result.output)
    }
    // Else the options might have done nothing.
    #expect(outputs.count == 3, "\(outputs)")

    struct Report: Decodable {
      struct Output: Decodable { var prompt_token_ids: [Int] }
      var outputs: [Output]
    }
    let generated = try CommandLine.run(["generate", question, "--chat", "--json"] + arguments + cases[1].options)
    #expect(try generated.json(Report.self).outputs.map(\.prompt_token_ids) == [try llm.tokenIDs(of: cases[1].prompt)])

    // A part of a variable's name is no variable.
    let set = try CommandLine.run(["chat"] + arguments, input: "/set openin x\n/set opening x\n")
    #expect(set.error.contains("There is no setting openin,") && set.error.contains("opening is now \"x\""), "\(set.error)")

    let silent = try CommandLine.run(["chat", "--model", model, "--max-tokens", "2"] + cases[2].options, input: question)
    #expect(silent.status == 0 && silent.error.contains("writes no tools"), "\(silent.error)")
  }

  @Test func `what cannot work is said before the first question`() throws {
    let folder = try TemporaryFolder()
    let tools = [try folder.write("[{", to: "broken.json"), try folder.write("{}", to: "object.json"), folder.path + "/missing.json"]
    let cases: [(arguments: [String], status: Int32, words: [String])] = [
      (["--set", "effort=high"], 64, ["effort", "quotes"]),
      (["--tools", tools[0]], 1, ["broken.json", "not JSON"]),
      (["--tools", tools[1]], 1, ["object.json", "no array of tools"]),
      (["--tools", tools[2]], 1, ["missing.json"]),
      (["--chat-template", "other"], 1, ["other", "chatml, llama2, llama3, gemma, mistral, qwen"]),
      (["--context", "0"], 64, ["--context", "at least 1"]),
      (["--context", "4"], 1, ["--context"]),
      (["--temperature", "-1"], 64, ["temperature"]),
    ]
    for (arguments, status, words) in cases {
      let result = try CommandLine.run(["chat", "--model", model] + arguments, input: "Hello\n")
      #expect(result.status == status && result.output == "", "\(arguments): \(result.error)")
      for word in words { #expect(result.error.contains(word), "\(arguments): \(result.error)") }
    }
  }

  @Test(arguments: ChatTemplate.names) func `every family can be named`(template: String) throws {
    let result = try CommandLine.run(
      ["chat", "--model", model, "--chat-template", template, "--system", "Be brief.", "--max-tokens", "2"], input: "Hello\n")
    #expect(result.status == 0, "\(result.error)")
  }
}
