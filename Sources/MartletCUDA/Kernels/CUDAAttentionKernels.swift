// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletCUDAKernels
package import MartletCore

/// The attention kernels of one GPU: each call checks its tensors, fills in a C struct and puts a kernel on the queue.
package struct CUDAAttentionKernels: AttentionKernels {
  let context: CUDAContext
  let library: KernelLibrary

  private static let mostHeadDim = martlet_cuda_most_head_dim

  package func obstacles(layout: KVLayout, numHeads: Int) -> [String] {
    var reasons: [String] = []
    if numHeads < 1 || layout.numKVHeads < 1 || numHeads % layout.numKVHeads != 0 {
      reasons.append("\(numHeads) query heads cannot share \(layout.numKVHeads) key/value heads evenly")
    }
    if layout.dataType.kvType == nil {
      reasons.append("keys and values are stored as f32, f16, bf16, f8e4m3 or i8, not as \(layout.dataType)")
    }
    if !(1...Int(Int32.max)).contains(layout.pageSize) { reasons.append("a page holds 1 to \(Int32.max) tokens, not \(layout.pageSize)") }
    for (name, dim) in [("key", layout.headDim), ("value", layout.valueHeadDim)]
    where dim < 1 || dim % 8 != 0 || dim > Self.mostHeadDim {
      reasons.append("a \(name) head has \(dim) dimensions; attention on a GPU takes multiples of 8 up to \(Self.mostHeadDim)")
    }
    if reasons.isEmpty {
      var cache = layout.device(scales: KVScales(), "obstacles")
      // Rotated as they are read, which takes the most.
      let needed = Int(martlet_cuda_attend_shared_bytes(&cache, layout.dataType.terms, true))
      let there = context.properties.sharedByteCountOfBlock
      if needed > there { reasons.append("attention over this shape needs \(needed) bytes of shared memory, and this GPU has \(there)") }
      // All kernels of attention are one program: it is loaded here, not in the first step, and its failure is told.
      do { try library.load(Int32(martlet_cuda_kernel_attend_16_64.rawValue)) } catch { reasons.append(error.description) }
    }
    return reasons
  }

  package func append(_ arguments: AppendArguments, on queue: any DeviceQueue) {
    let ragged = arguments.ragged, heads = arguments.numHeads, headDim = arguments.headDim, cache = arguments.cache
    enforce(headDim <= Self.mostHeadDim, "append: heads of \(headDim) dimensions; at most \(Self.mostHeadDim) are possible")
    enforce(
      (cache != nil) == (arguments.keys != nil) && (cache.map { !$0.layout.valuesAreKeys } ?? false) == (arguments.values != nil),
      "append: keys, values and a cache come together or not at all; values that are the first dims of the keys do not come")
    let tokens = ragged.numTokens
    if tokens == 0 { return }

    var c = martlet_cuda_append_arguments()
    c.cache.head_dim = Int32(headDim)
    if let query = arguments.query {
      (c.query, c.query_stride) = query.heads(tokens, of: heads * headDim, "append: query")
      guard let queries = arguments.queries else { fatalError("append: nowhere to write the finished queries") }
      c.queries = queries.rows(tokens, of: heads * headDim, "append: queries")
    }
    if let cache, let keys = arguments.keys {
      let layout = cache.layout
      enforce(
        layout.headDim == headDim && layout.valueHeadDim <= Self.mostHeadDim,
        "append: heads of \(headDim) dimensions for pages of \(layout.headDim) and \(layout.valueHeadDim); at most \(Self.mostHeadDim)")
      c.cache = cache.device(numRequests: ragged.numRequests, scales: arguments.scales, "append")
      (c.key, c.key_stride) = keys.heads(tokens, of: layout.numKVHeads * headDim, "append: keys")
      if let values = arguments.values {
        (c.value, c.value_stride) = values.heads(tokens, of: layout.numKVHeads * layout.valueHeadDim, "append: values")
      }
    }
    (c.query_norm, c.query_epsilon) = arguments.queryNorm.device(headDim: headDim, "append: queryNorm")
    (c.key_norm, c.key_epsilon) = arguments.keyNorm.device(headDim: headDim, "append: keyNorm")
    c.query_indptr = ragged.queryIndptr.indices(ragged.numRequests + 1, "append: queryIndptr")
    c.kv_lens = ragged.kvLens.indices(ragged.numRequests, "append: kvLens")
    c.token_requests = ragged.tokenRequests.indices(tokens, "append: tokenRequests")
    c.token_positions = ragged.tokenPositions.indices(tokens, "append: tokenPositions")
    c.position_ids = ragged.positionIDs.indices(tokens, "append: positionIDs")
    c.tokens = Int32(tokens)
    c.heads = Int32(heads)
    if let rope = arguments.rope {
      c.rope = rope.device(headDim: headDim, "append")
      c.rope_dim = Int32(rope.dim)
      c.rope_first = Int32(rope.firstDim)
      c.rope_is_neox = rope.isNeoX ? 1 : 0
      if let axes = rope.axes, let columns = ragged.axisColumns {
        enforce(columns >= tokens, "append: three rows of \(columns) positions for \(tokens) tokens")
        c.rope_axes = axes.indices(rope.dim / 2, "append: axes")
        c.axis_columns = Int32(columns)
      }
    }
    c.rotates_keys = arguments.rotatesKeys ? 1 : 0
    launch(martlet_cuda_launch_append, c, "append", on: queue)
  }

  package func attend(_ arguments: AttendArguments, on queue: any DeviceQueue) {
    let ragged = arguments.ragged, layout = arguments.cache.layout, heads = arguments.numHeads, work = arguments.work
    enforce(arguments.scale > 0 && arguments.scale.isFinite, "attend: the scale is \(arguments.scale)")
    enforce(
      heads > 0 && layout.numKVHeads > 0 && heads % layout.numKVHeads == 0,
      "attend: \(heads) query heads cannot share \(layout.numKVHeads) key/value heads evenly")
    if work.numTasks == 0 { return }

    var c = martlet_cuda_attend_arguments()
    c.cache = arguments.cache.device(numRequests: ragged.numRequests, scales: arguments.scales, "attend")
    c.queries = arguments.queries.rows(ragged.numTokens, of: heads * layout.headDim, "attend: queries")
    c.output_is_e4m3 = arguments.output.dataType == .f8e4m3 ? 1 : 0
    c.output = arguments.output.rows(
      ragged.numTokens, of: heads * layout.valueHeadDim, "attend: output", as: c.output_is_e4m3 == 1 ? .f8e4m3 : .f32)
    c.output_scale = arguments.outputScale
    c.log_sum_exp = arguments.logSumExp?.rows(ragged.numTokens, of: heads, "attend: logSumExp") ?? 0
    c.query_indptr = ragged.queryIndptr.indices(ragged.numRequests + 1, "attend: queryIndptr")
    c.kv_lens = ragged.kvLens.indices(ragged.numRequests, "attend: kvLens")
    c.heads = Int32(heads)
    c.scale = arguments.scale
    if let cap = arguments.softCap {
      enforce(cap > 0 && cap.isFinite, "attend: a soft cap of \(cap)")
      c.soft_cap = cap
    }
    c.sinks = arguments.sinks?.rows(heads, of: 1, "attend: sinks") ?? 0
    c.rounds_queries_to_e4m3 = arguments.roundsQueriesToE4M3 ? 1 : 0
    c.terms = layout.dataType.terms
    setMask(&c, arguments)
    if let rope = arguments.keyRope {
      c.key_rope = rope.device(headDim: layout.headDim, "attend")
      c.key_rope_dim = Int32(rope.dim)
      c.key_rope_first = Int32(rope.firstDim)
      c.key_rope_is_neox = rope.isNeoX ? 1 : 0
    }
    c.states = work.states.rows(work.states.shape[0], of: layout.valueHeadDim + 2, "attend: states")
    c.tasks = work.tasks.indices(work.numTasks * MemoryLayout<AttentionTask>.size / 4, "attend: tasks")
    c.segments = work.segments.indices(work.numSegments * MemoryLayout<AttentionSegment>.size / 4, "attend: segments")
    c.merges = work.merges.indices(work.numMerges * MemoryLayout<AttentionMerge>.size / 4, "attend: merges")
    c.finished = work.finished.indices(work.numMerges, "attend: finished")
    c.task_count = Int32(work.numTasks)
    // A task's rows are those of one request unless it gathers several. Bits do not depend on the kernel that is chosen by it.
    let group = heads / layout.numKVHeads
    let mostRows = ragged.numTokens == ragged.numRequests && work.numSegments == 0 ? group : ragged.numTokens * group
    let mostSharedBytes = Int32(context.properties.sharedByteCountOfBlock)
    launch({ martlet_cuda_launch_attend($0, Int32(min(mostRows, AttentionTask.maxRows)), mostSharedBytes) }, c, "attend", on: queue)
  }

  package func gather(_ arguments: GatherArguments, on queue: any DeviceQueue) {
    CUDAQueue.of(queue, on: context, "gather").refuse("reading stored keys back (gather)")
  }

  private func setMask(_ c: inout martlet_cuda_attend_arguments, _ arguments: AttendArguments) {
    switch arguments.mask {
    case .causal: c.causal = 1
    case .slidingWindow(let window):
      enforce(window > 0, "attend: a window of \(window) keys")
      c.causal = 1
      c.window = Int32(clamping: window)
    case .around(let window):
      enforce(window > 0, "attend: a window of \(window) keys")
      c.window = Int32(clamping: window)
    case .full: break
    case .custom(let window):
      enforce(window ?? 1 > 0, "attend: a window of \(window ?? 0) keys")
      c.causal = 1
      c.window = Int32(clamping: window ?? 0)
      guard let bits = arguments.maskBits else { fatalError("attend: a custom mask without bits") }
      c.mask_words = bits.words.indices(bits.words.count, "attend: mask words")
      c.mask_offsets = bits.offsets.indices(arguments.ragged.numRequests, "attend: mask offsets")
    }
  }

  private func launch<Arguments: BitwiseCopyable>(
    _ rule: (UnsafePointer<Arguments>) -> martlet_cuda_launch, _ arguments: Arguments, _ caller: StaticString, on queue: any DeviceQueue
  ) {
    CUDAQueue.of(queue, on: context, caller).run { (stream) throws(DeviceError) in try library.launch(rule, arguments, on: stream) }
  }
}

