// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import Foundation
import MartletTemplates
import NIOCore
import NIOHTTP1
import NIOPosix

/// A client that does as little as it can while it measures: one thread, a connection for each request, and replies that are written down with the time of
/// each piece and read afterwards. It may share its processors with the server.
///
/// It is made of swift-nio alone: async-http-client would bring BoringSSL, and hand pieces on through a task, which tells a later time than
/// the event loop's.
struct MeasuringClient: Sendable {
  let host: String
  let port: Int
  /// What stands before `/v1`.
  let prefix: String
  let key: String?
  let timeout: Duration
  private let loop = MultiThreadedEventLoopGroup.singleton.next()

  /// - Parameter url: `http://HOST[:PORT][/PREFIX]`, with or without `/v1` behind.
  /// - Throws: ``CommandError`` for another.
  init(url: String, key: String?, timeout: Duration) throws {
    guard let parts = URLComponents(string: url), let host = parts.host, !host.isEmpty, let scheme = parts.scheme?.lowercased() else {
      throw CommandError("--url is \(url); it must be such as http://127.0.0.1:8080")
    }
    if scheme != "http" {
      throw CommandError("--url is \(url); only http:// can be measured. Measure behind whatever ends the TLS")
    }
    self.host = host.hasPrefix("[") ? String(host.dropFirst().dropLast()) : host
    port = parts.port ?? 80
    var prefix = parts.path
    while prefix.hasSuffix("/") { prefix.removeLast() }
    if prefix.hasSuffix("/v1") { prefix.removeLast(3) }
    self.prefix = prefix
    self.key = key
    self.timeout = timeout
  }

  /// Sends a request and writes its reply down. It does not throw: what goes wrong is in the answer.
  ///
  /// - Parameter began: when the request was to be sent; times count from there.
  func send(_ method: HTTPMethod = .POST, _ path: String, _ body: JSON? = nil, began: ContinuousClock.Instant = .now) async
    -> RecordedAnswer
  {
    var headers: HTTPHeaders = ["Host": host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)", "Accept": "*/*"]
    if let key { headers.add(name: "Authorization", value: "Bearer \(key)") }
    let text = body?.text
    if let text {
      headers.add(name: "Content-Type", value: "application/json")
      headers.add(name: "Content-Length", value: "\(text.utf8.count)")
    }
    let head = HTTPRequestHead(version: .http1_1, method: method, uri: prefix + path, headers: headers)
    let promise = loop.makePromise(of: RecordedAnswer.self)
    let limit = TimeAmount.nanoseconds(Int64(timeout.seconds * 1e9))
    do {
      let channel = try await ClientBootstrap(group: loop)
        .connectTimeout(min(limit, .seconds(30)))
        .channelInitializer { channel in
          channel.eventLoop.makeCompletedFuture {
            try channel.pipeline.syncOperations.addHTTPClientHandlers()
            try channel.pipeline.syncOperations.addHandler(AnswerHandler(promise, began: began, limit: limit))
          }
        }.connect(host: host, port: port).get()
      channel.write(HTTPClientRequestPart.head(head), promise: nil)
      if let text { channel.write(HTTPClientRequestPart.body(.byteBuffer(ByteBuffer(string: text))), promise: nil) }
      channel.writeAndFlush(HTTPClientRequestPart.end(nil), promise: nil)
      return try await withTaskCancellationHandler {
        try await promise.futureResult.get()
      } onCancel: {
        channel.close(promise: nil)
      }
    } catch {
      var answer = RecordedAnswer()
      answer.failure = Self.kind(of: error)
      answer.ended = (ContinuousClock.now - began).seconds
      // Where the connection was refused there was nobody to keep it; elsewhere it is kept already.
      promise.succeed(answer)
      return answer
    }
  }

  /// A word for an error, the same for the same kind.
  fileprivate static func kind(of error: any Error) -> String {
    switch error {
    case let error as IOError: String(cString: strerror(error.errnoCode))
    case let error as NIOConnectionError:
      (error.connectionErrors.first?.error as? IOError).map { String(cString: strerror($0.errnoCode)) } ?? "no connection"
    case ChannelError.connectTimeout: "no connection in time"
    default: "\(error)"
    }
  }
}

/// Writes down what comes over one connection.
private final class AnswerHandler: ChannelInboundHandler {
  typealias InboundIn = HTTPClientResponsePart

  private var answer = RecordedAnswer()
  private var isOver = false
  private let promise: EventLoopPromise<RecordedAnswer>
  private let began: ContinuousClock.Instant
  private let limit: TimeAmount
  private var timer: Scheduled<Void>?

  init(_ promise: EventLoopPromise<RecordedAnswer>, began: ContinuousClock.Instant, limit: TimeAmount) {
    self.promise = promise
    self.began = began
    self.limit = limit
  }

  func channelActive(context: ChannelHandlerContext) {
    timer = context.eventLoop.assumeIsolated().scheduleTask(in: limit) { self.end("no end in time", context) }
    context.fireChannelActive()
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    switch unwrapInboundIn(data) {
    case .head(let head):
      answer.status = Int(head.status.code)
      answer.contentType = head.headers.first(name: "content-type") ?? ""
    case .body(let buffer):
      answer.bytes += buffer.readableBytesView
      answer.pieces.append((answer.bytes.count, (ContinuousClock.now - began).seconds))
    case .end: end(nil, context)
    }
  }

  func channelInactive(context: ChannelHandlerContext) { end("the connection was closed before the end", context) }
  func errorCaught(context: ChannelHandlerContext, error: any Error) { end(MeasuringClient.kind(of: error), context) }

  private func end(_ failure: String?, _ context: ChannelHandlerContext) {
    if isOver { return }
    isOver = true
    timer?.cancel()
    answer.failure = failure
    answer.ended = (ContinuousClock.now - began).seconds
    promise.succeed(answer)
    context.close(promise: nil)
  }
}
#endif
