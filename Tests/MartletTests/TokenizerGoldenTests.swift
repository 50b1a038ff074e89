// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Real models' tokenizers against recorded token ids: llama.cpp's on the same files.

import Foundation
import MartletFormats
import MartletTestSupport
import MartletTokenizers
import Testing

/// What `Fixtures/<model>.json` records about text; the numbers in it are other tests' business.
private struct Recorded: Decodable {
  struct Prompt: Decodable {
    var prompt: String?
    var chatUserMessage: String?
    var rendered: String?
    var promptTokenIDs: [Int32]

    enum CodingKeys: String, CodingKey {
      case prompt, rendered
      case chatUserMessage = "chat_user_message"
      case promptTokenIDs = "prompt_token_ids"
    }
  }
  struct Tokenized: Decodable {
    var text: String
    var tokenIDs: [Int32]

    enum CodingKeys: String, CodingKey {
      case text
      case tokenIDs = "token_ids"
    }
  }
  var prompts: [Prompt]
  var tokenize: [Tokenized]
  var passage: Tokenized

  init(_ model: String) throws {
    let url = try #require(Bundle.module.url(forResource: model, withExtension: "json", subdirectory: "Fixtures"))
    self = try JSONDecoder().decode(Recorded.self, from: Data(contentsOf: url))
  }
}

enum TokenizerModels {
  /// The file of a known model.
  static func open(_ name: String) async throws -> GGUFFile {
    try GGUFFile(path: try await RealModelFile.path(name))
  }
}

@Suite struct TokenizerGoldenTests {
  static let models = ["smollm2-135m", "gemma3-270m"]

  @Test(arguments: models) func `tokens equal the recorded ones`(model: String) async throws {
    let recorded = try Recorded(model)
    let tokenizer = try await makeTokenizer(from: TokenizerModels.open(model))
    let bos = tokenizer.addsBOS ? [try #require(tokenizer.bosToken)] : []
    for prompt in recorded.prompts {
      let text = try #require(prompt.prompt ?? prompt.rendered)
      #expect(bos + tokenizer.encode(text, parsesSpecialTokens: prompt.rendered != nil) == prompt.promptTokenIDs)
    }
    for text in recorded.tokenize { #expect(tokenizer.encode(text.text, parsesSpecialTokens: true) == text.tokenIDs, "\(text.text)") }
    #expect(bos + tokenizer.encode(recorded.passage.text, parsesSpecialTokens: false) == recorded.passage.tokenIDs)
    #expect(recorded.prompts.count >= 5 && recorded.tokenize.count >= 10)
  }

  @Test(arguments: models) func `recorded tokens decode to their text, at once and token by token`(model: String) async throws {
    let recorded = try Recorded(model)
    let tokenizer = try await makeTokenizer(from: TokenizerModels.open(model))
    for text in recorded.tokenize + [recorded.passage] {
      let shown = text.tokenIDs.flatMap { tokenizer.bytes(of: $0, showsControlTokens: $0 != tokenizer.bosToken || !tokenizer.addsBOS) }
      #expect(Array(text.text.utf8) == shown)
      var decoder = IncrementalDecoder(tokenizer)
      var joined = text.tokenIDs.map { decoder.append($0) }.joined()
      joined += decoder.finish()
      #expect(joined == tokenizer.decode(text.tokenIDs))
    }
    #expect(tokenizer.decode(recorded.passage.tokenIDs) == recorded.passage.text)
  }

  @Test func `a chat is rendered as recorded, with the template's own system message`() async throws {
    let recorded = try Recorded("smollm2-135m")
    let file = try await TokenizerModels.open("smollm2-135m")
    let template = try ChatTemplate(from: file, tokenizer: makeTokenizer(from: file))
    let chats = recorded.prompts.filter { $0.rendered != nil }
    #expect(!chats.isEmpty)
    for chat in chats {
      let message = ChatMessage(role: "user", content: try #require(chat.chatUserMessage))
      #expect(try template.render([message]).text == chat.rendered)
    }
  }

  @Test func `a model without a chat template says how to name one`() async throws {
    let file = try await TokenizerModels.open("gemma3-270m")
    let tokenizer = try makeTokenizer(from: file)
    #expect(throws: TokenizerError.noChatTemplate(known: ChatTemplate.names)) { try ChatTemplate(from: file, tokenizer: tokenizer) }
    #expect(TokenizerError.noChatTemplate(known: ChatTemplate.names).description.contains("chatTemplate: chatml"))
  }

  @Test func `special tokens count only when asked for`() async throws {
    let tokenizer = try await makeTokenizer(from: TokenizerModels.open("smollm2-135m"))
    let text = "<|im_start|>user"
    #expect(tokenizer.encode(text, parsesSpecialTokens: true).first == 1)
    let plain = tokenizer.encode(text, parsesSpecialTokens: false)
    #expect(!plain.contains { tokenizer.isControl($0) })
    #expect(tokenizer.decode(plain) == text)
  }

  @Test func `the tokens that begin and end a text are the models'`() async throws {
    let smol = try await makeTokenizer(from: TokenizerModels.open("smollm2-135m"))
    #expect(smol.vocabularySize == 49152)
    #expect(smol.bosToken == 1 && smol.eosToken == 2 && !smol.addsBOS)
    #expect(smol.endTokens == [0, 2])  // <|endoftext|>, <|im_end|>
    let gemma = try await makeTokenizer(from: TokenizerModels.open("gemma3-270m"))
    #expect(gemma.vocabularySize == 262144)
    #expect(gemma.bosToken == 2 && gemma.eosToken == 1 && gemma.addsBOS)
    #expect(gemma.endTokens == [1, 106])  // <eos>, <end_of_turn>
  }
}
