// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import HTTPTypes
import Hummingbird
import Martlet
package import MartletTemplates

// POST /v1/responses, and the counters of input tokens

extension ModelServer {
  func responses(_ request: Request, _ context: any RequestContext, _ exchange: Exchange) async throws -> Response {
    let id = "resp_" + RandomName.make()
    let asked = try await read(request) { [configuration] in try ResponseRequest($0, id: id, server: configuration) }
    exchange.note { $0.leftOutTools = asked.leftOut }
    let answers = try await naming("input") { try await ChatAnswers.begin(asked.chat, server: self) }
    exchange.note { $0.promptTokens = answers.promptTokens }
    let writer = ResponseWriter(id: id, created: UnixTime.now, model: modelName(answers.llm), echo: asked.echo)
    if asked.chat.isStream {
      return stream(exchange) { [configuration] events in
        try await answers.write(writer, to: &events, exchange, silence: configuration.keepAliveInterval)
      }
    }
    return Response(json: try await answers.reply(writer, exchange))
  }

  /// The reply to a body, for which no connection is needed.
  package func response(to body: JSON) async throws -> JSON {
    let id = "resp_" + RandomName.make()
    return try await inProcess("/v1/responses") { exchange in
      let asked = try ResponseRequest(body, id: id, server: configuration)
      let answers = try await naming("input") { try await ChatAnswers.begin(asked.chat, server: self) }
      return try await answers.reply(
        ResponseWriter(id: id, created: UnixTime.now, model: modelName(answers.llm), echo: asked.echo), exchange)
    }
  }

  /// How many tokens the prompt of a body for `/v1/responses` has.
  package func inputTokens(of body: JSON) async throws -> Int {
    let asked = try ResponseRequest(body, id: RandomName.make(), server: configuration)
    return try await naming("input") { try await promptTokens(of: asked.chat) }
  }

  func responsesInputTokens(_ request: Request, _ context: any RequestContext, _ exchange: Exchange) async throws -> Response {
    let asked = try await read(request) { [configuration] in try ResponseRequest($0, id: exchange.id, server: configuration) }
    let count = try await naming("input") { try await promptTokens(of: asked.chat) }
    return Response(json: ["object": "response.input_tokens", "input_tokens": .integer(count)])
  }

  func chatInputTokens(_ request: Request, _ context: any RequestContext, _ exchange: Exchange) async throws -> Response {
    let asked = try await read(request) { [configuration] in try ChatCompletionRequest($0, id: exchange.id, server: configuration) }
    return Response(json: ["object": "response.input_tokens", "input_tokens": .integer(try await promptTokens(of: asked.chat))])
  }

  /// Does `body`, whose errors call the conversation `messages`, for an API that has another name for it.
  private func naming<Result>(_ param: String, _ body: () async throws -> Result) async throws -> Result {
    do {
      return try await body()
    } catch {
      var error = APIError(error, retryAfter: retryAfter(try? model()))
      if error.param == "messages" { error.param = param }
      throw error
    }
  }
}
#endif
