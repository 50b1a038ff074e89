// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore
public import MartletKVCache

/// One forward step, described once and shared by all layers: who is in the batch, how long they are, where their pages are.
///
/// Three disciplines, as in TensorRT-LLM: fields given at *init* are limits and never change; fields that the runtime *sets* before each
/// step are plain; fields *derived* from them are computed in setters and in ``prepare()``, never later. All memory is allocated at init, at
/// the greatest size, and filled in place: a steady step allocates nothing, and addresses never change.
///
/// A step: ``removeAllRequests()``, then `addRequest` for every sequence, contexts first (or set the fields one by one), ``prepare()``, then
/// every layer's forward.
///
/// In *cross attention* (``isCross``) queries and keys are different tokens, those of a decoder and of an encoder. Such a metadata has the
/// encoder's cache; a sequence brings ``seqLensKV`` new keys, which may be none, and its queries see keys without any causal order.
///
/// A *dummy* is a sequence that only fills a captured batch (``addDummyRequests(upTo:)``): it has query tokens, no keys and no pages. Kernels
/// and planner skip it; its output rows are not written.
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
  /// The most new key/value tokens in one batch.
  public let maxNumKVTokens: Int
  /// nil = no cache (encoders, embedding models).
  public let kvCacheManager: KVCacheManager?
  /// Whether buffers are fixed because a graph has captured their addresses and shapes.
  public let isCUDAGraph: Bool
  /// Whether queries and keys are different tokens.
  public let isCross: Bool

  // MARK: Set before each step

  /// Sequences in the context phase; they come first.
  public var numContexts: Int = 0 {
    didSet { countTokens() }
  }
  /// New query tokens of each sequence in this step: the first ``numSeqs`` entries. Set by ``setSeqLens(_:)`` and `addRequest`.
  public let seqLens: HostBuffer<Int32>
  /// New key/value tokens of each sequence in this step: ``seqLens`` itself, unless attention is cross. Set by ``setSeqLensKV(_:)`` and
  /// `addRequest`.
  public let seqLensKV: HostBuffer<Int32>
  /// int32 `[numTokens]`, the position of each query token for rotary positions; nil = its cache position. Or `[3, columns]`, at least as many
  /// columns as tokens: time, height and width, for layers with ``PositionalEmbeddingParams/mrope``; other layers take the first row.
  ///
  /// Cross attention with rotary positions needs it, because its queries have no cache positions; its keys are rotated by theirs.
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

  /// Sequences in the batch, dummies included.
  public internal(set) var numSeqs = 0
  /// Sequences in the generation phase.
  public internal(set) var numGenerations = 0
  /// Query tokens of the batch.
  public internal(set) var numTokens = 0
  /// Query tokens of the contexts.
  public internal(set) var numCtxTokens = 0
  /// New key/value tokens of the batch: as many as query tokens, unless attention is cross.
  public internal(set) var numNewKVTokens = 0
  /// Keys of all sequences after the step's append; set by ``prepare()``.
  public private(set) var numKVTokens = 0
  /// Each sequence's key/value length after the step's append, 0 for a dummy: the first ``numSeqs`` entries; set by ``prepare()``.
  public let kvLens: HostBuffer<Int32>
  /// Where each sequence's query tokens begin: the first `numSeqs + 1` entries; set by ``prepare()``.
  public let queryIndptr: HostBuffer<Int32>
  /// The copy of ``seqLens`` on the device, `[numSeqs]`.
  public private(set) var seqLensCUDA: Tensor
  /// The copy of ``seqLensKV`` on the device, `[numSeqs]`.
  public private(set) var seqLensKVCUDA: Tensor
  /// The step's query tokens as kernels read them.
  public private(set) var ragged: RaggedQueries
  /// The tokens whose keys and values are appended: ``ragged``, unless attention is cross.
  public private(set) var raggedKV: RaggedQueries
  /// The step's custom bits as kernels read them; nil where the setup does not name the custom mask.
  public private(set) var maskBits: MaskBits?

  let pageTables: [StepTable]
  private var pageTableViews: [Tensor]
  private(set) var pageTableWidth = 1
  private var stepPages: StepPages?
  private let stepMaskBits: StepMaskBits?
  private let seqLensTable: StepTable
  private let kvLensTable: StepTable
  private let queryTables: TokenTables
  /// Of a cross metadata: the tables of its key/value tokens.
  private let crossTables: (seqLens: StepTable, tokens: TokenTables)?
  /// The requests of the step, while it is checked; its memory stays.
  var idsOfStep: Set<Int> = []
  private let layerPositions: [Int: Int]
  let needsPositionIDs: Bool
  /// The mask of all layers, where they have one in common.
  let onlyMask: AttentionMask?
  var workspaces: [Tensor?]

  /// Allocates everything that steps within the limits need.
  /// - Throws: `DeviceError` where the memory is not available, ``AttentionError`` where layers and cache disagree.
  public required init(_ setup: Setup) throws {
    let device = setup.context.device
    try setup.validate()
    self.setup = setup
    maxNumRequests = setup.maxNumRequests
    maxNumTokens = setup.maxNumTokens
    maxNumKVTokens = setup.maxNumKVTokens
    kvCacheManager = setup.kvCacheManager
    isCUDAGraph = setup.isCUDAGraph
    isCross = setup.isCross
    onlyMask = setup.masks.count == 1 ? setup.masks.first : nil
    needsPositionIDs = isCross && setup.layers.contains { $0.positionalEmbedding != nil }
    seqLensTable = try StepTable(count: maxNumRequests, on: device)
    kvLensTable = try StepTable(count: maxNumRequests, on: device)
    queryTables = try TokenTables(requests: maxNumRequests, tokens: maxNumTokens, on: device)
    crossTables =
      isCross
      ? (
        try StepTable(count: maxNumRequests, on: device),
        try TokenTables(requests: maxNumRequests, tokens: maxNumKVTokens, on: device)
      ) : nil
    seqLens = seqLensTable.host
    seqLensKV = crossTables?.seqLens.host ?? seqLensTable.host
    kvLens = kvLensTable.host
    queryIndptr = queryTables.indptr.host
    var tables: [StepTable] = []
    if let manager = setup.kvCacheManager {
      for _ in 0..<manager.poolCount {
        tables.append(try StepTable(count: maxNumRequests * manager.maxPagesPerSequence, on: device))
      }
    }
    pageTables = tables
    pageTableViews = tables.map { $0.device.prefix(0).reshaped(Shape(0, 1)) }
    stepMaskBits = setup.masks.contains(.custom) ? try StepMaskBits(setup) : nil
    layerPositions = Dictionary(uniqueKeysWithValues: setup.layers.enumerated().map { ($1.layerIndex, $0) })
    workspaces = Array(repeating: nil, count: Workspace.allCases.count)
    seqLensCUDA = seqLensTable.device.prefix(0)
    seqLensKVCUDA = seqLensTable.device.prefix(0)
    ragged = queryTables.emptyView(kvLens: kvLensTable.device)
    raggedKV = ragged
    requestIDs.reserveCapacity(maxNumRequests)
    idsOfStep.reserveCapacity(maxNumRequests)
    promptLens.reserveCapacity(maxNumRequests)
    kvCacheParams.numCachedTokensPerSeq.reserveCapacity(maxNumRequests)
    if kvCacheManager == nil { stepPages = try makeStepPages() }
    if isCUDAGraph { try allocateWorkspaces() }
  }

  /// The layout of the float32 pages that a layer's keys and values take in a step without a cache; nil, the default, where the backend takes
  /// them from the step's own tensors.
  open class func stepLayout(for layer: AttentionLayerSpec, in context: AttentionContext) -> KVLayout? { nil }

  private func makeStepPages() throws -> StepPages? {
    let layouts = setup.layers.compactMap { Self.stepLayout(for: $0, in: setup.context) }
    return layouts.count == setup.layers.count && !layouts.isEmpty ? try StepPages(layouts, setup) : nil
  }

  // MARK: Preparation

  /// Checks the step, derives what is derived and copies it to the device. Called once per step, after the fields are set and the cache was
  /// extended for the new tokens.
  /// - Throws: ``AttentionError/Code/invalidStep`` where the fields contradict each other, the limits or the cache.
  open func prepare() throws {
    countTokens()
    try validateStep()
    numKVTokens = 0
    queryTables.begin()
    crossTables?.tokens.begin()
    for sequence in 0..<numSeqs {
      let cached = numCachedTokens(of: sequence)
      let isDummy = isDummy(sequence)
      kvLens[sequence] = isDummy ? 0 : Int32(cached) + seqLensKV[sequence]
      numKVTokens += Int(kvLens[sequence])
      if isDummy {
        queryTables.append(sequence, count: Int(seqLens[sequence]), at: nil)
        crossTables?.tokens.append(sequence, count: 0, at: nil)
      } else {
        // Queries of cross attention have no cache positions: they count from the step's beginning.
        queryTables.append(sequence, count: Int(seqLens[sequence]), at: isCross ? 0 : cached)
        crossTables?.tokens.append(sequence, count: Int(seqLensKV[sequence]), at: cached)
      }
    }
    let queue = setup.queue
    seqLensCUDA = seqLensTable.upload(numSeqs, on: queue)
    let kvLensCUDA = kvLensTable.upload(numSeqs, on: queue)
    ragged = queryTables.upload(requests: numSeqs, tokens: numTokens, kvLens: kvLensCUDA, positionIDs: positionIDs, on: queue)
    if let crossTables {
      seqLensKVCUDA = crossTables.seqLens.upload(numSeqs, on: queue)
      raggedKV = crossTables.tokens.upload(
        requests: numSeqs, tokens: numNewKVTokens, kvLens: kvLensCUDA, positionIDs: nil, on: queue)
    } else {
      seqLensKVCUDA = seqLensCUDA
      raggedKV = ragged
    }
    maskBits = stepMaskBits?.upload(customMasks, numRequests: numSeqs, on: queue)
    if usesCache, let manager = kvCacheManager { uploadPageTables(manager, on: queue) } else { try dealStepPages(on: queue) }
  }

  /// One row per sequence, as wide as the longest needs; under graphs always as wide as a sequence can be.
  private func uploadPageTables(_ manager: KVCacheManager, on queue: any DeviceQueue) {
    var width = 1
    for sequence in 0..<numSeqs { width = max(width, (Int(kvLens[sequence]) + manager.pageSize - 1) / manager.pageSize) }
    if isCUDAGraph { width = manager.maxPagesPerSequence }
    pageTableWidth = width
    fillPageTables(manager, width: width)
    for pool in pageTables.indices {
      pageTableViews[pool] = pageTables[pool].upload(numSeqs * width, on: queue).reshaped(Shape(numSeqs, width))
    }
  }

  /// Writes the page tables `[numSeqs, width]` of all pools in host memory.
  func fillPageTables(_ manager: KVCacheManager, width: Int) {
    for pool in pageTables.indices {
      let rows = pageTables[pool].host.unsafeStorage
      for sequence in 0..<numSeqs {
        let row = UnsafeMutableBufferPointer(rebasing: rows[sequence * width..<(sequence + 1) * width])
        if isDummy(sequence) {
          row.update(repeating: -1)
        } else {
          manager.writePageTable(requestIDs[sequence], length: Int(kvLens[sequence]), pool: pool, into: row)
        }
      }
    }
  }

  private func dealStepPages(on queue: any DeviceQueue) throws {
    // A metadata that has a cache makes pages for steps without one when the first such step comes.
    if stepPages == nil && !isCUDAGraph { stepPages = try makeStepPages() }
    stepPages?.deal(kvLens: kvLens, numRequests: numSeqs, on: queue)
  }

  /// A metadata of the same kind for captured graphs: generations only, every buffer allocated here at its final size, never again.
  ///
  /// Lengths are preset to `queriesPerRequest`. Returns itself if it is such a metadata already. Page tables are as wide as a sequence can
  /// be; ``addDummyRequests(upTo:)`` fills a step up to the captured batch.
  public final func makeCUDAGraphMetadata(maxBatchSize: Int, queriesPerRequest: Int = 1) throws -> Self {
    if isCUDAGraph { return self }
    var setup = setup
    setup.isCUDAGraph = true
    setup.maxNumRequests = maxBatchSize
    setup.maxNumTokens = maxBatchSize * queriesPerRequest
    // Generations bring the encoder nothing; one new token a request leaves room for experiments.
    setup.maxNumKVTokens = isCross ? maxBatchSize : setup.maxNumTokens
    setup.queriesPerRequest = queriesPerRequest
    let metadata = try Self(setup)
    metadata.setSeqLens(repeatElement(queriesPerRequest, count: maxBatchSize))
    return metadata
  }

  /// The pages of a layer with the batch's page table: the cache's, or in a step without a cache the step's own.
  /// - Precondition: the metadata was prepared, the layer is one of its layers, and there are pages (``stepLayout(for:in:)``).
  public final func cache(ofLayer layerIndex: Int) -> PagedKV {
    let layer = position(ofLayer: layerIndex)
    if usesCache, let manager = kvCacheManager {
      return PagedKV(
        layout: manager.layout(layer: layer), pages: manager.pages(layer: layer),
        pageTable: pageTableViews[manager.pool(ofLayer: layer)])
    }
    guard let stepPages else { fatalError("layer \(layerIndex) asks for pages where there is no cache") }
    return stepPages.cache(ofLayerAt: layer)
  }

  /// Where the layer is among the setup's layers, which is its number in the cache manager.
  public final func position(ofLayer layerIndex: Int) -> Int {
    guard let position = layerPositions[layerIndex] else {
      fatalError("layer \(layerIndex) is none of the metadata's layers")
    }
    return position
  }

  /// The prepared step as a planner reads it.
  /// - Parameter pool: the pool whose shared chunks are to be found; nil where none are.
  final func plannedBatch(pool: Int? = nil) -> PlannedBatch {
    var batch = PlannedBatch(
      numRequests: numSeqs, numContexts: usesCache ? numContexts : 0, queryIndptr: queryIndptr, kvLens: kvLens,
      maskOffsets: stepMaskBits?.offsetsOnHost)
    if let pool, usesCache, let manager = kvCacheManager {
      batch.pages = PlannedBatch.Pages(table: pageTables[pool].host, width: pageTableWidth, pageSize: manager.pageSize)
    }
    return batch
  }
}
