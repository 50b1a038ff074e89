// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletKernels
import Foundation
import MartletCPU
import MartletCore
import Synchronization
import Testing

/// What the tasks of these tests read and write.
private struct Board {
  var inputs: UnsafeMutablePointer<Int64>
  var outputs: UnsafeMutablePointer<Int64>
  var round: Int64
}

/// A board of `capacity` cells, and runs over it.
private final class BoardGame {
  let pool: WorkerPool
  var board: Board
  let capacity: Int

  init(threads: Int, capacity: Int, scratchByteCount: Int = 4096) throws {
    pool = try WorkerPool(threadCount: threads, scratchByteCount: scratchByteCount)
    self.capacity = capacity
    board = Board(inputs: .allocate(capacity: capacity), outputs: .allocate(capacity: capacity), round: 0)
    board.inputs.initialize(repeating: 0, count: capacity)
    board.outputs.initialize(repeating: 0, count: capacity)
  }

  deinit {
    board.inputs.deallocate()
    board.outputs.deallocate()
  }

  func run(_ taskCount: Int, _ function: martlet_task_function) {
    withUnsafePointer(to: board) { pool.run(taskCount: taskCount, function: function, arguments: $0) }
  }

  var outputs: [Int64] { (0..<capacity).map { board.outputs[$0] } }
}

extension UnsafeRawPointer? {
  fileprivate var board: Board { self!.load(as: Board.self) }
}

/// The system's number of the calling thread.
private func threadID() -> Int64 {
  let link = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/thread-self")
  return link?.split(separator: "/").last.flatMap { Int64($0) } ?? -1
}

/// The state letter of a thread of this process (S: sleeping, R: running); nil once it has ended.
private func state(ofThread id: Int64) -> Character? {
  guard let text = try? String(contentsOfFile: "/proc/self/task/\(id)/stat", encoding: .utf8), let end = text.lastIndex(of: ")") else {
    return nil
  }
  return text[end...].dropFirst(2).first
}

/// Whether the condition comes true within ten seconds, which is forever for what is asked here.
private func eventually(_ condition: () -> Bool) -> Bool {
  for _ in 0..<10_000 {
    if condition() { return true }
    usleep(1000)
  }
  return false
}

@Suite struct `A worker pool` {
  @Test(arguments: [1, 2, 3, 4, 9], [0, 1, 2, 3, 7, 64, 1000])
  func `runs every task exactly once`(threads: Int, taskCount: Int) throws {
    let game = try BoardGame(threads: threads, capacity: taskCount + 1)
    for _ in 0..<20 { game.run(taskCount) { arguments, task, _, _ in arguments.board.outputs[Int(task)] += 1 } }
    #expect(game.outputs == [Int64](repeating: 20, count: taskCount) + [0])
  }

  @Test(arguments: [1, 2, 4]) func `shows each run what was written before it, a hundred thousand times`(threads: Int) throws {
    let game = try BoardGame(threads: threads, capacity: 5)
    var wrong = 0
    for round in 1...100_000 as ClosedRange<Int64> {
      let taskCount = Int(round % 5) + 1
      game.board.round = round
      for task in 0..<taskCount { game.board.inputs[task] = round &* Int64(task + 3) }
      game.run(taskCount) { arguments, task, _, _ in
        let board = arguments.board
        board.outputs[Int(task)] = board.inputs[Int(task)] &+ board.round
      }
      for task in 0..<taskCount where game.board.outputs[task] != round &* Int64(task + 4) { wrong += 1 }
    }
    #expect(wrong == 0)
  }

  @Test(arguments: [2, 4]) func `works again after its threads have fallen asleep`(threads: Int) throws {
    let game = try BoardGame(threads: threads, capacity: 64)
    for round in 1...50 {
      // Longer than an idle thread spins, in most rounds.
      usleep(UInt32(round % 5) * 100)
      game.run(64) { arguments, task, _, _ in arguments.board.outputs[Int(task)] += Int64(task) }
      #expect(game.outputs == (0..<64).map { Int64(round) * $0 })
    }
  }

  @Test func `gives each worker a number and aligned scratch of its own`() throws {
    let threads = 4
    let game = try BoardGame(threads: threads, capacity: 3 * threads, scratchByteCount: 1000)
    for _ in 0..<50 {
      game.run(threads) { arguments, task, worker, scratch in
        // Fills the scratch, waits a little, and finds it as it was: nobody else has it.
        let words = scratch!.assumingMemoryBound(to: Int64.self)
        for word in 0..<125 { words[word] = Int64(task) }
        for _ in 0..<100 { martlet_pause() }
        for word in 0..<125 where words[word] != Int64(task) { arguments.board.outputs[0] += 1 }
        if UInt(bitPattern: scratch) % 64 != 0 { arguments.board.outputs[1] += 1 }
        if !(0..<4).contains(worker) { arguments.board.outputs[2] += 1 }
      }
    }
    #expect(game.outputs == [Int64](repeating: 0, count: 3 * threads))
    #expect(game.pool.scratchByteCount == 1000)
  }

