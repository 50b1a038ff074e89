// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletCPU
import MartletCore
import Testing

/// Writes down what it is told.
///
/// A lock of the system's, because the thread sanitizer follows it; it does not see into `Mutex`. `@unchecked Sendable`: `lines` is read and written
/// under `lock` only.
private final class Scribe: WorkerPoolObserver, @unchecked Sendable {
  enum Line: Equatable {
    case runBegins(taskCount: Int, part: WorkerPool.RunPart)
    case taskBegins(worker: Int)
    case taskEnds(worker: Int)
    case runEnds
  }

  private let lock = NSLock()
  private var lines: [Line] = []

  var written: [Line] { lock.withLock { lines } }
  private func write(_ line: Line) { lock.withLock { lines.append(line) } }
  func runBegins(taskCount: Int, part: WorkerPool.RunPart) { write(.runBegins(taskCount: taskCount, part: part)) }
  func taskBegins(worker: Int) { write(.taskBegins(worker: worker)) }
  func taskEnds(worker: Int) { write(.taskEnds(worker: worker)) }
  func runEnds() { write(.runEnds) }
}

@Suite struct `A worker pool that is watched` {
  @Test(arguments: [1, 3], [0, 1, 20])
  func `tells of each run its beginning, every task of each worker in turn, and its end`(threads: Int, taskCount: Int) throws {
    let scribe = Scribe()
    let pool = try WorkerPool(threadCount: threads, scratchByteCount: 64, observer: scribe)
    // Plain memory: nobody else has a task, and a run comes after the one before.
    nonisolated(unsafe) let calls = UnsafeMutableBufferPointer<Int>.allocate(capacity: taskCount)
    calls.initialize(repeating: 0)
    defer { calls.deallocate() }
    for _ in 0..<3 { pool.run(taskCount: taskCount) { task, _, _ in calls[task] += 1 } }
    #expect(Array(calls) == [Int](repeating: 3, count: taskCount))
    let runs = scribe.written.split(separator: .runEnds, omittingEmptySubsequences: false)
    #expect(runs.count == 4 && runs[3].isEmpty)
    for run in runs[..<3] {
      #expect(run.first == .runBegins(taskCount: taskCount, part: .main) && run.count == 1 + 2 * taskCount)
      var isInside = [Bool](repeating: false, count: threads)
      for line in run.dropFirst() {
        switch line {
        case .taskBegins(let worker):
          #expect(!isInside[worker])
          isInside[worker] = true
        case .taskEnds(let worker):
          #expect(isInside[worker])
          isInside[worker] = false
        default: Issue.record("\(line) within a run")
        }
      }
      #expect(!isInside.contains(true))
    }
  }

  @Test func `of a device tells the coding of a product's inputs from the product`() throws {
    let scribe = Scribe()
    let device = try CPUDevice(threads: 1, observer: scribe)
    // Two blocks of Q8_0, which are read as zeros.
    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 2 * 34, alignment: 64)
    defer { bytes.deallocate() }
    bytes.initializeMemory(as: UInt8.self, repeating: 0)
    let weight = try device.prepare([
      Weight(name: "w", format: .q8_0, rows: 2, columns: 32, bytes: UnsafeRawBufferPointer(bytes), owner: nil)
    ])
    let before = scribe.written.count
    device.tensorKernels.product(
      try device.makeTensor(Shape(3, 32), .f32), weight, output: try device.makeTensor(Shape(3, 2), .f32), on: device.makeQueue())
    let parts = scribe.written[before...].compactMap { line in
      if case .runBegins(_, let part) = line { part } else { nil }
    }
    #expect(parts == [.coding, .main])
  }
}
