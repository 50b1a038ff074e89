// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import CMartletLibc
public import Hummingbird
import HummingbirdCore
import Logging
public import Martlet
import NIOCore
public import ServiceLifecycle
import Synchronization

/// Runs a server from its first connection to its last: what `martlet serve` is, and a service of swift-service-lifecycle.
///
/// It listens first and loads then, so that a supervisor sees the loading and nobody is refused a connection. At a graceful shutdown it says "not
/// ready" first, goes on serving for ``gracePeriod``, takes no more connections, gives what runs ``drainTimeout`` to finish, and ends
/// what has not with an error event of its own; whatever was written arrives.
///
/// Hummingbird's own shutdown, 2.28, would close the listener at once, wait without end for a stream and cut answers that had not left: measured.
public struct ServerRunner: Service {
  /// What happens in its life.
  public enum Event: Sendable {
    /// It takes connections; the port is nil for a Unix socket.
    case listening(port: Int?)
    case ready(LLM)
    case draining
  }

  public var address: BindAddress
  /// How long new requests are still taken after a shutdown began, so that balancers can see it.
  public var gracePeriod: Duration
  /// How long requests have to finish after that.
  public var drainTimeout: Duration
  public var tls: TLSFiles?
  /// Told what happens, in its order.
  public var onEvent: @Sendable (Event) -> Void

  private let server: ModelServer
  private let load: @Sendable (_ progress: @escaping @Sendable (Double) -> Void) async throws -> LLM
  private let addFurtherRoutes: @Sendable (Router<ServerContext>) -> Void

  /// - Parameters:
  ///   - load: makes the model; told how to say how far it is, 0…1.
  ///   - addFurtherRoutes: routes of your own.
  public init(
    _ server: ModelServer, address: BindAddress = .hostname("127.0.0.1", port: 8080), gracePeriod: Duration = .seconds(0),
    drainTimeout: Duration = .seconds(30), tls: TLSFiles? = nil, onEvent: @escaping @Sendable (Event) -> Void = { _ in },
    addFurtherRoutes: @escaping @Sendable (Router<ServerContext>) -> Void = { _ in },
    load: @escaping @Sendable (_ progress: @escaping @Sendable (Double) -> Void) async throws -> LLM
  ) {
    self.server = server
    self.address = address
    self.gracePeriod = gracePeriod
    self.drainTimeout = drainTimeout
    self.tls = tls
    self.onEvent = onEvent
    self.addFurtherRoutes = addFurtherRoutes
    self.load = load
  }

  /// Serves until the surrounding task is cancelled, which ends everything at once, or is shut down gracefully.
  /// - Throws: what stood in the way: an address that is taken, a model that does not load, an engine that failed.
  public func run() async throws {
    let router = Router(context: ServerContext.self)
    router.add(middleware: NotFoundMiddleware(server))
    server.addRoutes(to: router)
    server.addPage(to: router)
    addFurtherRoutes(router)
    let (listening, listens) = AsyncStream<Int?>.makeStream()
    let channel = HTTP1Channel.Configuration.martlet(
      maxBodyBytes: server.configuration.maxBodyBytes, writeTimeout: server.configuration.writeTimeout)
    // Hummingbird tells of every connection that ends early; what matters is in our own lines.
    let quiet = Logger(label: "http") { _ in SwiftLogNoOpLogHandler() }
    let app = Application(
      router: router, server: try tls?.builder(channel) ?? .http1(configuration: channel),
      configuration: ApplicationConfiguration(address: address, backlog: 4096),
      onServerRunning: { channel in
        listens.yield(channel.localAddress?.port)
        listens.finish()
      }, logger: quiet)
    var configuration = ServiceGroupConfiguration(services: [app], logger: quiet)
    // Nets, not the plan: requests end by themselves when the engine does, but a body that never arrives would hold the exit.
    configuration.maximumGracefulShutdownDuration = drainTimeout + .seconds(5)
    let group = ServiceGroup(configuration: configuration)

    try await withThrowingTaskGroup(of: Step.self) { tasks in
      tasks.addTask {
        // Detached: a group inside another hears of its shutdown at once, and Hummingbird would close the listener before the grace period.
        let serving = Task.detached { try await group.run() }
        do {
          try await withTaskCancellationHandler {
            try await serving.value
          } onCancel: {
            serving.cancel()
          }
          return .closed(nil)
        } catch {
          return .closed(ListenError(error) ?? tls?.error(error) ?? error)
        }
      }
      tasks.addTask {
        for await port in listening { onEvent(.listening(port: port)) }
        let llm = try await load { share in server.setState(.loading(share)) }
        server.setState(.ready(llm))
        onEvent(.ready(llm))
        // Ends with the engine: at the drain, or by a failure, which is thrown.
        try await llm.run()
        return .engineEnded
      }
      tasks.addTask {
        // Returns, or throws, when the shutdown begins.
        try await gracefulShutdown()
        server.beginDraining()
        onEvent(.draining)
        try await Task.sleep(for: gracePeriod)
        await group.triggerGracefulShutdown()
        if case .ready(let llm) = server.state { await llm.shutdown(gracePeriod: drainTimeout) }
        return .drained
      }
      var failure: (any Error)?
      while true {
        do {
          guard let step = try await tasks.next() else { break }
          guard case .closed(let error) = step else { continue }
          if let error, !(error is CancellationError) { failure = failure ?? error }
          break
        } catch {
          failure = failure ?? error
          if !(error is CancellationError) { server.setState(.failed("\(error)")) }
          await group.triggerGracefulShutdown()
          if Task.isCancelled { break }
        }
      }
      tasks.cancelAll()
      if case .ready(let llm) = server.state { await llm.shutdown(gracePeriod: .zero) }
      if let failure { throw failure }
    }
  }

  private enum Step: Sendable {
    /// There are no more connections; why, where that was not wanted.
    case closed((any Error)?)
    case engineEnded, drained
  }
}

/// Why a server cannot listen at its address.
public struct ListenError: Error, Sendable, CustomStringConvertible {
  /// The system's word, such as "address already in use".
  public let reason: String
  public var description: String { "cannot listen at the server's address: \(reason)" }

  /// - Returns: nil for an error of another kind.
  init?(_ error: any Error) {
    switch error {
    case let error as IOError: reason = String(cString: strerror(error.errnoCode)).lowercasedFirst
    case is SocketAddressError: reason = "there is no such address"
    case is SocketAddressError.UnknownHost: reason = "there is no host of that name"
    // NIO keeps the type to itself.
    case let error where "\(type(of: error))" == "UnixDomainSocketPathWrongType": reason = "there is a file in the way that is no socket"
    default: return nil
    }
  }
}

extension String {
  fileprivate var lowercasedFirst: String { prefix(1).lowercased() + dropFirst() }
}
#endif
