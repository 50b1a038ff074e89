// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import HTTPTypes
import Hummingbird
import Martlet
package import MartletTemplates

// POST /v1/messages and /v1/messages/count_tokens, Anthropic's API

extension ModelServer {
  func messages(_ request: Request, _ context: any RequestContext, _ exchange: Exchange) async throws -> Response {
    let id = "msg_" + RandomName.make()
    let asked = try await read(request) { [configuration] in try MessagesRequest($0, id: id, server: configuration) }
    let answers = try await ChatAnswers.begin(asked.chat, server: self)
    exchange.note { $0.promptTokens = answers.promptTokens }
    let writer = MessageWriter(
      id: id, model: modelName(answers.llm), promptTokens: answers.promptTokens, seed: asked.chat.sampling.seed)
    if asked.chat.isStream {
      return stream(exchange) { [configuration] events in
        try await answers.write(writer, to: &events, exchange, silence: configuration.keepAliveInterval)
      }
    }
    return Response(json: try await answers.reply(writer, exchange))
  }

  /// The reply to a body, for which no connection is needed.
  package func message(to body: JSON) async throws -> JSON {
    let id = "msg_" + RandomName.make()
    return try await inProcess("/v1/messages") { exchange in
      let asked = try MessagesRequest(body, id: id, server: configuration)
      let answers = try await ChatAnswers.begin(asked.chat, server: self)
      return try await answers.reply(
        MessageWriter(
          id: id, model: modelName(answers.llm), promptTokens: answers.promptTokens, seed: asked.chat.sampling.seed), exchange)
    }
  }

  func countMessageTokens(_ request: Request, _ context: any RequestContext, _ exchange: Exchange) async throws -> Response {
    let asked = try await read(request) { [configuration] in
      try MessagesRequest($0, id: exchange.id, server: configuration, onlyCounts: true)
    }
    return Response(json: ["input_tokens": .integer(try await promptTokens(of: asked.chat))])
  }
}
#endif
