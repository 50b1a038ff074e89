// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore
import MartletKVCache

/// The step as ``FlashInferAttention`` needs it: page tables in compressed rows (CSR), the places of new tokens, and one plan for each distinct
/// layer shape.
///
/// | table | shape | entry |
/// |---|---|---|
/// | ``qoIndptr`` | `[R + 1]` | where a request's queries begin |
/// | ``pagedKVIndptr`` | `[R + 1]` | where a request's pages begin in ``pagedKVIndices(pool:)`` |
/// | ``pagedKVIndices(pool:)`` | `[pages of all requests]` | page ids: the ⌈kvLen / pageSize⌉ that hold keys, not all that are allocated; −1 behind a window |
/// | ``lastPageLen`` | `[R]` | tokens in a request's last page, 1…pageSize; 0 for a request without pages |
/// | ``batchIndices``, ``positions`` | `[T]` | request and cache position of each new key/value token; −1 for dummies and up to T |
///
/// The page table counts the new tokens already. These tables are the source: the dense page table that the device's kernels read is spread
/// out from them. All are allocated at init for the greatest step, on the host and on the device, and filled in place.
public final class FlashInferMetadata: AttentionMetadata {
  /// Where each request's pages begin: the first `numSeqs + 1` entries. The same in every pool.
  public let pagedKVIndptr: HostBuffer<Int32>
  /// Tokens in each request's last page: the first `numSeqs` entries.
  public let lastPageLen: HostBuffer<Int32>
  /// The request of each new key/value token; −1 for dummies and from `numNewKVTokens` on.
  public let batchIndices: HostBuffer<Int32>
  /// The cache position of each new key/value token; −1 for dummies and from `numNewKVTokens` on.
  public let positions: HostBuffer<Int32>
  /// ``pagedKVIndptr`` on the device, `[numSeqs + 1]`.
  public private(set) var pagedKVIndptrCUDA: Tensor
  /// ``lastPageLen`` on the device, `[numSeqs]`.
  public private(set) var lastPageLenCUDA: Tensor
  /// ``batchIndices`` on the device, whole: `[maxNumKVTokens]`.
  public let batchIndicesCUDA: Tensor
  /// ``positions`` on the device, whole: `[maxNumKVTokens]`.
  public let positionsCUDA: Tensor

  private let indptrTable: StepTable
  private let lastPageLenTable: StepTable
  private let batchIndicesTable: StepTable
  private let positionsTable: StepTable
  /// Of each pool; of the step's own pages where there is no cache.
  private let indicesTables: [StepTable]
  private var plans: AttentionPlanTable<FlashInferPlanParams>

  public required init(_ setup: Setup) throws {
    let context = setup.context
    let device = context.device
    let manager = setup.kvCacheManager
    indptrTable = try StepTable(count: setup.maxNumRequests + 1, on: device)
    lastPageLenTable = try StepTable(count: setup.maxNumRequests, on: device)
    batchIndicesTable = try StepTable(count: setup.maxNumKVTokens, on: device)
    positionsTable = try StepTable(count: setup.maxNumKVTokens, on: device)
    let pagesPerRequest = max(
      manager?.maxPagesPerSequence ?? 1, (context.maxSequenceLength + context.stepPageSize - 1) / context.stepPageSize)
    indicesTables = try (0..<max(manager?.poolCount ?? 1, 1)).map { _ in
      try StepTable(count: setup.maxNumRequests * pagesPerRequest, on: device)
    }
    let params = setup.layers.enumerated().flatMap { position, layer in
      AttentionMask.allCases.filter(setup.masks.contains).map {
        FlashInferPlanParams(layer, mask: $0, pool: manager?.pool(ofLayer: position), in: context)
      }
    }
    plans = try AttentionPlanTable(params, on: device) { params in
      AttentionPlanner(
        params.planKey, maxNumRequests: setup.maxNumRequests, maxNumTokens: setup.maxNumTokens,
        maxSequenceLength: context.maxSequenceLength, workerCount: context.workerCount,
        cascadePageCount: params.pool.flatMap { manager?.pageCount(pool: $0) })
    }
    pagedKVIndptr = indptrTable.host
    lastPageLen = lastPageLenTable.host
    batchIndices = batchIndicesTable.host
    positions = positionsTable.host
    pagedKVIndptrCUDA = indptrTable.device.prefix(1)
    lastPageLenCUDA = lastPageLenTable.device.prefix(0)
    batchIndicesCUDA = batchIndicesTable.device
    positionsCUDA = positionsTable.device
    try super.init(setup)
  }

