// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore
public import MartletKVCache

/// One forward step, described once and shared by all layers: who is in the batch, how long they are, where their pages are.
///
/// Three disciplines, as in TensorRT-LLM: fields given at *init* are limits and never change; fields that the runtime *sets* before each
/// step are plain; fields *derived* from them are computed in setters and in ``prepare()``, never later. All memory is allocated at init, at
/// the greatest size, and filled in place: a steady step allocates nothing, and addresses never change.
///
/// A step: ``removeAllRequests()``, then ``addRequest(_:newTokens:cachedTokens:promptLength:isContext:)`` for every sequence, contexts first
/// (or set the fields one by one), ``prepare()``, then every layer's forward.
///
/// Backends derive their own and override ``prepare()``; they call `super.prepare()` first.
open class AttentionMetadata {
  // MARK: Set at init

  /// What the metadata was made from.
  public let setup: Setup
  /// The most requests in one batch.
  public let maxNumRequests: Int
  /// The most query tokens in one batch.
  public let maxNumTokens: Int
  /// nil = no cache (encoders, embedding models).
  public let kvCacheManager: KVCacheManager?
  /// Whether buffers are fixed because a graph has captured their addresses and shapes.
  public let isCUDAGraph: Bool

  // MARK: Set before each step

  /// Sequences in the context phase; they come first.
  public var numContexts: Int = 0 {
    didSet { countTokens() }
  }
  /// New query tokens of each sequence in this step: the first ``numSeqs`` entries. Set by ``setSeqLens(_:)`` and `addRequest`.
  public let seqLens: HostBuffer<Int32>
  /// int32 `[numTokens]`, the position of each token for rotary positions; nil = its cache position.
  public var positionIDs: Tensor?
  /// The request of each sequence.
  public var requestIDs: [Int] = []
  /// The full prompt length of each sequence's request.
  public var promptLens: [Int] = []
  /// What each sequence has in the cache before the step.
  public var kvCacheParams = KVCacheParams()
  /// The bits of each sequence for ``AttentionMask/custom``; empty, or one entry for each sequence. They belong to the step:
  /// `removeAllRequests` drops them.
  public var customMasks: [CustomAttentionMask?] = []

  // MARK: Derived

  /// Sequences in the batch.
  public private(set) var numSeqs = 0
  /// Sequences in the generation phase.
  public private(set) var numGenerations = 0
  /// Query tokens of the batch.
  public private(set) var numTokens = 0
  /// Query tokens of the contexts.
  public private(set) var numCtxTokens = 0
  /// Keys of all sequences after the step's append; set by ``prepare()``.
  public private(set) var numKVTokens = 0
  /// Each sequence's key/value length after the step's append: the first ``numSeqs`` entries; set by ``prepare()``.
  public let kvLens: HostBuffer<Int32>
  /// Where each sequence's tokens begin: the first `numSeqs + 1` entries; set by ``prepare()``.
  public let queryIndptr: HostBuffer<Int32>
  /// The copy of ``seqLens`` on the device, `[numSeqs]`.
  public private(set) var seqLensCUDA: Tensor
  /// The step's tokens as kernels read them.
  public private(set) var ragged: RaggedQueries

  private let seqLensTable: StepTable
  private let kvLensTable: StepTable
  private let queryIndptrTable: StepTable
  private let tokenRequestsTable: StepTable
  private let tokenPositionsTable: StepTable
  private let pageTables: [StepTable]
  private var pageTableViews: [Tensor]
  private let layerPositions: [Int: Int]
  private var workspaces: [Tensor?]

  /// Allocates everything that steps within the limits need.
  /// - Throws: `DeviceError` where the memory is not to be had, ``AttentionError`` where layers and cache disagree.
  public required init(_ setup: Setup) throws {
    let device = setup.context.device
    try setup.validate()
    self.setup = setup
    maxNumRequests = setup.maxNumRequests
    maxNumTokens = setup.maxNumTokens
    kvCacheManager = setup.kvCacheManager
    isCUDAGraph = setup.isCUDAGraph
    seqLensTable = try StepTable(count: maxNumRequests, on: device)
    kvLensTable = try StepTable(count: maxNumRequests, on: device)
    queryIndptrTable = try StepTable(count: maxNumRequests + 1, on: device)
    tokenRequestsTable = try StepTable(count: maxNumTokens, on: device)
    tokenPositionsTable = try StepTable(count: maxNumTokens, on: device)
    seqLens = seqLensTable.host
    kvLens = kvLensTable.host
    queryIndptr = queryIndptrTable.host
    var tables: [StepTable] = []
    if let manager = setup.kvCacheManager {
      for _ in 0..<manager.poolCount {
        tables.append(try StepTable(count: maxNumRequests * manager.maxPagesPerSequence, on: device))
      }
    }
    pageTables = tables
    pageTableViews = tables.map { $0.device.prefix(0).reshaped(Shape(0, 1)) }
    layerPositions = Dictionary(uniqueKeysWithValues: setup.layers.enumerated().map { ($1.layerIndex, $0) })
    workspaces = Array(repeating: nil, count: Workspace.allCases.count)
    seqLensCUDA = seqLensTable.device.prefix(0)
    ragged = RaggedQueries(
      numRequests: 0, numTokens: 0, queryIndptr: queryIndptrTable.device.prefix(1), kvLens: kvLensTable.device.prefix(0),
      tokenRequests: tokenRequestsTable.device.prefix(0), tokenPositions: tokenPositionsTable.device.prefix(0),
      positionIDs: tokenPositionsTable.device.prefix(0))
    requestIDs.reserveCapacity(maxNumRequests)
    promptLens.reserveCapacity(maxNumRequests)
    kvCacheParams.numCachedTokensPerSeq.reserveCapacity(maxNumRequests)
  }

