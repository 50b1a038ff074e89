// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletAttention
public import MartletCore
public import MartletKVCache

/// A small runtime for attention alone, on any device: layers of one backend, a cache, and steps of pieces of requests.
///
/// It keeps every output row, so that the same requests can be run in any company, chunking, page size or number of threads and compared.
/// Before each step every page that no request holds is filled with NaN: who reads one shows it.
public final class AttentionHarness {
  /// A part of one request in a step.
  public struct Piece: Sendable, Hashable {
    /// The request.
    public var id: Int
    /// Its query tokens in the step.
    public var newTokens: Int
    /// Its key/value tokens in the step; nil = as many as queries.
    public var newKVTokens: Int?
    public var isContext: Bool

    public init(id: Int, newTokens: Int, newKVTokens: Int? = nil, isContext: Bool) {
      self.id = id
      self.newTokens = newTokens
      self.newKVTokens = newKVTokens
      self.isContext = isContext
    }

    public static func context(_ id: Int, _ newTokens: Int, keys: Int? = nil) -> Piece {
      Piece(id: id, newTokens: newTokens, newKVTokens: keys, isContext: true)
    }
    public static func generation(_ id: Int, _ newTokens: Int = 1, keys: Int? = nil) -> Piece {
      Piece(id: id, newTokens: newTokens, newKVTokens: keys, isContext: false)
    }

    /// Key/value tokens that the step adds.
    public var keyCount: Int { newKVTokens ?? newTokens }
  }

  /// What a harness is made for.
  public struct Options {
    /// nil = no cache at all.
    public var cache: KVCacheConfig?
    /// Whether steps use the cache that there is.
    public var usesCache = true
    public var maxNumRequests = 8
    public var maxNumTokens = 1024
    /// nil = as many as queries.
    public var maxNumKVTokens: Int?
    /// nil = as many as a step has.
    public var maxSequenceLength: Int?
    /// The most sequences in the cache; nil = `maxNumRequests`.
    public var maxSequences: Int?
    /// The workers that the planner is told of; a hint that never changes a result.
    public var workerCount = 1
    public var masks: Set<AttentionMask> = [.causal]
    /// Whether keys and values are an encoder's.
    public var isCross = false
    public var input = ConformanceCase.Input.fused
    /// The order of a page's elements in the FLASHINFER backend.
    public var flashInferLayout = FlashInferAttention.Layout.hnd
    /// Whether pages that no request holds are filled with NaN before each step.
    public var poisonsFreePages = true

    public init(cache: KVCacheConfig?, maxSequenceLength: Int? = nil, maxSequences: Int? = nil) {
      self.cache = cache
      self.maxSequenceLength = maxSequenceLength
      self.maxSequences = maxSequences
    }

    func context(on device: any Device) -> AttentionContext {
      AttentionContext(
        device: device, kvCache: cache, maxNumRequests: maxNumRequests, maxNumTokens: maxNumTokens, maxSequenceLength: maxSequenceLength,
        workerCount: workerCount, flashInferLayout: flashInferLayout)
    }
  }

  /// Rows of one layer, in the order in which a request's queries were computed.
  public struct Rows: Sendable, Hashable {
    /// `[rows][numHeads·valueHeadDim]`: float32 output.
    public var values: [Float] = []
    /// The same in e4m3, where the layer's output is.
    public var codes: [UInt8] = []
    /// `[rows][numHeads]`, base 2.
    public var logSumExp: [Float] = []
  }

  public let device: any Device
  public let queue: any DeviceQueue
  public let layers: [AttentionLayer]
  public let manager: KVCacheManager?
  public private(set) var metadata: AttentionMetadata
  /// `[layer][request]`: what each layer takes from each request's tokens.
  public let requests: [[Int: RequestRows]]
  /// The mask of every forward.
  public var mask = AttentionMask.causal
  /// Multiplies e4m3 output.
  public var outputScale: Float = 1
  /// The custom bits of a request's step from (request, first query, queries, keys); nil = no bits.
  public var bits: ((_ id: Int, _ firstQuery: Int, _ queries: Int, _ keys: Int) -> CustomAttentionMask?)?
  /// `[layer][request]`.
  public private(set) var rows: [[Int: Rows]]
  /// Query and key tokens of each request so far.
  public private(set) var queryCounts: [Int: Int] = [:]
  public private(set) var keyCounts: [Int: Int] = [:]

  /// Rows of dummies that a backend wrote, which it may not.
  public private(set) var writtenDummyRows = 0

  private let options: Options
  private var graphBatchSize: Int?
  private let poison: HostBuffer<UInt8>?
  private let input: [LayerInput]
  private let output: [LayerOutput]
  private let positions: (host: HostBuffer<Int32>, device: Tensor)

