// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Which neighbours merge, in which order, and to what.
struct MergeTable: Sendable {
  struct Merge {
    /// Lower first: the place in the file's list.
    var priority: UInt32
    var token: Int32
  }

  /// By two neighbours, the left in the upper half.
  private var merges: [UInt64: Merge]

  init(minimumCapacity: Int) { merges = [:]; merges.reserveCapacity(minimumCapacity) }

  /// Nil if the two do not merge, as a symbol without a token (-1) never does.
  subscript(left: Int32, right: Int32) -> Merge? {
    get { left < 0 || right < 0 ? nil : merges[UInt64(UInt32(left)) << 32 | UInt64(UInt32(right))] }
    set { merges[UInt64(UInt32(left)) << 32 | UInt64(UInt32(right))] = newValue }
  }
}
