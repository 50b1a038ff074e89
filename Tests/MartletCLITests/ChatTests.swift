// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import Martlet
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

  @Test func `what cannot work is said before the first question`() throws {
    let cases: [(arguments: [String], status: Int32, words: [String])] = [
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