  // MARK: Preparation

  /// Checks the step, derives what is derived and copies it to the device. Called once per step, after the fields are set and the cache was
  /// extended for the new tokens.
  /// - Throws: ``AttentionError/invalidStep(_:)`` where the fields contradict each other, the limits or the cache.
  open func prepare() throws {
    try validateStep()
    numKVTokens = 0
    queryIndptr[0] = 0
    let tokenRequests = tokenRequestsTable.host.unsafeStorage
    let tokenPositions = tokenPositionsTable.host.unsafeStorage
    var token = 0
    for sequence in 0..<numSeqs {
      let cached = numCachedTokens(of: sequence)
      let count = Int(seqLens[sequence])
      kvLens[sequence] = Int32(cached + count)
      numKVTokens += cached + count
      for offset in 0..<count {
        tokenRequests[token + offset] = Int32(sequence)
        tokenPositions[token + offset] = Int32(cached + offset)
      }
      token += count
      queryIndptr[sequence + 1] = Int32(token)
    }
    let queue = setup.queue
    seqLensCUDA = seqLensTable.upload(numSeqs, on: queue)
    let positions = tokenPositionsTable.upload(numTokens, on: queue)
    ragged = RaggedQueries(
      numRequests: numSeqs, numTokens: numTokens, queryIndptr: queryIndptrTable.upload(numSeqs + 1, on: queue),
      kvLens: kvLensTable.upload(numSeqs, on: queue), tokenRequests: tokenRequestsTable.upload(numTokens, on: queue),
      tokenPositions: positions, positionIDs: positionIDs?.prefix(numTokens) ?? positions)
    if usesCache, let manager = kvCacheManager { writePageTables(manager, on: queue) }
  }

  /// One row per sequence, as wide as the longest needs; under graphs always as wide as a sequence can be.
  private func writePageTables(_ manager: KVCacheManager, on queue: any DeviceQueue) {
    var width = 1
    for sequence in 0..<numSeqs { width = max(width, (Int(kvLens[sequence]) + manager.pageSize - 1) / manager.pageSize) }
    if isCUDAGraph { width = manager.maxPagesPerSequence }
    for pool in pageTables.indices {
      let rows = pageTables[pool].host.unsafeStorage
      for sequence in 0..<numSeqs {
        manager.writePageTable(
          requestIDs[sequence], length: Int(kvLens[sequence]), pool: pool,
          into: UnsafeMutableBufferPointer(rebasing: rows[sequence * width..<(sequence + 1) * width]))
      }
      pageTableViews[pool] = pageTables[pool].upload(numSeqs * width, on: queue).reshaped(Shape(numSeqs, width))
    }
  }

  /// A metadata of the same kind for captured graphs: generations only, every buffer at its final size, never allocated again.
  ///
  /// Lengths are preset to `queriesPerRequest`. Returns itself if it is such a metadata already.
  public final func makeCUDAGraphMetadata(maxBatchSize: Int, queriesPerRequest: Int = 1) throws -> Self {
    if isCUDAGraph { return self }
    var setup = setup
    setup.isCUDAGraph = true
    setup.maxNumRequests = maxBatchSize
    setup.maxNumTokens = maxBatchSize * queriesPerRequest
    let metadata = try Self(setup)
    metadata.setSeqLens(repeatElement(queriesPerRequest, count: maxBatchSize))
    return metadata
  }
}

// MARK: - Setting a step

extension AttentionMetadata {
  /// Empties the step, keeping all memory.
  public final func removeAllRequests() {
    numSeqs = 0
    requestIDs.removeAll(keepingCapacity: true)
    promptLens.removeAll(keepingCapacity: true)
    kvCacheParams.numCachedTokensPerSeq.removeAll(keepingCapacity: true)
    customMasks.removeAll(keepingCapacity: true)
    positionIDs = nil
    numContexts = 0
  }

