// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletKVCache

/// The whole engine at one moment between two steps: every page, the prefix tree, the last steps, the requests. For a view of it that moves.
///
/// ``LLM/snapshots(every:showsText:)`` gives them. What is long is cut (``Tree/isCut``, ``requestsLeftOut``) or written short
/// (``Pool/runs``), so that a snapshot of a busy engine stays a few dozen kilobytes. As JSON, keys are the properties' names; runs and nodes are arrays of
/// numbers, and what is not there is null. Times are in seconds.
public struct EngineSnapshot: Sendable, Hashable, Codable {
  /// Since the engine began.
  public var time: Double
  /// What a service calls the model; the engine leaves it nil, and JSON then has no such key.
  public var model: String?
  /// Whether the engine takes requests.
  public var isRunning: Bool
  /// ``EngineConfiguration/maxBatchSize``
  public var maxBatchSize: Int
  /// ``EngineConfiguration/maxNumTokens``
  public var maxNumTokens: Int
  /// ``LLM/maxSequenceLength``
  public var maxSequenceLength: Int
  /// Requests that have not begun. Those that paused are not among them, as they are in ``EngineStatistics/waitingRequests``.
  public var waitingRequests: Int
  /// Their tokens.
  public var waitingTokens: Int
  /// Requests that hold pages.
  public var runningRequests: Int
  /// Requests that had begun, gave their pages up, and wait to begin again.
  public var pausedRequests: Int
  public var totals: Totals
  public var pools: [Pool]
  public var prefixTree: Tree
  /// Those since the reader's snapshot before, at most ``mostSteps``: the newest.
  public var steps: [Step]
  /// At most ``mostRequests``: those that run in the order in which they began, those that paused, then those that wait in the order in which
  /// they came.
  public var requests: [Request]
  /// Requests that are not in ``requests``.
  public var requestsLeftOut: Int

  /// The most nodes of ``prefixTree``.
  public static let mostNodes = 512
  /// The most ``steps``.
  public static let mostSteps = 256
  /// The most ``requests``.
  public static let mostRequests = 256
  /// The most characters (Unicode scalars) of ``Request/text``.
  public static let mostCharacters = 200

  /// Counts since the engine began.
  public struct Totals: Sendable, Hashable, Codable {
    public var steps: Int
    /// Tokens that were computed as prompts, as ``EngineStatistics/promptTokens`` has it.
    public var promptTokens: Int
    /// Prompt tokens of admitted requests that were in the cache already.
    public var cachedPromptTokens: Int
    public var generatedTokens: Int
    /// How often a request paused.
    public var pauses: Int
    /// Requests that came, ended or not.
    public var requests: Int
  }

  /// What becomes of a page.
  public enum PageKind: Int, Sendable, Hashable, Codable {
    case free
    /// One request holds it.
    case held
    /// Several requests hold it: their prompts begin alike.
    case shared
    /// No request holds it, and it is kept for those that begin alike.
    case kept
  }

  /// Pages one after the other that are alike: `[count, kind, request]`.
  public struct Run: Sendable, Hashable {
    public var count: Int
    public var kind: PageKind
    /// The ``Request/number`` of who holds them, of several the one that began first; −1 where nobody does.
    public var request: Int
  }

  /// One pool of key/value pages.
  public struct Pool: Sendable, Hashable {
    /// Tokens in a page.
    public var pageSize: Int
    /// Bytes of a page, all layers of the pool together.
    public var pageBytes: Int
    /// The sliding window of its layers; nil where they see everything.
    public var window: Int?
    public var pages: Int
    public var free: Int
    /// Pages that no request holds, kept for requests that begin alike.
    public var kept: Int
    /// Pages that requests hold.
    public var held: Int
    /// All pages in the order of their numbers.
    public var runs: [Run]
  }

  /// What prompts begin with that keys and values are there for.
  public struct Tree: Sendable, Hashable, Codable {
    /// Each before those that follow it.
    public var nodes: [Node]
    /// Whether there are more nodes.
    public var isCut: Bool
  }

  /// Tokens that follow one another, in pages that are alike: `[parent, tokens, pages, holders, idle seconds, retention]`.
  public struct Node: Sendable, Hashable {
    /// A place in ``Tree/nodes``; −1 for the beginning of a prompt.
    public var parent: Int
    public var tokens: Int
    /// Of the first pool.
    public var pages: Int
    /// Requests that run and hold them.
    public var holders: Int
    /// Since the last request let go of them; 0 while one holds them.
    public var idleSeconds: Double
    /// 0 low, 1 normal, 2 high.
    public var retention: KVRetention
  }

