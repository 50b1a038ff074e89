// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Plans of products for machines that are not here: the real planner, and workers that are only imagined.

import MartletCPU
import MartletCore
import Testing

/// Workers who claim the tasks of a plan in their order, as those of a pool do, each as soon as it has done the one before.
///
/// Times are in microseconds, of one core with AMX and a share of its machine's memory:
/// - a task is claimed in 0.3;
/// - for few tokens a task reads its weights, 8 KiB in one;
/// - for many, a slab (256 inputs) of a group (16 rows) takes 0.13 for each tile of tokens, and as much to be unpacked, once for a task.
private struct ImaginedProduct {
  var tokens: Int
  var rows: Int
  var columns: Int
  var bytesPerGroup: Int
  var coding: InputCoding
  var machine: CPUProductMachine

  var groups: Int { (rows + 15) / 16 }
  var slabs: Int { (columns + 255) / 256 }
  private var isFew: Bool { !coding.isForTiles && tokens <= machine.fewRows }
  private var tileRows: Int { coding.isForTiles ? machine.rowsOfADigitTile : machine.rowsOfATile }

  func plan(threads: Int) -> CPUProductPlan {
    var machine = machine
    machine.threadCount = threads
    return CPUProductPlan(
      tokens: tokens, groupCount: groups, bytesPerGroup: bytesPerGroup, slabCount: slabs, coding: coding, on: machine)
  }

  private func work(groups: Int, tokens: Int) -> Double {
    if isFew { return Double(groups * bytesPerGroup) / 8192 }
    return Double(groups * slabs) * 0.13 * Double(1 + (tokens + tileRows - 1) / tileRows)
  }

  /// The work of each task, in the order in which they are claimed: all groups of a block of tokens, then the next block.
  private func tasks(_ plan: CPUProductPlan) -> [Double] {
    stride(from: 0, to: tokens, by: plan.tokensPerTask).flatMap { token in
      stride(from: 0, to: groups, by: plan.groupsPerTask).map { group in
        work(groups: min(plan.groupsPerTask, groups - group), tokens: min(plan.tokensPerTask, tokens - token))
      }
    }
  }

  /// What one worker alone would have to do, as a share of the time that all spend until the last has ended.
  func busyShare(threads: Int) -> Double {
    let alone = tasks(plan(threads: 1)).reduce(0, +)
    var workers = [Double](repeating: 0, count: threads)  // a heap: the one who is free first is at the top
    for task in tasks(plan(threads: threads)) {
      workers[0] += 0.3 + task
      var parent = 0
      while true {
        var least = parent
        for child in [2 * parent + 1, 2 * parent + 2] where child < threads && workers[child] < workers[least] { least = child }
        guard least != parent else { break }
        workers.swapAt(parent, least)
        parent = least
      }
    }
    return alone / (Double(threads) * workers.max()!)
  }

  /// The share of it that whole groups of 16 rows leave, where tokens cannot be cut as well.
  func shareOfWholeGroups(threads: Int) -> Double {
    Double(groups) / Double(threads * ((groups + threads - 1) / threads))
  }
}

private struct MatrixShape: CustomTestStringConvertible {
  var name: String
  var rows: Int
  var columns: Int
  var testDescription: String { name }

  /// The products of a layer of Llama 3.1 8B, and its last one.
  static let llama8B = [
    MatrixShape(name: "q, k, v", rows: 4096 + 1024 + 1024, columns: 4096), MatrixShape(name: "o", rows: 4096, columns: 4096),
    MatrixShape(name: "gate, up", rows: 2 * 14336, columns: 4096), MatrixShape(name: "down", rows: 4096, columns: 14336),
    MatrixShape(name: "head", rows: 128_256, columns: 4096),
  ]
}

/// Kinds of products that a processor has.
private enum ProductKind: String, CaseIterable {
  case avx2, avx512, amx, amxBF16

