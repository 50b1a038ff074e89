// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// What a connection must know that Hummingbird's own channel does not tell a handler: measured with version 2.28.1.

#if HTTPServer
import HTTPTypes
public import Hummingbird
public import HummingbirdCore
public import NIOCore
import NIOHTTPTypes
import Synchronization

/// A request context that knows its connection, so that a client who goes away ends what runs for it. A context of your own may conform; where
/// it does not, an answer that streams ends at the second write after its client has gone, and one that does not stream runs to its end.
public protocol ConnectionContext: RequestContext {
  /// The connection that the request came over.
  var channel: any Channel { get }
}

/// The context of `martlet serve`.
public struct ServerContext: ConnectionContext {
  public var coreContext: CoreRequestContextStorage
  public let channel: any Channel

  public init(source: ApplicationRequestContextSource) {
    coreContext = .init(source: source)
    channel = source.channel
  }
}

/// Tells when a client has gone. A FIN comes as an event, since connections may be half closed; a reset and a broken TLS session come as errors,
/// before the channel becomes inactive.
///
/// It remembers: whoever asks after the client has gone is told at once.
final class DisconnectWatcher: ChannelInboundHandler, RemovableChannelHandler, Sendable {
  typealias InboundIn = HTTPRequestPart
  typealias InboundOut = HTTPRequestPart

  private struct State {
    var isGone = false
    var callbacks: [Int: @Sendable () -> Void] = [:]
    var next = 0
  }
  private let state = Mutex(State())

  /// Calls `callback` once, when the client goes, unless it is removed before.
  func add(_ callback: @escaping @Sendable () -> Void) -> Int {
    let (number, isGone) = state.withLock { state in
      state.next += 1
      if !state.isGone { state.callbacks[state.next] = callback }
      return (state.next, state.isGone)
    }
    if isGone { callback() }
    return number
  }

  func remove(_ number: Int) { state.withLock { _ = $0.callbacks.removeValue(forKey: number) } }

  /// - Returns: whether somebody was still being answered.
  private func fire() -> Bool {
    let callbacks = state.withLock { state in
      state.isGone = true
      defer { state.callbacks = [:] }
      return Array(state.callbacks.values)
    }
    for callback in callbacks { callback() }
    return !callbacks.isEmpty
  }

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    // A write that waits for a reader who will not read again must end too.
    if event as? ChannelEvent == .inputClosed, fire() { context.close(promise: nil) }
    context.fireUserInboundEventTriggered(event)
  }

  func channelInactive(context: ChannelHandlerContext) {
    _ = fire()
    context.fireChannelInactive()
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    _ = fire()
    context.fireErrorCaught(error)
  }
}

/// Answers `Expect: 100-continue`, without which curl waits a second before it sends a large body.
final class ContinueHandler: ChannelInboundHandler, RemovableChannelHandler {
  typealias InboundIn = HTTPRequestPart
  typealias InboundOut = HTTPRequestPart
  typealias OutboundOut = HTTPResponsePart

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    if case .head(let head) = unwrapInboundIn(data), head.headerFields[.expect]?.lowercased() == "100-continue" {
      context.writeAndFlush(wrapOutboundOut(.head(HTTPResponse(status: .continue))), promise: nil)
    }
    context.fireChannelRead(data)
  }
}

/// Ends a connection that goes on sending a body which is far over the limit: what nobody reads is otherwise read and thrown away without end.
final class BodyLimitHandler: ChannelInboundHandler, RemovableChannelHandler {
  typealias InboundIn = HTTPRequestPart
  typealias InboundOut = HTTPRequestPart

  private let limit: Int
  private var count = 0

  init(limit: Int) { self.limit = limit }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    switch unwrapInboundIn(data) {
    case .head: count = 0
    case .body(let buffer): count += buffer.readableBytes
    case .end: break
    }
    if count > limit {
      context.close(promise: nil)
    } else {
      context.fireChannelRead(data)
    }
  }
}

/// Closes a connection only when the last answer has left. Hummingbird closes it as soon as an answer is written where it drains or was idle, and what
/// the kernel had not taken yet is lost.
final class FlushBeforeClose: ChannelOutboundHandler, RemovableChannelHandler {
  typealias OutboundIn = HTTPResponsePart
  typealias OutboundOut = HTTPResponsePart

  /// For a reader who does not read.
  private static let longest = TimeAmount.seconds(30)
  private var end: EventLoopFuture<Void>?

  func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
    guard case .end = unwrapOutboundIn(data) else { return context.write(data, promise: promise) }
    let promise = promise ?? context.eventLoop.makePromise()
    end = promise.futureResult
    context.write(data, promise: promise)
  }

  func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
    guard mode == .all, let end else { return context.close(mode: mode, promise: promise) }
    self.end = nil
    let loop = context.eventLoop
    let bound = NIOLoopBound(context, eventLoop: loop)
    let once = loop.makePromise(of: Void.self)
    let timer = loop.scheduleTask(in: Self.longest) { once.succeed(()) }
    end.whenComplete { _ in
      timer.cancel()
      once.succeed(())
    }
    once.futureResult.whenComplete { _ in bound.value.close(mode: mode, promise: promise) }
  }
}

extension HTTP1Channel.Configuration {
  /// What a connection of `martlet serve` is made of. For an application of your own: `Application(router: router, server: .http1(configuration:
  /// .martlet()))`.
  ///
  /// - Parameters:
  ///   - maxBodyBytes: as ``ServerConfiguration/maxBodyBytes``; a connection that sends four times as much is closed.
  ///   - idleTimeout: how long a connection may be silent while nothing is answered on it.
  ///   - writeTimeout: as ``ServerConfiguration/writeTimeout``.
  public static func martlet(
    maxBodyBytes: Int = 32 << 20, idleTimeout: TimeAmount = .seconds(75), writeTimeout: Duration? = .seconds(60)
  ) -> HTTP1Channel.Configuration {
    let writeTimeout = writeTimeout.map { TimeAmount(min(max($0, .milliseconds(1)), .seconds(86400))) }
    return HTTP1Channel.Configuration(
      additionalChannelHandlers: [
        WriteDeadline(writeTimeout), FlushBeforeClose(), BodyLimitHandler(limit: 4 * min(max(0, maxBodyBytes), 1 << 30)), ContinueHandler(),
        DisconnectWatcher(),
      ],
      idleTimeout: idleTimeout)
  }
}

extension RequestContext {
  /// Of the request's connection; nil where the context does not know it.
  func disconnectWatcher() async -> DisconnectWatcher? {
    guard let channel = (self as? any ConnectionContext)?.channel else { return nil }
    return try? await channel.eventLoop.submit {
      try channel.pipeline.syncOperations.handler(type: DisconnectWatcher.self)
    }.get()
  }
}
#endif
