// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletKernels
package import MartletCore

/// The attention kernels of one instruction set: each call checks its tensors and tables, fills in a C struct and shares out its tasks.
///
/// All of them take pages of any ``KVLayout`` of f32, f16, bf16, e4m3 and int8. Packed pages of the first three, of 16 tokens or more, are
/// read where they are; others tile by tile through a worker's scratch memory, with the same results bit for bit. Nothing here allocates.
package struct CPUAttentionKernels: AttentionKernels {
  let instructionSet: InstructionSet
  let pool: WorkerPool

  private static let maxHeadDim = martlet_attention_max_head_dim

  private var kernels: martlet_attention_kernels { instructionSet.table.pointee.attention }

  package func obstacles(layout: KVLayout, numHeads: Int) -> [String] {
    if canServe(layout, numHeads: numHeads) { return [] }
    var reasons: [String] = []
    if !Self.isShared(numHeads, by: layout.numKVHeads) {
      reasons.append("\(numHeads) query heads cannot share \(layout.numKVHeads) key/value heads evenly")
    }
    if layout.dataType.kvType == nil {
      reasons.append("keys and values are stored as f32, f16, bf16, f8e4m3 or i8, not as \(layout.dataType)")
    }
    if !Self.isPageSize(layout.pageSize) { reasons.append("a page holds 1 to \(Int32.max) tokens, not \(layout.pageSize)") }
    for (name, dim) in [("key", layout.headDim), ("value", layout.valueHeadDim)] where !Self.isHeadDim(dim) {
      reasons.append("a \(name) head has \(dim) dimensions; the CPU's attention takes multiples of 8 up to \(Self.maxHeadDim)")
    }
    if pool.scratchByteCount < martlet_attention_scratch_bytes {
      reasons.append(
        "the worker pool has \(pool.scratchByteCount) bytes of scratch memory for each worker; attention needs "
          + "\(martlet_attention_scratch_bytes)")
    }
    if reasons.isEmpty { reasons.append("the layout's strides lead out of its page of \(layout.pageByteCount) bytes") }
    return reasons
  }

  /// Whether there is no obstacle, found without allocating.
  private func canServe(_ layout: KVLayout, numHeads: Int) -> Bool {
    Self.isShared(numHeads, by: layout.numKVHeads) && layout.dataType.kvType != nil && Self.isPageSize(layout.pageSize)
      && Self.isHeadDim(layout.headDim) && Self.isHeadDim(layout.valueHeadDim)
      && pool.scratchByteCount >= martlet_attention_scratch_bytes && layout.staysInItsPage
  }

  private static func isShared(_ heads: Int, by kvHeads: Int) -> Bool { heads > 0 && kvHeads > 0 && heads % kvHeads == 0 }
  private static func isPageSize(_ size: Int) -> Bool { size >= 1 && size <= Int32.max }
  private static func isHeadDim(_ dim: Int) -> Bool { dim > 0 && dim % 8 == 0 && dim <= maxHeadDim }

  package func append(_ arguments: AppendArguments, on queue: any DeviceQueue) {
    let ragged = arguments.ragged, heads = arguments.numHeads, headDim = arguments.headDim, cache = arguments.cache
    enforce(headDim <= Self.maxHeadDim, "append: heads of \(headDim) dimensions; at most \(Self.maxHeadDim) are possible")
    enforce(
      (cache != nil) == (arguments.keys != nil) && (cache.map { !$0.layout.valuesAreKeys } ?? false) == (arguments.values != nil),
      "append: keys, values and a cache come together or not at all; values that are the first dims of the keys do not come")
    let tokens = ragged.numTokens
    if tokens == 0 { return }

    var c = martlet_append_arguments()
    c.cache.head_dim = Int32(headDim)
    if let query = arguments.query {
      (c.query, c.query_stride) = query.heads(tokens, of: heads * headDim, "append: query")
      guard let queries = arguments.queries else { fatalError("append: nowhere to write the finished queries") }
      c.queries = queries.mutableRows(tokens, of: heads * headDim, "append: queries")
    }
    if let cache, let keys = arguments.keys {
      let layout = cache.layout
      enforce(
        layout.headDim == headDim && layout.valueHeadDim <= Self.maxHeadDim,
        "append: heads of \(headDim) dimensions for pages of \(layout.headDim) and \(layout.valueHeadDim); at most \(Self.maxHeadDim)")
      enforce(layout.staysInItsPage, "append: the layout's strides lead out of its page of \(layout.pageByteCount) bytes")
      c.cache = cache.cStruct(numRequests: ragged.numRequests, scales: arguments.scales, "append")
      (c.key, c.key_stride) = keys.heads(tokens, of: layout.numKVHeads * headDim, "append: keys")
      if let values = arguments.values {
        (c.value, c.value_stride) = values.heads(tokens, of: layout.numKVHeads * layout.valueHeadDim, "append: values")
      }
    }
    c.query_norm = arguments.queryNorm.cStruct(headDim: headDim, "append: queryNorm")
    c.key_norm = arguments.keyNorm.cStruct(headDim: headDim, "append: keyNorm")
    c.query_indptr = ragged.queryIndptr.indices(ragged.numRequests + 1, "append: queryIndptr")
    c.kv_lens = ragged.kvLens.indices(ragged.numRequests, "append: kvLens")
    c.token_requests = ragged.tokenRequests.indices(tokens, "append: tokenRequests")
    c.token_positions = ragged.tokenPositions.indices(tokens, "append: tokenPositions")
    c.position_ids = ragged.positionIDs.indices(tokens, "append: positionIDs")
    c.tokens = Int32(tokens)
    c.heads = Int32(heads)
    var ropePositions = Int.max
    if let rope = arguments.rope {
      (c.rope, ropePositions) = rope.rows(headDim: headDim, "append")
      c.rope_dim = Int32(rope.dim)
      c.rope_first = Int32(rope.firstDim)
      c.rope_is_neox = rope.isNeoX
      if let axes = rope.axes, let columns = ragged.axisColumns {
        enforce(columns >= tokens, "append: three rows of \(columns) positions for \(tokens) tokens")
        c.position_ids = ragged.positionIDs.indices(3 * columns, "append: positionIDs")
        c.rope_axes = axes.indices(rope.dim / 2, "append: axes")
        c.axis_columns = Int32(columns)
        for pair in 0..<rope.dim / 2 {
          enforce((0..<3).contains(c.rope_axes[pair]), "append: pair \(pair) turns by axis \(c.rope_axes[pair])")
        }
      }
    }
    c.rotates_keys = arguments.rotatesKeys

    // Kernels follow these numbers into memory: every one is checked.
    for token in 0..<tokens {
      let id = Int(c.position_ids[token]), request = Int(c.token_requests[token]), position = Int(c.token_positions[token])
      enforce(
        request >= 0 && request < ragged.numRequests, "append: token \(token) is of request \(request) of \(ragged.numRequests)")
      if c.kv_lens[request] == 0 { continue }  // a dummy
      enforce(
        id >= 0 && id < ropePositions, "append: token \(token) has position id \(id); the RoPE table has \(ropePositions) positions")
      for axis in 1..<3 where c.rope_axes != nil {
        let id = Int(c.position_ids[axis * Int(c.axis_columns) + token])
        enforce(id >= 0 && id < ropePositions, "append: token \(token) has position \(id) on axis \(axis), of \(ropePositions)")
      }
      guard let cache else { continue }
      enforce(
        position >= 0 && position < c.kv_lens[request],
        "append: token \(token) at position \(position) of a request of length \(c.kv_lens[request])")
      let entry = position / cache.layout.pageSize
      let pageCount = cache.pageCount
      enforce(entry < Int(c.cache.table_width), "append: page \(entry) of a table of \(c.cache.table_width)")
      let page = Int(c.cache.page_table[request * Int(c.cache.table_width) + entry])
      enforce(
        page >= 0 && page < pageCount,
        "append: position \(position) of request \(request) has no page: table entry \(entry) is \(page), of \(pageCount) pages")
    }

    // About as many values as one thread handles while another is being called.
    let width =
      (arguments.query == nil ? 0 : heads * headDim)
      + (cache.map { $0.layout.numKVHeads * ($0.layout.headDim + $0.layout.valueHeadDim) } ?? 0)
    let tokensPerTask = max((16384 + width - 1) / max(width, 1), (tokens + 4 * pool.threadCount - 1) / (4 * pool.threadCount))
    c.tokens_per_task = Int32(min(tokensPerTask, tokens))
    let tasks = (tokens + Int(c.tokens_per_task) - 1) / Int(c.tokens_per_task)
    pool.run(taskCount: tasks, function: kernels.append, with: c)
  }

  package func attend(_ arguments: AttendArguments, on queue: any DeviceQueue) {
    let ragged = arguments.ragged, layout = arguments.cache.layout, heads = arguments.numHeads, work = arguments.work
    enforce(
      canServe(layout, numHeads: heads), "attend: \(obstacles(layout: layout, numHeads: heads).joined(separator: "; "))")
    enforce(arguments.scale > 0 && arguments.scale.isFinite, "attend: the scale is \(arguments.scale)")
    if work.numTasks == 0 { return }

    var c = martlet_attend_arguments()
    c.cache = arguments.cache.cStruct(numRequests: ragged.numRequests, scales: arguments.scales, "attend")
    c.queries = arguments.queries.rows(ragged.numTokens, of: heads * layout.headDim, "attend: queries")
    c.output = arguments.output.outputRows(ragged.numTokens, of: heads * layout.valueHeadDim, "attend: output")
    c.output_is_e4m3 = arguments.output.dataType == .f8e4m3
    c.output_scale = arguments.outputScale
    c.log_sum_exp = arguments.logSumExp?.mutableRows(ragged.numTokens, of: heads, "attend: logSumExp")
    c.query_indptr = ragged.queryIndptr.indices(ragged.numRequests + 1, "attend: queryIndptr")
    c.kv_lens = ragged.kvLens.indices(ragged.numRequests, "attend: kvLens")
    c.heads = Int32(heads)
    c.scale = arguments.scale
    if let cap = arguments.softCap {
      enforce(cap > 0 && cap.isFinite, "attend: a soft cap of \(cap)")
      c.soft_cap = cap
    }
    c.sinks = arguments.sinks?.rows(heads, of: 1, "attend: sinks")
    c.rounds_queries_to_e4m3 = arguments.roundsQueriesToE4M3
    for request in 0..<ragged.numRequests {
      enforce(
        c.query_indptr[request] >= 0 && c.query_indptr[request] <= c.query_indptr[request + 1]
          && Int(c.query_indptr[request + 1]) <= ragged.numTokens && c.kv_lens[request] >= 0,
        "attend: request \(request) has tokens \(c.query_indptr[request]) to \(c.query_indptr[request + 1]) of \(ragged.numTokens), and "
          + "\(c.kv_lens[request]) keys")
    }
    setMask(&c, arguments)
    if let rope = arguments.keyRope {
      let positions: Int
      (c.key_rope, positions) = rope.rows(headDim: layout.headDim, "attend")
      c.key_rope_dim = Int32(rope.dim)
      c.key_rope_first = Int32(rope.firstDim)
      c.key_rope_is_neox = rope.isNeoX
      for request in 0..<ragged.numRequests {
        enforce(
          Int(c.kv_lens[request]) <= positions,
          "attend: request \(request) has \(c.kv_lens[request]) keys; the RoPE table has \(positions) positions")
      }
    }
    checkPages(c, arguments.cache, numRequests: ragged.numRequests)

    let states = work.states.mutableRows(work.states.shape[0], of: layout.valueHeadDim + 2, "attend: states")
    let tasks = work.tasks.indices(work.numTasks * MemoryLayout<AttentionTask>.size / 4, "attend: tasks")
    let segments = work.segments.indices(work.numSegments * MemoryLayout<AttentionSegment>.size / 4, "attend: segments")
    let merges = work.merges.indices(work.numMerges * MemoryLayout<AttentionMerge>.size / 4, "attend: merges")
    c.states = states
    c.finished = UnsafeMutablePointer(mutating: work.finished.indices(work.numMerges, "attend: finished"))
    enforce(
      MemoryLayout<AttentionTask>.size == MemoryLayout<martlet_attention_task>.size
        && MemoryLayout<AttentionSegment>.size == MemoryLayout<martlet_attention_segment>.size
        && MemoryLayout<AttentionMerge>.size == MemoryLayout<martlet_attention_merge>.size,
      "the structs of tasks differ between Swift and C")
    c.tasks = UnsafeRawPointer(tasks).assumingMemoryBound(to: martlet_attention_task.self)
    c.segments = UnsafeRawPointer(segments).assumingMemoryBound(to: martlet_attention_segment.self)
    c.merges = UnsafeRawPointer(merges).assumingMemoryBound(to: martlet_attention_merge.self)
    checkWork(c, work, layout, numRequests: ragged.numRequests)

    pool.run(taskCount: work.numTasks, function: kernels.attend, with: c)
  }

  package func gather(_ arguments: GatherArguments, on queue: any DeviceQueue) {
    let layout = arguments.cache.layout, positions = arguments.positions, dims = arguments.dims, request = arguments.request
    let requests = arguments.cache.pageTable.shape[0], pageCount = arguments.cache.pageCount
    enforce(
      request >= 0 && request < requests && arguments.kvHead >= 0 && arguments.kvHead < layout.numKVHeads,
      "gather: head \(arguments.kvHead) of \(layout.numKVHeads), request \(request) of \(requests)")
    enforce(
      layout.headDim <= Self.maxHeadDim && dims.lowerBound >= 0 && dims.upperBound <= layout.headDim && layout.staysInItsPage,
      "gather: dims \(dims) of \(layout.headDim); at most \(Self.maxHeadDim) are possible, within a page of \(layout.pageByteCount) bytes")
    if positions.isEmpty || dims.isEmpty { return }
    var c = martlet_gather_arguments()
    c.cache = arguments.cache.cStruct(numRequests: requests, scales: arguments.scales, "gather")
    enforce(
      positions.lowerBound >= 0 && (positions.upperBound - 1) / layout.pageSize < Int(c.cache.table_width),
      "gather: positions \(positions) of a table of \(c.cache.table_width) pages of \(layout.pageSize) tokens")
    for entry in positions.lowerBound / layout.pageSize...(positions.upperBound - 1) / layout.pageSize {
      let page = Int(c.cache.page_table[request * Int(c.cache.table_width) + entry])
      enforce(
        page >= 0 && page < pageCount,
        "gather: request \(request) has no page \(entry): its table entry is \(page), of \(pageCount) pages")
    }
    let rows = RowTasks(Shape(positions.count, dims.count), in: pool)
    c.output = arguments.output.mutableRows(positions.count, of: dims.count, "gather: output")
    c.request = Int32(request)
    c.head = Int32(arguments.kvHead)
    c.first_position = Int32(positions.lowerBound)
    c.tokens = Int32(positions.count)
    c.tokens_per_task = Int32(rows.perTask)
    c.first_dim = Int32(dims.lowerBound)
    c.dims = Int32(dims.count)
    pool.run(taskCount: rows.taskCount, function: kernels.gather, with: c)
  }

  /// Fills in the mask; every word that the kernel will follow must be there.
  private func setMask(_ c: inout martlet_attend_arguments, _ arguments: AttendArguments) {
    switch arguments.mask {
    case .causal: c.causal = true
    case .slidingWindow(let window):
      enforce(window > 0, "attend: a window of \(window) keys")
      c.causal = true
      c.window = Int32(clamping: window)
    case .around(let window):
      enforce(window > 0, "attend: a window of \(window) keys")
      c.causal = false
      c.window = Int32(clamping: window)
    case .full: c.causal = false
    case .custom(let window):
      enforce(window ?? 1 > 0, "attend: a window of \(window ?? 0) keys")
      c.causal = true
      c.window = Int32(clamping: window ?? 0)
      guard let bits = arguments.maskBits else { fatalError("attend: a custom mask without bits") }
      let wordCount = bits.words.count
      c.mask_words = UnsafeRawPointer(bits.words.indices(wordCount, "attend: mask words")).assumingMemoryBound(to: UInt32.self)
      c.mask_offsets = bits.offsets.indices(arguments.ragged.numRequests, "attend: mask offsets")
      for request in 0..<arguments.ragged.numRequests where c.mask_offsets[request] >= 0 {
        let queries = Int(c.query_indptr[request + 1] - c.query_indptr[request]), keys = Int(c.kv_lens[request])
        let end = Int(c.mask_offsets[request]) + queries * ((keys + 63) / 64 * 2)
        enforce(end <= wordCount, "attend: the mask of request \(request) ends at word \(end) of \(wordCount)")
      }
    }
  }

  /// Every page that holds a key some query sees must be there.
  private func checkPages(_ c: martlet_attend_arguments, _ cache: PagedKV, numRequests: Int) {
    let width = Int(c.cache.table_width), pageSize = cache.layout.pageSize, pageCount = cache.pageCount
    for request in 0..<numRequests {
      let queries = Int(c.query_indptr[request + 1] - c.query_indptr[request]), keys = Int(c.kv_lens[request])
      if queries == 0 || keys <= 0 { continue }
      let hasBits = c.mask_offsets != nil && c.mask_offsets[request] >= 0
      let firstKey = c.window > 0 && !hasBits ? min(max(0, keys - queries - Int(c.window) + 1), keys - 1) : 0
      enforce(
        (keys - 1) / pageSize < width, "attend: request \(request) of length \(keys) has a table of \(width) pages of \(pageSize) tokens")
      for entry in firstKey / pageSize...(keys - 1) / pageSize {
        let page = Int(c.cache.page_table[request * width + entry])
        enforce(
          page < pageCount && (page >= 0 || hasBits && !sees(c, request, entry * pageSize..<min((entry + 1) * pageSize, keys))),
          "attend: request \(request) has no page \(entry): its table entry is \(page), of \(pageCount) pages")
      }
    }
  }

  /// Whether some query's bits show one of these keys.
  private func sees(_ c: martlet_attend_arguments, _ request: Int, _ keys: Range<Int>) -> Bool {
    let words = (Int(c.kv_lens[request]) + 63) / 64 * 2
    for query in 0..<Int(c.query_indptr[request + 1] - c.query_indptr[request]) {
      let row = c.mask_words + Int(c.mask_offsets[request]) + query * words
      for key in keys where row[key / 32] >> UInt32(key % 32) & 1 != 0 { return true }
    }
    return false
  }

  /// Every task, segment and merge must stay within the batch and the scratch for states.
  private func checkWork(_ c: martlet_attend_arguments, _ work: AttentionWork, _ layout: KVLayout, numRequests: Int) {
    let stateRows = work.states.shape[0], group = Int(c.heads) / layout.numKVHeads
    func checkRows(_ what: StaticString, _ index: Int, _ request: Int32, _ firstRow: Int32, _ rowCount: Int32) {
      enforce(request >= 0 && request < numRequests, "attend: \(what) \(index) is of request \(request) of \(numRequests)")
      let rows = Int(c.query_indptr[Int(request) + 1] - c.query_indptr[Int(request)]) * group
      enforce(
        rowCount >= 1 && rowCount <= AttentionTask.maxRows && firstRow >= 0 && Int(firstRow) + Int(rowCount) <= rows,
        "attend: \(what) \(index) takes \(rowCount) rows from \(firstRow) on; its request has \(rows), and a task at most "
          + "\(AttentionTask.maxRows)")
    }
    func checkMerge(_ what: StaticString, _ index: Int, _ merge: Int32, rowCount: Int32, stateRow: Int32) {
      enforce(
        merge >= 0 && merge < work.numMerges && stateRow >= 0 && Int(stateRow) + Int(rowCount) <= stateRows
          && c.merges[Int(merge)].row_count == rowCount,
        "attend: \(what) \(index) gives \(rowCount) states at row \(stateRow) of \(stateRows) to merge \(merge) of \(work.numMerges)")
    }
    for index in 0..<work.numMerges {
      let merge = c.merges[index]
      enforce(
        merge.state_row >= 0 && merge.chunk_count >= 1 && merge.row_count >= 1 && merge.row_count <= AttentionTask.maxRows
          && Int(merge.state_row) + Int(merge.chunk_count) * Int(merge.row_count) <= stateRows,
        "attend: merge \(index) has \(merge.chunk_count) states of \(merge.row_count) rows from row \(merge.state_row) of \(stateRows)")
    }
    for index in 0..<work.numTasks {
      let task = c.tasks[index]
      enforce(
        task.kv_head >= 0 && task.kv_head < layout.numKVHeads && task.first_chunk >= 0
          && (task.merge == AttentionTask.whole || task.end_chunk == task.first_chunk + 1),
        "attend: task \(index) takes chunks \(task.first_chunk) to \(task.end_chunk), head \(task.kv_head) of \(layout.numKVHeads), for "
          + "merge \(task.merge)")
      if task.merge != AttentionTask.cascade {
        checkRows("task", index, task.request, task.first_row, task.row_count)
        if task.merge != AttentionTask.whole {
          checkMerge("task", index, task.merge, rowCount: task.row_count, stateRow: task.state_row)
        }
        continue
      }
      enforce(
        task.request >= 0 && task.request < numRequests && task.first_row >= 0 && task.state_row >= 1
          && Int(task.first_row) + Int(task.state_row) <= work.numSegments,
        "attend: cascade task \(index) has \(task.state_row) segments from \(task.first_row) of \(work.numSegments), and reads the pages of "
          + "request \(task.request) of \(numRequests)")
      let chunk = Int(task.first_chunk) * AttentionWork.chunkSize..<Int(task.end_chunk) * AttentionWork.chunkSize
      enforce(
        chunk.upperBound <= Int(c.kv_lens[Int(task.request)]),
        "attend: cascade task \(index) reads keys to \(chunk.upperBound) of request \(task.request) of length "
          + "\(c.kv_lens[Int(task.request)])")
      var rows = 0
      for place in Int(task.first_row)..<Int(task.first_row + task.state_row) {
        let segment = c.segments[place]
        checkRows("segment", place, segment.request, segment.first_row, segment.row_count)
        checkMerge("segment", place, segment.merge, rowCount: segment.row_count, stateRow: segment.state_row)
        rows += Int(segment.row_count)
        let request = Int(segment.request), keys = Int(c.kv_lens[request])
        let queries = Int(c.query_indptr[request + 1] - c.query_indptr[request])
        let firstPosition = keys - queries + Int(segment.first_row) / group
        let lastPosition = keys - queries + Int(segment.first_row + segment.row_count - 1) / group
        enforce(
          (c.causal ? firstPosition + 1 : c.window > 0 ? min(keys, firstPosition + Int(c.window)) : keys) >= chunk.upperBound
            && (c.window == 0 || lastPosition - Int(c.window) + 1 <= chunk.lowerBound)
            && (c.mask_offsets == nil || c.mask_offsets[request] < 0),
          "attend: segment \(place) has rows that do not see all of keys \(chunk)")
      }
      enforce(
        rows == Int(task.row_count) && rows <= AttentionTask.maxRows,
        "attend: cascade task \(index) has \(task.row_count) rows, its segments \(rows), and a task at most \(AttentionTask.maxRows)")
    }
  }
}