extension DataType {
  /// The name of this type of keys and values in C; nil where the kernels have none.
  fileprivate var kvType: martlet_cuda_kv_type? {
    switch self {
    case .f32: martlet_cuda_kv_f32
    case .f16: martlet_cuda_kv_f16
    case .bf16: martlet_cuda_kv_bf16
    case .f8e4m3: martlet_cuda_kv_e4m3
    case .i8: martlet_cuda_kv_i8
    case .i32: nil
    }
  }

  /// Numbers of bfloat16 that queries and weights become over keys and values of this type: as precise as what is stored deserves.
  fileprivate var terms: Int32 { self == .f32 ? 3 : 2 }
}

extension KVLayout.Plane {
  fileprivate var device: martlet_cuda_kv_plane {
    martlet_cuda_kv_plane(
      head_stride: Int64(headStride), token_stride: Int64(tokenStride), dim_stride: Int64(dimStride), token_group: Int32(tokenGroup),
      dim_group: Int32(dimGroup))
  }
}

extension KVLayout {
  /// The layout without pages.
  fileprivate func device(scales kvScales: KVScales, _ what: StaticString) -> martlet_cuda_paged_kv {
    guard let type = dataType.kvType else {
      fatalError("\(what): keys and values are stored as f32, f16, bf16, f8e4m3 or i8, not as \(dataType)")
    }
    return martlet_cuda_paged_kv(
      pages: 0, page_table: 0, page_bytes: Int64(pageByteCount), values_offset: Int64(valuesByteOffset),
      key_scales_offset: Int64(scales?.keysByteOffset ?? 0), value_scales_offset: Int64(scales?.valuesByteOffset ?? 0),
      scale_head_stride: Int64(scales?.headStride ?? 0), scale_token_stride: Int64(scales?.tokenStride ?? 0), keys: keys.device,
      values: values.device, table_width: 0, type: Int32(type.rawValue), page_size: Int32(pageSize), kv_heads: Int32(numKVHeads),
      head_dim: Int32(headDim), value_head_dim: Int32(valueHeadDim), key_scale: kvScales.key, value_scale: kvScales.value)
  }
}

