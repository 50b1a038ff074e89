// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Cascades: requests with a common prefix hold the same pages for it. A chunk whose pages several requests hold, and which every row of
// theirs sees whole, is read once for all of them, as in FlashInfer's cascade attention. Bits do not change: a row's state of a chunk is the
// same in any task, and its states fold in ascending order of chunks.

import MartletCore

extension AttentionPlanner {
  /// Marks the requests that share at least one chunk with another.
  /// - Returns: whether there are any.
  func findSharers(_ batch: PlannedBatch, _ plan: inout AttentionTaskList) -> Bool {
    plan.cascade.begin(numRequests: batch.numRequests)
    var found = false
    for chunk in 0..<chunkCount(batch) {
      groupByPages(chunk, batch, plan.cascade) { canShare($0, chunk, batch) }
      for request in 0..<batch.numRequests where plan.cascade.membership(of: request) == .leader(alone: false) {
        plan.cascade.forEachMember(of: request) { plan.cascade.markSharer($0) }
        found = true
      }
    }
    return found
  }

  /// Reserves merges and states for a request that joins cascades: every chunk that it sees becomes a state of its own.
  /// - Returns: false where the plan has no room for them.
  func join(_ block: Block, _ plan: inout AttentionTaskList) -> Bool {
    let states = block.chunks.count * block.rows
    guard plan.mergeCount + key.numKVHeads <= mergeCapacity, plan.stateRows + key.numKVHeads * states <= stateCapacity else { return false }
    plan.cascade.join(block.request, merge: plan.mergeCount, stateRow: plan.stateRows)
    for _ in 0..<key.numKVHeads { plan.addMerge(chunks: block.chunks.count, rows: block.rows) }
    return true
  }

  /// The tasks of every request that joined: for each chunk one for those that share it, and one for each that has it alone.
  func addChunks(_ batch: PlannedBatch, _ plan: inout AttentionTaskList) {
    for chunk in 0..<chunkCount(batch) {
      groupByPages(chunk, batch, plan.cascade) { plan.cascade.hasJoined($0) && canShare($0, chunk, batch) }
      for request in 0..<batch.numRequests where plan.cascade.hasJoined(request) {
        switch plan.cascade.membership(of: request) {
        case .leader(alone: false): addShared(chunk, leader: request, batch, &plan)
        case .follower: break
        case .leader(alone: true), .none:
          let block = wholeBlock(of: request, batch)
          if block.chunks.contains(chunk) { addOwn(chunk, block, &plan) }
        }
      }
    }
  }

  /// Chunks of the longest request.
  private func chunkCount(_ batch: PlannedBatch) -> Int {
    var length = 0
    for request in 0..<batch.numRequests { length = max(length, batch.keyLength(request)) }
    return (length + AttentionWork.chunkSize - 1) / AttentionWork.chunkSize
  }

  /// Whether the request is small enough to join others, and every row of it sees the whole chunk.
  private func canShare(_ request: Int, _ chunk: Int, _ batch: PlannedBatch) -> Bool {
    let keyLength = batch.keyLength(request)
    let queries = batch.queryCount(request)
    guard !batch.isLeftOut(request, of: key), queries * (key.numHeads / key.numKVHeads) <= Self.mostSharedRows else { return false }
    let keys = chunk * AttentionWork.chunkSize..<(chunk + 1) * AttentionWork.chunkSize
    return switch key.mask(hasBits: batch.hasBits(request)) {
    case .causal: keys.upperBound <= keyLength - queries + 1
    case .slidingWindow(let window): keys.upperBound <= keyLength - queries + 1 && keyLength - window <= keys.lowerBound
    case .around(let window): keys.upperBound <= keyLength - queries + min(window, queries) && keyLength - window <= keys.lowerBound
    case .full: keys.upperBound <= keyLength
    case .custom: false
    }
  }

  /// Groups the requests that hold the same pages for a chunk; the first of each group leads it.
  private func groupByPages(
    _ chunk: Int, _ batch: PlannedBatch, _ cascade: AttentionCascade, where isMember: (Int) -> Bool
  ) {
    guard let pages = batch.pages else { return }
    let first = chunk * AttentionWork.chunkSize / pages.pageSize
    let entries = first..<first + max(1, AttentionWork.chunkSize / pages.pageSize)
    cascade.beginChunk(numRequests: batch.numRequests)
    for request in 0..<batch.numRequests where isMember(request) {
      let row = request * pages.width
      let page = pages.table[row + entries.lowerBound]
      if page < 0 { continue }
      if let leader = cascade.leader(ofPage: page) {
        // Pages that begin alike almost always go on alike; where they do not, the request goes alone.
        if entries.allSatisfy({ pages.table[row + $0] == pages.table[leader * pages.width + $0] }) {
          cascade.follow(leader, request)
        }
      } else if entries.allSatisfy({ pages.table[row + $0] >= 0 }) {
        cascade.lead(page, request)
      }
    }
    cascade.endChunk()
  }

  private func wholeBlock(of request: Int, _ batch: PlannedBatch) -> Block {
    block(of: request, rows: 0..<batch.queryCount(request) * (key.numHeads / key.numKVHeads), batch)
  }

  /// The tasks of a chunk that several requests share: as many requests in each as it has rows for.
  private func addShared(_ chunk: Int, leader: Int, _ batch: PlannedBatch, _ plan: inout AttentionTaskList) {
    for head in 0..<key.numKVHeads {
      var rows = 0
      let cascade = plan.cascade
      cascade.forEachMember(of: leader) { request in
        let block = wholeBlock(of: request, batch)
        if rows + block.rows > AttentionTask.maxRows {
          plan.endShared(chunk: chunk, leader: leader, kvHead: head, rows: rows)
          rows = 0
        }
        plan.addSegment(
          AttentionSegment(
            request: Int32(request), firstRow: 0, rowCount: Int32(block.rows), merge: Int32(cascade.merge(of: request) + head),
            stateRow: Int32(stateRow(chunk, block, kvHead: head, cascade))))
        rows += block.rows
      }
      plan.endShared(chunk: chunk, leader: leader, kvHead: head, rows: rows)
    }
  }

  /// The tasks of a chunk that a request has alone.
  private func addOwn(_ chunk: Int, _ block: Block, _ plan: inout AttentionTaskList) {
    for head in 0..<key.numKVHeads {
      plan.addChunk(
        chunk, of: block, kvHead: head, merge: plan.cascade.merge(of: block.request) + head,
        stateRow: stateRow(chunk, block, kvHead: head, plan.cascade))
    }
  }

  /// Where the states of a block's chunk begin.
  private func stateRow(_ chunk: Int, _ block: Block, kvHead: Int, _ cascade: AttentionCascade) -> Int {
    cascade.stateRow(of: block.request) + (kvHead * block.chunks.count + chunk - block.chunks.lowerBound) * block.rows
  }
}
