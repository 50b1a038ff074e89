// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// A plan covers every row and every chunk that the row can see exactly once, within its capacities, and never twice differently.

import MartletAttention
import MartletCPU
import MartletCore
import MartletTestSupport
import Testing

/// A shape of layer and a number of workers.
struct PlanShape: Sendable, CustomTestStringConvertible {
  var heads: Int
  var kvHeads: Int
  var mask: MaskView
  var workers: Int

  var testDescription: String { "\(heads)/\(kvHeads) heads, \(mask), \(workers) workers" }

  static let all: [PlanShape] = [(9, 3), (32, 8), (10, 2), (128, 1), (4, 4)].flatMap { heads, kvHeads in
    [MaskView.causal, .slidingWindow(100), .slidingWindow(1000), .around(100), .around(1000), .full, .custom(window: 300)].flatMap { mask in
      [1, 2, 16].map { PlanShape(heads: heads, kvHeads: kvHeads, mask: mask, workers: $0) }
    }
  }
}

@Suite("The planner")
struct AttentionPlannerTests {
  private let maxRequests = 24
  private let maxTokens = 600
  private let maxLength = 6000

  private func planner(_ shape: PlanShape) -> AttentionPlanner {
    AttentionPlanner(
      AttentionPlanKey(numHeads: shape.heads, numKVHeads: shape.kvHeads, valueHeadDim: 64, mask: shape.mask), maxNumRequests: maxRequests,
      maxNumTokens: maxTokens, maxSequenceLength: maxLength, workerCount: shape.workers)
  }

  /// A batch of (new tokens, key/value length).
  private func batch(_ random: inout SeededGenerator, most: Int) -> [(tokens: Int, keys: Int)] {
    var left = maxTokens
    var batch: [(Int, Int)] = []
    for _ in 0..<Int.random(in: 1...most, using: &random) where left > 0 {
      let tokens = Bool.random(using: &random) ? 1 : Int.random(in: 1...left, using: &random)
      left -= tokens
      batch.append((tokens, Int.random(in: tokens...maxLength, using: &random)))
    }
    return batch
  }

  private func plan(
    _ planner: AttentionPlanner, _ batch: [(tokens: Int, keys: Int)], _ device: CPUDevice, into list: inout AttentionTaskList
  ) throws {
    let indptr = try device.makeHostBuffer(of: Int32.self, count: batch.count + 1)
    let lengths = try device.makeHostBuffer(of: Int32.self, count: batch.count)
    for (index, request) in batch.enumerated() {
      indptr[index + 1] = indptr[index] + Int32(request.tokens)
      lengths[index] = Int32(request.keys)
    }
    planner.plan(PlannedBatch(numRequests: batch.count, queryIndptr: indptr, kvLens: lengths), into: &list)
  }

  /// One row of one key/value head of one request.
  private struct Row: Hashable {
    var request: Int32
    var kvHead: Int32
    var row: Int32
  }

  /// Whoever is free claims the next task of the list, as workers do; a tile takes as long as its rows, and its reading as 8 more.
  private func busyShare(_ list: AttentionTaskList, _ batch: [(tokens: Int, keys: Int)], workers: Int) -> Double {
    var ends = [Int](repeating: 0, count: workers)
    var all = 0
    for index in 0..<list.taskCount {
      let task = list.task(index)
      let keys =
        min(batch[Int(task.request)].keys, Int(task.endChunk) * AttentionWork.chunkSize) - Int(task.firstChunk) * AttentionWork.chunkSize
      let cost = (keys + AttentionWork.tileSize - 1) / AttentionWork.tileSize * (Int(task.rowCount) + 8)
      let worker = ends.indices.min { ends[$0] < ends[$1] }!
      ends[worker] += cost
      all += cost
    }
    return Double(all) / Double(workers * ends.max()!)
  }

  /// Generations of 32 heads on 8 key/value heads: few long requests, many short ones, one among them that is far longer.
  @Test(
    "keeps 64 workers busy",
    arguments: [
      [(1, 32768)], Array(repeating: (1, 2048), count: 64), [(1, 32768)] + Array(repeating: (1, 128), count: 31),
      (0..<32).map { (1, 256 + 977 * $0) },
    ])
  func simulation(batch: [(tokens: Int, keys: Int)]) throws {
    let device = try CPUDevice(threads: 1)
    for workers in [2, 16, 64] {
      let planner = AttentionPlanner(
        AttentionPlanKey(numHeads: 32, numKVHeads: 8, valueHeadDim: 128, mask: .causal), maxNumRequests: 64, maxNumTokens: 512,
        maxSequenceLength: 32768, workerCount: workers)
      var list = try AttentionTaskList(planner, on: device)
      try plan(planner, batch, device, into: &list)
      let share = busyShare(list, batch, workers: workers)
      #expect(share >= 0.9, "\(workers) workers are busy \(share) of the time with \(list.taskCount) tasks")
    }
  }