extension PagedKV {
  fileprivate func device(numRequests: Int, scales: KVScales, _ what: StaticString) -> martlet_cuda_paged_kv {
    enforce(pages.buffer.hostAddress == nil, "\(what): the pages lie in the memory of the host")
    enforce(pageTable.shape.rank == 2, "\(what): the page table must be [requests, pages], not \(pageTable.shape)")
    enforce(
      layout.dataType != .f8e4m3 || scales.key > 0 && scales.value > 0 && scales.key.isFinite && scales.value.isFinite,
      "\(what): e4m3 needs positive scales, not \(scales.key) and \(scales.value)")
    let width = pageTable.shape[1]
    var cache = layout.device(scales: scales, what)
    cache.pages = UInt64(pages.address)
    cache.page_table = pageTable.indices(numRequests * width, "page table")
    cache.table_width = Int32(width)
    return cache
  }
}

extension RopeTable {
  fileprivate func device(headDim: Int, _ what: StaticString) -> UInt64 {
    enforce(
      dim % 2 == 0 && dim > 0 && firstDim >= 0 && firstDim + dim <= headDim,
      "\(what): RoPE over \(dim) dimensions from \(firstDim) on, of \(headDim); an even number of them is needed")
    return values.rows(values.count / dim, of: dim, what)
  }
}

