// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// The grid's own promise: which combinations of axes have a cell.

import MartletAttention
import MartletAttentionTestKit
import MartletCore
import Testing

@Suite("Covering arrays")
struct CoveringArrayTests {
  @Test("hold every pair, with few rows")
  func pairs() {
    let sizes = [5, 4, 3, 3, 2, 2]
    let pairs = sizes.indices.flatMap { first in sizes.indices.filter { $0 > first }.map { [first, $0] } }
    let array = CoveringArray(sizes: sizes, wanted: pairs, seed: 3) { _ in true }
    #expect(array.unreachable.isEmpty)
    for pair in pairs {
      let found = Set(array.rows.map { [$0[pair[0]], $0[pair[1]]] })
      #expect(found.count == sizes[pair[0]] * sizes[pair[1]], "axes \(pair)")
    }
    // 20 rows are the least, for the two largest axes alone; all combinations are 720.
    #expect(array.rows.count < 30)
  }

  @Test("hold every triple that is wanted, keep to what is allowed, and name what cannot be")
  func triplesAndLimits() {
    let sizes = [3, 4, 2, 5]
    let array = CoveringArray(sizes: sizes, wanted: [[0, 1, 2], [0, 1, 3]], seed: 5) { !($0[0] == 1 && $0[3] == 2) }
    #expect(array.rows.allSatisfy { !($0[0] == 1 && $0[3] == 2) })
    #expect(Set(array.rows.map { [$0[0], $0[1], $0[2]] }).count == 24)
    #expect(Set(array.rows.map { [$0[0], $0[1], $0[3]] }).count == 60 - 4)
    #expect(Set(array.unreachable) == Set((0..<4).map { [[0, 1], [1, $0], [3, 2]] }))
  }

  @Test("are the same for the same seed, and start with the rows they are given")
  func determinism() {
    func rows(_ seed: UInt64, _ first: [[Int]] = []) -> [[Int]] {
      CoveringArray(sizes: [4, 4, 4], wanted: [[0, 1], [1, 2], [0, 2]], seed: seed, startingWith: first) { _ in true }.rows
    }
    #expect(rows(1) == rows(1))
    #expect(rows(1) != rows(2))
    #expect(rows(1, [[3, 2, 1]]).first == [3, 2, 1])
    let subjects = ConformanceSubject.builtIn
    #expect(ConformanceGrid(subjects, seed: 4).cases == ConformanceGrid(subjects, seed: 4).cases)
  }

  /// For each backend every pair of values that some cell can have, found by trying all values of the axes that exclude each other.
  @Test("of the grid hold every pair that each backend serves", arguments: [1, 2] as [UInt64])
  func grid(seed: UInt64) throws {
    let grid = ConformanceGrid(ConformanceSubject.builtIn, seed: seed)
    for subject in grid.subjects {
      let served = { (example: ConformanceCase) in
        example.isMeaningful && !(subject.obstacles ?? []).contains { $0.applies(example) }
      }
      var possible = Set<Set<String>>()
      for kvType in ConformanceCase.kvTypes {
        for page in ConformanceCase.Page.allCases {
          for phase in ConformanceCase.Phase.allCases {
            for mask in ConformanceCase.Mask.allCases {
              for fp8 in ConformanceCase.FP8.allCases {
                var example = ConformanceCase(backend: subject.name, kvType: kvType, page: page, phase: phase, mask: mask, fp8: fp8)
                guard served(example) else { continue }
                // The other axes exclude nothing, but latents some.
                for heads in ConformanceCase.Heads.allCases {
                  example.heads = heads
                  if served(example) { insertPairs(of: example, into: &possible) }
                }
                example.heads = .gqa4
                for rope in ConformanceCase.Rope.allCases {
                  example.rope = rope
                  insertPairs(of: example, into: &possible)
                }
                for headDim in ConformanceCase.headDims {
                  example.headDim = headDim
                  example.norm = headDim % 3 == 0 ? .heads : .none
                  example.values = headDim % 5 == 0 ? .narrower : .same
                  example.input = headDim % 32 == 0 ? .fused : .separate
                  insertPairs(of: example, into: &possible)
                }
              }
            }
          }
        }
      }
      var present = Set<Set<String>>()
      for example in grid.cases where example.backend == subject.name && served(example) { insertPairs(of: example, into: &present) }
      let missing = possible.subtracting(present)
      #expect(missing.isEmpty, "\(subject.name): \(missing.count) of \(possible.count) pairs, \(missing.first ?? [])")
      // Every one of a pair of free axes too.
      for heads in ConformanceCase.Heads.allCases {
        for rope in ConformanceCase.Rope.allCases {
          #expect(grid.cases.contains { $0.backend == subject.name && $0.heads == heads && $0.rope == rope })
        }
      }
    }
  }

  @Test("of a backend from outside are drawn among what it serves, with a cell of each value that it never does")
  func outside() {
    func serves(_ example: ConformanceCase) -> Bool { (example.kvType == .f32 || example.kvType == .bf16) && example.rope != .deferred }
    let grid = ConformanceGrid([ConformanceSubject(VanillaAttention.self)]) { serves($1) }
    let served = grid.cases.filter(serves), refused = grid.cases.filter { !serves($0) }
    for rope in ConformanceCase.Rope.allCases where rope != .deferred {
      for heads in ConformanceCase.Heads.allCases { #expect(served.contains { $0.rope == rope && $0.heads == heads }, "\(rope) \(heads)") }
      for kvType in ConformanceCase.kvTypes where kvType == .f32 || kvType == .bf16 {
        #expect(served.contains { $0.rope == rope && $0.kvType == kvType }, "\(rope) \(kvType)")
      }
    }
    for kvType in ConformanceCase.kvTypes where kvType != .f32 && kvType != .bf16 { #expect(refused.contains { $0.kvType == kvType }) }
    #expect(refused.contains { $0.rope == .deferred })
    // Without asking, two of five types of keys would be most of what there is.
    #expect(refused.count < served.count / 10, "\(refused.count) refused, \(served.count) served")
  }

  private func insertPairs(of example: ConformanceCase, into pairs: inout Set<Set<String>>) {
    let axes = example.axes.dropFirst().map { "\($0.name)=\($0.value)" }
    for first in axes.indices {
      for second in axes.indices where second > first { pairs.insert([axes[first], axes[second]]) }
    }
  }
}
