// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// A reader who stops reading. Hummingbird, 2.28, waits for one without end, and an answer of some thousand tokens meets no back-pressure at all, since
// the kernel takes megabytes of it (measured). So the kernel is what must be asked whether anybody takes what it holds.

#if HTTPServer
import NIOCore

/// Ends a connection whose other end takes nothing for a while although there is something for it.
///
/// Over TCP the kernel does that: `TCP_USER_TIMEOUT` (tcp(7), RFC 5482) ends a connection whose data was not acknowledged for so long, or could not
/// be sent because the reader's window is full. The reader's own buffer, tens of kilobytes, fills first; a reader who takes a little now and then opens
/// its window again and stays. A Unix socket has no such option, and its writes are watched instead: the kernel holds about 200 kB of them.
final class WriteDeadline: ChannelInboundHandler, RemovableChannelHandler {
  typealias InboundIn = NIOAny
  typealias InboundOut = NIOAny

  /// `TCP_USER_TIMEOUT`, which has this number on every architecture of Linux. Its unit is the millisecond.
  private static let userTimeout = NIOBSDSocket.Option(rawValue: 18)

  private let timeout: TimeAmount?

  /// - Parameter timeout: nil waits without end.
  init(_ timeout: TimeAmount?) { self.timeout = timeout }

  func handlerAdded(context: ChannelHandlerContext) {
    guard let timeout else { return }
    do {
      let milliseconds = min(max(1, timeout.nanoseconds / 1_000_000), Int64(CInt.max))
      guard let options = context.channel.syncOptions else { return }
      try options.setOption(.tcpOption(Self.userTimeout), value: .init(milliseconds))
    } catch {
      // Next to the socket, behind whatever makes bytes of an answer.
      try? context.pipeline.syncOperations.addHandler(WriteWatcher(timeout), position: .first)
    }
  }
}

/// Ends a connection of a Unix socket whose reader takes nothing for a while although there is something to take.
///
/// The kernel takes more of what is written only once three quarters of what it holds are read, so what it holds is looked at too.
private final class WriteWatcher: ChannelOutboundHandler, RemovableChannelHandler {
  typealias OutboundIn = IOData
  typealias OutboundOut = IOData

  /// What `SO_MEMINFO` says of a socket; the third is what it holds of what was written (linux/sock_diag.h).
  private typealias Memory = (UInt32, UInt32, UInt32, UInt32, UInt32, UInt32, UInt32, UInt32, UInt32)
  /// `SO_MEMINFO`.
  private static let memory = NIOBSDSocket.Option(rawValue: 55)

  private let timeout: TimeAmount
  /// Bytes that were handed on.
  private var written = 0
  /// At the last look: bytes that the kernel had taken, and what it held.
  private var (taken, held) = (0, UInt32.max)
  /// When the last look was that found something taken since the one before.
  private var lastTaken = NIODeadline.now()
  private var nextLook: Scheduled<Void>?

  init(_ timeout: TimeAmount) { self.timeout = timeout }

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
    nextLook = nil
    let buffered = (try? context.channel.syncOptions?.getOption(.bufferedWritableBytes)) ?? 0
    // The kernel has it all; the next write looks again.
    if buffered == 0 { return }
    guard let socket = context.channel as? any SocketOptionProvider else { return }
    let memory: EventLoopFuture<Memory> = socket.unsafeGetSocketOption(level: .socket, name: Self.memory)
    memory.assumeIsolated().whenComplete { result in
      let held = (try? result.get())?.2 ?? 0
      if self.written - buffered > self.taken || held < self.held { self.lastTaken = .now() }
      (self.taken, self.held) = (self.written - buffered, held)
      if NIODeadline.now() - self.lastTaken >= self.timeout {
        context.close(promise: nil)
      } else {
        self.planLook(context)
      }
    }
  }
}
#endif
