// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import CMartletLibc
import HTTPTypes
import Hummingbird
import Logging
import Martlet
import MartletFormats
package import MartletTemplates
import NIOCore
import NIOPosix
import Synchronization
import Tracing

/// One request and what becomes of it: its name, its client's connection, and the one log line at its end.
final class Exchange: Sendable {
  /// What the log line tells of the answers.
  struct Numbers: Sendable {
    var promptTokens = 0
    var cachedTokens = 0
    var completionTokens = 0
    var firstToken: Duration?
    var finish: String?
    var isStream = false
    /// The types of tools that were offered and that the model did not see: fixed words.
    var leftOutTools: [String] = []
    /// The code of what went wrong, and the field; no text of the request.
    var error: String?
  }

  private struct Book {
    var numbers = Numbers()
    var isClosed = false
  }

  let id: String
  let route: String
  let watcher: DisconnectWatcher?
  private let began = ContinuousClock.now
  private let server: ModelServer
  private let span: any Span
  private let keyName: String?
  private let book = Mutex(Book())

  init(id: String, route: String, server: ModelServer, watcher: DisconnectWatcher?, keyName: String?, span: any Span) {
    self.id = id
    self.route = route
    self.server = server
    self.watcher = watcher
    self.keyName = keyName
    self.span = span
    server.meters.began(route)
  }

  /// One that came over no connection.
  convenience init(inProcess route: String, server: ModelServer) {
    self.init(
      id: "req_" + RandomName.make(), route: route, server: server, watcher: nil, keyName: nil,
      span: startSpan(route, context: ServiceContext.current ?? .topLevel, ofKind: .internal))
  }

  var leftOutTools: [String] { book.withLock { $0.numbers.leftOutTools } }

  func note(_ change: (inout Numbers) -> Void) { book.withLock { change(&$0.numbers) } }

  /// The first token of the answer is there.
  func noteFirstToken() {
    let now = ContinuousClock.now
    book.withLock { if $0.numbers.firstToken == nil { $0.numbers.firstToken = now - began } }
  }

  /// A client may go before the head of an answer is sent; then nobody writes its body.
  deinit { end(status: 499) }

  /// Books the exchange as failed.
  func end(_ error: APIError) {
    note { $0.error = [error.code ?? error.type, error.param].compactMap(\.self).joined(separator: " ") }
    end(status: Int(error.status.code))
  }

  /// Books the exchange, once; what comes later says nothing more.
  func end(status: Int) {
    let time = ContinuousClock.now - began
    let numbers: Numbers? = book.withLock { book in
      if book.isClosed { return nil }
      book.isClosed = true
      return book.numbers
    }
    guard let numbers else { return }
    server.meters.ended(route, status: status, numbers, time: time)
    span.attributes["http.response.status_code"] = status
    if numbers.completionTokens > 0 {
      span.attributes["gen_ai.usage.prompt_tokens"] = numbers.promptTokens
      span.attributes["gen_ai.usage.completion_tokens"] = numbers.completionTokens
      if let first = numbers.firstToken { span.attributes["gen_ai.latency.time_to_first_token"] = first / .seconds(1) }
      span.attributes["gen_ai.latency.e2e"] = time / .seconds(1)
    }
    span.end()
    guard let logger = server.configuration.logger, !Self.quiet.contains(route) else { return }
    var metadata: Logger.Metadata = [
      "id": "\(id)", "route": "\(route)", "status": "\(status)", "total_ms": "\(time.milliseconds)",
    ]
    if let keyName { metadata["key"] = "\(keyName)" }
    if numbers.promptTokens > 0 {
      metadata["prompt_tokens"] = "\(numbers.promptTokens)"
      metadata["cached_tokens"] = "\(numbers.cachedTokens)"
      metadata["completion_tokens"] = "\(numbers.completionTokens)"
    }
    if let first = numbers.firstToken { metadata["ttft_ms"] = "\(first.milliseconds)" }
    if let finish = numbers.finish { metadata["finish"] = "\(finish)" }
    if let error = numbers.error { metadata["error"] = "\(error)" }
    if numbers.isStream { metadata["stream"] = "true" }
    if !numbers.leftOutTools.isEmpty { metadata["left_out"] = "\(numbers.leftOutTools.joined(separator: ","))" }
    // A server that is full, and one that has no such thing, are in order.
    logger.log(level: status >= 500 && status != 503 && status != 501 ? .error : .info, "request", metadata: metadata)
  }

