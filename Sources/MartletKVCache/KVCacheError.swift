// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Why a key/value cache cannot be made, or what its checker found.
public enum KVCacheError: Error, Sendable, Hashable, CustomStringConvertible {
  case invalidConfiguration(option: String, value: String, wanted: String)
  /// A layer's layout does not fit the configuration.
  case layerMismatch(layer: Int, reason: String)
  /// The budget cannot hold one sequence of one page in every pool.
  case budgetTooSmall(budget: Int, needed: Int, pageSize: Int, pools: Int)
  /// The checker found the cache's books wrong: a bug of the cache.
  case integrity(String)

  public var description: String {
    switch self {
    case .invalidConfiguration(let option, let value, let wanted):
      "key/value cache: \(option) is \(value); it must be \(wanted)"
    case .layerMismatch(let layer, let reason): "key/value cache: layer \(layer): \(reason)"
    case .budgetTooSmall(let budget, let needed, let pageSize, let pools):
      "key/value cache: the budget of \(budget) bytes cannot hold one page of \(pageSize) tokens in each of \(pools) pool(s), "
        + "which takes \(needed) bytes; raise the budget (KVCacheConfig.budget, --kv-cache-memory) or lower the page size"
    case .integrity(let problem): "key/value cache: the books are wrong: \(problem)"
    }
  }
}
