// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// A reader who stops reading. Hummingbird, 2.28, waits for one without end, and an answer of some thousand tokens meets no back-pressure at all, since
// the kernel takes megabytes of it (measured). So the kernel is what must be asked whether anybody takes what it holds.

#if HTTPServer
import NIOCore

/// Ends a connection whose other end takes nothing for a while although there is something for it.
final class WriteDeadline: ChannelInboundHandler, RemovableChannelHandler {
  typealias InboundIn = NIOAny
  typealias InboundOut = NIOAny

  private let timeout: TimeAmount?

  /// - Parameter timeout: nil waits without end.
  init(_ timeout: TimeAmount?) { self.timeout = timeout }

  func handlerAdded(context: ChannelHandlerContext) {
    guard let timeout, let socket = context.channel as? any SocketOptionProvider else { return }
    let kind: WriteWatcher.Kind = if case .unixDomainSocket = context.channel.localAddress { .unix } else { .tcp }
    // Next to the socket, behind whatever makes bytes of an answer.
    try? context.pipeline.syncOperations.addHandler(WriteWatcher(socket, kind, timeout), position: .first)
  }
}

/// Looks now and then at what the kernel holds of what was written.
///
/// `TCP_USER_TIMEOUT` would seem to do it for TCP, but it counts from the first probe of a full window and is not put back by what is acknowledged
/// while the window stays smaller than the next segment: a reader of 80 kB/s with a receive buffer of 16 kB was ended by it (Linux 6.18).
private final class WriteWatcher: ChannelOutboundHandler, RemovableChannelHandler {
  typealias OutboundIn = IOData
  typealias OutboundOut = IOData

  enum Kind { case tcp, unix }

  /// What has come of the bytes that were written.
  private struct Progress: Equatable {
    /// Grows as they are taken.
    var taken: UInt64
    /// Bytes that the kernel holds; falls as they are taken.
    var held: UInt32
    /// Whether there are any that were not.
    var isWaiting: Bool
  }

  /// The first 152 bytes of Linux's `struct tcp_info`: acknowledged bytes are its word 15 (since 4.1), bytes not sent yet the lower half of word 18
  /// (since 4.6), packets that were sent and not acknowledged the lower half of word 3.
  private typealias TCPInfo = InlineArray<19, UInt64>
  private static let tcpInfo = NIOBSDSocket.Option(rawValue: 11)
  /// What `SO_MEMINFO` says of a socket; the third is what it holds of what was written (linux/sock_diag.h).
  private typealias Memory = InlineArray<9, UInt32>
  private static let memory = NIOBSDSocket.Option(rawValue: 55)

  private let socket: any SocketOptionProvider
  private let kind: Kind
  private let timeout: TimeAmount
  /// Bytes that were handed on.
  private var written = 0
  private var last = Progress(taken: 0, held: .max, isWaiting: false)
  /// When the last look was that found something taken since the one before.
  private var lastTaken = NIODeadline.now()
  private var nextLook: Scheduled<Void>?

  init(_ socket: any SocketOptionProvider, _ kind: Kind, _ timeout: TimeAmount) {
    (self.socket, self.kind, self.timeout) = (socket, kind, timeout)
  }

  func handlerRemoved(context: ChannelHandlerContext) { nextLook?.cancel() }

  func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
    if nextLook == nil {
      lastTaken = .now()
      planLook(context)
    }
    written += unwrapOutboundIn(data).readableBytes
    context.write(data, promise: promise)
  }

  private func planLook(_ context: ChannelHandlerContext) {
    let loop = context.eventLoop
    let (watcher, place) = (NIOLoopBound(self, eventLoop: loop), NIOLoopBound(context, eventLoop: loop))
    // A reader who stops between two looks is given a fourth more at most.
    nextLook = loop.scheduleTask(in: .nanoseconds(max(1_000_000, timeout.nanoseconds / 4))) { watcher.value.look(place.value) }
  }

  private func look(_ context: ChannelHandlerContext) {
    progress(context).assumeIsolated().whenSuccess { progress in
      self.nextLook = nil
      // The next write looks again.
      guard progress.isWaiting else { return }
      if progress.taken > self.last.taken || progress.held < self.last.held { self.lastTaken = .now() }
      self.last = progress
      if NIODeadline.now() - self.lastTaken < self.timeout { return self.planLook(context) }
      // On, with no time: a reset. The kernel would go on offering what it holds, some megabytes.
      let lingering = self.socket.unsafeSetSocketOption(level: .socket, name: .so_linger, value: (CInt(1), CInt(0)))
      lingering.assumeIsolated().whenComplete { _ in context.close(promise: nil) }
    }
  }

  private func progress(_ context: ChannelHandlerContext) -> EventLoopFuture<Progress> {
    // What the kernel would not take.
    let buffered = (try? context.channel.syncOptions?.getOption(.bufferedWritableBytes)) ?? 0
    switch kind {
    case .tcp:
      let info: EventLoopFuture<TCPInfo> = socket.unsafeGetSocketOption(level: .tcp, name: Self.tcpInfo)
      return info.map { info in
        let (sent, unsent) = (UInt32(truncatingIfNeeded: info[3]), UInt32(truncatingIfNeeded: info[18]))
        return Progress(taken: info[15], held: .max, isWaiting: buffered > 0 || sent > 0 || unsent > 0)
      }
    case .unix:
      // The kernel takes more of what is written only once three quarters of what it holds, about 200 kB, are read; so what it holds counts too.
      let handedOn = UInt64(written - buffered)
      let memory: EventLoopFuture<Memory> = socket.unsafeGetSocketOption(level: .socket, name: Self.memory)
      return memory.map { Progress(taken: handedOn, held: $0[2], isWaiting: buffered > 0) }
    }
  }
}
#endif
