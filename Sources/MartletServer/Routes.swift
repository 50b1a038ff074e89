// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import HTTPTypes
public import Hummingbird
import Martlet
import MartletTemplates

extension ModelServer {
  /// Adds the server's routes. They bring their own checks of keys and hosts, their errors and their log lines, so that they need no middleware and
  /// yours changes nothing in them. Requests end with their clients where the context is a ``ConnectionContext`` and the server is made with
  /// `HTTP1Channel.Configuration.martlet()`.
  public func addRoutes<Context: RequestContext>(to router: some RouterMethods<Context>) {
    // Clients are given addresses with and without the version.
    for prefix in ["v1/", ""] {
      add(prefix + "models", to: router, route: "/v1/models", [(.get, listModels)])
      add(prefix + "models/**", to: router, route: "/v1/models/{id}", [(.get, getModel)])
      add(prefix + "chat/completions", to: router, route: "/v1/chat/completions", [(.post, chatCompletions)])
      add(prefix + "chat/completions/input_tokens", to: router, route: "/v1/chat/completions/input_tokens", [(.post, chatInputTokens)])
      add(prefix + "responses", to: router, route: "/v1/responses", [(.post, responses)])
      add(prefix + "responses/input_tokens", to: router, route: "/v1/responses/input_tokens", [(.post, responsesInputTokens)])
      add(prefix + "messages", to: router, route: "/v1/messages", form: .anthropic, [(.post, messages)])
      add(
        prefix + "messages/count_tokens", to: router, route: "/v1/messages/count_tokens", form: .anthropic, [(.post, countMessageTokens)])
      add(prefix + "completions", to: router, route: "/v1/completions", [(.post, completions)])
      add(prefix + "embeddings", to: router, route: "/v1/embeddings", [(.post, embeddings)])
    }
    add("tokenize", to: router, [(.post, tokenize)])
    add("detokenize", to: router, [(.post, detokenize)])
    add("tokenizer_info", to: router, [(.get, tokenizerInfo)])
    add("health", to: router, needsKey: false, [(.get, health)])
    add("v1/health", to: router, needsKey: false, route: "/health", [(.get, health)])
    add("readyz", to: router, needsKey: false, [(.get, health)])
    add("livez", to: router, needsKey: false, [(.get, isAlive)])
    add("metrics", to: router, needsKey: false, [(.get, metrics)])
    add("openapi.json", to: router, needsKey: false, [(.get, openAPI)])
    add("version", to: router, needsKey: false, [(.get, version)])
    add("martlet/live", to: router, [(.get, live)])
  }

  /// What answers where there is no route, in the form of the others.
  func notFound(_ request: Request, _ context: any RequestContext, _ exchange: Exchange) async throws -> Response {
    throw APIError(
      .notFound, "there is no \(JSON.string(request.uri.path).shown); see /openapi.json for what there is", code: "unknown_url")
  }
}

/// Answers what no route answers.
public struct NotFoundMiddleware<Context: RequestContext>: RouterMiddleware {
  private let server: ModelServer

  public init(_ server: ModelServer) { self.server = server }

  public func handle(
    _ request: Request, context: Context, next: (Request, Context) async throws -> Response
  ) async throws -> Response {
    do {
      return try await next(request, context)
    } catch let error as HTTPError where error.status == .notFound && error.body == nil {
      return await server.answer(request, context, route: "other", needsKey: false, form: .openAI, server.notFound)
    }
  }
}
#endif
