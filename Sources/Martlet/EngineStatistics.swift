// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// A look at the engine between two steps.
public struct EngineStatistics: Sendable, Hashable, Codable {
  /// One pool of key/value pages.
  public struct Pool: Sendable, Hashable, Codable {
    /// The sliding window of its layers; nil where they see everything.
    public var window: Int?
    /// Layers that share the pool's page tables.
    public var numLayers: Int
    public var pageSize: Int
    public var totalPages: Int
    public var freePages: Int
    /// Pages that no request holds, kept for requests that begin alike until a free page is wanted.
    public var cachedPages: Int
    /// Pages that requests hold.
    public var heldPages: Int
    /// The most that requests ever held at one time.
    public var mostHeldPages = 0

    public init(window: Int?, numLayers: Int, pageSize: Int, totalPages: Int, freePages: Int, cachedPages: Int, heldPages: Int) {
      self.window = window
      self.numLayers = numLayers
      self.pageSize = pageSize
      self.totalPages = totalPages
      self.freePages = freePages
      self.cachedPages = cachedPages
      self.heldPages = heldPages
    }
  }

  /// How a request ended.
  public enum End: String, Sendable, Hashable, CaseIterable, Codable, CodingKeyRepresentable {
    case endToken = "stop"
    case stopString = "stop_string"
    case length
    case cancelled
    case deadline
    /// A given sequence was scored.
    case scored
    /// A text's vector was made.
    case embedded
    /// An error: of its own, while its neighbours went on, or of a step, which ends the engine.
    case failed = "error"

    init(_ reason: FinishReason) {
      self =
        switch reason {
        case .endToken: .endToken
        case .stopString: .stopString
        case .length: .length
        case .cancelled: .cancelled
        case .deadline: .deadline
        }
    }
  }

  /// Times that were taken.
  public struct Times: Sendable, Hashable, Codable {
    public var count = 0
    public var total = Duration.zero
    public var longest = Duration.zero

    public init() {}

    /// nil before the first one.
    public var mean: Duration? { count > 0 ? total / count : nil }

    mutating func add(_ time: Duration) {
      count += 1
      total += time
      longest = max(longest, time)
    }
  }

  public var pools: [Pool] = []
  /// Requests that have not begun, from their submission on, and those that have paused. The metric `martlet_waiting_requests` says the same
  /// after every step.
  public var waitingRequests = 0
  /// The tokens of the requests that wait.
  public var waitingTokens = 0
  /// Requests that hold pages.
  public var runningRequests = 0
  /// The composition of the last step.
  public var lastContexts = 0
  public var lastGenerations = 0
  public var lastTokens = 0
  /// Since the engine started.
  public var steps = 0
  /// Tokens that were computed as prompts: without what was cached, with what was computed again after a pause.
  public var promptTokens = 0
  public var generatedTokens = 0
  /// How many requests ended, by how they did.
  public var ended: [End: Int] = [:]
  /// A step, from the choice of its requests to their next tokens.
  public var stepTime = Times()
  /// Of each step, what the model took: its preparation, the step itself and the logits, prompts' rows that were scored included.
  public var modelTime = Times()
  /// Of each step, what the choice of tokens from logits took, log-probabilities included.
  public var samplingTime = Times()
  /// Of each step, everything else on the engine's thread since the step before (or since it woke): arrivals and cancellations, the schedule,
  /// the cache's books, text, readers, and these numbers.
  public var overheadTime = Times()
  /// From a request's submission to its first token.
  public var timeToFirstToken = Times()
  /// Between two tokens of one request.
  public var interTokenTime = Times()
  /// Prompt tokens of the requests that were admitted, and those of them that were in the cache already.
  public var admittedPromptTokens = 0
  public var cachedPromptTokens = 0
  /// For each layer with experts, in order, how many rows each of its experts has computed. Empty for a model without, and where the host cannot reach the
  /// device's memory. An expert that gets far more than its share keeps a step of many prompts waiting; one that gets nothing is memory for nothing.
  public var expertTokens: [[Int]] = []
  /// How often a request paused to make room (``CapacityPolicy/maxUtilization``).
  public var pauses = 0

  /// The share of ``admittedPromptTokens`` that was in the cache; 0 before the first.
  public var prefixHitRate: Double { admittedPromptTokens == 0 ? 0 : Double(cachedPromptTokens) / Double(admittedPromptTokens) }

  /// The share of the engine's time that is neither the model nor sampling; 0 before the first step.
  public var overheadShare: Double {
    let all = modelTime.total + samplingTime.total + overheadTime.total
    return all == .zero ? 0 : overheadTime.total / all
  }

  public init() {}

  /// Requests that came to an end of their own: neither cancelled, nor late, nor failed.
  public var finishedRequests: Int {
    ended.reduce(0) { sum, entry in
      switch entry.key {
      case .endToken, .stopString, .length, .scored, .embedded: sum + entry.value
      case .cancelled, .deadline, .failed: sum
      }
    }
  }
  public var cancelledRequests: Int { ended[.cancelled, default: 0] }
}
