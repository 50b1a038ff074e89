// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Foundation
import Martlet
import MartletTokenizers

#if HTTPServer
import Hummingbird
import Logging
import MartletServer
import ServiceLifecycle
#endif

/// `martlet serve`, where it was built in.
struct Serve: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Serves a model over HTTP, as OpenAI's API has it, with a page to chat at.",
    discussion: """
      An option may also stand in the environment, --api-key as MARTLET_SERVE_API_KEY, or in a JSON file that --config names: {"port": 8080, \
      "api-key": ["…"]}; several keys in one variable stand on lines of their own. The command line goes before the environment, and that before the file; a name or a value that is wrong \
      is an error wherever it stands.

      SIGTERM or Ctrl-C ends it in order: what runs may finish within --drain-timeout. A second one ends it at once.
      """)

  @Argument(help: ArgumentHelp("Name or path (default: \(KnownModel.default.name)).", valueName: "model"))
  var argument: String?

  @Option(name: .customLong("model"), help: ArgumentHelp("The same, for the environment and the file.", valueName: "model"))
  var option: String?

  var model: String { argument ?? option ?? KnownModel.default.name }

  @OptionGroup(title: "Server options") var server: ServeOptions
  @OptionGroup(title: "Chat template options") var template: ChatTemplateOptions
  @OptionGroup(title: "Engine options") var engine: EngineOptions
  @OptionGroup var pooling: PoolingOption
  @OptionGroup(title: "Cache options") var cache: CacheOptions

  func validate() throws {
    if argument != nil, option != nil { throw ValidationError("the model is given twice: as an argument and as --model") }
  }

  func run() async throws {
    #if HTTPServer
    let all = try ServeSettings.merged(
      arguments: Array(CommandLine.arguments.dropFirst(2)), environment: ProcessInfo.processInfo.environment)
    let command = try Serve.parse(all)
    try await command.serve()
    #else
    throw CommandError(
      """
      this build has no server. Build one with it:

        swift run -c release --traits HTTPServer martlet serve
      """)
    #endif
  }
}

/// Where and to whom a model is served.
struct ServeOptions: ParsableArguments {
  static let standardHost = "127.0.0.1"
  static let standardPort = 8080

