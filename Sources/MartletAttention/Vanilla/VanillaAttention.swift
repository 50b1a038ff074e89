// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore

/// The golden backend, written to be read: plain Swift, one request at a time, float32 scores, the softmax over a whole row at once.
///
/// It does everything the contract names, for any layout, paged or linear, with a cache or without one. It fuses nothing and runs on one
/// thread. Every sum runs over dims or keys in ascending order, so a row's result depends on that row alone.
///
/// It computes on the host and so serves devices whose memory the host can reach.
public final class VanillaAttention: AttentionBackend {
  /// Holds room for one request's keys and values as floats.
  public typealias Metadata = VanillaMetadata

  public static let name = "VANILLA"

  let layer: AttentionLayerSpec
  /// Whether queries are rounded to e4m3.
  let roundsQueries: Bool
  private let rope: RopeTable?
  private let scales: KVScales
  /// Of its own layout, which most caches have.
  private let ownPlanes: StoredPlanes

  public static func capabilities(on device: any Device) -> AttentionCapabilities { [.latentAttention] }

  public static func obstacles(to layer: AttentionLayerSpec, in context: AttentionContext) -> [String] {
    var reasons = layer.generalObstacles(in: context)
    if !context.isHostAddressable {
      reasons.append("it computes on the host, which cannot reach the memory of \(context.device.name)")
    }
    return reasons
  }

  public static func kvLayout(for layer: AttentionLayerSpec, in context: AttentionContext) -> KVLayout {
    layer.latentLayout(context.kvDataType(of: layer), pageSize: context.pageSize)
      ?? .nhd(
        dataType: context.kvDataType(of: layer), pageSize: context.pageSize, numKVHeads: layer.numKVHeads, headDim: layer.headDim,
        valueHeadDim: layer.valueHeadDim)
  }

  public init(_ layer: AttentionLayerSpec, in context: AttentionContext) throws {
    let layout = Self.kvLayout(for: layer, in: context)
    self.layer = layer
    roundsQueries = context.quantConfig(of: layer).fp8Inputs
    rope = try layer.positionalEmbedding.map { try context.ropeTable($0) }
    scales = context.quantConfig(of: layer).kvScales
    ownPlanes = StoredPlanes(layout, scales)
  }

  public func forward(
    _ inputs: AttentionInputs, metadata: VanillaMetadata, output: AttentionOutput, on queue: any DeviceQueue
  ) throws {
    queue.wait()
    let cache = metadata.usesCache ? metadata.cache(ofLayer: layer.layerIndex) : nil
    let queries: HeadRows
    let new: (keys: HeadRows, values: HeadRows)?
    switch inputs.form {
    case .separate(let q, let k, let v):
      queries = rows(q, metadata.numTokens, layer.numHeads, layer.headDim)
      new = (
        rows(k, metadata.numNewKVTokens, layer.numKVHeads, layer.headDim),
        rows(v, metadata.numNewKVTokens, layer.numKVHeads, layer.valueHeadDim)
      )
    case .latent(let q, let latents):
      queries = rows(q, metadata.numTokens, layer.numHeads, layer.headDim)
      // A value is the beginning of its key.
      new = (rows(latents, metadata.numTokens, 1, layer.headDim), rows(latents, metadata.numTokens, 1, layer.valueHeadDim))
    case .queriesOnly(let q):
      guard cache != nil else { throw AttentionError.invalidStep("queries alone read the key/value cache, and this step has none") }
      queries = rows(q, metadata.numTokens, layer.numHeads, layer.headDim)
      new = nil
    case .fused: fatalError("the VANILLA backend takes separate inputs; AttentionLayer splits fused ones")
    }
    let stored = cache.map { (cache: $0, planes: $0.layout == ownPlanes.layout ? ownPlanes : StoredPlanes($0.layout, scales)) }
    var firstNewKey = 0
    for sequence in 0..<metadata.numSeqs {
      let request = Request(sequence, firstNewKey: firstNewKey, layer, inputs.mask, metadata)
      firstNewKey += request.numNewKeys
      if metadata.isDummy(sequence) { continue }
      let pages = stored.map { StoredPages($0.cache, $0.planes, sequence: sequence) }
      if let pages, let new { append(new.keys, new.values, of: request, to: pages) }
      if metadata.isUnattended(sequence, in: layer) { continue }
      for kvHead in 0..<layer.numKVHeads {
        if let pages {
          load(kvHead, of: request, from: pages, metadata)
        } else if let new {
          load(kvHead, of: request, keys: new.keys, values: new.values, metadata)
        }
        if layer.positionalEmbedding?.kind == .deferred, let rope { rotateKeys(of: request, rope, metadata) }
        for token in 0..<request.numTokens {
          for head in kvHead * layer.groupSize..<(kvHead + 1) * layer.groupSize {
            attend(queries, token: token, head: head, of: request, metadata, output)
          }
        }
      }
    }
  }
}

