// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import HTTPTypes
import Hummingbird
import Martlet
import MartletTemplates
import MartletTokenizers

// POST /tokenize and /detokenize, in vLLM's form and in llama.cpp's; GET /tokenizer_info

package enum TokenizeFields {
  static let prompt = Field<String>.string("prompt", "A text, in vLLM's form.")
  static let content = Field<String>.string("content", "A text, in llama.cpp's form.")
  static let addSpecialTokens = Field<Bool>.bool(
    "add_special_tokens", "Whether the token that begins a text is put before a prompt; yes without a word.")
  static let addSpecial = Field<Bool>.bool("add_special", "The same for content; no without a word.")
  static let parseSpecial = Field<Bool>.bool(
    "parse_special", "Whether the names of control tokens in content become the tokens; yes without a word.")
  static let returnTokenStrings = Field<Bool>.bool("return_token_strs", "Whether the texts of the tokens come too.")
  static let withPieces = Field<Bool>.bool("with_pieces", "The same for content.")
  static let tokens = Field<[Int]>.integers("tokens", "Ids of tokens.")
  package static let table: [any AnyField] = [
    ChatCompletionRequest.model, prompt, content, ChatCompletionRequest.messages, ChatCompletionRequest.tools,
    ChatCompletionRequest.addGenerationPrompt, ChatCompletionRequest.templateVariables, addSpecialTokens, addSpecial, parseSpecial,
    returnTokenStrings, withPieces,
  ]
  package static let detokenizeTable: [any AnyField] = [ChatCompletionRequest.model, tokens]
}

/// The body of `/tokenize`.
private struct TokenizeRequest: Sendable {
  enum What: Sendable {
    case messages([ChatMessage])
    case text(String, addsBOS: Bool, parsesSpecialTokens: Bool)
  }

  let model: String?
  let what: What
  let tools: [JSON]?
  var options = ChatOptions()
  let wantsStrings: Bool
  let wantsPieces: Bool

  /// Of one text: what takes a processor for seconds keeps others waiting.
  private static let mostBytes = 1 << 20

  init(_ json: JSON, server: ServerConfiguration) throws {
    let fields = try Fields(json)
    try fields.check(TokenizeFields.table)
    model = try fields(ChatCompletionRequest.model)
    let messages = try fields(ChatCompletionRequest.messages).map(ChatCompletionRequest.messages)
    let (prompt, content) = (try fields(TokenizeFields.prompt), try fields(TokenizeFields.content))
    let (addsBOS, adds) = (try fields(TokenizeFields.addSpecialTokens) ?? true, try fields(TokenizeFields.addSpecial) ?? false)
    let parses = try fields(TokenizeFields.parseSpecial) ?? true
    switch (messages, prompt, content) {
    case (let messages?, nil, nil): what = .messages(messages)
    case (nil, let prompt?, nil): what = .text(prompt, addsBOS: addsBOS, parsesSpecialTokens: false)
    case (nil, nil, let content?): what = .text(content, addsBOS: adds, parsesSpecialTokens: parses)
    default: throw APIError.invalid("prompt", "one of prompt, content and messages must be there")
    }
    if let count = (prompt ?? content)?.utf8.count, count > Self.mostBytes {
      throw APIError.invalid(
        prompt == nil ? "content" : "prompt",
        "a text of \(count) bytes is taken apart in pieces: send at most \(Self.mostBytes) at a time")
    }
    wantsStrings = try fields(TokenizeFields.returnTokenStrings) ?? false
    wantsPieces = try fields(TokenizeFields.withPieces) ?? false
    tools = try fields(ChatCompletionRequest.tools)
    for (index, tool) in (tools ?? []).enumerated() {
      try ChatCompletionRequest.check(function: tool["function"], "tools[\(index)].function")
    }
    options.addsGenerationPrompt = try fields(ChatCompletionRequest.addGenerationPrompt) ?? true
    options.variables = try ChatCompletionRequest.readTemplateVariables(fields, over: server)
  }
}

extension ModelServer {
  func tokenize(_ request: Request, _ context: any RequestContext, _ exchange: Exchange) async throws -> Response {
    let asked = try await read(request) { [configuration] in try TokenizeRequest($0, server: configuration) }
    let llm = try model(named: asked.model)
    let tokenizer = llm.tokenizer
    let tokens: [Int] = try await Exchange.offload {
      switch asked.what {
      case .messages(let messages):
        return try self.prepare(llm, param: "messages") {
          try llm.prepare(.chat(messages, tools: asked.tools, options: asked.options), mostTextBytes: $0)
        }.tokenIDs
      case .text(let text, let addsBOS, let parsesSpecialTokens):
        let tokens = tokenizer.encode(text, parsesSpecialTokens: parsesSpecialTokens)
        return (addsBOS ? tokenizer.beginning(tokens) : tokens).map(Int.init)
      }
    }
    func text(_ id: Int) -> String { String(decoding: tokenizer.bytes(of: Int32(id), showsControlTokens: true), as: UTF8.self) }
    if asked.wantsPieces {
      // llama.cpp's: a piece that is no text is its bytes.
      return Response(
        json: [
          "tokens": .array(
            tokens.map { id in
              let bytes = tokenizer.bytes(of: Int32(id), showsControlTokens: true)
              let piece: JSON = String(validating: bytes, as: UTF8.self).map { .string($0) } ?? .array(bytes.map { .integer(Int($0)) })
              return ["id": .integer(id), "piece": piece]
            })
        ])
    }
    var reply: JSON.Object = [
      "tokens": .array(tokens.map { .integer($0) }), "count": .integer(tokens.count), "max_model_len": .integer(llm.maxSequenceLength),
    ]
    if asked.wantsStrings { reply["token_strs"] = .array(tokens.map { .string(text($0)) }) }
    return Response(json: .object(reply))
  }

  func detokenize(_ request: Request, _ context: any RequestContext, _ exchange: Exchange) async throws -> Response {
    let (name, tokens) = try await read(request) { body in
      let fields = try Fields(body)
      return (try fields(ChatCompletionRequest.model), try fields.require(TokenizeFields.tokens))
    }
    let llm = try model(named: name)
    for token in tokens where token < 0 || token >= llm.model.vocabularySize {
      throw APIError.invalid("tokens", "token \(token) is not in the vocabulary (0 to \(llm.model.vocabularySize - 1))")
    }
    let text = try await Exchange.offload {
      String(decoding: tokens.flatMap { llm.tokenizer.bytes(of: Int32($0), showsControlTokens: true) }, as: UTF8.self)
    }
    return Response(json: ["prompt": .string(text), "content": .string(text)])
  }

  func tokenizerInfo(_ request: Request, _ context: any RequestContext, _ exchange: Exchange) async throws -> Response {
    let llm = try model()
    let tokenizer = llm.tokenizer
    func name(_ token: Int32?) -> JSON {
      token.map { .string(String(decoding: tokenizer.bytes(of: $0, showsControlTokens: true), as: UTF8.self)) } ?? .null
    }
    return Response(
      json: [
        "tokenizer_class": .string(String(describing: type(of: tokenizer))), "bos_token": name(tokenizer.bosToken),
        "eos_token": name(tokenizer.eosToken), "add_bos_token": .bool(tokenizer.addsBOS),
        "model_max_length": .integer(llm.maxSequenceLength),
        "vocab_size": .integer(tokenizer.vocabularySize),
        "chat_template": (try? llm.chatTemplate.get()).flatMap { $0.programs["default"] ?? $0.programs.values.first }.map {
          .string($0.source)
        } ?? .null,
      ])
  }
}
#endif