  var machine: CPUProductMachine {
    CPUProductMachine(
      threadCount: 1, fewRows: self == .avx2 ? 4 : 8, rowsOfATile: self == .avx2 ? 6 : 12,
      rowsOfADigitTile: self == .avx2 || self == .avx512 ? 0 : 16, secondCacheByteCount: self == .avx2 ? 512 << 10 : 2 << 20,
      scratchByteCount: 5 << 18)
  }

  func coding(tokens: Int) -> InputCoding {
    switch self {
    case .avx2, .avx512: .codes
    case .amx: tokens > machine.fewRows ? .digits : .codes
    case .amxBF16: .bf16
    }
  }
}

private let formats: [WeightFormat] = [.q4_K, .q8_0, .bf16]

private func product(_ shape: MatrixShape, tokens: Int, format: WeightFormat, kind: ProductKind, on device: CPUDevice) -> ImaginedProduct {
  ImaginedProduct(
    tokens: tokens, rows: shape.rows, columns: shape.columns,
    bytesPerGroup: device.preparedByteCount(format, rows: 16, columns: shape.columns), coding: kind.coding(tokens: tokens),
    machine: kind.machine)
}

@Suite struct `The plan of a product` {
  @Test(arguments: MatrixShape.llama8B, ProductKind.allCases)
  fileprivate func `keeps 64 and 128 workers busy`(shape: MatrixShape, kind: ProductKind) throws {
    let device = try CPUDevice(threads: 1)
    for format in formats {
      for tokens in [512, 32, 1] {
        for threads in [2, 64, 128] {
          let share = product(shape, tokens: tokens, format: format, kind: kind, on: device).busyShare(threads: threads)
          #expect(share >= 0.85, "\(format), \(tokens) tokens, \(threads) workers: \(share)")
        }
      }
    }
  }

  /// Numbers of workers that divide nothing: what is left is what groups that are not cut leave, and, for many tokens, that a cut of these has
  /// the weights unpacked once more.
  @Test(arguments: MatrixShape.llama8B, ProductKind.allCases)
  fileprivate func `wastes little of any number of workers`(shape: MatrixShape, kind: ProductKind) throws {
    let device = try CPUDevice(threads: 1)
    for tokens in [512, 32, 1] {
      let product = product(shape, tokens: tokens, format: .q4_K, kind: kind, on: device)
      for threads in 1...128 {
        let share = product.busyShare(threads: threads)
        let least = tokens == 512 ? 0.77 : 0.88 * product.shareOfWholeGroups(threads: threads)
        #expect(share >= least, "\(tokens) tokens, \(threads) workers: \(share), \(least) wanted")
      }
    }
  }

  @Test func `has tasks for all rows and tokens, within the scratch memory`() {
    for kind in ProductKind.allCases {
      for tokens in [1, 2, 9, 17, 33, 100, 512, 3000] {
        for groups in [1, 2, 7, 36, 100, 448, 8016] {
          for threads in [1, 2, 3, 17, 111, 128] {
            var machine = kind.machine
            machine.threadCount = threads
            let plan = CPUProductPlan(
              tokens: tokens, groupCount: groups, bytesPerGroup: 37_888, slabCount: 16, coding: kind.coding(tokens: tokens), on: machine)
            let chunks = (groups + plan.groupsPerTask - 1) / plan.groupsPerTask
            let blocks = (tokens + plan.tokensPerTask - 1) / plan.tokensPerTask
            #expect(plan.groupsPerTask > 0 && plan.tokensPerTask > 0 && plan.taskCount == chunks * blocks)
            if kind.coding(tokens: tokens) != .codes || tokens > machine.fewRows {
              // A row of 16 sums for each token and group, and what one slab of them is unpacked to.
              let unpacked = (kind.coding(tokens: tokens) == .codes ? 1 : plan.groupsPerTask) * 16384
              #expect(unpacked + plan.groupsPerTask * plan.tokensPerTask * 64 <= machine.scratchByteCount)
            }
          }
        }
      }
    }
  }
}
