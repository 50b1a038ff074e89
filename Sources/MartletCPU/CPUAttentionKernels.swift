// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletKernels
package import MartletCore

/// The attention kernels of one instruction set: each call checks its tensors and tables, fills in a C struct and shares out its tasks.
///
/// `append` stores to any layout; `attend` reads packed pages, whose 32-bit lanes dot products take as they are. Nothing here allocates.
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
    if layout.dataType.kvType == nil { reasons.append("keys and values are stored as f32, f16 or bf16, not as \(layout.dataType)") }
    if !Self.isPageSize(layout.pageSize) {
      reasons.append("the CPU's attention reads pages of a power of two of tokens, at least 16, not \(layout.pageSize)")
    }
    for (name, dim) in [("key", layout.headDim), ("value", layout.valueHeadDim)] where !Self.isHeadDim(dim) {
      reasons.append("a \(name) head has \(dim) dimensions; the CPU's attention takes multiples of 8 up to \(Self.maxHeadDim)")
    }
    if pool.scratchByteCount < martlet_attention_scratch_bytes {
      reasons.append(
        "the worker pool has \(pool.scratchByteCount) bytes of scratch memory for each worker; attention needs "
          + "\(martlet_attention_scratch_bytes)")
    }
    // What is left when the shape could be packed.
    if reasons.isEmpty { reasons.append("the CPU's attention reads packed pages (KVLayout.packed), not other layouts") }
    return reasons
  }

  /// Whether there is no obstacle, found without allocating. Only a shape that can be packed may be compared with the packed layout.
  private func canServe(_ layout: KVLayout, numHeads: Int) -> Bool {
    Self.isShared(numHeads, by: layout.numKVHeads) && layout.dataType.kvType != nil && Self.isPageSize(layout.pageSize)
      && Self.isHeadDim(layout.headDim) && Self.isHeadDim(layout.valueHeadDim)
      && pool.scratchByteCount >= martlet_attention_scratch_bytes && layout.isPacked
  }

  private static func isShared(_ heads: Int, by kvHeads: Int) -> Bool { heads > 0 && kvHeads > 0 && heads % kvHeads == 0 }
  private static func isPageSize(_ size: Int) -> Bool { size >= 16 && size & (size - 1) == 0 }
  private static func isHeadDim(_ dim: Int) -> Bool { dim > 0 && dim % 8 == 0 && dim <= maxHeadDim }

  package func append(_ arguments: AppendArguments, on queue: any DeviceQueue) {
    let ragged = arguments.ragged, heads = arguments.numHeads, headDim = arguments.headDim, cache = arguments.cache
    precondition(headDim <= Self.maxHeadDim, "append: heads of \(headDim) dimensions; at most \(Self.maxHeadDim) are possible")
    precondition(
      (cache != nil) == (arguments.keys != nil) && (cache != nil) == (arguments.values != nil),
      "append: keys, values and a cache come together or not at all")
    let tokens = ragged.numTokens
    if tokens == 0 { return }

    var c = martlet_append_arguments()
    c.cache.head_dim = Int32(headDim)
    if let query = arguments.query {
      (c.query, c.query_stride) = query.heads(tokens, of: heads * headDim, "append: query")
      guard let queries = arguments.queries else { preconditionFailure("append: nowhere to write the finished queries") }
      c.queries = queries.mutableRows(tokens, of: heads * headDim, "append: queries")
    }
    if let cache, let keys = arguments.keys, let values = arguments.values {
      let layout = cache.layout
      precondition(
        layout.headDim == headDim && layout.valueHeadDim <= Self.maxHeadDim,
        "append: heads of \(headDim) dimensions for pages of \(layout.headDim) and \(layout.valueHeadDim); at most \(Self.maxHeadDim)")
      c.cache = cache.cStruct(numRequests: ragged.numRequests, "append")
      (c.key, c.key_stride) = keys.heads(tokens, of: layout.numKVHeads * headDim, "append: keys")
      (c.value, c.value_stride) = values.heads(tokens, of: layout.numKVHeads * layout.valueHeadDim, "append: values")
    }
    c.query_norm = arguments.queryNorm.cStruct(headDim: headDim, "append: queryNorm")
    c.key_norm = arguments.keyNorm.cStruct(headDim: headDim, "append: keyNorm")
    c.query_indptr = ragged.queryIndptr.indices(ragged.numRequests + 1, "append: queryIndptr")
    c.token_requests = ragged.tokenRequests.indices(tokens, "append: tokenRequests")
    c.token_positions = ragged.tokenPositions.indices(tokens, "append: tokenPositions")
    c.position_ids = ragged.positionIDs.indices(tokens, "append: positionIDs")
    c.tokens = Int32(tokens)
    c.heads = Int32(heads)
    var ropePositions = Int.max
    if let rope = arguments.rope {
      precondition(
        rope.dim % 2 == 0 && rope.dim > 0 && rope.dim <= headDim,
        "append: RoPE over \(rope.dim) of \(headDim) dimensions; an even number of them is needed")
      ropePositions = rope.values.count / rope.dim
      c.rope = rope.values.rows(ropePositions, of: rope.dim, "append: RoPE table")
      c.rope_dim = Int32(rope.dim)
      c.rope_is_neox = rope.isNeoX
    }

    // Kernels follow these numbers into memory: every one is checked.
    let kvLens = ragged.kvLens.indices(ragged.numRequests, "append: kvLens")
    for token in 0..<tokens {
      let id = Int(c.position_ids[token])
      precondition(
        id >= 0 && id < ropePositions, "append: token \(token) has position id \(id); the RoPE table has \(ropePositions) positions")
      guard let cache else { continue }
      let request = Int(c.token_requests[token]), position = Int(c.token_positions[token])
      precondition(
        request >= 0 && request < ragged.numRequests, "append: token \(token) is of request \(request) of \(ragged.numRequests)")
      precondition(
        position >= 0 && position < kvLens[request],
        "append: token \(token) at position \(position) of a request of length \(kvLens[request])")
      let entry = position / cache.layout.pageSize
      let pageCount = cache.pageCount
      precondition(entry < Int(c.cache.table_width), "append: page \(entry) of a table of \(c.cache.table_width)")
      let page = Int(c.cache.page_table[request * Int(c.cache.table_width) + entry])
      precondition(
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
    precondition(
      canServe(layout, numHeads: heads), "attend: \(obstacles(layout: layout, numHeads: heads).joined(separator: "; "))")
    precondition(arguments.scale.isFinite, "attend: the scale is \(arguments.scale)")
    if work.numTasks == 0 { return }

    var c = martlet_attend_arguments()
    c.cache = arguments.cache.cStruct(numRequests: ragged.numRequests, "attend")
    c.queries = arguments.queries.rows(ragged.numTokens, of: heads * layout.headDim, "attend: queries")
    c.output = arguments.output.mutableRows(ragged.numTokens, of: heads * layout.valueHeadDim, "attend: output")
    c.log_sum_exp = arguments.logSumExp?.mutableRows(ragged.numTokens, of: heads, "attend: logSumExp")
    c.query_indptr = ragged.queryIndptr.indices(ragged.numRequests + 1, "attend: queryIndptr")
    c.kv_lens = ragged.kvLens.indices(ragged.numRequests, "attend: kvLens")
    c.heads = Int32(heads)
    c.scale = arguments.scale
    switch arguments.mask {
    case .causal: c.causal = true
    case .slidingWindow(let window):
      precondition(window > 0, "attend: a window of \(window) keys")
      c.causal = true
      c.window = Int32(clamping: window)
    case .full: c.causal = false
    case .custom: preconditionFailure("attend: custom masks")
    }
    checkPages(c, arguments.cache, numRequests: ragged.numRequests)

    let states = work.states.mutableRows(work.states.shape[0], of: layout.valueHeadDim + 2, "attend: states")
    let tasks = work.tasks.indices(work.numTasks * MemoryLayout<AttentionTask>.size / 4, "attend: tasks")
    let merges = work.merges.indices(work.numMerges * MemoryLayout<AttentionMerge>.size / 4, "attend: merges")
    c.states = states
    c.finished = UnsafeMutablePointer(mutating: work.finished.indices(work.numMerges, "attend: finished"))
    precondition(
      MemoryLayout<AttentionTask>.size == MemoryLayout<martlet_attention_task>.size
        && MemoryLayout<AttentionMerge>.size == MemoryLayout<martlet_attention_merge>.size)
    c.tasks = UnsafeRawPointer(tasks).assumingMemoryBound(to: martlet_attention_task.self)
    c.merges = UnsafeRawPointer(merges).assumingMemoryBound(to: martlet_attention_merge.self)
    checkWork(c, work, layout, numRequests: ragged.numRequests)

    pool.run(taskCount: work.numTasks, function: kernels.attend, with: c)
  }

  /// Every page that holds a key some query sees must be there.
  private func checkPages(_ c: martlet_attend_arguments, _ cache: PagedKV, numRequests: Int) {
    let width = Int(c.cache.table_width), pageSize = cache.layout.pageSize, pageCount = cache.pageCount
    for request in 0..<numRequests {
      let queries = Int(c.query_indptr[request + 1] - c.query_indptr[request]), keys = Int(c.kv_lens[request])
      if queries == 0 || keys <= 0 { continue }
      let firstKey = c.window > 0 ? max(0, keys - queries - Int(c.window) + 1) : 0
      precondition(
        (keys - 1) / pageSize < width, "attend: request \(request) of length \(keys) has a table of \(width) pages of \(pageSize) tokens")
      for entry in firstKey / pageSize...(keys - 1) / pageSize {
        let page = Int(c.cache.page_table[request * width + entry])
        precondition(
          page >= 0 && page < pageCount,
          "attend: request \(request) has no page \(entry): its table entry is \(page), of \(pageCount) pages")
      }
    }
  }

  /// Every task and merge must stay within the batch and the scratch for states.
  private func checkWork(_ c: martlet_attend_arguments, _ work: AttentionWork, _ layout: KVLayout, numRequests: Int) {
    let group = Int(c.heads) / layout.numKVHeads, stateRows = work.states.shape[0]
    for index in 0..<work.numTasks {
      let task = c.tasks[index]
      precondition(
        task.request >= 0 && task.request < numRequests && task.kv_head >= 0 && task.kv_head < layout.numKVHeads,
        "attend: task \(index) is of request \(task.request) of \(numRequests), head \(task.kv_head) of \(layout.numKVHeads)")
      let rows = Int(c.query_indptr[Int(task.request) + 1] - c.query_indptr[Int(task.request)]) * group
      precondition(
        task.row_count >= 1 && task.row_count <= AttentionTask.maxRows && task.first_row >= 0
          && Int(task.first_row) + Int(task.row_count) <= rows && task.first_chunk >= 0,
        "attend: task \(index) takes \(task.row_count) rows from \(task.first_row), chunks from \(task.first_chunk); its request has "
          + "\(rows) rows, and a task at most \(AttentionTask.maxRows)")
      if task.merge < 0 { continue }
      precondition(
        task.merge < work.numMerges && task.end_chunk == task.first_chunk + 1 && task.state_row >= 0
          && Int(task.state_row) + Int(task.row_count) <= stateRows,
        "attend: task \(index) gives \(task.end_chunk - task.first_chunk) chunks at row \(task.state_row) of \(stateRows) to merge "
          + "\(task.merge) of \(work.numMerges)")
    }
    for index in 0..<work.numMerges {
      let merge = c.merges[index]
      precondition(
        merge.state_row >= 0 && merge.chunk_count >= 1 && merge.row_count >= 1 && merge.row_count <= AttentionTask.maxRows
          && Int(merge.state_row) + Int(merge.chunk_count) * Int(merge.row_count) <= stateRows,
        "attend: merge \(index) has \(merge.chunk_count) states of \(merge.row_count) rows from row \(merge.state_row) of \(stateRows)")
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
    case .f8e4m3, .i8, .i32: nil
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

extension PagedKV {
  /// Whole pages in the storage.
  fileprivate var pageCount: Int { pages.byteCount / layout.pageByteCount }

  fileprivate func cStruct(numRequests: Int, _ what: StaticString) -> martlet_paged_kv {
    guard let type = layout.dataType.kvType else {
      preconditionFailure("\(what): keys and values are stored as f32, f16 or bf16, not as \(layout.dataType)")
    }
    guard let start = pages.buffer.hostAddress else { preconditionFailure("\(what): the pages lie in the memory of another device") }
    precondition(pageTable.shape.rank == 2, "\(what): the page table must be [requests, pages], not \(pageTable.shape)")
    let width = pageTable.shape[1]
    return martlet_paged_kv(
      pages: (start + pages.byteOffset).assumingMemoryBound(to: UInt8.self), page_bytes: Int64(layout.pageByteCount),
      values_offset: Int64(layout.valuesByteOffset), page_table: pageTable.indices(numRequests * width, "page table"),
      table_width: Int32(width), type: Int32(type.rawValue), page_size: Int32(layout.pageSize), kv_heads: Int32(layout.numKVHeads),
      head_dim: Int32(layout.headDim), value_head_dim: Int32(layout.valueHeadDim), keys: layout.keys.cStruct,
      values: layout.values.cStruct)
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
    precondition(
      column >= 0 && column + columns <= width && tensor.count >= tokens * width,
      "\(what): \(tensor.shape) does not hold \(columns) columns from \(column) on for \(tokens) tokens")
    return (tensor.rows(tokens, of: width, what) + column, Int64(width))
  }
}

extension Tensor {
  /// The first `count` rows of `columns` float32 values: a tensor of more rows, as a step's buffers are, will do.
  fileprivate func mutableRows(_ count: Int, of columns: Int, _ what: StaticString) -> UnsafeMutablePointer<Float> {
    precondition(dataType == .f32, "\(what) must be f32, not \(dataType)")
    let width = shape[0] == 0 ? columns : self.count / shape[0]
    precondition(shape[0] >= count && width == columns, "\(what) must have \(count) rows of \(columns), not \(shape)")
    return pointer(.f32, shape, what)
  }

  fileprivate func rows(_ count: Int, of columns: Int, _ what: StaticString) -> UnsafePointer<Float> {
    UnsafePointer(mutableRows(count, of: columns, what))
  }

  /// The first `count` of the tensor's int32 elements.
  fileprivate func indices(_ count: Int, _ what: StaticString) -> UnsafePointer<Int32> {
    precondition(self.count >= count, "\(what) must have \(count) elements, not \(self.count)")
    return pointer(.i32, shape, what)
  }
}