  @Test(arguments: [1, 3]) func `calls a closure for every task, with a worker's scratch`(threads: Int) throws {
    let pool = try WorkerPool(threadCount: threads, scratchByteCount: 256)
    let taskCount = 100, others = Atomic(0)
    // Plain memory: nobody else has a task, and a run comes after the one before, which the thread sanitizer sees from the pool's atomics.
    nonisolated(unsafe) let calls = UnsafeMutableBufferPointer<Int>.allocate(capacity: taskCount)
    calls.initialize(repeating: 0)
    defer { calls.deallocate() }
    for _ in 0..<10 {
      pool.run(taskCount: taskCount) { task, worker, scratch in
        // Nobody else has the scratch while the task runs.
        scratch.storeBytes(of: task, as: Int.self)
        calls[task] += 1
        let isOwn = scratch.load(as: Int.self) == task && scratch.count == 256 && (0..<threads).contains(worker)
        if !isOwn { others.wrappingAdd(1, ordering: .relaxed) }
      }
    }
    #expect(Array(calls) == [Int](repeating: 10, count: taskCount) && others.load(ordering: .relaxed) == 0)
  }

  @Test func `lets several callers take turns`() throws {
    let pool = try WorkerPool(threadCount: 3, scratchByteCount: 64)
    let callers = 4, runs = 2000, taskCount = 7
    let sums = Mutex([Int64](repeating: 0, count: callers))
    DispatchQueue.concurrentPerform(iterations: callers) { caller in
      var total: Int64 = 0
      withUnsafeTemporaryAllocation(of: Int64.self, capacity: 2 * taskCount) { cells in
        cells.initialize(repeating: 0)
        let board = Board(inputs: cells.baseAddress!, outputs: cells.baseAddress! + taskCount, round: Int64(caller))
        for _ in 0..<runs {
          withUnsafePointer(to: board) {
            pool.run(
              taskCount: taskCount,
              function: { arguments, task, _, scratch in
                // The scratch is this run's alone: a caller that did not wait its turn would be seen.
                let word = scratch!.assumingMemoryBound(to: Int64.self)
                word.pointee = arguments.board.round
                for _ in 0..<10 { martlet_pause() }
                if word.pointee == arguments.board.round { arguments.board.outputs[Int(task)] += arguments.board.round + 1 }
              }, arguments: $0)
          }
        }
        total = cells[taskCount...].reduce(0, +)
      }
      sums.withLock { $0[caller] = total }
    }
    #expect(sums.withLock { $0 } == (0..<callers).map { Int64(($0 + 1) * runs * taskCount) })
  }

  @Test func `puts its idle threads to sleep and ends them with itself`() throws {
    let threads = 3
    var game: BoardGame? = try BoardGame(threads: threads, capacity: threads + 1)
    // As many tasks as threads, each of which waits for all others: so every worker has one.
    game!.run(threads) { arguments, task, worker, _ in
      arguments.board.outputs[Int(worker)] = threadID()
      let arrived = UnsafeMutableRawPointer(arguments.board.outputs + 3).assumingMemoryBound(to: Atomic<Int64>.self)
      arrived.pointee.wrappingAdd(1, ordering: .sequentiallyConsistent)
      while arrived.pointee.load(ordering: .sequentiallyConsistent) < 3 { martlet_pause() }
    }
    let ids = Array(game!.outputs[..<threads])
    #expect(Set(ids).count == threads)
    #expect(ids[0] == threadID(), "the caller is worker 0")
    for id in ids[1...] { #expect(eventually { state(ofThread: id) == "S" }, "thread \(id) does not sleep") }
    game = nil
    for id in ids[1...] { #expect(eventually { state(ofThread: id) == nil }, "thread \(id) has not ended") }
  }

  @Test func `starts and ends many times`() throws {
    for round in 0..<200 {
      let game = try BoardGame(threads: 1 + round % 4, capacity: 8)
      if round % 3 != 0 { game.run(8) { arguments, task, _, _ in arguments.board.outputs[Int(task)] += 1 } }
      #expect(game.outputs == [Int64](repeating: round % 3 != 0 ? 1 : 0, count: 8))
    }
  }

  @Test(arguments: [1, 2]) func `refuses a run from one of its own tasks`(threads: Int) async {
    await #expect(processExitsWith: .failure) { [threads] in
      let pool = try WorkerPool(threadCount: threads, scratchByteCount: 64)
      withUnsafePointer(to: pool) {
        pool.run(
          taskCount: 2,
          function: { arguments, _, _, _ in
            let pool = arguments!.load(as: WorkerPool.self)
            pool.run(taskCount: 1, function: { _, _, _, _ in }, arguments: arguments!)
          }, arguments: $0)
      }
    }
  }
}
