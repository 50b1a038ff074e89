// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletAttention

/// All cells of some backends: a covering array of the axes for each, and the obstacles that the table expects.
public struct ConformanceGrid: Sendable {
  /// How much is covered.
  public enum Strength: Sendable, Hashable {
    /// Every pair of values of two axes, for each backend: so every triple that includes a backend, a key/value type among them.
    case pairs
    /// Every triple of values of three axes, for each backend: about six times as many cells.
    case triples
    /// Every value with every key/value type, for each backend.
    case kvTypes
  }

  /// Cells that share a scenario, backend after backend.
  struct Group: Sendable {
    var examples: [ConformanceCase]
  }

  public let subjects: [ConformanceSubject]
  /// All cells, in the order in which they are run.
  public let cases: [ConformanceCase]
  /// Combinations of axes for which a backend has no cell, because it serves none, in words.
  public let unreachable: [String]
  let groups: [Group]

  /// - Parameter serves: whether a backend from outside serves a cell, so that the cells of such a backend are drawn among those, and one is added for
  ///   every value of an axis that it refuses altogether. What backends of the house serve is in their table.
  public init(
    _ subjects: [ConformanceSubject], strength: Strength = .pairs, seed: UInt64 = 1,
    serves: (ConformanceSubject, ConformanceCase) -> Bool = { _, _ in true }
  ) {
    let sizes = ConformanceCase.axisSizes
    var wanted: [[Int]] = []
    for first in sizes.indices {
      for second in sizes.indices where second > first {
        switch strength {
        case .pairs: wanted.append([first, second])
        case .kvTypes where first == 0: wanted.append([first, second])
        case .kvTypes: break
        case .triples: wanted += sizes.indices.filter { $0 > second }.map { [first, second, $0] }
        }
      }
    }
    var rows: [[Int]] = []
    var cells: [ConformanceCase] = []
    var unreachable: [String] = []
    for subject in subjects {
      func example(_ row: [Int]) -> ConformanceCase { ConformanceCase(backend: subject.name, row: row, seed: Self.seed(of: row, seed)) }
      let isFromOutside = subject.obstacles == nil
      let array = CoveringArray(
        sizes: sizes, wanted: wanted, seed: seed, startingWith: rows, attempts: isFromOutside ? 2_000 : 20_000
      ) { row in
        let example = example(row)
        return example.isMeaningful && (isFromOutside ? serves(subject, example) : subject.expectedObstacle(example) == nil)
      }
      cells += array.rows.map(example)
      // The next backend takes the same rows as far as it serves them: their truth is shared.
      rows += array.rows.filter { !rows.contains($0) }
      unreachable += array.unreachable.map { combination in
        let values = combination.map { pair in
          var row = [Int](repeating: 0, count: sizes.count)
          row[pair[0]] = pair[1]
          let axis = example(row).axes[pair[0] + 1]
          return "\(axis.name)=\(axis.value)"
        }
        return "\(subject.name) \(values.joined(separator: " "))"
      }
      var random = SeededNumbers(seed: seed, 7)
      if isFromOutside {
        cells += array.hopeless.compactMap { value in
          (0..<2_000).lazy.map { _ in
            var row = sizes.map { random.index(below: $0) }
            row[value[0]] = value[1]
            return example(row)
          }.first(where: \.isMeaningful)
        }
      }
      for obstacle in subject.obstacles ?? [] {
        var found = 0
        for _ in 0..<20_000 where found < 3 {
          let refused = example(sizes.map { random.index(below: $0) })
          if refused.isMeaningful && obstacle.applies(refused) {
            cells.append(refused)
            found += 1
          }
        }
      }
    }
    self.subjects = subjects
    self.unreachable = unreachable
    var order: [ConformanceCase] = []
    var groups: [ConformanceCase: Group] = [:]
    for cell in cells {
      let key = Self.scenarioKey(cell)
      if groups[key] == nil { order.append(key) }
      groups[key, default: Group(examples: [])].examples.append(cell)
    }
    self.groups = order.map { groups[$0]! }
    cases = self.groups.flatMap(\.examples)
  }

