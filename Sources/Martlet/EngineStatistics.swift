// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// A look at the engine between two steps.
public struct EngineStatistics: Sendable, Hashable {
  /// One pool of key/value pages.
  public struct Pool: Sendable, Hashable {
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

  public var pools: [Pool] = []
  /// Requests that wait for room.
  public var waitingRequests = 0
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
  public var finishedRequests = 0
  public var cancelledRequests = 0
  /// Prompt tokens of the requests that were admitted, and those of them that were in the cache already.
  public var admittedPromptTokens = 0
  public var cachedPromptTokens = 0
  /// How often a request paused to make room (``CapacityPolicy/maxUtilization``).
  public var pauses = 0

  /// The share of ``admittedPromptTokens`` that was in the cache; 0 before the first.
  public var prefixHitRate: Double { admittedPromptTokens == 0 ? 0 : Double(cachedPromptTokens) / Double(admittedPromptTokens) }

  public init() {}
}
