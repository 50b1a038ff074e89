// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import Martlet
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

  @Test func `a full context forgets the oldest turns and says so, and a question that never fits is left out`() throws {
    let questions = (1...4).map { "Tell me something about the number \($0)." }
    let tooLong = String(repeating: "very ", count: 200)
    let result = try CommandLine.run(
      ["chat", "--model", model, "--context", "128", "--max-tokens", "20"],
      input: (questions + [tooLong, questions[0]]).joined(separator: "\n"))
    #expect(result.status == 0, "\(result.error)")
    #expect(result.error.contains("The context (128 tokens) is full: the oldest 2 messages were forgotten."), "\(result.error)")
    #expect(result.error.contains("--context"), "\(result.error)")
    // The question that did not fit came after all others were forgotten for it: the last answer is the first again.
    let alone = try CommandLine.run(["chat", "--model", model, "--context", "128", "--max-tokens", "20"], input: questions[0])
    #expect(result.output.hasPrefix(alone.output) && result.output.hasSuffix(alone.output))
    #expect(result.output != alone.output)
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
    #expect(child.waitForError { $0.contains("reached its limit") }, "\(child.error)")
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
    #expect(result.error.contains("\(folder.path) cannot be written") && result.error.contains("/save FILE"), "\(result.error)")
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
    for command in ["/clear", "/reset", "/system TEXT", "/save FILE", "/exit"] {
      // Twice with the refusals, and once asked for.
      #expect(result.error.components(separatedBy: "  \(command)  ").count == 4, "\(command): \(result.error)")
    }
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

    let silent = try CommandLine.run(["chat", "--model", model, "--max-tokens", "2"] + cases[2].options, input: question)
    #expect(silent.status == 0 && silent.error.contains("writes no tools"), "\(silent.error)")
  }

  @Test func `what cannot work is said before the first question`() throws {
    let folder = try TemporaryFolder()
    let tools = [try folder.write("[{", to: "broken.json"), try folder.write("{}", to: "object.json"), folder.path + "/missing.json"]
    let cases: [(arguments: [String], status: Int32, words: [String])] = [
      (["--set", "effort=high"], 64, ["effort", "quotes"]),
      (["--tools", tools[0]], 1, ["broken.json", "no JSON"]),
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
