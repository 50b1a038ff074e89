// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore

/// How keys and values are cached: their type, their pages, how much memory they may take, and how long they stay for others to use.
///
/// It says nothing of requests: how long they are and how many run at one time is the engine's affair, or of whoever makes a
/// ``KVCacheManager`` or an attention context.
public struct KVCacheConfig: Sendable, Hashable {
  /// Tokens in a page.
  public enum PageSize: Sendable, Hashable {
    /// A power of two, at most 2²⁰.
    case tokens(Int)
    /// One page as long as the longest sequence: the linear cache, which only the Vanilla backend reads.
    case linear
  }

  /// How much memory the pages of all layers may take together.
  public enum Budget: Sendable, Hashable {
    case bytes(Int)
    /// A share, above 0 and at most 1, of the memory that is free on the device when the cache is made.
    case fractionOfFreeMemory(Double)
    /// Enough for as many sequences as there can be, each as long as it can be, but at most ``automaticFraction`` of the free memory.
    case automatic
  }

  /// The most that ``Budget/automatic`` takes of the free memory.
  public static let automaticFraction = 0.5
  /// The most tokens of a page that is not a linear cache's.
  public static let mostTokensPerPage = 1 << 20

  /// The type of the stored keys and values; a layer's `QuantConfig` can say otherwise.
  public var dataType: DataType
  /// Tokens in a page.
  public var pageSize: PageSize
  /// How much memory the pages may take.
  public var budget: Budget
  /// Whether full pages whose tokens are known stay, as long as there is room, for sequences that begin with the same tokens.
  ///
  /// Keys and values of a token must depend on no later token: attention is causal. A linear cache never reuses.
  public var reusesPrefixes: Bool
  /// Whether a sequence that parts from an earlier one inside a page takes a copy of that page, so that only its tokens from there on are
  /// computed. Means nothing without ``reusesPrefixes``.
  public var reusesPartialPages: Bool
  /// How long pages are kept of a sequence that does not say.
  public var retention: KVRetention

  public init(
    dataType: DataType = .bf16, pageSize: PageSize = .tokens(32), budget: Budget = .automatic,
    reusesPrefixes: Bool = true, reusesPartialPages: Bool = true, retention: KVRetention = .normal
  ) {
    self.dataType = dataType
    self.pageSize = pageSize
    self.budget = budget
    self.reusesPrefixes = reusesPrefixes
    self.reusesPartialPages = reusesPartialPages
    self.retention = retention
  }

  /// Tokens in a page, with the linear cache's page spelled out: it is as long as the longest sequence.
  public func tokensPerPage(maxSequenceLength: Int) -> Int {
    switch pageSize {
    case .tokens(let count): count
    case .linear: maxSequenceLength
    }
  }

  /// - Throws: ``KVCacheError/Code/invalidConfiguration`` for the first value that cannot work.
  public func validate() throws(KVCacheError) {
    func check(_ holds: Bool, _ option: String, _ value: @autoclosure () -> String, _ wanted: String) throws(KVCacheError) {
      if !holds { throw .invalidConfiguration(option: option, value: value(), wanted: wanted) }
    }
    if case .tokens(let count) = pageSize {
      let isPower = count >= 1 && count <= Self.mostTokensPerPage && count & (count - 1) == 0
      try check(isPower, "pageSize", "\(count)", "a power of two up to \(Self.mostTokensPerPage), or linear")
    }
    switch budget {
    case .bytes(let bytes): try check(bytes >= 1, "budget", "\(bytes) bytes", "at least 1 byte")
    case .fractionOfFreeMemory(let fraction):
      try check(fraction > 0 && fraction <= 1, "budget", "\(fraction) of the free memory", "above 0 and at most 1")
    case .automatic: break
    }
  }
}