  /// One step.
  public struct Step: Sendable, Hashable, Codable {
    /// From 0 on.
    public var number: Int
    /// When it began, since the engine did.
    public var start: Double
    /// Requests whose prompts it read, and how many tokens of them.
    public var contextRequests: Int
    public var contextTokens: Int
    /// Requests that it gave a token each.
    public var generationRequests: Int
    /// As ``EngineStatistics`` has these times.
    public var modelTime: Double
    public var samplingTime: Double
    public var overheadTime: Double
  }

  /// What a request does.
  public enum RequestState: String, Sendable, Hashable, Codable {
    case waiting
    /// Its prompt is being computed.
    case reading
    case generating
    /// It had begun, and gave its pages up.
    case paused
  }

  /// Why a request that could begin has not.
  public enum Obstacle: String, Sendable, Hashable, Codable {
    /// As many run as ``EngineConfiguration/maxBatchSize`` allows.
    case batch
    /// There are too few pages for the first of those that wait.
    case pages
  }

  /// One request.
  public struct Request: Sendable, Hashable {
    /// The engine's own.
    public var number: Int
    /// ``Generation/id``; empty for a text that is scored.
    public var id: String
    public var state: RequestState
    /// nil where it runs, or waits for nothing but its share of a step's tokens.
    public var waitsFor: Obstacle?
    public var priority: Int
    public var promptTokens: Int
    /// Those of them that were in the cache when it began.
    public var cachedPromptTokens: Int
    /// Those of them whose keys and values are in the cache now.
    public var computedPromptTokens: Int
    public var generatedTokens: Int
    /// Pages that it holds of each pool.
    public var pages: [Int]
    /// Since it was submitted.
    public var age: Double
    /// From there to its first token; nil before.
    public var timeToFirstToken: Double?
    public var pauses: Int
    /// The beginning of its prompt, control tokens left out; nil where that was not asked for.
    public var text: String?
  }
}

// MARK: - As JSON

extension EngineSnapshot.Run: Codable {
  public init(from decoder: any Decoder) throws {
    var container = try decoder.unkeyedContainer()
    count = try container.decode(Int.self)
    kind = try container.decode(EngineSnapshot.PageKind.self)
    request = try container.decode(Int.self)
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.unkeyedContainer()
    try container.encode(count)
    try container.encode(kind)
    try container.encode(request)
  }
}

extension EngineSnapshot.Node: Codable {
  public init(from decoder: any Decoder) throws {
    var container = try decoder.unkeyedContainer()
    parent = try container.decode(Int.self)
    tokens = try container.decode(Int.self)
    pages = try container.decode(Int.self)
    holders = try container.decode(Int.self)
    idleSeconds = try container.decode(Double.self)
    let level = try container.decode(Int8.self)
    guard let retention = KVRetention(rawValue: level) else {
      throw DecodingError.dataCorruptedError(in: container, debugDescription: "a retention is 0, 1 or 2, not \(level)")
    }
    self.retention = retention
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.unkeyedContainer()
    try container.encode(parent)
    try container.encode(tokens)
    try container.encode(pages)
    try container.encode(holders)
    try container.encode(idleSeconds)
    try container.encode(retention.rawValue)
  }
}

// What a synthesised encoding would leave out is null: a reader then finds every key.

extension EngineSnapshot.Pool: Codable {
  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(pageSize, forKey: .pageSize)
    try container.encode(pageBytes, forKey: .pageBytes)
    try container.encode(window, forKey: .window)
    try container.encode(pages, forKey: .pages)
    try container.encode(free, forKey: .free)
    try container.encode(kept, forKey: .kept)
    try container.encode(held, forKey: .held)
    try container.encode(runs, forKey: .runs)
  }
}

extension EngineSnapshot.Request: Codable {
  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(number, forKey: .number)
    try container.encode(id, forKey: .id)
    try container.encode(state, forKey: .state)
    try container.encode(waitsFor, forKey: .waitsFor)
    try container.encode(priority, forKey: .priority)
    try container.encode(promptTokens, forKey: .promptTokens)
    try container.encode(cachedPromptTokens, forKey: .cachedPromptTokens)
    try container.encode(computedPromptTokens, forKey: .computedPromptTokens)
    try container.encode(generatedTokens, forKey: .generatedTokens)
    try container.encode(pages, forKey: .pages)
    try container.encode(age, forKey: .age)
    try container.encode(timeToFirstToken, forKey: .timeToFirstToken)
    try container.encode(pauses, forKey: .pauses)
    try container.encode(text, forKey: .text)
  }
}
