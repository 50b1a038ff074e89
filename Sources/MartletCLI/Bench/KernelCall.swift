// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

package import MartletCore

/// A call of a kernel as a benchmark counts it: what it is, and how much it has to do by the shapes of its tensors.
///
/// Counted are what a model cannot do without: products with weights and attention as operations, weights and the cache as bytes. Norms,
/// activations and sums have neither.
package struct KernelCall: Sendable, Hashable {
  /// What a kernel does, as a breakdown of a step groups it.
  package enum Kind: String, Sendable, Hashable, CaseIterable, Codable {
    /// Inputs times a weight.
    case product
    /// Inputs brought into the codes that a product reads: part of a product's call, and counted apart from it.
    case coding
    /// Queries against the cache.
    case attend
    /// Norms and positions of heads, and the way into the cache.
    case append
    case norm
    case activation
    /// Sums: residual streams, biases, the answers of experts.
    case addition
    case scaling
    /// Rows that are picked or copied, the embedding of tokens included.
    case gather
    /// The choice of experts.
    case routing
    /// What makes one vector of a text's states.
    case pooling
  }

  package var kind: Kind
  /// The kernel, as `TensorKernels` and `AttentionKernels` call it.
  package var name: StaticString
  /// Tokens, or rows of experts.
  package var rows: Int
  /// Of products: which of the device's weights, by ``ObservedDevice/weights``.
  package var weight: Int?
  /// Multiplications and additions, counted apart.
  package var operations: Double
  /// Of weights and cached tokens that must be read, each once.
  package var byteCount: Double

  package init(
    _ kind: Kind, _ name: StaticString, rows: Int, weight: Int? = nil, operations: Double = 0, byteCount: Double = 0
  ) {
    self.kind = kind
    self.name = name
    self.rows = rows
    self.weight = weight
    self.operations = operations
    self.byteCount = byteCount
  }

  package static func == (a: KernelCall, b: KernelCall) -> Bool {
    a.kind == b.kind && a.name.description == b.name.description && a.rows == b.rows && a.weight == b.weight
      && a.operations == b.operations && a.byteCount == b.byteCount
  }

  package func hash(into hasher: inout Hasher) {
    hasher.combine(kind)
    hasher.combine(rows)
    hasher.combine(weight)
  }
}

/// A weight as it was prepared: its shape and its formats.
package struct WeightDescription: Sendable, Hashable, CustomStringConvertible {
  /// Outputs of all parts together.
  package var rows: Int
  /// Inputs.
  package var columns: Int
  /// Of the parts, each once, in their order.
  package var formats: [WeightFormat]
  /// Bytes held.
  package var byteCount: Int

  package init(rows: Int, columns: Int, formats: [WeightFormat], byteCount: Int) {
    self.rows = rows
    self.columns = columns
    self.formats = formats
    self.byteCount = byteCount
  }

  /// `1536x576 Q4_1`.
  package var description: String { "\(rows)x\(columns) \(formats.map(\.rawValue).joined(separator: "+"))" }
}

/// Who is told of every call of a device's kernels, on the thread that calls.
package protocol KernelObserver: Sendable {
  func callBegins(_ call: KernelCall)
  func callEnds()
}

extension MaskView {
  /// Pairs of a query and a key that it sees: of the last `queries` of `keys` tokens. Bits of a custom mask are not looked at: it counts as causal.
  package func visiblePairs(queries: Int, keys: Int) -> Int {
    (0..<queries).reduce(0) { $0 + visibleKeys(at: keys - queries + $1, keys: keys).count }
  }

  /// Keys that one of the last `queries` of `keys` tokens sees.
  package func visibleKeys(queries: Int, keys: Int) -> Int {
    guard queries > 0, keys > 0 else { return 0 }
    return visibleKeys(at: keys - 1, keys: keys).upperBound - visibleKeys(at: keys - queries, keys: keys).lowerBound
  }

  /// The keys that the query at a position sees.
  private func visibleKeys(at position: Int, keys: Int) -> Range<Int> {
    switch self {
    case .full: 0..<keys
    case .causal, .custom(window: nil): 0..<position + 1
    case .slidingWindow(let window), .custom(window: .some(let window)): max(0, position + 1 - window)..<position + 1
    case .around(let window): max(0, position + 1 - window)..<min(keys, position + window)
    }
  }
}
