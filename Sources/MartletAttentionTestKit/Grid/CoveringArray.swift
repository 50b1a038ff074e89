// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Few rows that hold every wanted combination of values: a test of every pair of axes costs about as much as the two largest axes multiplied,
/// not as all axes multiplied.
///
/// Greedy, as AETG (Cohen and others, 1997): each row starts from a combination that is still missing and takes, axis after axis, the value
/// that brings the most missing ones. The same seed gives the same rows.
public struct CoveringArray: Sendable {
  /// One value for each axis.
  public let rows: [[Int]]
  /// Wanted combinations for which no allowed row was found, as (axis, value) lists.
  public let unreachable: [[[Int]]]
  /// Values that no allowed row was found for, as [axis, value].
  let hopeless: [[Int]]

  /// - Parameters:
  ///   - sizes: how many values each axis has.
  ///   - wanted: the sets of axes of which every combination of values is wanted.
  ///   - first: rows that are there already; those that are not allowed are left out.
  ///   - attempts: how often chance is tried before a combination counts as unreachable.
  ///   - isAllowed: whether a row makes sense.
  public init(
    sizes: [Int], wanted: [[Int]], seed: UInt64, startingWith first: [[Int]] = [], attempts: Int = 20_000, isAllowed: ([Int]) -> Bool
  ) {
    var random = SeededNumbers(seed: seed)
    // A value that no row may have is in many combinations, and looked for once.
    var chance = SeededNumbers(seed: seed, 13)
    func randomRow(_ fixed: [(axis: Int, value: Int)], _ random: inout SeededNumbers) -> [Int]? {
      for _ in 0..<attempts {
        var row = sizes.map { random.index(below: $0) }
        for (axis, value) in fixed { row[axis] = value }
        if isAllowed(row) { return row }
      }
      return nil
    }
    let isHopeless = sizes.indices.map { axis in (0..<sizes[axis]).map { randomRow([(axis, $0)], &chance) == nil } }
    let table = Combinations(sizes: sizes, wanted: wanted)
    var isMissing = [Bool](repeating: true, count: table.count)
    var rows: [[Int]] = []
    var unreachable: [[[Int]]] = []
    for row in first where isAllowed(row) {
      table.cover(row, &isMissing)
      rows.append(row)
    }
    for target in 0..<table.count where isMissing[target] {
      let fixed = table.values(of: target)
      if fixed.contains(where: { isHopeless[$0.axis][$0.value] }) {
        unreachable.append(fixed.map { [$0.axis, $0.value] })
        continue
      }
      var best: (row: [Int], gain: Int)?
      for _ in 0..<12 {
        let row = Self.greedyRow(fixed, table, isMissing, sizes, &random)
        if isAllowed(row) {
          let gain = table.gain(row, isMissing)
          if gain > best?.gain ?? 0 { best = (row, gain) }
        }
      }
      // Where the greedy choice runs into what is not allowed, chance finds a way if there is one.
      if best == nil { best = randomRow(fixed, &random).map { ($0, 1) } }
      if let best {
        table.cover(best.row, &isMissing)
        rows.append(best.row)
      } else {
        unreachable.append(fixed.map { [$0.axis, $0.value] })
      }
    }
    self.rows = rows
    self.unreachable = unreachable
    hopeless = isHopeless.indices.flatMap { axis in isHopeless[axis].indices.filter { isHopeless[axis][$0] }.map { [axis, $0] } }
  }

  private static func greedyRow(
    _ fixed: [(axis: Int, value: Int)], _ table: Combinations, _ isMissing: [Bool], _ sizes: [Int], _ random: inout SeededNumbers
  ) -> [Int] {
    var row = [Int](repeating: -1, count: sizes.count)
    for (axis, value) in fixed { row[axis] = value }
    for axis in sizes.indices.filter({ row[$0] < 0 }).shuffled(using: &random) {
      var best = (value: 0, gain: -1)
      let start = random.index(below: sizes[axis])
      for offset in 0..<sizes[axis] {
        row[axis] = (start + offset) % sizes[axis]
        let gain = table.gain(row, isMissing, with: axis)
        if gain > best.gain { best = (row[axis], gain) }
      }
      row[axis] = best.value
    }
    return row
  }
}

/// Every wanted combination under one number.
private struct Combinations {
  let sizes: [Int]
  let wanted: [[Int]]
  /// Where the combinations of each set of axes begin.
  let starts: [Int]
  let count: Int

  init(sizes: [Int], wanted: [[Int]]) {
    self.sizes = sizes
    self.wanted = wanted
    var starts: [Int] = []
    var count = 0
    for axes in wanted {
      starts.append(count)
      count += axes.reduce(1) { $0 * sizes[$1] }
    }
    self.starts = starts
    self.count = count
  }

  /// The number of the row's combination on a set of axes; nil where one of them has no value yet.
  private func number(_ set: Int, _ row: [Int]) -> Int? {
    var number = 0
    for axis in wanted[set] {
      if row[axis] < 0 { return nil }
      number = number * sizes[axis] + row[axis]
    }
    return starts[set] + number
  }

  func values(of number: Int) -> [(axis: Int, value: Int)] {
    let set = starts.lastIndex { $0 <= number }!
    var rest = number - starts[set]
    var values: [(axis: Int, value: Int)] = []
    for axis in wanted[set].reversed() {
      values.append((axis, rest % sizes[axis]))
      rest /= sizes[axis]
    }
    return values.reversed()
  }

  /// Missing combinations that the row has, on all sets of axes or on those with `axis`.
  func gain(_ row: [Int], _ isMissing: [Bool], with axis: Int? = nil) -> Int {
    var gain = 0
    for set in wanted.indices where axis.map({ wanted[set].contains($0) }) ?? true {
      if let number = number(set, row), isMissing[number] { gain += 1 }
    }
    return gain
  }

  func cover(_ row: [Int], _ isMissing: inout [Bool]) {
    for set in wanted.indices {
      if let number = number(set, row) { isMissing[number] = false }
    }
  }
}