  /// What is asked every few seconds by machines.
  private static let quiet: Set = ["/health", "/livez", "/readyz", "/metrics"]

  /// Does `body` so that the client's going cancels `generations`.
  func watching<Result>(_ generations: [Generation], _ body: () async throws -> Result) async throws -> Result {
    let number = watcher?.add { for generation in generations { generation.cancel() } }
    defer { if let number { watcher?.remove(number) } }
    return try await body()
  }

  /// Work that takes a processor for longer than a handler may: the pool that handlers run on has as many threads as there are processors.
  static func offload<Result: Sendable>(_ work: @escaping @Sendable () throws -> Result) async throws -> Result {
    try await NIOThreadPool.singleton.runIfActive(work)
  }
}

extension Duration {
  var milliseconds: String {
    let tenths = Int((self / .milliseconds(0.1)).rounded())
    return "\(tenths / 10).\(tenths % 10)"
  }
}

/// Seconds since 1970.
enum UnixTime {
  static var now: Int { time(nil) }
}

// MARK: - Routes

extension ModelServer {
  /// What a route does.
  typealias Handler = @Sendable (Request, any RequestContext, Exchange) async throws -> Response

  /// Adds a path with what its methods do: HEAD where there is GET, OPTIONS for other origins, and 405 for the rest.
  func add<Context: RequestContext>(
    _ path: String, to router: some RouterMethods<Context>, needsKey: Bool = true, route: String? = nil, form: ErrorForm = .openAI,
    _ handlers: [(HTTPRequest.Method, Handler)]
  ) {
    let route = route ?? "/" + path
    var known = handlers
    if let get = handlers.first(where: { $0.0 == .get }) { known.append((.head, get.1)) }
    let allowed = (known.map(\.0.rawValue) + ["OPTIONS"]).joined(separator: ", ")
    for method: HTTPRequest.Method in [.get, .head, .post, .put, .patch, .delete, .options, .trace, .init("QUERY")!] {
      let handler = known.first { $0.0 == method }?.1
      router.on(RouterPath(path), method: method) { [self] request, context in
        await answer(request, context, route: route, needsKey: needsKey && method != .options, form: form) { request, context, exchange in
          if method == .options { return Response(status: .noContent, headers: [.allow: allowed]) }
          guard let handler else {
            throw APIError(
              .methodNotAllowed, "\(route) takes \(allowed), and not \(method.rawValue)", code: "method_not_allowed",
              headers: [.allow: allowed])
          }
          let response = try await handler(request, context, exchange)
          return method == .head ? response.createHeadResponse() : response
        }
      }
    }
  }

  /// One request from its head to its answer: who it is from, what it may, what went wrong, in the form that its clients read.
  func answer(
    _ request: Request, _ context: some RequestContext, route: String, needsKey: Bool, form: ErrorForm, _ handler: Handler
  ) async -> Response {
    let id = Self.requestID(request.headers)
    var serviceContext = ServiceContext.current ?? .topLevel
    InstrumentationSystem.instrument.extract(request.headers, into: &serviceContext, using: HeaderExtractor())
    let span = startSpan("\(request.method.rawValue) \(route)", context: serviceContext, ofKind: .server)
    span.attributes["http.route"] = route
    let key = Self.key(in: request.headers)
    let exchange = Exchange(
      id: id, route: route, server: self, watcher: await context.disconnectWatcher(),
      keyName: configuration.apiKeys.isEmpty ? nil : key.map(Self.name(ofKey:)), span: span)
    var response: Response
    do {
      try checkHost(request)
      if needsKey { try checkKey(key) }
      response = try await handler(request, context, exchange)
    } catch {
      let error = inSettings(APIError(error, retryAfter: retryAfter(try? model())))
      if error.status.code == 500 {
        configuration.logger?.error("a request failed", metadata: ["id": "\(id)", "route": "\(route)", "error": "\(error)"])
      }
      exchange.end(error)
      response = form.response(error)
      if request.method == .head { response = response.createHeadResponse() }
    }
    response.headers[.requestID] = id
    response.headers[.anthropicRequestID] = id
    let leftOut = exchange.leftOutTools
    if !leftOut.isEmpty { response.headers[.leftOutTools] = leftOut.joined(separator: ", ") }
    addCORS(to: &response, request)
    // A stream is booked by its writer, at its end.
    if request.method == .head || !(response.headers[.contentType]?.hasPrefix("text/event-stream") ?? false) {
      exchange.end(status: Int(response.status.code))
    }
    return response
  }