extension DataType {
  /// The name of this type of keys and values in C; nil where the kernels have none.
  fileprivate var kvType: martlet_kv_type? {
    switch self {
    case .f32: martlet_kv_f32
    case .f16: martlet_kv_f16
    case .bf16: martlet_kv_bf16
    case .f8e4m3: martlet_kv_e4m3
    case .i8: martlet_kv_i8
    case .i32: nil
    }
  }
}

extension KVLayout.Plane {
  fileprivate var cStruct: martlet_kv_plane {
    martlet_kv_plane(
      head_stride: Int64(headStride), token_stride: Int64(tokenStride), dim_stride: Int64(dimStride), token_group: Int32(tokenGroup),
      dim_group: Int32(dimGroup))
  }
}

extension KVLayout.Plane {
  /// Whether every element of `tokens` × `heads` × `dims` lies within as many elements from the plane's start.
  fileprivate func holds(tokens: Int, heads: Int, dims: Int) -> Bool {
    guard tokenGroup >= 1, dimGroup >= 1, headStride >= 0, tokenStride >= 0, dimStride >= 0 else { return false }
    let last =
      (heads - 1) * headStride + (tokens - 1) / tokenGroup * tokenStride + min(tokenGroup, tokens) - 1
      + (dims - 1) / dimGroup * dimStride + min(dimGroup, dims) - 1
    return last < tokens * heads * dims
  }
}

