// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
public import Logging
public import Martlet
public import MartletTemplates
public import Metrics

/// How a model is served. Nothing is looked up elsewhere.
public struct ServerConfiguration: Sendable {
  /// What the model is called in answers and in `/v1/models`; nil is the name in its file.
  public var modelName: String?
  /// Further names that requests may use.
  public var modelAliases: [String]
  /// Whether any name is taken for the model, as llama.cpp's server does; else an unknown one is a 404 that lists the names.
  public var acceptsAnyModel: Bool
  /// What requests without a word of their own are sampled with. OpenAI's default temperature is 1.
  public var sampling: SamplingParams
  /// Variables of the chat template, such as `enable_thinking`; a request's own go before them, one by one.
  public var templateVariables: JSON.Object
  /// One of these must come with every request, as `Authorization: Bearer` or `X-Api-Key`; none is an open server. `/health` and the page are open.
  public var apiKeys: [String]
  /// Whether `/metrics` is open where there are keys.
  public var metricsAreOpen: Bool
  /// The origins whose pages may call the server; `*` is all of them, none, the default, is none.
  public var corsOrigins: [String]
  /// The names in a request's `Host` header; nil takes any. A server on loopback that takes any can be called by every page that its user visits
  /// (DNS rebinding).
  public var hosts: [String]?
  /// The largest body, in bytes.
  public var maxBodyBytes: Int
  /// The most bytes of bodies that are read at once, over all connections; what goes beyond is refused with 503. Nil is twice ``maxBodyBytes``, and less
  /// than that one counts as that one.
  ///
  /// Meanwhile a byte takes three bytes of memory in a text, and up to 23 in an array of short numbers (measured: 16 MiB of `[1,1,…]` took 353 MiB).
  public var maxBodyBytesInFlight: Int?
  /// How long a body may take to arrive.
  public var bodyTimeout: Duration
  /// How long a reader may take nothing of what there is for it, as far as the network shows: then its connection ends, and its request with it. A slow
  /// reader stays. Nil waits without end.
  ///
  /// The connections of an application of yours have what `HTTP1Channel.Configuration.martlet(writeTimeout:)` was told.
  public var writeTimeout: Duration?
  /// How long an answer may take, waiting included; nil sets no limit.
  public var requestTimeout: Duration?
  /// How often a stream that has nothing to say says so.
  public var keepAliveInterval: Duration
  /// Whether the live view may show the beginnings of prompts.
  public var livePrompts: Bool
  /// The most answers to one request, over all of its prompts.
  public var maxSamples: Int
  /// What messages to clients call the settings of server and engine, by their names here: `["ServerConfiguration.maxBodyBytes": "--max-body"]` for
  /// whoever sets that by an option. Without a word the names here.
  public var settingNames: [String: String]
  /// Receives a line for every request. No text of prompts or answers.
  public var logger: Logger?
  /// Receives `martlet_http_*`; nil is none.
  public var metricsFactory: (any MetricsFactory)?
  /// What `/metrics` is answered with; nil is a 404.
  public var metricsText: (@Sendable (_ statistics: EngineStatistics?) -> String)?

  public init(
    modelName: String? = nil, modelAliases: [String] = [], acceptsAnyModel: Bool = false,
    sampling: SamplingParams = SamplingParams(temperature: 1), templateVariables: JSON.Object = [:], apiKeys: [String] = [],
    metricsAreOpen: Bool = false,
    corsOrigins: [String] = [], hosts: [String]? = nil, maxBodyBytes: Int = 32 << 20, maxBodyBytesInFlight: Int? = nil,
    bodyTimeout: Duration = .seconds(60),
    writeTimeout: Duration? = .seconds(60), requestTimeout: Duration? = nil, keepAliveInterval: Duration = .seconds(10),
    livePrompts: Bool = false, maxSamples: Int = 128,
    settingNames: [String: String] = [:], logger: Logger? = nil, metricsFactory: (any MetricsFactory)? = nil,
    metricsText: (@Sendable (_ statistics: EngineStatistics?) -> String)? = nil
  ) {
    self.modelName = modelName
    self.modelAliases = modelAliases
    self.acceptsAnyModel = acceptsAnyModel
    self.sampling = sampling
    self.templateVariables = templateVariables
    self.apiKeys = apiKeys
    self.metricsAreOpen = metricsAreOpen
    self.corsOrigins = corsOrigins
    self.hosts = hosts
    self.maxBodyBytes = maxBodyBytes
    self.maxBodyBytesInFlight = maxBodyBytesInFlight
    self.bodyTimeout = bodyTimeout
    self.writeTimeout = writeTimeout
    self.requestTimeout = requestTimeout
    self.keepAliveInterval = keepAliveInterval
    self.livePrompts = livePrompts
    self.maxSamples = maxSamples
    self.settingNames = settingNames
    self.logger = logger
    self.metricsFactory = metricsFactory
    self.metricsText = metricsText
  }
}
#endif
