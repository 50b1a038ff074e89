// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Foundation

/// `martlet bench serve`: many requests to a server, and how long each waits.
struct BenchServe: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "serve",
    abstract: "Sends a trace of requests to a server with OpenAI's API, any such server, and measures throughput and latencies.",
    discussion: """
      The trace is drawn from --seed as that of `martlet bench engine` is, and goes over as token ids where the server takes them, else as texts \
      of random words. With --rate requests come by a Poisson process, however many are open; without it, --concurrency are open at any \
      time. Times are those at which bytes came to this process, from when a request was to be sent. Tokens are what the server says that they are; \
      where it says nothing, events with text are counted. Every request has a connection of its own. Percentiles are exact. \
      The exit status is 1 where no request was answered.
      """)

  @Option(help: ArgumentHelp("Where the server is, such as http://127.0.0.1:8080; what stands before /v1 belongs to it.", valueName: "url"))
  var url = "http://127.0.0.1:8080"

  @Option(help: ArgumentHelp("chat or completions.", valueName: "name"))
  var endpoint = Endpoint.completions

  @Option(help: ArgumentHelp("The model's name (default: the server's first).", valueName: "name"))
  var model: String?

  @Option(parsing: .unconditional, help: ArgumentHelp("How many requests.", valueName: "n"))
  var requests = 32

  @Option(parsing: .unconditional, help: ArgumentHelp("Requests a second on average; 0 is as --concurrency says.", valueName: "r"))
  var rate = 0.0

  @Option(parsing: .unconditional, help: ArgumentHelp("How many requests are open at any time (default: all).", valueName: "n"))
  var concurrency: Int?

  @Option(
    name: .customLong("prompt-tokens"), parsing: .unconditional,
    help: ArgumentHelp("Tokens of a prompt: 128, 64..512 (uniform) or lognormal:200:0.8 (median, sigma).", valueName: "lengths"))
  var promptTokens = LengthDistribution.uniform(64...256)

  @Option(
    name: .customLong("output-tokens"), parsing: .unconditional, help: ArgumentHelp("Tokens of an answer, likewise.", valueName: "lengths"))
  var outputTokens = LengthDistribution.uniform(16...64)

  @Flag(name: .customLong("ignore-eos"), help: "Ask for answers of just that length, past end tokens: a field that not every server knows.")
  var ignoresEndTokens = false

  @Option(parsing: .unconditional, help: ArgumentHelp("0 always takes the most probable token.", valueName: "t"))
  var temperature = 0.0

  @Option(parsing: .unconditional, help: ArgumentHelp("Requests before the measured ones, one after the other.", valueName: "n"))
  var warmup = 1

  @Option(name: .customLong("api-key"), help: ArgumentHelp("The server's key.", valueName: "key"))
  var apiKey: String?

  @Option(parsing: .unconditional, help: ArgumentHelp("How long an answer may take.", valueName: "seconds"))
  var timeout = 600.0

  @Option(parsing: .unconditional, help: ArgumentHelp("The same seed gives the same trace.", valueName: "n"))
  var seed: UInt64 = 1

  @Flag(help: "Print one JSON object instead of a table.")
  var json = false

  enum Endpoint: String, ExpressibleByArgument, CaseIterable {
    case chat, completions
  }

  func validate() throws {
    try validatePositive(requests, "--requests")
    try validatePositive(concurrency, "--concurrency")
    if requests > 1_000_000 { throw ValidationError("--requests is \(requests); it must be at most 1000000") }
    if !(rate >= 0 && rate.isFinite) { throw ValidationError("--rate is \(rate); it must be 0 or above") }
    if rate > 0 && concurrency != nil { throw ValidationError("--rate and --concurrency do not go together: a rate waits for no answer") }
    if !(temperature >= 0 && temperature.isFinite) { throw ValidationError("--temperature is \(temperature); it must be 0 or positive") }
    if !(0...10_000).contains(warmup) { throw ValidationError("--warmup is \(warmup); it must be from 0 to 10000") }
    if !(timeout > 0 && timeout <= 1e6) { throw ValidationError("--timeout is \(timeout); it must be above 0 and at most 1e6") }
  }

  func run() async throws {
    #if HTTPServer
    let report = try await interruptible { [self] in try await measure() }
    if json { try Terminal.writeJSON(report) } else { try Terminal.write(report.text) }
    if report.completed == 0 { throw ExitCode.failure }
    #else
    throw CommandError(
      """
      this build has no HTTP. Build one with it:

        swift run -c release --traits HTTPServer martlet bench serve
      """)
    #endif
  }
}
