// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// The dimensions of a tensor, outermost first, at most four of them, stored inline.
///
/// A `Shape` never allocates, so that making views of tensors inside a step costs nothing.
public struct Shape: Sendable, Hashable, CustomStringConvertible {
  /// Unused trailing dimensions are 1, so that products need no cases.
  private var dims: (Int, Int, Int, Int)
  /// The number of dimensions, 1…4.
  public let rank: Int

  /// A shape of one dimension. No dimension of a shape is negative.
  public init(_ a: Int) { self.init(dims: (a, 1, 1, 1), rank: 1) }

  /// A shape of two dimensions.
  public init(_ a: Int, _ b: Int) { self.init(dims: (a, b, 1, 1), rank: 2) }

  /// A shape of three dimensions.
  public init(_ a: Int, _ b: Int, _ c: Int) { self.init(dims: (a, b, c, 1), rank: 3) }

  /// A shape of four dimensions.
  public init(_ a: Int, _ b: Int, _ c: Int, _ d: Int) { self.init(dims: (a, b, c, d), rank: 4) }

  // Four initialisers, because a variadic one would allocate an array.
  private init(dims: (Int, Int, Int, Int), rank: Int) {
    enforce(dims.0 >= 0 && dims.1 >= 0 && dims.2 >= 0 && dims.3 >= 0, "a dimension is negative in \(dims)")
    self.dims = dims
    self.rank = rank
  }

  /// The size of dimension `axis`, counted from the outermost.
  public subscript(axis: Int) -> Int {
    enforce(axis >= 0 && axis < rank, "axis \(axis) of a shape of rank \(rank)")
    return switch axis {
    case 0: dims.0
    case 1: dims.1
    case 2: dims.2
    default: dims.3
    }
  }

  /// The number of elements.
  public var count: Int { dims.0 * dims.1 * dims.2 * dims.3 }

  public var description: String { "[" + (0..<rank).map { "\(self[$0])" }.joined(separator: ", ") + "]" }

  public static func == (a: Shape, b: Shape) -> Bool { a.rank == b.rank && a.dims == b.dims }

  public func hash(into hasher: inout Hasher) {
    hasher.combine(rank)
    for axis in 0..<rank { hasher.combine(self[axis]) }
  }
}