  /// What a scenario depends on: not the backend, the page size or the form of input.
  static func scenarioKey(_ example: ConformanceCase) -> ConformanceCase {
    var key = example
    key.backend = ""
    key.page = .tokens16
    key.input = .fused
    return key
  }

  /// A seed for each scenario.
  private static func seed(of row: [Int], _ seed: UInt64) -> UInt64 {
    var random = SeededNumbers(seed: seed, 11)
    for (axis, value) in row.enumerated() where axis != 3 && axis != 7 { random = SeededNumbers(seed: random.next(), axis, value) }
    return random.next() >> 32
  }

  /// Runs all cells.
  /// - Parameters:
  ///   - concurrency: how many truths are computed at a time; backends run one after another, on the target's own threads.
  ///   - progress: called after each cell with its result and how many are done.
  public func run(
    on target: ConformanceTarget, concurrency: Int, progress: (ConformanceResult, Int) -> Void = { _, _ in }
  ) async -> [ConformanceResult] {
    // Without a journal nothing can fail.
    (try? await run(on: target, concurrency: concurrency, journal: nil, progress: progress)) ?? []
  }

  func run(
    on target: ConformanceTarget, concurrency: Int, journal: VerificationJournal?, progress: (ConformanceResult, Int) -> Void
  ) async throws(VerificationError) -> [ConformanceResult] {
    var results: [ConformanceResult] = []
    var number = 0
    func part(_ example: ConformanceCase, _ number: Int) -> String { "cell \(number): \(example)" }
    let byName = Dictionary(subjects.map { ($0.name, $0) }) { first, _ in first }
    var next = 0
    while next < groups.count && !Task.isCancelled {
      let batch = Array(groups[next..<min(next + 4 * concurrency, groups.count)])
      next += batch.count
      var upcoming = number
      let wanted = batch.map { group in
        Set(
          group.examples.compactMap { example -> QueryRounding? in
            defer { upcoming += 1 }
            guard let subject = byName[example.backend], subject.expectedObstacle(example) == nil else { return nil }
            if journal?.knows(part(example, upcoming)) == true { return nil }
            return subject.rounding(example, on: target)
          })
      }
      let truths = await concurrentMap(Array(zip(batch, wanted)), concurrency: concurrency) { group, roundings in
        let scenario = ConformanceScenario(group.examples[0])
        let goldens = roundings.map { ($0, Golden(scenario, rounding: $0)) }
        return (scenario, Dictionary(goldens) { first, _ in first })
      }
      for (group, truth) in zip(batch, truths) {
        for example in group.examples {
          defer { number += 1 }
          guard let subject = byName[example.backend] else { continue }
          let golden = truth.1[subject.rounding(example, on: target)] ?? Golden(requests: [:])
          func run() -> ConformanceResult { subject.run(example, truth.0, golden, on: target) }
          let tolerance = ConformanceSubject.tolerance(example.kvType, headDim: example.headDim)
          let isKnown = journal?.knows(part(example, number)) == true
          let result =
            try journal?.result(
              of: part(example, number), read: { ConformanceResult(example, $0, tolerance: tolerance) },
              broke: { ConformanceResult(example, .failed([$0]), tolerance: tolerance) }, entry: \.entry, run: run) ?? run()
          results.append(result)
          // What an earlier process did was told by it.
          if !isKnown { progress(result, results.count) }
        }
      }
    }
    return results
  }
}

/// Maps in parallel, at most `concurrency` at a time, keeping the order.
func concurrentMap<Element: Sendable, Result: Sendable>(
  _ elements: [Element], concurrency: Int, _ transform: @escaping @Sendable (Element) -> Result
) async -> [Result] {
  await withTaskGroup(of: (Int, Result).self) { group in
    var results = [Result?](repeating: nil, count: elements.count)
    var started = 0
    func start() {
      let index = started
      let element = elements[index]
      group.addTask { (index, transform(element)) }
      started += 1
    }
    while started < min(concurrency, elements.count) { start() }
    while let (index, result) = await group.next() {
      results[index] = result
      if started < elements.count { start() }
    }
    return results.map { $0! }
  }
}