  /// - Parameter requests: `[layer][request]`.
  /// - Throws: what making layers, cache and metadata throws: `AttentionError.Code.obstacles` where the backend cannot serve a layer.
  public init(
    _ backend: any AttentionBackend.Type, _ specs: [AttentionLayerSpec], requests: [[Int: RequestRows]], on device: any Device,
    _ options: Options
  ) throws {
    let context = options.context(on: device)
    layers = try specs.map { try AttentionLayer($0, backend: backend, in: context) }
    manager =
      options.cache == nil
      ? nil : try KVCacheManager(layers: layers.map(\.kvLayerSpec), in: context, maxSequences: options.maxSequences)
    self.device = device
    self.options = options
    self.requests = requests
    queue = device.makeQueue()
    let setup = AttentionMetadata.Setup(
      context: context, layers: specs, kvCacheManager: manager, masks: options.masks, maxNumRequests: options.maxNumRequests,
      maxNumTokens: options.maxNumTokens, maxNumKVTokens: options.maxNumKVTokens, isCross: options.isCross, queue: queue)
    metadata = try layers[0].makeMetadata(setup)
    input = try specs.map {
      try LayerInput($0, options.input, maxNumTokens: max(options.maxNumTokens, options.maxNumKVTokens ?? 0), on: device)
    }
    output = try specs.map { try LayerOutput($0, maxNumTokens: options.maxNumTokens, on: device) }
    rows = Array(repeating: [:], count: specs.count)
    positions = (
      try device.makeHostBuffer(of: Int32.self, count: 3 * options.maxNumTokens),
      try device.makeTensor(Shape(3, options.maxNumTokens), .i32)
    )
    let pageBytes = manager.map { manager in specs.indices.map { manager.layout(layer: $0).pageByteCount }.max() ?? 1 } ?? 1
    // All bits set are a NaN in every type; an int8 page has it in its scales.
    poison = options.poisonsFreePages && manager != nil ? try device.makeHostBuffer(of: UInt8.self, count: pageBytes) : nil
    poison?.unsafeStorage.update(repeating: 0xFF)
  }

  /// Sets and prepares the metadata for a step, extending the cache.
  public func prepare(_ pieces: [Piece]) throws {
    try poisonFreePages()
    metadata.removeAllRequests()
    metadata.kvCacheParams.useCache = options.usesCache
    var token = 0
    // Whether the step has positions that are not the cache's, and whether they differ from axis to axis.
    var (ownPositions, ownAxes) = (false, false)
    for piece in pieces {
      let cached = keyCounts[piece.id, default: 0]
      if let manager, options.usesCache {
        if !manager.contains(piece.id) { enforce(manager.addSequence(piece.id), "the harness's cache holds too few sequences") }
        enforce(manager.extend(piece.id, to: cached + piece.keyCount), "the harness's cache is too small")
      }
      let first = queryCounts[piece.id, default: 0]
      metadata.addRequest(
        piece.id, newTokens: piece.newTokens, newKVTokens: piece.newKVTokens, cachedTokens: cached,
        promptLength: cached + piece.keyCount, isContext: piece.isContext)
      if mask == .custom, let bits { metadata.customMasks.append(bits(piece.id, first, piece.newTokens, cached + piece.keyCount)) }
      for query in first..<first + piece.newTokens {
        let own = requests[0][piece.id]?.positions?[query]
        ownPositions = ownPositions || own != nil
        for axis in 0..<3 {
          ownAxes = ownAxes || own.map { $0[axis] != $0[0] } ?? false
          positions.host[axis * options.maxNumTokens + token] = Int32(own?[axis] ?? query)
        }
        token += 1
      }
    }
    if let graphBatchSize { metadata.addDummyRequests(upTo: graphBatchSize) }
    if ownPositions {
      queue.copy(positions.host, count: 3 * options.maxNumTokens, to: positions.device)
      metadata.positionIDs = ownAxes ? positions.device : positions.device.reshaped(Shape(3 * options.maxNumTokens)).prefix(token)
    }
    try metadata.prepare()
  }

  /// One step of all layers. `check` runs before pages behind windows are given back.
  public func step(_ pieces: [Piece], check: () throws -> Void = {}) throws {
    try prepare(pieces)
    for index in layers.indices { try forward(index, pieces) }
    for piece in pieces {
      queryCounts[piece.id, default: 0] += piece.newTokens
      keyCounts[piece.id, default: 0] += piece.keyCount
    }
    try check()
    if let manager, options.usesCache {
      for piece in pieces { manager.computed(piece.id, upTo: keyCounts[piece.id]!) }
    }
  }