  /// Does `body` as a request that came over no connection, and books how it ended.
  func inProcess<Reply>(_ route: String, _ body: (Exchange) async throws -> Reply) async throws -> Reply {
    let exchange = Exchange(inProcess: route, server: self)
    do {
      let reply = try await body(exchange)
      exchange.end(status: 200)
      return reply
    } catch {
      exchange.end(APIError(error, retryAfter: retryAfter(try? model())))
      throw error
    }
  }

  /// An error whose message calls settings what whoever runs the server calls them.
  private func inSettings(_ error: APIError) -> APIError {
    // What is named in the words of a form is the client's own.
    if error.code == APIError.invalidForm { return error }
    var error = error
    error.message = error.message.replacingNames(configuration.settingNames)
    return error
  }

  /// The client's name for its request where it is short and clean, else one of ours.
  private static func requestID(_ headers: HTTPFields) -> String {
    if let id = headers[.requestID], (1...64).contains(id.utf8.count),
      id.utf8.allSatisfy({
        (0x30...0x39).contains($0) || (0x41...0x5A).contains($0) || (0x61...0x7A).contains($0) || $0 == 0x2D || $0 == 0x5F
      })
    {
      return id
    }
    return "req_" + RandomName.make()
  }
}

/// The form in which an API writes its errors.
package enum ErrorForm: Sendable {
  case openAI
  /// `{"type": "error", "error": {"type", "message"}}`
  case anthropic

  package func json(_ error: APIError) -> JSON {
    switch self {
    case .openAI: return error.json
    case .anthropic:
      let type =
        switch error.status.code {
        case 413: "request_too_large"
        case 503: "overloaded_error"
        case 500...: "api_error"
        default: error.type
        }
      var message = error.message
      if let tokens = error.further["n_prompt_tokens"]?.wholeNumber, let context = error.further["n_ctx"]?.wholeNumber {
        // Anthropic's words, by which clients know that a conversation must be shortened.
        message = "prompt is too long: \(tokens) tokens > \(context) maximum. " + message
      }
      return ["type": "error", "error": ["type": .string(type), "message": .string(message)]]
    }
  }

  func response(_ error: APIError) -> Response {
    var response = Response(json: json(error), status: error.status)
    for field in error.headers { response.headers[field.name] = field.value }
    return response
  }
}

extension Response {
  init(json: JSON, status: HTTPResponse.Status = .ok) {
    self.init(status: status, headers: [.contentType: "application/json"], body: ResponseBody(byteBuffer: ByteBuffer(string: json.text)))
  }

  init(text: String, type: String = "text/plain; charset=utf-8") {
    self.init(status: .ok, headers: [.contentType: type], body: ResponseBody(byteBuffer: ByteBuffer(string: text)))
  }
}

/// Names that nobody has had before.
enum RandomName {
  private static let alphabet = Array("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")

  static func make(_ count: Int = 24) -> String {
    var generator = SystemRandomNumberGenerator()
    return String((0..<count).map { _ in alphabet[Int.random(in: 0..<alphabet.count, using: &generator)] })
  }
}

/// `traceparent` and its like, for whichever tracer the program has.
private struct HeaderExtractor: Extractor {
  func extract(key: String, from headers: HTTPFields) -> String? { HTTPField.Name(key).flatMap { headers[$0] } }
}
#endif
