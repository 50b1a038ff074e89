// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import HTTPTypes
public import Martlet
import MartletTemplates
import Synchronization

/// The routes of an OpenAI-compatible server over one model, for any Hummingbird router.
///
/// ```swift
/// let server = ModelServer(try await LLM.load(model: "smollm2-135m.gguf"))
/// let router = Router(context: ServerContext.self)
/// server.addRoutes(to: router)
/// try await Application(router: router, server: .http1(configuration: .martlet())).runService()
/// ```
///
/// A model may come later than the server: until then its routes answer 503, and `/health` says how far the loading is.
public final class ModelServer: Sendable {
  /// Whether there is a model.
  public enum State: Sendable {
    /// It is not on this machine, and is being fetched: the share that is there, 0…1. Loading comes after.
    case fetching(Double)
    /// The share that is loaded, 0…1.
    case loading(Double)
    case ready(LLM)
    /// It could not be loaded.
    case failed(String)
  }

  private struct Lifetime {
    var state: State
    var isDraining = false
    /// The bytes of the vocabulary's longest token.
    var longestToken = Int.max
    /// Whether the model's chat template writes what tools there are.
    var writesTools = true
  }

  public let configuration: ServerConfiguration
  /// When it began, for `created` of models.
  let started: Int
  private let lifetime: Mutex<Lifetime>
  let meters: ServerMeters
  let bodies: BodyBudget

  /// A server whose model is there.
  public convenience init(_ llm: LLM, configuration: ServerConfiguration = ServerConfiguration()) {
    self.init(configuration: configuration)
    setState(.ready(llm))
  }

  /// A server whose model comes later, by ``setState(_:)``.
  public init(configuration: ServerConfiguration = ServerConfiguration()) {
    self.configuration = configuration
    started = UnixTime.now
    lifetime = Mutex(Lifetime(state: .loading(0)))
    meters = ServerMeters(configuration.metricsFactory)
    let most = configuration.maxBodyBytes
    bodies = BodyBudget(limit: max(most, configuration.maxBodyBytesInFlight ?? 2 * min(most, .max / 2)))
  }

  public var state: State { lifetime.withLock { $0.state } }

  public func setState(_ state: State) {
    var longest: Int?
    var writesTools: Bool?
    if case .ready(let llm) = state {
      writesTools = (try? Conversation(tools: [Self.probe]).showsTools(to: llm)) ?? true
      longest = (0..<llm.tokenizer.vocabularySize).reduce(1) {
        max($0, llm.tokenizer.bytes(of: Int32($1), showsControlTokens: true).count)
      }
    }
    lifetime.withLock { lifetime in
      lifetime.state = state
      if let longest { lifetime.longestToken = longest }
      if let writesTools { lifetime.writesTools = writesTools }
    }
  }

  /// Refuses tools that the model would never see.
  /// - Throws: ``APIError`` 400.
  func checkTools(_ tools: [JSON], _ llm: LLM) throws {
    if tools.isEmpty || lifetime.withLock({ $0.writesTools }) { return }
    throw APIError.unsupported(
      "tools",
      "the chat template of \(modelName(llm)) writes no tools, so that the model would not see them; leave them out, or serve a model that has been taught to call them"
    )
  }

  private static let probe: JSON = [
    "type": "function", "function": ["name": "probe", "description": "A probe.", "parameters": ["type": "object", "properties": [:]]],
  ]

  /// Prepares a prompt, but refuses a text that has no room however its tokens fall before it is taken apart into them: for megabytes that takes
  /// a processor many seconds.
  ///
  /// - Parameter prepare: told the most bytes that may have room.
  /// - Throws: ``APIError`` 400 with the name of the field.
  func prepare(_ llm: LLM, param: String, _ prepare: (_ mostBytes: Int) throws -> PreparedPrompt) throws -> PreparedPrompt {
    let context = min(llm.maxSequenceLength, llm.cacheCapacity + 1)
    let (bytes, overflow) = context.multipliedReportingOverflow(by: lifetime.withLock { $0.longestToken })
    do {
      return try prepare(overflow ? LLM.mostTextBytes : min(bytes, LLM.mostTextBytes))
    } catch let error as LLMError where error.code == .textTooLong {
      throw APIError.contextExceeded(promptTokens: context, isLowerBound: true, context: context, param: param)
    }
  }

  /// Says to load balancers, by `/readyz` and `/health`, that no more requests should come; those that come are still served.
  public func beginDraining() { lifetime.withLock { $0.isDraining = true } }

  public var isDraining: Bool { lifetime.withLock { $0.isDraining } }

  /// What the model is called.
  func modelName(_ llm: LLM) -> String { configuration.modelName ?? llm.model.name }

  /// - Throws: ``APIError`` 503 while there is none.
  func model() throws -> LLM {
    switch state {
    case .ready(let llm):
      if llm.isRunning { return llm }
      throw APIError(
        .serviceUnavailable, "the server is shutting down", code: "service_unavailable", headers: APIError.retry(after: 5))
    case .fetching(let share): throw unready("fetched", share, retryAfter: 10)
    case .loading(let share): throw unready("loaded", share, retryAfter: 2)
    case .failed(let reason):
      throw APIError(.serviceUnavailable, "the model could not be loaded: \(reason)", type: "unavailable_error", code: "load_failed")
    }
  }

  private func unready(_ what: String, _ share: Double, retryAfter seconds: Int) -> APIError {
    APIError(
      .serviceUnavailable, "the model is being \(what) (\(Int(share * 100)) %); try again soon", type: "unavailable_error",
      code: "loading", headers: APIError.retry(after: seconds), further: ["progress": .number(share)])
  }

  /// The model, if the request means it.
  /// - Throws: ``APIError`` 404 for another name.
  func model(named name: String?) throws -> LLM {
    let llm = try model()
    guard let name, !name.isEmpty, !configuration.acceptsAnyModel else { return llm }
    let names = [modelName(llm)] + configuration.modelAliases
    if names.contains(name) { return llm }
    throw APIError(
      .notFound,
      "the model \(JSON.string(name).shown) does not exist; this server has \(names.map { "\"\($0)\"" }.joined(separator: ", "))",
      code: "model_not_found", param: "model")
  }

  /// The same of a model that writes text.
  /// - Throws: ``APIError`` 501 where it makes vectors.
  func writer(named name: String?) throws -> LLM {
    let llm = try model(named: name)
    if llm.embeddingSize != nil { throw LLMError.writesNoText(model: modelName(llm)) }
    return llm
  }

  /// How long a client who was refused should wait: until half of what waits has begun, at the pace of late.
  func retryAfter(_ llm: LLM?) -> Int {
    guard let statistics = llm?.statistics, let step = statistics.stepTime.mean, statistics.steps > 0 else { return 1 }
    let tokens =
      Double(statistics.waitingTokens) / max(1, Double(statistics.promptTokens + statistics.generatedTokens) / Double(statistics.steps))
    return min(30, max(1, Int((tokens * (step / .seconds(1)) / 2).rounded(.up))))
  }
}
#endif
