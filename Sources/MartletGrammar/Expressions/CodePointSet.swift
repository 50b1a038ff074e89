// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// A set of Unicode scalar values: ranges in order that neither touch nor overlap.
struct CodePointSet: Hashable, Sendable {
  private(set) var ranges: [ClosedRange<UInt32>] = []

  init() {}

  init(_ unordered: [ClosedRange<UInt32>]) {
    for range in unordered.sorted(by: { $0.lowerBound < $1.lowerBound }) {
      if let last = ranges.last, range.lowerBound <= last.upperBound &+ 1 {
        ranges[ranges.count - 1] = last.lowerBound...max(last.upperBound, range.upperBound)
      } else {
        ranges.append(range)
      }
    }
  }

  init(_ scalar: UInt32) { ranges = [scalar...scalar] }

  /// Every scalar value: surrogates are none.
  static var all: CodePointSet { CodePointSet([0...0xD7FF, 0xE000...0x10FFFF]) }

  var isEmpty: Bool { ranges.isEmpty }

  /// The one member; nil if there are more or none.
  var onlyScalar: UInt32? { ranges.count == 1 && ranges[0].count == 1 ? ranges[0].lowerBound : nil }

  func union(_ other: CodePointSet) -> CodePointSet { CodePointSet(ranges + other.ranges) }

  func intersection(_ other: CodePointSet) -> CodePointSet {
    var result: [ClosedRange<UInt32>] = []
    var (i, j) = (0, 0)
    while i < ranges.count && j < other.ranges.count {
      let (a, b) = (ranges[i], other.ranges[j])
      let (low, high) = (max(a.lowerBound, b.lowerBound), min(a.upperBound, b.upperBound))
      if low <= high { result.append(low...high) }
      if a.upperBound < b.upperBound { i += 1 } else { j += 1 }
    }
    return CodePointSet(result)
  }

  /// The scalar values that are not in the set.
  var complement: CodePointSet {
    var result: [ClosedRange<UInt32>] = []
    var next: UInt32 = 0
    for range in ranges {
      if range.lowerBound > next { result.append(next...range.lowerBound - 1) }
      next = range.upperBound + 1
    }
    if next <= 0x10FFFF { result.append(next...0x10FFFF) }
    return CodePointSet(result).intersection(.all)
  }

  enum Overlap { case none, some, whole }

  /// How much of `low...high` is in the set.
  func overlap(_ low: UInt32, _ high: UInt32) -> Overlap {
    var (first, end) = (0, ranges.count)
    while first < end {
      let middle = (first + end) / 2
      if ranges[middle].upperBound < low { first = middle + 1 } else { end = middle }
    }
    guard first < ranges.count, ranges[first].lowerBound <= high else { return .none }
    return ranges[first].lowerBound <= low && high <= ranges[first].upperBound ? .whole : .some
  }
}