// MARK: - Keys and values

extension VanillaAttention {
  /// One request of the batch: its rows and the keys that some of them see.
  struct Request {
    let firstToken: Int
    let numTokens: Int
    /// Where its new keys and values begin among the step's.
    let firstNewKey: Int
    /// New keys and values; as many as tokens unless attention is cross.
    let numNewKeys: Int
    /// Keys after this step's append. Under a causal mask the request's token t is at cache position `keyLength − numTokens + t`.
    let keyLength: Int
    /// The cache positions that at least one query sees.
    let keys: Range<Int>
    let window: Int?
    let isCausal: Bool
    let bits: CustomAttentionMask?

    init(_ sequence: Int, firstNewKey: Int, _ layer: AttentionLayerSpec, _ mask: AttentionMask, _ metadata: AttentionMetadata) {
      firstToken = Int(metadata.queryIndptr[sequence])
      numTokens = Int(metadata.seqLens[sequence])
      self.firstNewKey = firstNewKey
      numNewKeys = Int(metadata.seqLensKV[sequence])
      keyLength = Int(metadata.kvLens[sequence])
      bits = mask == .custom ? metadata.customMask(of: sequence) : nil
      isCausal = mask == .causal || mask == .custom && bits == nil
      window = isCausal || mask == .bidirectional ? layer.window : nil
      keys = window.map { [keyLength, numTokens] in max(0, keyLength - numTokens - $0 + 1)..<keyLength } ?? 0..<keyLength
    }

    /// The cache positions that a query sees, leaving its bits aside.
    func visible(to token: Int) -> Range<Int> {
      let position = keyLength - numTokens + token
      let first = window.map { max(0, position - $0 + 1) } ?? 0
      if isCausal { return first..<position + 1 }
      return first..<(window.map { position + min($0, keyLength - position) } ?? keyLength)
    }
  }

  /// Stores the request's new keys and values, rounded to the cache's type, at their cache positions.
  private func append(_ keys: HeadRows, _ values: HeadRows, of request: Request, to pages: StoredPages) {
    for token in 0..<request.numNewKeys {
      let position = request.keyLength - request.numNewKeys + token
      for head in 0..<layer.numKVHeads {
        pages.store(keys.head(token: request.firstNewKey + token, head), pages.planes.keys, position: position, head: head)
        if pages.planes.layout.valuesAreKeys { continue }
        pages.store(values.head(token: request.firstNewKey + token, head), pages.planes.values, position: position, head: head)
      }
    }
  }

  /// Reads one head's keys and values as stored: keys to `[headDim][keys]`, values to `[keys][valueHeadDim]`. Of keys that no bit shows there
  /// may be no page; what stands in their place is not looked at.
  private func load(_ head: Int, of request: Request, from pages: StoredPages, _ metadata: VanillaMetadata) {
    for (index, position) in request.keys.enumerated() {
      if let bits = request.bits, !pages.hasPage(of: position), !bits.shows(position..<position + 1) { continue }
      pages.load(pages.planes.keys, position: position, head: head, to: metadata.keyScratch + index, stride: request.keys.count)
      pages.load(pages.planes.values, position: position, head: head, to: metadata.valueScratch + index * layer.valueHeadDim, stride: 1)
    }
  }

  /// Takes one head's keys and values from the step itself, where there is no cache.
  private func load(_ head: Int, of request: Request, keys: HeadRows, values: HeadRows, _ metadata: VanillaMetadata) {
    for (index, position) in request.keys.enumerated() {
      let key = keys.head(token: request.firstNewKey + position, head)
      for dim in 0..<layer.headDim { metadata.keyScratch[dim * request.keys.count + index] = key[dim] }
      let value = values.head(token: request.firstNewKey + position, head)
      (metadata.valueScratch + index * layer.valueHeadDim).update(from: value, count: layer.valueHeadDim)
    }
  }

  /// Rotates the loaded keys by their cache positions.
  private func rotateKeys(of request: Request, _ rope: RopeTable, _ metadata: VanillaMetadata) {
    let count = request.keys.count
    for (index, position) in request.keys.enumerated() {
      for dim in 0..<layer.headDim { metadata.headScratch[dim] = metadata.keyScratch[dim * count + index] }
      HeadRows.rotate(metadata.headScratch, rope, HeadRows.angles(rope, position: position))
      for dim in 0..<layer.headDim { metadata.keyScratch[dim * count + index] = metadata.headScratch[dim] }
    }
  }

  private func rows(_ tensor: Tensor, _ numTokens: Int, _ numHeads: Int, _ headDim: Int) -> HeadRows {
    HeadRows(tensor, numTokens: numTokens, numHeads: numHeads, headDim: headDim)
  }
}
