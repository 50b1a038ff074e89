// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletKernels
import MartletCore

/// What inputs are coded as (`martlet_input_coding`).
package enum InputCoding: Sendable, CaseIterable {
  case codes, digits, bf16, int8

  var code: Int32 {
    switch self {
    case .codes: Int32(martlet_input_codes.rawValue)
    case .digits: Int32(martlet_input_digits.rawValue)
    case .bf16: Int32(martlet_input_bf16.rawValue)
    case .int8: Int32(martlet_input_int8.rawValue)
    }
  }
  /// Whether tiles multiply it, which takes a slab of every group of a task.
  package var isForTiles: Bool { self == .digits || self == .bf16 }
  /// Which takes the most memory of those that an instruction set reads.
  static func largest(for activations: Activations, _ set: InstructionSet) -> InputCoding {
    switch activations {
    case .bf16: .bf16
    case .int8: .int8
    case .exact: set.table.pointee.product.rows_of_a_digit_tile > 0 ? .digits : .codes
    }
  }

  /// Bytes of 256 inputs of one token.
  var slabByteCount: Int { martlet_slab_bytes(code) }
}

/// What of a device decides how its products are dealt.
package struct CPUProductMachine: Sendable {
  package var threadCount: Int
  /// Up to so many tokens, coded as integers, belong to one task.
  package var fewRows: Int
  /// Tokens of a tile of integer codes.
  package var rowsOfATile: Int
  /// Tokens of a tile of digits or bf16; 0 where there are none.
  package var rowsOfADigitTile: Int
  package var secondCacheByteCount: Int
  /// Of each thread.
  package var scratchByteCount: Int

  package init(
    threadCount: Int, fewRows: Int, rowsOfATile: Int, rowsOfADigitTile: Int, secondCacheByteCount: Int, scratchByteCount: Int
  ) {
    self.threadCount = threadCount
    self.fewRows = fewRows
    self.rowsOfATile = rowsOfATile
    self.rowsOfADigitTile = rowsOfADigitTile
    self.secondCacheByteCount = secondCacheByteCount
    self.scratchByteCount = scratchByteCount
  }
}

