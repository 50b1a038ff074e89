// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Rotary positions of three axes, time, height and width, as Qwen2-VL has them (arXiv 2409.12191): each pair of a head turns by the position on
/// one of them.
///
/// A token of a text has the same position on all three, which is then plain rotation to the bit.
public struct MRopeSections: Sendable, Hashable {
  /// How many pairs turn by time, by height and by width: together all pairs.
  public var pairs: [Int]
  /// Whether axes alternate, time, height, width, time, …, until height and width have their number and the rest is time's (Qwen3-VL); else each
  /// has its pairs side by side.
  public var isInterleaved: Bool

  public init(pairs: [Int], isInterleaved: Bool = false) {
    self.pairs = pairs
    self.isInterleaved = isInterleaved
  }

  /// Which axis each pair turns by: 0 time, 1 height, 2 width.
  public var axes: [Int] {
    if !isInterleaved { return pairs.enumerated().flatMap { Array(repeating: $0, count: $1) } }
    return (0..<pairs.reduce(0, +)).map { pair in
      let axis = pair % 3
      return axis > 0 && pair < 3 * pairs[axis] ? axis : 0
    }
  }

  /// Why these sections cannot be used for so many rotated dims, in words; nil where they can.
  public func problem(dim: Int) -> String? {
    if pairs.count != 3 || pairs.contains(where: { $0 < 0 }) {
      return "positions of three axes have three numbers of pairs, for time, height and width, not \(pairs)"
    }
    if pairs.reduce(0, +) != dim / 2 { return "the sections \(pairs) of positions are \(pairs.reduce(0, +)) pairs; \(dim / 2) are rotated" }
    for axis in 1...2 where isInterleaved && axes.count(where: { $0 == axis }) != pairs[axis] {
      return "sections of \(pairs) pairs do not alternate: time's must be no fewer than height's and width's"
    }
    return nil
  }
}
