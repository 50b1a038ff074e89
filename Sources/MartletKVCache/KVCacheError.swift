// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Why a key/value cache cannot be made, or what its checker found.
///
/// A program looks at ``code``, a person reads ``description``. More codes may come, so a `switch` over them has a `default`.
public struct KVCacheError: Error, Sendable, Hashable, CustomStringConvertible {
  /// Which failure it is.
  public struct Code: RawRepresentable, Sendable, Hashable, Codable {
    public let rawValue: String
    public init(rawValue: String) { self.rawValue = rawValue }

    /// A value of ``KVCacheConfig`` cannot work.
    public static let invalidConfiguration = Code(rawValue: "invalidConfiguration")
    /// A layer's layout does not fit the configuration.
    public static let layerMismatch = Code(rawValue: "layerMismatch")
    /// The budget cannot hold one sequence of one page in every pool; ``KVCacheError/neededByteCount`` can.
    public static let budgetTooSmall = Code(rawValue: "budgetTooSmall")
    /// The checker found the cache's books wrong: a bug of the cache.
    public static let integrity = Code(rawValue: "integrity")
  }

  public let code: Code
  /// A sentence that names the thing and the way out.
  public let description: String
  /// The smallest budget that would do, for ``Code/budgetTooSmall``; else nil.
  public let neededByteCount: Int?

  public init(_ code: Code, _ description: String, neededByteCount: Int? = nil) {
    self.code = code
    self.description = description
    self.neededByteCount = neededByteCount
  }
}

extension KVCacheError {
  /// ``Code/invalidConfiguration``, with the option's name, its value and what it must be.
  public static func invalidConfiguration(option: String, value: String, wanted: String) -> KVCacheError {
    KVCacheError(.invalidConfiguration, "key/value cache: \(option) is \(value); it must be \(wanted)")
  }

  /// ``Code/layerMismatch``.
  public static func layerMismatch(layer: Int, reason: String) -> KVCacheError {
    KVCacheError(.layerMismatch, "key/value cache: layer \(layer): \(reason)")
  }

  /// ``Code/budgetTooSmall``, in bytes.
  public static func budgetTooSmall(budget: Int, needed: Int, pageSize: Int, pools: Int) -> KVCacheError {
    KVCacheError(
      .budgetTooSmall,
      "key/value cache: the budget of \(budget) bytes cannot hold one page of \(pageSize) tokens in each of \(pools) pool(s), "
        + "which takes \(needed) bytes; raise the budget (kvCache.budget) or lower the page size (kvCache.pageSize)",
      neededByteCount: needed)
  }

  /// ``Code/integrity``, with the first thing that is wrong.
  public static func integrity(_ problem: String) -> KVCacheError {
    KVCacheError(.integrity, "key/value cache: the books are wrong: \(problem)")
  }
}