  /// Gives a new request its first keys and values without a step: `stored` is, for each layer, what the cache gives back, `[key][head][dim]`.
  /// - Parameter queries: how many queries count as computed.
  func fill(_ id: Int, keys: Int, queries: Int, stored: [(keys: [Double], values: [Double])]) throws {
    guard let manager else { return }
    enforce(manager.addSequence(id) && manager.extend(id, to: keys), "the harness's cache is too small")
    let filler = CacheFiller(manager: manager, device: device, queue: queue)
    for layer in layers.indices {
      try filler.fill(
        layer: layer, id, count: keys, keys: stored[layer].keys, values: stored[layer].values,
        scales: layers[layer].spec.quantConfig?.kvScales ?? KVScales())
    }
    manager.computed(id, upTo: keys)
    keyCounts[id] = keys
    queryCounts[id] = queries
  }

  /// Gives a new request the first tokens of another one, whose pages both then hold.
  func share(prefixOf source: Int, tokens: Int, with id: Int) {
    guard let manager else { return }
    enforce(manager.addSequence(id) && manager.share(prefixOf: source, tokens: tokens, with: id), "the prefix cannot be shared")
    keyCounts[id] = tokens
    queryCounts[id] = tokens
  }

  /// From now on steps run on metadata for captured graphs, filled up with dummies.
  public func useGraphMetadata(maxBatchSize: Int) throws {
    metadata = try metadata.makeCUDAGraphMetadata(maxBatchSize: maxBatchSize)
    graphBatchSize = maxBatchSize
  }

  /// What a layer stores of a request.
  public func contents(layer: Int, of id: Int) throws -> KVContents? {
    guard let manager, options.usesCache else { return nil }
    let scales = layers[layer].spec.quantConfig?.kvScales ?? KVScales()
    return try manager.read(layer: layer, request: id, scales: scales, on: queue)
  }

  /// Attends once more with the queries of the step that runs, which read the cache only.
  ///
  /// Called from a step's `check`, while its metadata is prepared.
  public func attendAgain(layer index: Int, _ pieces: [Piece]) throws -> Rows {
    let spec = layers[index].spec
    let queries = try LayerInput(spec, .separate, maxNumTokens: options.maxNumTokens, on: device)
    let count = queries.fill(
      pieces.map { (requests[index][$0.id]!, queryCounts[$0.id]! - $0.newTokens, keyCounts[$0.id]! - $0.keyCount, $0) }, on: queue)
    let inputs = AttentionInputs(queries: queries.queries, mask: mask, outputScale: outputScale)
    try layers[index].forward(
      inputs, metadata: metadata, output: AttentionOutput(values: output[index].values, logSumExp: output[index].logSumExp), on: queue)
    output[index].read(count, on: queue)
    var again = Rows()
    output[index].append(0..<count, to: &again)
    return again
  }

  /// Takes a request out of the cache; its rows stay.
  public func remove(_ id: Int) {
    manager?.remove(id)
    queryCounts[id] = nil
    keyCounts[id] = nil
  }

  private func forward(_ index: Int, _ pieces: [Piece]) throws {
    let count = input[index].fill(
      pieces.map { (requests[index][$0.id]!, queryCounts[$0.id, default: 0], keyCounts[$0.id, default: 0], $0) }, on: queue)
    var inputs = input[index].inputs
    inputs.mask = mask
    inputs.outputScale = outputScale
    if graphBatchSize != nil { output[index].poison(on: queue) }
    try layers[index].forward(
      inputs, metadata: metadata, output: AttentionOutput(values: output[index].values, logSumExp: output[index].logSumExp), on: queue)
    output[index].read(metadata.numTokens, on: queue)
    writtenDummyRows += output[index].writtenRows(count..<metadata.numTokens)
    var token = 0
    for piece in pieces {
      output[index].append(token..<token + piece.newTokens, to: &rows[index][piece.id, default: Rows()])
      token += piece.newTokens
    }
  }

  private func poisonFreePages() throws {
    guard let poison, let manager, options.usesCache else { return }
    let width = manager.maxPagesPerSequence
    var held = (0..<manager.poolCount).map { [Bool](repeating: false, count: manager.pageCount(pool: $0)) }
    var table = [Int32](repeating: -1, count: width)
    for id in keyCounts.keys where manager.contains(id) {
      for pool in held.indices {
        table.withUnsafeMutableBufferPointer { manager.writePageTable(id, length: manager.length(id), pool: pool, into: $0) }
        for page in table where page >= 0 { held[pool][Int(page)] = true }
      }
    }
    for layer in layers.indices {
      let pages = manager.pages(layer: layer)
      let bytes = manager.layout(layer: layer).pageByteCount
      let isHeld = held[manager.pool(ofLayer: layer)]
      let raw = Tensor(pages.buffer, byteOffset: pages.byteOffset, shape: Shape(isHeld.count, bytes), dataType: .i8)
      for page in isHeld.indices where !isHeld[page] { queue.copy(poison, count: bytes, to: raw.rows(page..<page + 1)) }
    }
  }
}
