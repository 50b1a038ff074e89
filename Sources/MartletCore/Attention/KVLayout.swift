// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// How the keys and values of one layer lie in a page: data, not a closed list.
///
/// A page holds `pageSize` tokens of every key/value head of one layer: first its keys, then its values. Within each the element
/// (token, head, dim) is found by strides, plus a grouping along one axis, so that NHD, HND and the packed layouts that dot-product
/// instructions read without shuffling are all instances:
///
/// | layout | K | V |
/// |---|---|---|
/// | ``nhd(dataType:pageSize:numKVHeads:headDim:valueHeadDim:)`` | `[token][head][dim]` | the same |
/// | ``hnd(dataType:pageSize:numKVHeads:headDim:valueHeadDim:)`` | `[head][token][dim]` | the same |
/// | ``packed(dataType:pageSize:numKVHeads:headDim:valueHeadDim:)`` | `[head][dim/g][token][g]` | `[head][token/g][dim][g]` |
///
/// with g = 4 / bytes per element, so that one 32-bit lane holds g neighbours along the axis that a dot product sums over.
///
/// ``latent(dataType:pageSize:headDim:valueHeadDim:)`` holds one latent for all heads, `[token][dim]`: values are the first dims of the keys, and
/// there is no second plane.
///
/// int8 keys and values have a float32 scale for each token and head, which lie behind the values (``Scales``).
public struct KVLayout: Sendable, Hashable {
  /// Where (token, head, dim) of the keys or of the values lies, in elements from the start of the plane.
  public struct Plane: Sendable, Hashable {
    public var headStride: Int
    /// From one *group* of tokens to the next.
    public var tokenStride: Int
    /// From one *group* of dims to the next.
    public var dimStride: Int
    /// Tokens that lie side by side; 1 where tokens are not grouped.
    public var tokenGroup: Int
    /// Dims that lie side by side; 1 where dims are not grouped.
    public var dimGroup: Int

    public init(headStride: Int, tokenStride: Int, dimStride: Int, tokenGroup: Int = 1, dimGroup: Int = 1) {
      self.headStride = headStride
      self.tokenStride = tokenStride
      self.dimStride = dimStride
      self.tokenGroup = tokenGroup
      self.dimGroup = dimGroup
    }

    /// Elements from the start of the plane to (token, head, dim).
    public func offset(token: Int, head: Int, dim: Int) -> Int {
      head * headStride + token / tokenGroup * tokenStride + token % tokenGroup + dim / dimGroup * dimStride + dim % dimGroup
    }
  }

  /// Where the float32 scales of keys and of values lie: one for each (token, head).
  public struct Scales: Sendable, Hashable {
    /// Bytes from the start of a page to the scales of its keys.
    public var keysByteOffset: Int
    /// Bytes from the start of a page to the scales of its values.
    public var valuesByteOffset: Int
    /// Floats from one head to the next.
    public var headStride: Int
    /// Floats from one token to the next.
    public var tokenStride: Int

    public init(keysByteOffset: Int, valuesByteOffset: Int, headStride: Int, tokenStride: Int) {
      self.keysByteOffset = keysByteOffset
      self.valuesByteOffset = valuesByteOffset
      self.headStride = headStride
      self.tokenStride = tokenStride
    }

    /// Floats from the first scale of a plane to that of (token, head).
    public func offset(token: Int, head: Int) -> Int { head * headStride + token * tokenStride }
  }

  public let dataType: DataType
  /// Tokens in a page.
  public let pageSize: Int
  public let numKVHeads: Int
  /// Dims of a key head.
  public let headDim: Int
  /// Dims of a value head.
  public let valueHeadDim: Int
  public let keys: Plane
  public let values: Plane
  /// Whether a value is the first `valueHeadDim` dims of its key: a page then holds keys only, and `values` is `keys`.
  public let valuesAreKeys: Bool
  /// nil where elements need none; int8 has `[head][token]` behind the values, first those of keys.
  public let scales: Scales?

