// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// A cascade reads chunks that requests share once, and covers every row and chunk exactly once all the same.

import MartletAttention
import MartletCPU
import MartletCore
import MartletTestSupport
import Testing

@Suite("A plan with cascades")
struct CascadePlanTests {
  private let pageSize = 64
  private let maxLength = 4096
  private let device: CPUDevice

  init() throws { device = try CPUDevice(threads: 1) }

  /// A request: its new tokens, its keys, and how many leading pages it takes from which request before it.
  struct Request {
    var tokens: Int
    var keys: Int
    var source = 0
    var sharedPages = 0
  }

  private func planner(_ mask: MaskView, heads: Int = 8, kvHeads: Int = 2, workers: Int = 1, requests: Int = 40) -> AttentionPlanner {
    AttentionPlanner(
      AttentionPlanKey(numHeads: heads, numKVHeads: kvHeads, valueHeadDim: 16, mask: mask), maxNumRequests: requests, maxNumTokens: 512,
      maxSequenceLength: maxLength, workerCount: workers, cascadePageCount: 40 * maxLength / pageSize)
  }

  private func batch(_ requests: [Request]) throws -> PlannedBatch {
    let width = maxLength / pageSize
    let indptr = try device.makeHostBuffer(of: Int32.self, count: requests.count + 1)
    let lengths = try device.makeHostBuffer(of: Int32.self, count: requests.count)
    let table = try device.makeHostBuffer(of: Int32.self, count: requests.count * width)
    var page: Int32 = 0
    for (index, request) in requests.enumerated() {
      indptr[index + 1] = indptr[index] + Int32(request.tokens)
      lengths[index] = Int32(request.keys)
      let used = (request.keys + pageSize - 1) / pageSize
      for entry in 0..<width {
        if entry >= used {
          table[index * width + entry] = -1
        } else if entry < request.sharedPages {
          table[index * width + entry] = table[request.source * width + entry]
        } else {
          table[index * width + entry] = page
          page += 1
        }
      }
    }
    return PlannedBatch(
      numRequests: requests.count, queryIndptr: indptr, kvLens: lengths,
      pages: PlannedBatch.Pages(table: table, width: width, pageSize: pageSize))
  }

  private struct Visit: Hashable {
    var request: Int32
    var kvHead: Int32
    var row: Int32
    var chunk: Int32
  }

