// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// The merge loop against the definition, and the work it does.

import MartletTestSupport
import MartletTokenizers
import Testing

@Suite struct PairMergerTests {
  /// Merges over the letters a…d: pairs of token ids to (priority, product).
  private struct Rules {
    var table: [[Int32]: (priority: UInt32, token: Int32)] = [:]

    init(count: Int, using generator: inout SeededGenerator) {
      var tokens: [Int32] = [0, 1, 2, 3]
      for priority in 0..<UInt32(count) {
        let pair = [tokens.randomElement(using: &generator)!, tokens.randomElement(using: &generator)!]
        guard table[pair] == nil else { continue }
        let token = Int32(tokens.count)
        // Some pairs share a priority, so that "among equals the leftmost" is tried.
        table[pair] = (priority / 2, token)
        tokens.append(token)
      }
    }
  }

  private func merge(_ letters: [Int32], _ rules: Rules) -> (tokens: [Int32], lookups: Int) {
    var merger = PairMerger()
    for (index, letter) in letters.enumerated() { merger.append(Symbol(start: index, end: index + 1, token: letter)) }
    var tokens: [Int32] = []
    var (end, tiles) = (0, true)
    merger.run {
      rules.table[[$0.token, $1.token]]
    } output: {
      tiles = tiles && $0.range.lowerBound == end
      end = $0.range.upperBound
      tokens.append($0.token)
    }
    #expect(tiles && end == letters.count, "the symbols do not tile the text")
    return (tokens, merger.lookupCount)
  }

  /// The definition: look at all neighbours, merge the best, begin again.
  private func mergeByDefinition(_ letters: [Int32], _ rules: Rules) -> [Int32] {
    var tokens = letters
    while true {
      var best: (priority: UInt32, index: Int, token: Int32)?
      for index in tokens.indices.dropLast() {
        guard let rule = rules.table[[tokens[index], tokens[index + 1]]], rule.priority < best?.priority ?? .max else { continue }
        best = (rule.priority, index, rule.token)
      }
      guard let best else { return tokens }
      tokens.replaceSubrange(best.index...best.index + 1, with: [best.token])
    }
  }

  @Test(arguments: [UInt64(1), 2, 3, 4, 5]) func `merging with a heap equals merging by definition`(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    for _ in 0..<100 {
      let rules = Rules(count: Int.random(in: 1...40, using: &generator), using: &generator)
      let letters = (0..<Int.random(in: 0...60, using: &generator)).map { _ in Int32.random(in: 0..<4, using: &generator) }
      #expect(merge(letters, rules).tokens == mergeByDefinition(letters, rules), "seed \(seed)")
    }
  }

  @Test func `a run of n symbols takes at most 3n look-ups`() {
    var generator = SeededGenerator(seed: 6)
    for alphabet in [Int32(1), 2, 4] {
      let rules = Rules(count: 500, using: &generator)
      for count in [1000, 100_000] {
        let letters = (0..<count).map { _ in Int32.random(in: 0..<alphabet, using: &generator) }
        #expect(merge(letters, rules).lookups <= 3 * count)
      }
    }
  }
}
