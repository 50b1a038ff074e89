// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Every family's templates against what Jinja renders from them: Fixtures/chat-samples.json.

import Foundation
import MartletTokenizers
import Testing

private struct Samples: Decodable {
  struct Conversation: Decodable {
    struct Message: Decodable {
      var role: String
      var content: String
    }
    var opens_answer: Bool
    var messages: [Message]
  }
  struct Sample: Decodable {
    var model: String
    var family: String
    var bos: String
    var eos: String
    var program: String
    /// One for each conversation; nil where the template raises an error.
    var texts: [String?]
  }
  var conversations: [Conversation]
  var samples: [Sample]

  static func load() throws -> Samples {
    let url = try #require(Bundle.module.url(forResource: "chat-samples", withExtension: "json", subdirectory: "Fixtures"))
    return try JSONDecoder().decode(Samples.self, from: Data(contentsOf: url))
  }
}

@Suite struct ChatSampleTests {
  @Test func `every template is recognised and writes what Jinja renders, and refuses what it refuses`() throws {
    let recorded = try Samples.load()
    for sample in recorded.samples {
      let template = try ChatTemplate(source: sample.program)
      #expect(template.name == sample.family, "\(sample.model)")
      var refused = 0
      for (conversation, text) in zip(recorded.conversations, sample.texts) {
        let messages = conversation.messages.map { ChatMessage(role: $0.role, content: $0.content) }
        let rendered = try? template.render(
          messages, bos: sample.bos, eos: sample.eos, addsGenerationPrompt: conversation.opens_answer)
        // Compared as bytes: strings that look alike are equal to Swift, and not to a tokenizer.
        #expect(rendered.map { Array($0.utf8) } == text.map { Array($0.utf8) }, "\(sample.model): \(messages): \(rendered ?? "refused")")
        if text == nil { refused += 1 }
      }
      #expect(sample.texts.count == recorded.conversations.count && refused < sample.texts.count)
    }
    #expect(Set(recorded.samples.map(\.family)) == Set(ChatTemplate.names))
    #expect(recorded.samples.count >= 18 && recorded.conversations.count >= 11)
  }

  @Test(arguments: [
    ("chatml", "teknium/OpenHermes-2.5-Mistral-7B"), ("qwen", "Qwen/Qwen3-0.6B"), ("llama2", "meta-llama/Llama-2-7b-chat-hf"),
    ("llama3", "meta-llama/Meta-Llama-3-8B-Instruct"), ("gemma", "google/gemma-3-1b-it"),
    ("mistral", "mistralai/Mistral-Large-Instruct-2407"),
  ]) func `a family by its name writes as its newest template, with its usual tokens`(name: String, model: String) throws {
    let recorded = try Samples.load()
    let sample = try #require(recorded.samples.first { $0.model == model })
    let template = try ChatTemplate(named: name)
    #expect(template.name == name && template.defaultSystemMessage == nil)
    for (conversation, text) in zip(recorded.conversations, sample.texts) {
      let messages = conversation.messages.map { ChatMessage(role: $0.role, content: $0.content) }
      #expect((try? template.render(messages, addsGenerationPrompt: conversation.opens_answer)) == text, "\(messages)")
    }
  }

  @Test func `default system messages come from the template's text`() throws {
    var messages: [String: String] = [:]
    for sample in try Samples.load().samples { messages[sample.model] = try ChatTemplate(source: sample.program).defaultSystemMessage }
    #expect(
      messages == [
        "HuggingFaceTB/SmolLM2-135M-Instruct": "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
        "Qwen/Qwen2-7B-Instruct": "You are a helpful assistant.",
        "Qwen/Qwen2.5-7B-Instruct": "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
        "bofenghuang/vigogne-2-70b-chat":
          "Vous êtes Vigogne, un assistant IA créé par Zaion Lab. Vous suivez extrêmement bien les instructions. Aidez autant que vous le pouvez.",
      ])
  }
}
