// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore
public import MartletKVCache

/// Where attention layers live: the device, the cache and the limits that all layers of a model share.
///
/// Made once per engine, before the model. It also holds the rotation tables, so that layers with the same parameters share one.
public final class AttentionContext {
  /// Where keys, values and tables lie and kernels run.
  public let device: any Device
  /// How keys and values are stored; nil where there is no cache (encoders, embedding models).
  public let kvCache: KVCacheConfig?
  /// The most requests in one step.
  public let maxNumRequests: Int
  /// The most query tokens in one step.
  public let maxNumTokens: Int
  /// The most tokens of one sequence.
  public let maxSequenceLength: Int
  /// How many workers the device has: a hint for cutting work, which never changes a result.
  public let workerCount: Int
  /// How layers are quantised that do not say so themselves.
  public let quantConfig: QuantConfig
  /// The order of a page's elements in the FLASHINFER backend.
  public let flashInferLayout: FlashInferAttention.Layout

  var ropeTables = RopeTableCache()

  /// - Parameter maxSequenceLength: `maxNumTokens` when nil: no sequence is longer than one step.
  /// - Precondition: limits are positive.
  public init(
    device: any Device, kvCache: KVCacheConfig?, maxNumRequests: Int, maxNumTokens: Int, maxSequenceLength: Int? = nil,
    workerCount: Int = 1,
    quantConfig: QuantConfig = QuantConfig(), flashInferLayout: FlashInferAttention.Layout = .hnd
  ) {
    enforce(
      maxNumRequests > 0 && maxNumTokens > 0 && workerCount > 0,
      "limits must be positive: \(maxNumRequests) requests, \(maxNumTokens) tokens, \(workerCount) workers")
    self.device = device
    self.kvCache = kvCache
    self.maxNumRequests = maxNumRequests
    self.maxNumTokens = maxNumTokens
    self.maxSequenceLength = maxSequenceLength ?? maxNumTokens
    self.workerCount = workerCount
    self.quantConfig = quantConfig
    self.flashInferLayout = flashInferLayout
  }

  /// How the layer is quantised: as it says itself, or as all are. Scales that nobody gave are those of the model.
  public func quantConfig(of layer: AttentionLayerSpec) -> QuantConfig {
    var config = layer.quantConfig ?? quantConfig
    if let scales = layer.kvScales, config.kvScales == KVScales() { config.kvScales = scales }
    return config
  }

  /// The type in which the layer's keys and values are stored; without a cache there is nothing to round.
  public func kvDataType(of layer: AttentionLayerSpec) -> DataType {
    guard let kvCache else { return .f32 }
    return quantConfig(of: layer).kvCacheDataType ?? kvCache.dataType
  }

  /// Tokens in a page; without a cache the longest sequence.
  public var pageSize: Int { kvCache?.tokensPerPage(maxSequenceLength: maxSequenceLength) ?? maxSequenceLength }

  /// Tokens in a page of a step without a cache, where a backend reads pages only: the cache's, or 32.
  public var stepPageSize: Int {
    if case .tokens(let count)? = kvCache?.pageSize { return count }
    return 32
  }

  /// Tokens of a step whose memory the system is asked to give before the first step: those of an ordinary prompt. Memory that only larger steps use
  /// is given when one comes.
  public var populatedTokens: Int { min(maxNumTokens, 512) }

  /// The rotation table of these parameters for every position of the longest sequence, made on first use.
  public func ropeTable(_ parameters: PositionalEmbeddingParams) throws -> RopeTable {
    try ropeTables.table(parameters, maxPositions: maxSequenceLength, on: device)
  }

  /// Whether Swift code can read and write the device's memory.
  public private(set) lazy var isHostAddressable: Bool = (try? device.makeBuffer(byteCount: 64))?.hostAddress != nil
}
