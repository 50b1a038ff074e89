// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import Dispatch
import Foundation
import Hummingbird
import Logging
import Martlet
import MartletServer
import MartletTokenizers
import ServiceLifecycle
import Synchronization

extension Serve {
  func serve() async throws {
    let logger = ServeLog.logger(server.logFormat)
    let registry = PrometheusRegistry()
    var configuration = ServerConfiguration(
      modelName: server.servedName ?? model, modelAliases: server.aliases, acceptsAnyModel: server.acceptsAnyModel,
      templateVariables: try template.variables(), apiKeys: try keys(), metricsAreOpen: server.metricsAreOpen,
      corsOrigins: server.corsOrigins, hosts: hosts,
      livePrompts: server.livePrompts, settingNames: PropertyNames.ofServer, logger: logger, metricsFactory: registry)
    if let bytes = server.maxBody?.byteCount { configuration.maxBodyBytes = bytes }
    configuration.maxBodyBytesInFlight = server.maxBodies?.byteCount
    configuration.bodyTimeout = .seconds(server.bodyTimeout)
    configuration.writeTimeout = .seconds(server.writeTimeout)
    if let seconds = server.requestTimeout { configuration.requestTimeout = .seconds(seconds) }
    let names = try PrometheusNames(server.metricsNames)
    let modelName = configuration.modelName ?? model
    configuration.metricsText = { statistics in registry.text(names: names, modelName: modelName, statistics: statistics) }
    let martlet = ModelServer(configuration: configuration)
    var engineConfiguration = try engine.configuration(cache: cache, context: server.context, chatTemplate: try template.template())
    engineConfiguration.pooling = pooling.pooling
    engineConfiguration.maxWaitingRequests = server.maxQueue
    engineConfiguration.maxWaitingTokens = server.maxQueueTokens
    engineConfiguration.metricsFactory = registry
    let final = engineConfiguration
    if let path = server.uds { try UnixSocketPath.check(path) }
    // A name that nobody knows, or a file that is not there, is found out before anybody is told that there is a server.
    _ = try ModelFile.store().locate(model)
    let place = server.uds.map { "unix:\($0)" }
    let (host, port) = (server.host ?? ServeOptions.standardHost, server.port ?? ServeOptions.standardPort)
    let base = (server.tlsCertificate == nil ? "http" : "https") + "://" + (host.contains(":") ? "[\(host)]" : host)
    let address = Mutex(place ?? base)
    let (hasKeys, hosts) = (!configuration.apiKeys.isEmpty, configuration.hosts)
    // For people; where the log is JSON, for programs too.
    let note: @Sendable (String) -> Void = { [format = server.logFormat] text in
      switch format {
      case .text: Terminal.note(text)
      case .json: logger.notice("\(text)")
      }
    }
    let runner = ServerRunner(
      martlet, address: server.uds.map { .unixDomainSocket(path: $0) } ?? .hostname(host, port: port),
      gracePeriod: .seconds(server.grace), drainTimeout: .seconds(server.drainTimeout),
      tls: server.tlsCertificate.flatMap { certificate in server.tlsKey.map { TLSFiles(certificates: certificate, key: $0) } }
    ) { [model] event in
      switch event {
      case .listening(let actual):
        let url = place ?? "\(base):\(actual ?? port)"
        address.withLock { $0 = url }
        // For programs that asked for any port.
        if port == 0, let actual { try? Terminal.write("{\"port\": \(actual)}\n") }
        note("Listening at \(url); loading \(model).")
        if !hasKeys, hosts == nil, place == nil { note("Everybody who reaches it may ask: there is no --api-key.") }
        SystemdNotification.send("STATUS=Loading \(model)")
      case .ready(let llm):
        note("Ready: \(address.withLock { $0 })\(place == nil ? " (the page), /v1 (the API)" : ""). Cache: \(llm.cacheSummary).")
        SystemdNotification.send("READY=1\nSTATUS=Serving \(model)")
      case .draining:
        note("Ending: what runs may finish. Once more ends it at once.")
        SystemdNotification.send("STOPPING=1")
      }
    } load: { [model] progress in
      let path = try await Self.fetched(model, for: martlet, note)
      return try await LLM.load(model: path, configuration: final, progress: progress)
    }
    do { try await run(runner) } catch let error as ListenError {
      throw CommandError("cannot listen at \(place ?? "\(base):\(port)"): \(error.reason)")
    }
  }

  /// The path of a model; one that has to be fetched is, while the server answers that it is loading.
  private static func fetched(_ model: String, for server: ModelServer, _ note: @escaping (String) -> Void) async throws -> String {
    var share = 0.0
    return try await ModelFile.path(of: model, note: note, line: ProgressLine(log: note)) { step in
      if case .downloading(let received, let total) = step { share = Double(received) / Double(max(1, total)) }
      server.setState(.fetching(share))
    }
  }

  /// The signals are taken here: swift-service-lifecycle ignores a second one, and cancels streams before they can say that they end.
  private func run(_ runner: ServerRunner) async throws {
    let silent = Logger(label: "group") { _ in SwiftLogNoOpLogHandler() }
    let group = ServiceGroup(configuration: ServiceGroupConfiguration(services: [runner], logger: silent))
    // On a queue of their own, so that a second one ends the process whatever its tasks do.
    let queue = DispatchQueue(label: "signals")
    let count = Mutex(0)
    let sources = [SIGTERM, SIGINT].map { number in
      signal(number, SIG_IGN)
      let source = DispatchSource.makeSignalSource(signal: number, queue: queue)
      source.setEventHandler {
        let isSecond = count.withLock { count in
          count += 1
          return count > 1
        }
        if isSecond { _exit(1) }
        Task { await group.triggerGracefulShutdown() }
      }
      source.resume()
      return source
    }
    defer { for source in sources { source.cancel() } }
    try await group.run()
  }

  private func keys() throws -> [String] {
    guard let file = server.apiKeyFile else { return server.apiKeys }
    let lines = try ConversationFile.text(file).split(whereSeparator: \.isNewline)
    let keys = lines.map { $0.trimmingCharacters(in: .whitespaces) }.filter { !$0.isEmpty && !$0.hasPrefix("#") }
    if keys.isEmpty { throw CommandError("\(file) has no keys: one a line") }
    return server.apiKeys + keys
  }

  /// A page that a browser shows may reach every port of its own machine, under a name of the page's choice.
  private var hosts: [String]? {
    if !server.allowedHosts.isEmpty { return server.allowedHosts.map { $0.lowercased() } }
    let loopback = ["127.0.0.1", "localhost", "[::1]"]
    return server.uds == nil && (loopback + ["::1"]).contains(server.host ?? ServeOptions.standardHost) ? loopback : nil
  }
}
#endif