  /// - Parameter values: nil where values are the first dims of the keys.
  /// - Precondition: without values of their own, `valueHeadDim` is at most `headDim`.
  public init(
    dataType: DataType, pageSize: Int, numKVHeads: Int, headDim: Int, valueHeadDim: Int, keys: Plane, values: Plane?
  ) {
    enforce(values != nil || valueHeadDim <= headDim, "values of \(valueHeadDim) dims cannot be the first of keys of \(headDim)")
    self.dataType = dataType
    self.pageSize = pageSize
    self.numKVHeads = numKVHeads
    self.headDim = headDim
    self.valueHeadDim = valueHeadDim
    self.keys = keys
    self.values = values ?? keys
    valuesAreKeys = values == nil
    let keysByteOffset = (pageSize * numKVHeads * (headDim + (values == nil ? 0 : valueHeadDim)) * dataType.byteCount + 3) / 4 * 4
    scales =
      dataType == .i8
      ? Scales(
        keysByteOffset: keysByteOffset, valuesByteOffset: keysByteOffset + (values == nil ? 0 : 4 * pageSize * numKVHeads),
        headStride: pageSize, tokenStride: 1)
      : nil
  }

  /// Bytes from the start of a page to its values.
  public var valuesByteOffset: Int { valuesAreKeys ? 0 : pageSize * numKVHeads * headDim * dataType.byteCount }
  /// Bytes of a page of one layer: keys, values and their scales.
  public var pageByteCount: Int {
    if let scales { return scales.valuesByteOffset + 4 * pageSize * numKVHeads }
    return pageSize * numKVHeads * (headDim + (valuesAreKeys ? 0 : valueHeadDim)) * dataType.byteCount
  }

  /// Whether this is the layout that ``packed(dataType:pageSize:numKVHeads:headDim:valueHeadDim:)`` makes.
  public var isPacked: Bool {
    self
      == .packed(
        dataType: dataType, pageSize: pageSize, numKVHeads: numKVHeads, headDim: headDim, valueHeadDim: valueHeadDim)
  }

  /// `[token][head][dim]`.
  public static func nhd(dataType: DataType, pageSize: Int, numKVHeads: Int, headDim: Int, valueHeadDim: Int) -> KVLayout {
    KVLayout(
      dataType: dataType, pageSize: pageSize, numKVHeads: numKVHeads, headDim: headDim, valueHeadDim: valueHeadDim,
      keys: Plane(headStride: headDim, tokenStride: numKVHeads * headDim, dimStride: 1),
      values: Plane(headStride: valueHeadDim, tokenStride: numKVHeads * valueHeadDim, dimStride: 1))
  }

  /// `[head][token][dim]`.
  public static func hnd(dataType: DataType, pageSize: Int, numKVHeads: Int, headDim: Int, valueHeadDim: Int) -> KVLayout {
    KVLayout(
      dataType: dataType, pageSize: pageSize, numKVHeads: numKVHeads, headDim: headDim, valueHeadDim: valueHeadDim,
      keys: Plane(headStride: pageSize * headDim, tokenStride: headDim, dimStride: 1),
      values: Plane(headStride: pageSize * valueHeadDim, tokenStride: valueHeadDim, dimStride: 1))
  }

  /// One latent for all heads, `[token][dim]`, whose first dims are the values: the cache of latent attention.
  public static func latent(dataType: DataType, pageSize: Int, headDim: Int, valueHeadDim: Int) -> KVLayout {
    KVLayout(
      dataType: dataType, pageSize: pageSize, numKVHeads: 1, headDim: headDim, valueHeadDim: valueHeadDim,
      keys: Plane(headStride: headDim, tokenStride: headDim, dimStride: 1), values: nil)
  }

  /// K `[head][dim/g][token][g]`, V `[head][token/g][dim][g]`, g = 4 / bytes per element.
  /// - Precondition: `headDim` and `pageSize` are multiples of g.
  public static func packed(dataType: DataType, pageSize: Int, numKVHeads: Int, headDim: Int, valueHeadDim: Int) -> KVLayout {
    let g = 4 / dataType.byteCount
    enforce(headDim % g == 0, "a packed layout of \(dataType) needs a head dimension that is a multiple of \(g), not \(headDim)")
    enforce(pageSize % g == 0, "a packed layout of \(dataType) needs a page size that is a multiple of \(g), not \(pageSize)")
    return KVLayout(
      dataType: dataType, pageSize: pageSize, numKVHeads: numKVHeads, headDim: headDim, valueHeadDim: valueHeadDim,
      keys: Plane(headStride: pageSize * headDim, tokenStride: g, dimStride: pageSize * g, dimGroup: g),
      values: Plane(headStride: pageSize * valueHeadDim, tokenStride: valueHeadDim * g, dimStride: g, tokenGroup: g))
  }
}