  /// Checks the plan and returns the number of cascade tasks.
  private func check(_ list: AttentionTaskList, _ planner: AttentionPlanner, _ batch: PlannedBatch, _ requests: [Request]) -> Int {
    let group = planner.key.numHeads / planner.key.numKVHeads
    var visits: [Visit: Int] = [:]
    var states: [Int32: [(chunk: Int32, stateRow: Int32, rows: Int32)]] = [:]
    var cascades = 0
    let pages = batch.pages!
    for index in 0..<list.taskCount {
      let task = list.task(index)
      func visit(_ request: Int32, _ first: Int32, _ count: Int32) {
        for chunk in task.firstChunk..<task.endChunk {
          for row in first..<first + count { visits[Visit(request: request, kvHead: task.kvHead, row: row, chunk: chunk), default: 0] += 1 }
        }
      }
      guard task.merge == AttentionTask.cascade else {
        visit(task.request, task.firstRow, task.rowCount)
        if task.merge >= 0 { states[task.merge, default: []].append((task.firstChunk, task.stateRow, task.rowCount)) }
        continue
      }
      cascades += 1
      var rows: Int32 = 0
      for segment in (Int(task.firstRow)..<Int(task.firstRow + task.stateRow)).map(list.segment) {
        visit(segment.request, segment.firstRow, segment.rowCount)
        states[segment.merge, default: []].append((task.firstChunk, segment.stateRow, segment.rowCount))
        rows += segment.rowCount
        for entry in Int(task.firstChunk) * 512 / pageSize..<Int(task.endChunk) * 512 / pageSize {
          let (own, read) = (
            pages.table[Int(segment.request) * pages.width + entry], pages.table[Int(task.request) * pages.width + entry]
          )
          #expect(own == read && own >= 0, "a segment's chunk lies in the pages that the task reads")
        }
        let request = requests[Int(segment.request)]
        let firstPosition = request.keys - request.tokens
        #expect(
          Int(task.endChunk) * 512 <= seenEnd(planner.key.mask, firstPosition, request.keys), "every row sees the whole chunk")
        switch planner.key.mask {
        case .slidingWindow(let window), .around(let window): #expect(request.keys - window <= Int(task.firstChunk) * 512)
        default: break
        }
      }
      #expect(rows == task.rowCount && rows <= Int32(AttentionTask.maxRows))
    }
    for (index, request) in requests.enumerated() {
      for head in 0..<planner.key.numKVHeads {
        for row in 0..<request.tokens * group {
          let position = request.keys - request.tokens + row / group
          let (first, last) =
            switch planner.key.mask {
            case .slidingWindow(let window): (max(0, position - window + 1), position)
            case .around(let window): (max(0, position - window + 1), min(position + window, request.keys) - 1)
            case .full: (0, request.keys - 1)
            default: (0, position)
            }
          for chunk in first / 512...last / 512 {
            let count = visits[Visit(request: Int32(index), kvHead: Int32(head), row: Int32(row), chunk: Int32(chunk))]
            #expect(count == 1, "request \(index) head \(head) row \(row) chunk \(chunk)")
          }
        }
      }
    }
    #expect(visits.values.allSatisfy { $0 == 1 })
    #expect(states.count == list.mergeCount)
    for (index, found) in states {
      let merge = list.merge(Int(index))
      let sorted = found.sorted { $0.chunk < $1.chunk }
      #expect(sorted.count == Int(merge.chunkCount))
      for (offset, state) in sorted.enumerated() {
        #expect(state.chunk == sorted[0].chunk + Int32(offset) && state.rows == merge.rowCount)
        #expect(state.stateRow == merge.stateRow + Int32(offset) * merge.rowCount)
      }
    }
    #expect(list.taskCount <= planner.taskCapacity && list.segmentCount <= planner.segmentCapacity)
    #expect(list.mergeCount <= planner.mergeCapacity && list.stateRows <= planner.stateCapacity)
    return cascades
  }

  @Test("reads each shared chunk once for all who share it")
  func sharedPrefix() throws {
    // 30 generations over a prompt of 1100 tokens, 17 whole pages: chunks 0 and 1 are shared, chunk 2 is everyone's own.
    let requests = [Request(tokens: 1, keys: 1300)] + (1..<30).map { Request(tokens: 1, keys: 1200 + $0, sharedPages: 17) }
    let planner = planner(.causal)
    var list = try AttentionTaskList(planner, on: device)
    let batch = try batch(requests)
    planner.plan(batch, into: &list)
    // 24 requests of 4 rows fill a task: two tasks for each of two chunks and two heads.
    #expect(check(list, planner, batch, requests) == 2 * 2 * 2)
    #expect(list.mergeCount == 30 * 2 && list.taskCount == 8 + 30 * 2)
  }

  @Test("of rows that nobody shares is a plan without cascades")
  func nothingShared() throws {
    let requests = (0..<20).map { Request(tokens: 1, keys: 600 + $0 * 40) }
    let (cascading, batch) = (planner(.causal), try batch(requests))
    var list = try AttentionTaskList(cascading, on: device)
    cascading.plan(batch, into: &list)
    #expect(list.segmentCount == 0 && list.mergeCount == 0 && list.taskCount == 40)
    // Shared pages that fill no chunk are not shared either.
    let short = [Request(tokens: 1, keys: 700)] + (1..<9).map { _ in Request(tokens: 1, keys: 800, sharedPages: 7) }
    cascading.plan(try self.batch(short), into: &list)
    #expect(list.segmentCount == 0)
  }

  /// Where the keys end that the row at a position sees.
  private func seenEnd(_ mask: MaskView, _ position: Int, _ keys: Int) -> Int {
    switch mask {
    case .full: keys
    case .around(let window): min(position + window, keys)
    default: position + 1
    }
  }

  @Test("keeps its coverage over random batches", arguments: [MaskView.causal, .slidingWindow(2500), .around(2500), .full], [1, 4])
  func randomBatches(mask: MaskView, workers: Int) throws {
    var random = SeededGenerator(seed: 7)
    for (heads, kvHeads) in [(8, 2), (6, 6), (48, 1), (100, 1)] {
      let planner = planner(mask, heads: heads, kvHeads: kvHeads, workers: workers)
      var (list, again) = (try AttentionTaskList(planner, on: device), try AttentionTaskList(planner, on: device))
      var cascades = 0
      for _ in 0..<5 {
        var requests: [Request] = []
        for index in 0..<Int.random(in: 1...24, using: &random) {
          let tokens = Int.random(in: 0..<4, using: &random) > 0 ? 1 : Int.random(in: 1...12, using: &random)
          let source = index == 0 ? 0 : Int.random(in: 0..<index, using: &random)
          let shared = index == 0 ? 0 : Int.random(in: 0...(requests[source].keys - requests[source].tokens) / pageSize, using: &random)
          let keys = Int.random(in: shared * pageSize + tokens...maxLength, using: &random)
          requests.append(Request(tokens: tokens, keys: keys, source: source, sharedPages: shared))
        }
        let batch = try batch(requests)
        planner.plan(batch, into: &list)
        cascades += check(list, planner, batch, requests)
        again.reuse(planner, batch)
        #expect(again.taskCount == list.taskCount && again.segmentCount == list.segmentCount)
        for index in 0..<list.taskCount { #expect(again.task(index) == list.task(index)) }
        for index in 0..<list.segmentCount { #expect(again.segment(index) == list.segment(index)) }
      }
      #expect((cascades > 0) == (heads / kvHeads <= 48), "rows of more than half a task are not shared")
    }
  }
}

extension AttentionTaskList {
  /// Plans over whatever this list held before.
  fileprivate mutating func reuse(_ planner: AttentionPlanner, _ batch: PlannedBatch) { planner.plan(batch, into: &self) }
}
