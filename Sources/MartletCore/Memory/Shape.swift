// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// The dimensions of a tensor, outermost first, at most four of them, stored inline.
///
/// A `Shape` never allocates, so that making views of tensors inside a step costs nothing.
public struct Shape: Sendable, Hashable, CustomStringConvertible {
  /// Unused trailing dimensions are 1, so that products need no cases.
  private var dims: (Int, Int, Int, Int)
  /// The number of dimensions, 1…4.
  public let rank: Int

  /// - Precondition: 1 to 4 dimensions, none negative.
  public init(_ dims: Int...) {
    precondition((1...4).contains(dims.count), "a shape has 1 to 4 dimensions, not \(dims.count)")
    precondition(dims.allSatisfy { $0 >= 0 }, "a dimension is negative in \(dims)")
    func dim(_ index: Int) -> Int { index < dims.count ? dims[index] : 1 }
    self.dims = (dim(0), dim(1), dim(2), dim(3))
    rank = dims.count
  }

  /// The size of dimension `axis`, counted from the outermost.
  public subscript(axis: Int) -> Int {
    precondition(axis >= 0 && axis < rank, "axis \(axis) of a shape of rank \(rank)")
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