extension KVLayout {
  /// Whether the strides lead to the page's own bytes.
  fileprivate var staysInItsPage: Bool {
    keys.holds(tokens: pageSize, heads: numKVHeads, dims: headDim)
      && (valuesAreKeys || values.holds(tokens: pageSize, heads: numKVHeads, dims: valueHeadDim))
  }
}

extension RopeTable {
  /// The table and how many positions it has.
  fileprivate func rows(headDim: Int, _ what: StaticString) -> (UnsafePointer<Float>, Int) {
    enforce(
      dim % 2 == 0 && dim > 0 && firstDim >= 0 && firstDim + dim <= headDim,
      "\(what): RoPE over \(dim) dimensions from \(firstDim) on, of \(headDim); an even number of them is needed")
    let positions = values.count / dim
    return (values.rows(positions, of: dim, what), positions)
  }
}

extension PagedKV {
  /// Whole pages in the storage.
  fileprivate var pageCount: Int { pages.byteCount / layout.pageByteCount }

  fileprivate func cStruct(numRequests: Int, scales: KVScales, _ what: StaticString) -> martlet_paged_kv {
    guard let type = layout.dataType.kvType else {
      fatalError("\(what): keys and values are stored as f32, f16, bf16, f8e4m3 or i8, not as \(layout.dataType)")
    }
    guard let start = pages.buffer.hostAddress else { fatalError("\(what): the pages lie in the memory of another device") }
    enforce(pageTable.shape.rank == 2, "\(what): the page table must be [requests, pages], not \(pageTable.shape)")
    enforce(
      layout.dataType != .f8e4m3 || scales.key > 0 && scales.value > 0 && scales.key.isFinite && scales.value.isFinite,
      "\(what): e4m3 needs positive scales, not \(scales.key) and \(scales.value)")
    let width = pageTable.shape[1]
    return martlet_paged_kv(
      pages: (start + pages.byteOffset).assumingMemoryBound(to: UInt8.self), page_bytes: Int64(layout.pageByteCount),
      values_offset: Int64(layout.valuesByteOffset), key_scales_offset: Int64(layout.scales?.keysByteOffset ?? 0),
      value_scales_offset: Int64(layout.scales?.valuesByteOffset ?? 0), scale_head_stride: Int64(layout.scales?.headStride ?? 0),
      scale_token_stride: Int64(layout.scales?.tokenStride ?? 0), page_table: pageTable.indices(numRequests * width, "page table"),
      table_width: Int32(width), type: Int32(type.rawValue), page_size: Int32(layout.pageSize), kv_heads: Int32(layout.numKVHeads),
      head_dim: Int32(layout.headDim), value_head_dim: Int32(layout.valueHeadDim), keys: layout.keys.cStruct,
      values: layout.values.cStruct, key_scale: scales.key, value_scale: scales.value)
  }
}