  @Test("covers every row and every chunk it sees exactly once", arguments: PlanShape.all)
  func coverage(shape: PlanShape) throws {
    let device = try CPUDevice(threads: 1)
    let planner = planner(shape)
    var list = try AttentionTaskList(planner, on: device)
    var random = SeededGenerator(seed: 42)
    for most in [1, 1, 3, 24] {
      let batch = batch(&random, most: most)
      try plan(planner, batch, device, into: &list)
      #expect(list.taskCount <= planner.taskCapacity && list.mergeCount <= planner.mergeCapacity && list.stateRows <= planner.stateCapacity)
      if shape.workers == 1 { #expect(list.mergeCount == 0) }
      var visits: [Row: [Range<Int32>]] = [:]
      var mergeTasks: [Int32: [AttentionTask]] = [:]
      for index in 0..<list.taskCount {
        let task = list.task(index)
        #expect((1...Int32(AttentionTask.maxRows)).contains(task.rowCount))
        for row in task.firstRow..<task.firstRow + task.rowCount {
          visits[Row(request: task.request, kvHead: task.kvHead, row: row), default: []].append(task.firstChunk..<task.endChunk)
        }
        if task.merge >= 0 { mergeTasks[task.merge, default: []].append(task) }
      }
      let group = shape.heads / shape.kvHeads
      var rows = 0
      for (request, (tokens, keys)) in batch.enumerated() {
        for head in 0..<shape.kvHeads {
          for row in 0..<tokens * group {
            let position = keys - tokens + row / group
            let (first, last) =
              switch shape.mask {
              case .causal: (0, position)
              case .slidingWindow(let window): (max(0, position - window + 1), position)
              case .around(let window): (max(0, position - window + 1), min(position + window, keys) - 1)
              case .full: (0, keys - 1)
              case .custom(let window): (max(0, position - (window ?? keys) + 1), position)  // nobody in this batch has bits
              }
            let chunks = (visits[Row(request: Int32(request), kvHead: Int32(head), row: Int32(row))] ?? []).sorted {
              $0.lowerBound < $1.lowerBound
            }
            // In ascending order they join without gap or overlap, and reach from the row's first visible chunk to its last.
            var joined = chunks.first?.lowerBound ?? .max
            for chunk in chunks {
              guard chunk.lowerBound == joined && !chunk.isEmpty else {
                Issue.record("row \(row) of request \(request): chunks \(chunks)"); break
              }
              joined = chunk.upperBound
            }
            if !(chunks.first.map { $0.lowerBound <= first / 512 } ?? false) || joined < last / 512 + 1 {
              Issue.record("row \(row) of request \(request) sees keys \(first)...\(last), its chunks are \(chunks)")
            }
            rows += 1
          }
        }
      }
      #expect(visits.count == rows, "no row beyond the batch's")
      for merge in 0..<list.mergeCount {
        let tasks = (mergeTasks[Int32(merge)] ?? []).sorted { $0.firstChunk < $1.firstChunk }
        let expected = list.merge(merge)
        #expect(tasks.count == Int(expected.chunkCount) && tasks.count > 1)
        for (index, task) in tasks.enumerated() {
          #expect(task.endChunk == task.firstChunk + 1 && task.rowCount == expected.rowCount)
          #expect(task.stateRow == expected.stateRow + Int32(index) * expected.rowCount)
        }
      }
    }
  }

  @Test("is the same for the same batch, and leaves out chunks that no row of a block sees")
  func determinism() throws {
    let device = try CPUDevice(threads: 1)
    let planner = planner(PlanShape(heads: 9, kvHeads: 3, mask: .slidingWindow(100), workers: 4))
    var (first, second) = (try AttentionTaskList(planner, on: device), try AttentionTaskList(planner, on: device))
    try plan(planner, [(64, 3000), (1, 5)], device, into: &first)
    try plan(planner, [(1, 1), (300, 4000)], device, into: &second)
    try plan(planner, [(64, 3000), (1, 5)], device, into: &second)
    #expect(first.taskCount == second.taskCount)
    for index in 0..<first.taskCount { #expect(first.task(index) == second.task(index)) }
    // Queries at 2936… see keys from 2837 on: chunk 5 alone.
    for index in 0..<first.taskCount where first.task(index).request == 0 {
      #expect(first.task(index).firstChunk == 5 && first.task(index).endChunk == 6)
    }
  }

  @Test("shows every key to requests with bits, and skips requests of no keys")
  func bitsAndDummies() throws {
    let device = try CPUDevice(threads: 1)
    let planner = planner(PlanShape(heads: 4, kvHeads: 1, mask: .custom(window: 100), workers: 1))
    var list = try AttentionTaskList(planner, on: device)
    let offsets = try device.makeHostBuffer(of: Int32.self, count: 4)
    let indptr = try device.makeHostBuffer(of: Int32.self, count: 5)
    let lengths = try device.makeHostBuffer(of: Int32.self, count: 4)
    for (index, (tokens, keys, offset)) in [(2, 1600, 0), (2, 1600, -1), (3, 0, -1), (1, 1, -1)].enumerated() {
      indptr[index + 1] = indptr[index] + Int32(tokens)
      lengths[index] = Int32(keys)
      offsets[index] = Int32(offset)
    }
    planner.plan(PlannedBatch(numRequests: 4, queryIndptr: indptr, kvLens: lengths, maskOffsets: offsets), into: &list)
    let chunks = Dictionary(uniqueKeysWithValues: (0..<list.taskCount).map { (list.task($0).request, list.task($0)) })
    #expect(chunks.keys.sorted() == [0, 1, 3])
    #expect(chunks[0].map { $0.firstChunk..<$0.endChunk } == 0..<4)
    #expect(chunks[1].map { $0.firstChunk..<$0.endChunk } == 2..<4, "1499 is the first key that the window shows")
    #expect(chunks[3].map { $0.firstChunk..<$0.endChunk } == 0..<1)
  }

  @Test("puts long tasks first, and about as long ones of one request and head after one another", arguments: [2, 8, 32])
  func longFirst(workers: Int) throws {
    let device = try CPUDevice(threads: 1)
    let planner = planner(PlanShape(heads: 8, kvHeads: 2, mask: .causal, workers: workers))
    var list = try AttentionTaskList(planner, on: device)
    try plan(planner, [(1, 10), (1, 5000), (1, 700), (600, 600), (200, 900)], device, into: &list)
    let tasks = (0..<list.taskCount).map { list.task($0) }
    let keyLengths = [10, 5000, 700, 600, 900], tokens = [1, 1, 1, 600, 200]
    let costs = tasks.map { task in
      let request = Int(task.request)
      let keys = keyLengths[request] - tokens[request] + (Int(task.firstRow + task.rowCount) - 1) / 4 + 1
      let end = (min(keys, Int(task.endChunk) * 512) + 63) / 64
      return (end - Int(task.firstChunk) * 8) * (Int(task.rowCount) + 8)
    }
    let step = max(1, costs.reduce(0, +) / (workers * AttentionPlanner.orderGrain))
    let classes = costs.map { $0 / step }
    #expect(Set(classes).count > 1)
    #expect(zip(classes, classes.dropFirst()).allSatisfy { $0 >= $1 })
    for cost in Set(classes) {
      let owners = tasks.indices.filter { classes[$0] == cost }.map { [tasks[$0].request, tasks[$0].kvHead] }
      let changes = zip(owners, owners.dropFirst()).count { $0 != $1 }
      #expect(changes == Set(owners).count - 1, "tasks of one request and head lie apart in \(owners)")
    }
  }

  @Test("cuts a lone long generation for many workers, and a full batch not at all")
  func splitting() throws {
    let device = try CPUDevice(threads: 1)
    let planner = planner(PlanShape(heads: 9, kvHeads: 3, mask: .causal, workers: 8))
    var list = try AttentionTaskList(planner, on: device)
    try plan(planner, [(1, 5000)], device, into: &list)
    #expect(list.mergeCount == 3 && list.taskCount == 3 * 10)
    try plan(planner, Array(repeating: (1, 2000), count: 24), device, into: &list)
    #expect(list.mergeCount == 0 && list.taskCount == 3 * 24)
  }
}