  public override class func stepLayout(for layer: AttentionLayerSpec, in context: AttentionContext) -> KVLayout? {
    FlashInferAttention.layout(layer, .f32, pageSize: context.stepPageSize, in: context)
  }

  // MARK: Tables

  /// Where each request's queries begin: the first `numSeqs + 1` entries.
  public var qoIndptr: HostBuffer<Int32> { queryIndptr }
  /// ``qoIndptr`` on the device, `[numSeqs + 1]`.
  public var qoIndptrCUDA: Tensor { ragged.queryIndptr }

  /// The page ids of all requests in a pool: the first `pagedKVIndptr[numSeqs]` entries. A step without a cache has one pool, its own pages.
  public func pagedKVIndices(pool: Int = 0) -> HostBuffer<Int32> { indicesTables[pool].host }

  /// ``pagedKVIndices(pool:)`` on the device, whole.
  public func pagedKVIndicesCUDA(pool: Int = 0) -> Tensor { indicesTables[pool].device }

  public override func prepare() throws {
    try super.prepare()
    let queue = setup.queue
    if !usesCache {
      // The step's own pages are dealt out in order.
      writeIndptr(pageSize: setup.context.stepPageSize)
      let indices = indicesTables[0].host
      for page in 0..<pagedKVIndptr[numSeqs] { indices[Int(page)] = page }
    }
    pagedKVIndptrCUDA = indptrTable.upload(numSeqs + 1, on: queue)
    lastPageLenCUDA = lastPageLenTable.upload(numSeqs, on: queue)
    let count = Int(pagedKVIndptr[numSeqs])
    for table in indicesTables { _ = table.upload(count, on: queue) }
    writePlaces()
    _ = batchIndicesTable.upload(maxNumKVTokens, on: queue)
    _ = positionsTable.upload(maxNumKVTokens, on: queue)
    plans.update(on: queue) { plannedBatch(pool: $0.pool) }
  }

  /// Writes the compressed tables of all pools and spreads them out into the dense ones.
  override func fillPageTables(_ manager: KVCacheManager, width: Int) {
    writeIndptr(pageSize: manager.pageSize)
    for pool in pageTables.indices {
      let indices = indicesTables[pool].host.unsafeStorage
      let rows = pageTables[pool].host.unsafeStorage
      for sequence in 0..<numSeqs {
        let entries = Int(pagedKVIndptr[sequence])..<Int(pagedKVIndptr[sequence + 1])
        if !entries.isEmpty {
          manager.writePageTable(
            requestIDs[sequence], length: Int(kvLens[sequence]), pool: pool,
            into: UnsafeMutableBufferPointer(rebasing: indices[entries]))
        }
        for entry in 0..<width {
          rows[sequence * width + entry] = entry < entries.count ? indices[entries.lowerBound + entry] : -1
        }
      }
    }
  }

  private func writeIndptr(pageSize: Int) {
    pagedKVIndptr[0] = 0
    for sequence in 0..<numSeqs {
      let keys = kvLens[sequence]
      let pages = (keys + Int32(pageSize) - 1) / Int32(pageSize)
      pagedKVIndptr[sequence + 1] = pagedKVIndptr[sequence] + pages
      lastPageLen[sequence] = pages == 0 ? 0 : keys - (pages - 1) * Int32(pageSize)
    }
  }

  private func writePlaces() {
    let indices = batchIndices.unsafeStorage
    let places = positions.unsafeStorage
    var token = 0
    for sequence in 0..<numSeqs {
      let new = Int(seqLensKV[sequence])
      let isDummy = isDummy(sequence)
      for offset in 0..<new {
        indices[token + offset] = isDummy ? -1 : Int32(sequence)
        places[token + offset] = isDummy ? -1 : kvLens[sequence] - Int32(new - offset)
      }
      token += new
    }
    for rest in token..<maxNumKVTokens { (indices[rest], places[rest]) = (-1, -1) }
  }

  // MARK: Plans

  /// The distinct layer shapes, in the order of the layers.
  public var planParams: [FlashInferPlanParams] { plans.keys }

  /// How often a layer shape was planned: once for each `prepare()`, however many layers share it. 0 for one that no layer has.
  public func planCount(for params: FlashInferPlanParams) -> Int { plans.planCount(params) ?? 0 }

  /// The step's work for a layer under a mask; nil where the setup's masks did not name it.
  package func work(for layer: AttentionLayerSpec, mask: AttentionMask) -> AttentionWork? {
    let pool = kvCacheManager.map { $0.pool(ofLayer: position(ofLayer: layer.layerIndex)) }
    return plans.work(FlashInferPlanParams(layer, mask: mask, pool: pool, in: setup.context))
  }
}