extension HeadNorm? {
  fileprivate func cStruct(headDim: Int, _ what: StaticString) -> martlet_head_norm {
    guard let self else { return martlet_head_norm() }
    return martlet_head_norm(weight: self.weight.rows(headDim, of: 1, what), epsilon: self.epsilon)
  }
}

extension HeadInput {
  /// The first head of the first token, and floats from one token to the next.
  fileprivate func heads(_ tokens: Int, of columns: Int, _ what: StaticString) -> (UnsafePointer<Float>, Int64) {
    let width = tensor.shape[tensor.shape.rank - 1]
    enforce(
      column >= 0 && column + columns <= width && tensor.count >= tokens * width,
      "\(what): \(tensor.shape) does not hold \(columns) columns from \(column) on for \(tokens) tokens")
    return (tensor.rows(tokens, of: width, what) + column, Int64(width))
  }
}

extension Tensor {
  /// The first `count` rows of `columns` float32 values: a tensor of more rows, as a step's buffers are, will do.
  fileprivate func mutableRows(_ count: Int, of columns: Int, _ what: StaticString) -> UnsafeMutablePointer<Float> {
    enforce(dataType == .f32, "\(what) must be f32, not \(dataType)")
    let width = shape[0] == 0 ? columns : self.count / shape[0]
    enforce(shape[0] >= count && width == columns, "\(what) must have \(count) rows of \(columns), not \(shape)")
    return pointer(.f32, shape, what)
  }