  /// Appends a sequence to the step: contexts first.
  /// - Parameters:
  ///   - newTokens: its query tokens in this step.
  ///   - cachedTokens: its tokens that are in the cache before this step.
  ///   - promptLength: its request's full prompt length.
  /// - Precondition: there is room; no generation was added before a context.
  public final func addRequest(_ id: Int, newTokens: Int, cachedTokens: Int, promptLength: Int, isContext: Bool) {
    precondition(numSeqs < maxNumRequests, "a batch of more than \(maxNumRequests) requests")
    precondition(!isContext || numContexts == numSeqs, "the context of request \(id) comes after a generation; contexts come first")
    seqLens[numSeqs] = Int32(newTokens)
    numSeqs += 1
    requestIDs.append(id)
    promptLens.append(promptLength)
    kvCacheParams.numCachedTokensPerSeq.append(cachedTokens)
    if isContext { numContexts += 1 } else { countTokens() }
  }

  /// Sets the new query tokens of every sequence.
  /// - Precondition: at most ``maxNumRequests``.
  public final func setSeqLens(_ lengths: some Collection<Int>) {
    precondition(lengths.count <= maxNumRequests, "\(lengths.count) requests in a batch of at most \(maxNumRequests)")
    for (index, length) in lengths.enumerated() { seqLens[index] = Int32(length) }
    numSeqs = lengths.count
    countTokens()
  }

  /// What follows from ``seqLens`` and ``numContexts``, once they agree.
  private func countTokens() {
    numTokens = 0
    numCtxTokens = 0
    for sequence in 0..<numSeqs {
      numTokens += Int(seqLens[sequence])
      if sequence < numContexts { numCtxTokens += Int(seqLens[sequence]) }
    }
    numGenerations = max(0, numSeqs - numContexts)
  }
}

// MARK: - Reading a step

extension AttentionMetadata {
  /// New query tokens of the contexts.
  public final var contextLens: [Int] { (0..<min(numContexts, numSeqs)).map { Int(seqLens[$0]) } }

  /// Whether the step reads and writes the key/value cache.
  public final var usesCache: Bool { kvCacheManager != nil && kvCacheParams.useCache }

  /// Tokens of a sequence that are in the cache before this step.
  public final func numCachedTokens(of sequence: Int) -> Int {
    usesCache ? kvCacheParams.numCachedTokensPerSeq[sequence] : 0
  }

  /// The mask bits of a sequence, where it has any.
  public final func customMask(of sequence: Int) -> CustomAttentionMask? { customMasks.isEmpty ? nil : customMasks[sequence] }

  /// The pages of a layer with the batch's page table.
  /// - Precondition: the metadata was prepared with a cache, and the layer is one of its layers.
  public final func cache(ofLayer layerIndex: Int) -> PagedKV {
    guard let manager = kvCacheManager else { preconditionFailure("layer \(layerIndex) asks for pages where there is no cache") }
    let layer = position(ofLayer: layerIndex)
    return PagedKV(
      layout: manager.layout(layer: layer), pages: manager.pages(layer: layer),
      pageTable: pageTableViews[manager.pool(ofLayer: layer)])
  }

  /// Where the layer is among the setup's layers, which is its number in the cache manager.
  public final func position(ofLayer layerIndex: Int) -> Int {
    guard let position = layerPositions[layerIndex] else {
      preconditionFailure("layer \(layerIndex) is none of the metadata's layers")
    }
    return position
  }
}

// MARK: - Workspace

extension AttentionMetadata {
  /// Device memory that layers use one after another within a step.
  public enum Workspace: Int, CaseIterable, Sendable {
    case fusedQKV, queries, keys, values
  }

  /// A float32 tensor `[numTokens, columns]` whose contents last until the next layer. Allocated on first use at the step's greatest size and
  /// the widest layer's width.
  public final func workspace(_ use: Workspace, columns: Int) throws -> Tensor {
    let tensor: Tensor
    if let existing = workspaces[use.rawValue] {
      tensor = existing
    } else {
      let widths: [Int] = setup.layers.map { layer in
        switch use {
        case .fusedQKV: layer.fusedWidth
        case .queries: layer.queryWidth
        case .keys: layer.keyWidth
        case .values: layer.valueWidth
        }
      }
      tensor = try setup.context.device.makeTensor(Shape(maxNumTokens * (widths.max() ?? 1)), .f32)
      workspaces[use.rawValue] = tensor
    }
    return tensor.prefix(numTokens * columns).reshaped(Shape(numTokens, columns))
  }
}