extension HeadNorm? {
  fileprivate func device(headDim: Int, _ what: StaticString) -> (UInt64, Float) {
    guard let self else { return (0, 0) }
    return (self.weight.rows(headDim, of: 1, what), self.epsilon)
  }
}

extension HeadInput {
  /// The address of the first head of the first token, and floats from one token to the next.
  fileprivate func heads(_ tokens: Int, of columns: Int, _ what: StaticString) -> (UInt64, Int64) {
    let width = tensor.shape[tensor.shape.rank - 1]
    enforce(
      column >= 0 && column + columns <= width && tensor.count >= tokens * width,
      "\(what): \(tensor.shape) does not hold \(columns) columns from \(column) on for \(tokens) tokens")
    return (tensor.rows(tokens, of: width, what) + UInt64(column * MemoryLayout<Float>.stride), Int64(width))
  }
}

extension Tensor {
  /// The address of the first `count` rows of `columns` values: a tensor of more rows, as a step's buffers are, will do.
  fileprivate func rows(_ count: Int, of columns: Int, _ what: StaticString, as dataType: DataType = .f32) -> UInt64 {
    let width = shape[0] == 0 ? columns : self.count / shape[0]
    enforce(shape[0] >= count && width == columns, "\(what) must have \(count) rows of \(columns), not \(shape)")
    return device(dataType, shape, what)
  }

  /// The address of the first `count` of the tensor's int32 elements.
  fileprivate func indices(_ count: Int, _ what: StaticString) -> UInt64 {
    enforce(self.count >= count, "\(what) must have \(count) elements, not \(self.count)")
    return device(.i32, shape, what)
  }
}