  fileprivate func rows(_ count: Int, of columns: Int, _ what: StaticString) -> UnsafePointer<Float> {
    UnsafePointer(mutableRows(count, of: columns, what))
  }

  /// The same for rows of float32 or of e4m3.
  fileprivate func outputRows(_ count: Int, of columns: Int, _ what: StaticString) -> UnsafeMutableRawPointer {
    if dataType == .f32 { return UnsafeMutableRawPointer(mutableRows(count, of: columns, what)) }
    enforce(dataType == .f8e4m3, "\(what) must be f32 or f8e4m3, not \(dataType)")
    let width = shape[0] == 0 ? columns : self.count / shape[0]
    enforce(shape[0] >= count && width == columns, "\(what) must have \(count) rows of \(columns), not \(shape)")
    guard let pointer = unsafeHostPointer(to: UInt8.self)?.baseAddress else {
      fatalError("\(what) lies in the memory of another device, or is empty")
    }
    return UnsafeMutableRawPointer(pointer)
  }

  /// The first `count` of the tensor's int32 elements.
  fileprivate func indices(_ count: Int, _ what: StaticString) -> UnsafePointer<Int32> {
    enforce(self.count >= count, "\(what) must have \(count) elements, not \(self.count)")
    return pointer(.i32, shape, what)
  }
}