/// How one product is dealt to tasks: a task is some neighbouring groups of 16 rows for some neighbouring tokens. It decides speed only, never a bit.
///
/// The tasks are first cut as a cache likes them. With many threads these may not divide: of 448 tasks 111 threads do four each, and one thread a
/// fifth while the others wait. Then tasks are cut smaller, as far as that brings the end nearer. A group of 16 rows is never cut, so that of
/// 256 groups for one token 127 threads do three rounds, the last of them with two threads.
package struct CPUProductPlan: Sendable, Equatable {
  package let groupsPerTask: Int
  package let tokensPerTask: Int
  package let taskCount: Int

  /// Weight bytes that a thread reads in about two microseconds, several times the cost of claiming a task.
  private static let bytesPerTask = 16 << 10
  /// A slab of a group with a tile of tokens takes a tenth of a microsecond: a task of so many is worth claiming.
  private static let tileSlabsPerTask = 16
  /// Groups that pass over the tokens' slab while it is in the cache.
  private static let groupsInCache = 8
  private static let tasksPerThread = 8
  /// Tokens whose slab of codes, or of int8, stays in half a second cache of 512 KiB. (More, in a larger cache, were no faster.)
  private static let tokensOfCodes = 384
  /// Tasks of each thread at least with digits or bf16, of which a tile's are read once for all groups of a task. Fewer would wait for a thread that the system
  /// holds up.
  private static let leastRounds = 4
  /// Up to so many threads tasks stay as the cache likes them: of the shapes of Llama 8B none leaves them waiting for an eighth of the time.
  private static let fewThreads = 8

  /// - Parameters:
  ///   - groupCount: groups of 16 rows, at least 1.
  ///   - slabCount: slabs of 256 inputs.
  package init(tokens: Int, groupCount groups: Int, bytesPerGroup: Int, slabCount: Int, coding: InputCoding, on machine: CPUProductMachine)
  {
    let threads = machine.threadCount
    let wantedTasks = threads == 1 ? 1 : Self.tasksPerThread * threads
    if !coding.isForTiles && tokens <= machine.fewRows {
      let least = (Self.bytesPerTask + bytesPerGroup - 1) / bytesPerGroup
      let perTask = max(1, max((groups + wantedTasks - 1) / wantedTasks, least))
      (groupsPerTask, tokensPerTask) = Self.evened(
        groups: groups, perTask: perTask, tokens: tokens, perBlock: tokens, tileRows: tokens, threads: threads
      ) { count, _ in count >= least }
    } else {
      let tileRows = coding.isForTiles ? machine.rowsOfADigitTile : machine.rowsOfATile
      let tokensInCache = coding.isForTiles ? max(tileRows, machine.secondCacheByteCount / 4 / coding.slabByteCount) : Self.tokensOfCodes
      let blocks = (tokens + tokensInCache - 1) / tokensInCache
      let perBlock = ((tokens + blocks - 1) / blocks + tileRows - 1) / tileRows * tileRows
      func scratchBytes(_ groups: Int) -> Int { Int(martlet_product_scratch_bytes(coding.code, Int32(groups), Int32(perBlock))) }
      // Every thread gets as many tasks as the others, so that none waits for the last.
      let rounds = (groups * blocks + threads * Self.groupsInCache - 1) / (threads * Self.groupsInCache)
      let chunks = max(1, threads * max(rounds, coding.isForTiles ? Self.leastRounds : Self.tasksPerThread) / blocks)
      var perTask = min(Self.groupsInCache, (groups + chunks - 1) / chunks)
      while perTask > 1, scratchBytes(perTask) > machine.scratchByteCount { perTask -= 1 }
      enforce(
        scratchBytes(perTask) <= machine.scratchByteCount,
        "a product of \(perBlock) tokens needs more than the pool's scratch of \(machine.scratchByteCount) bytes")
      (groupsPerTask, tokensPerTask) = Self.evened(
        groups: groups, perTask: perTask, tokens: tokens, perBlock: perBlock, tileRows: tileRows, threads: threads
      ) { count, tiles in count * slabCount * (1 + tiles) >= Self.tileSlabsPerTask }
    }
    taskCount = (groups + groupsPerTask - 1) / groupsPerTask * ((tokens + tokensPerTask - 1) / tokensPerTask)
  }

  /// Groups and tokens of a task: `perTask` and `perBlock`, or less where threads would wait for the last task for more than a twentieth of the time,
  /// and the end comes sooner by as much.
  /// - Parameter isWorthClaiming: of a task of so many groups and tiles of tokens.
  private static func evened(
    groups: Int, perTask: Int, tokens: Int, perBlock: Int, tileRows: Int, threads: Int,
    isWorthClaiming: (_ groups: Int, _ tiles: Int) -> Bool
  ) -> (groups: Int, tokens: Int) {
    var tiles = (perBlock + tileRows - 1) / tileRows
    let blocks = (tokens + perBlock - 1) / perBlock
    var best = (groups: perTask, tokens: perBlock)
    var shortest = longestWorker(groups: groups, perTask: perTask, blocks: blocks, tiles: tiles, threads: threads)
    guard threads > fewThreads, groups * blocks * (1 + tiles) * 20 < shortest * threads * 19 else { return best }
    while true {
      let rows = tiles * tileRows
      for count in stride(from: perTask, to: 0, by: -1) where isWorthClaiming(count, tiles) {
        let end = longestWorker(groups: groups, perTask: count, blocks: (tokens + rows - 1) / rows, tiles: tiles, threads: threads)
        if end * 20 < shortest * 19 { (shortest, best) = (end, (count, rows)) }
      }
      // Each cut of the tokens unpacks the weights once more: two tiles at least share what is unpacked.
      guard tiles > 2 else { return best }
      tiles = (tiles + 1) / 2
    }
  }

  /// What the worker does that ends last, in slabs of a group with a tile of tokens; to unpack one takes as long. The last task of each block of
  /// tokens has the groups that are left.
  private static func longestWorker(groups: Int, perTask: Int, blocks: Int, tiles: Int, threads: Int) -> Int {
    let whole = groups / perTask * blocks, rest = groups % perTask, left = whole % threads
    var count = whole / threads * perTask
    if left > 0 {
      let free = threads - left
      count += max(perTask, rest > 0 ? (blocks + free - 1) / free * rest : 0)
    } else if rest > 0 {
      count += (blocks + threads - 1) / threads * rest
    }
    return count * (1 + tiles)
  }
}