  @Option(
    help: ArgumentHelp("The address to listen at; 0.0.0.0 or :: is all (default: \(ServeOptions.standardHost)).", valueName: "address"))
  var host: String?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("The port; 0 takes a free one and says which (default: \(ServeOptions.standardPort)).", valueName: "n"))
  var port: Int?

  @Option(help: ArgumentHelp("Listen at a Unix socket instead.", valueName: "path"))
  var uds: String?

  @Option(
    name: .customLong("served-name"), help: ArgumentHelp("What the model is called (default: what you called it here).", valueName: "name"))
  var servedName: String?

  @Option(name: .customLong("alias"), help: ArgumentHelp("A further name of the model; may be given again.", valueName: "name"))
  var aliases: [String] = []

  @Flag(name: .customLong("accept-any-model"), help: "Take any name for the model.")
  var acceptsAnyModel = false

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("The most tokens of one request, prompt and answer (default: the model's, at most 8192).", valueName: "n"))
  var context: Int?

  @Option(name: .customLong("api-key"), help: ArgumentHelp("A key that requests must bring; may be given again.", valueName: "key"))
  var apiKeys: [String] = []

  @Option(
    name: .customLong("api-key-file"), help: ArgumentHelp("A file with keys, one a line.", valueName: "file"), completion: .file())
  var apiKeyFile: String?

  @Flag(name: .customLong("open-metrics"), help: "Let /metrics be read without a key.")
  var metricsAreOpen = false

  @Option(
    name: .customLong("cors-origin"),
    help: ArgumentHelp("An origin whose pages may call the server; * is all; may be given again.", valueName: "origin"))
  var corsOrigins: [String] = []

  @Option(
    name: .customLong("allowed-host"),
    help: ArgumentHelp(
      "A name by which the server may be called; may be given again (default: at a loopback address its own names, else any).",
      valueName: "name"))
  var allowedHosts: [String] = []

  @Option(
    name: .customLong("max-queue"), parsing: .unconditional,
    help: ArgumentHelp("The most requests that may wait; more are refused with 503.", valueName: "n"))
  var maxQueue = 512

  @Option(
    name: .customLong("max-queue-tokens"), parsing: .unconditional,
    help: ArgumentHelp("The most tokens that the prompts of waiting requests may have.", valueName: "n"))
  var maxQueueTokens: Int?

  @Option(
    name: .customLong("max-body"), parsing: .unconditional,
    help: ArgumentHelp("The largest body; K, M and G are powers of 1024 (default: 32M).", valueName: "bytes"))
  var maxBody: ByteCountArgument?

  @Option(
    name: .customLong("max-bodies"), parsing: .unconditional,
    help: ArgumentHelp(
      "The most bytes of bodies that are read at once; more are refused with 503. Each takes 3 to 23 bytes of memory meanwhile (default: twice --max-body).",
      valueName: "bytes"))
  var maxBodies: ByteCountArgument?

  @Option(
    name: .customLong("body-timeout"), parsing: .unconditional,
    help: ArgumentHelp("Seconds that the body of a request may take to arrive.", valueName: "seconds"))
  var bodyTimeout = 60.0

  @Option(
    name: .customLong("write-timeout"), parsing: .unconditional,
    help: ArgumentHelp("Seconds that a reader may take nothing of its answer before its connection ends.", valueName: "seconds"))
  var writeTimeout = 60.0

  @Option(
    name: .customLong("request-timeout"), parsing: .unconditional,
    help: ArgumentHelp("End an answer this many seconds after it was asked for, with what there is.", valueName: "seconds"))
  var requestTimeout: Double?

  @Option(
    name: .customLong("grace"), parsing: .unconditional,
    help: ArgumentHelp("Seconds to go on as usual after SIGTERM, not ready.", valueName: "seconds"))
  var grace = 0.0

  @Option(
    name: .customLong("drain-timeout"), parsing: .unconditional,
    help: ArgumentHelp("Seconds that requests have to finish after that.", valueName: "seconds"))
  var drainTimeout = 30.0

  @Option(name: .customLong("tls-certificate"), help: ArgumentHelp("The certificate's chain, PEM.", valueName: "file"), completion: .file())
  var tlsCertificate: String?

  @Option(name: .customLong("tls-key"), help: ArgumentHelp("The certificate's key, PEM.", valueName: "file"), completion: .file())
  var tlsKey: String?

  @Flag(name: .customLong("live-prompts"), help: "Let the live view show the beginnings of prompts.")
  var livePrompts = false

  @Option(name: .customLong("log-format"), help: ArgumentHelp("text or json.", valueName: "format"))
  var logFormat = ServeLogFormat.text

  @Option(
    name: .customLong("metrics-names"),
    help: ArgumentHelp("Whose names /metrics has: martlet, vllm, llamacpp, trtllm, with commas.", valueName: "names"))
  var metricsNames = "martlet,vllm"

  @Option(help: ArgumentHelp("A JSON file with options.", valueName: "file"), completion: .file())
  var config: String?

  func validate() throws {
    if let other = [("--port", port != nil), ("--host", host != nil)].first(where: { $0.1 })?.0, uds != nil {
      throw ValidationError("--uds and \(other) do not go together: a server listens at a socket or at a port")
    }
    if let port, !(0...65535).contains(port) { throw ValidationError("--port is \(port); it must be from 0 to 65535") }
    try validatePositive(context, "--context")
    try validatePositive(maxQueue, "--max-queue")
    try validatePositive(maxQueueTokens, "--max-queue-tokens")
    if let requestTimeout, !(requestTimeout > 0 && requestTimeout <= SamplingOptions.longestTimeout) {
      throw ValidationError("--request-timeout is \(requestTimeout); it must be above 0 and at most 1e9")
    }
    for (name, value) in [("--body-timeout", bodyTimeout), ("--write-timeout", writeTimeout)] where !(value > 0 && value <= 86400) {
      throw ValidationError("\(name) is \(value); it must be above 0 and at most 86400 seconds")
    }
    for (name, value) in [("--grace", grace), ("--drain-timeout", drainTimeout)] where !(0...86400).contains(value) {
      throw ValidationError("\(name) is \(value); it must be from 0 to 86400 seconds")
    }
    if (tlsCertificate == nil) != (tlsKey == nil) { throw ValidationError("--tls-certificate and --tls-key go together") }
    if let maxBody, maxBody.byteCount > 1 << 30 { throw ValidationError("--max-body is \(maxBody.byteCount) bytes; it must be at most 1G") }
    if let maxBodies, maxBodies.byteCount < maxBody?.byteCount ?? 32 << 20 {
      throw ValidationError(
        "--max-bodies is \(maxBodies.byteCount) bytes; it must hold one of --max-body, \(maxBody?.byteCount ?? 32 << 20) bytes")
    }
    for key in apiKeys where key.isEmpty { throw ValidationError("--api-key is empty") }
    for (name, value) in [("--served-name", servedName), ("--host", host), ("--uds", uds)] where value?.isEmpty == true {
      throw ValidationError("\(name) is empty")
    }
    for origin in corsOrigins where origin != "*" && !origin.contains("://") {
      throw ValidationError("--cors-origin is \(origin), which is no origin: write https://example.com, or * for all")
    }
  }
}

enum ServeLogFormat: String, ExpressibleByArgument, CaseIterable {
  case text, json
}
