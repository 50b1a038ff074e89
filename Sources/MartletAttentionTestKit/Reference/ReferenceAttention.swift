// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletLibc
import MartletAttention
import MartletCore

/// What one request gives a layer: a row for each query token, a row for each key/value token, in order. In self attention they are as many.
public struct RequestRows: Sendable {
  /// `[queries][numHeads·headDim]`.
  public var q: [Float]
  /// `[keys][numKVHeads·headDim]`.
  public var k: [Float]
  /// `[keys][numKVHeads·valueHeadDim]`.
  public var v: [Float]
  /// A place on the axes of time, height and width; the same on all three where a layer has one position a token.
  public typealias Position = SIMD3<Int>

  /// The position of each query for rotation; nil = its number.
  public var positions: [Position]?
  /// Whether keys that are rotated before they are stored have the same positions; else a key's is its number.
  public var rotatesKeysByPositions: Bool

  public init(q: [Float], k: [Float], v: [Float], positions: [Position]? = nil, rotatesKeysByPositions: Bool = true) {
    self.q = q
    self.k = k
    self.v = v
    self.positions = positions
    self.rotatesKeysByPositions = rotatesKeysByPositions
  }

  func queryPosition(_ query: Int) -> Position { positions?[query] ?? Position(repeating: query) }
  func keyPosition(_ key: Int) -> Position { rotatesKeysByPositions ? queryPosition(key) : Position(repeating: key) }
}

/// The keys that one query sees.
public struct VisibleKeys: Sendable, Hashable {
  /// Key positions.
  public var range: Range<Int>
  /// Which of the range; nil = all.
  public var bits: [Bool]?

  public init(_ range: Range<Int>, bits: [Bool]? = nil) {
    enforce(bits.map { $0.count == range.count } ?? true, "\(bits?.count ?? 0) bits for \(range.count) keys")
    self.range = range
    self.bits = bits
  }
}

/// Attention of one request in one layer, in float64, from the formulas.
///
/// Keys and values are finished (norm, rotation) and rounded as the cache rounds them when the value is made; queries are finished and
/// attended with one at a time. Nothing of the library computes here: only its descriptions are read.
public final class ReferenceAttention: Sendable {
  private let layer: ReferenceLayer
  private let rope: ReferenceRope?
  private let rows: RequestRows
  private let numKeys: Int
  /// `[kvHead][dim][key]`, as attention reads them: turned, so that neighbouring keys lie side by side.
  private let keys: [Double]
  /// `[kvHead][key][dim]`, as attention reads them.
  private let values: [Double]
  /// `[key][kvHead][dim]`: what the cache gives back (unrotated under deferred rotation).
  public let storedKeys: [Double]
  /// `[key][kvHead][dim]`: what the cache gives back.
  public let storedValues: [Double]

  /// - Parameter keepsExactKeys: without a cache keys and values are not rounded, whatever the layer's type.
  public init(_ layer: ReferenceLayer, _ rows: RequestRows, keepsExactKeys: Bool = false) {
    let spec = layer.spec
    let numKeys = rows.k.count / spec.keyWidth
    let rope = spec.positionalEmbedding.map { ReferenceRope($0, maxSequenceLength: layer.maxSequenceLength) }
    let isDeferred = spec.positionalEmbedding?.kind == .deferred
    var storedKeys = rows.k.map(Double.init)
    var storedValues = rows.v.map(Double.init)  // of latents none: they follow below
    storedKeys.withUnsafeMutableBufferPointer { stored in
      for key in 0..<numKeys {
        for head in 0..<spec.numKVHeads {
          let x = stored.baseAddress! + (key * spec.numKVHeads + head) * spec.headDim
          if let norm = layer.keyNorm { ReferenceLayer.normalise(x, norm) }
          if let rope, !isDeferred { rope.rotate(x, position: rows.keyPosition(key)) }
          if !keepsExactKeys { layer.store(x, count: spec.headDim, scale: layer.kvScales.key) }
        }
      }
    }
    if spec.mla != nil {
      // A value is the beginning of its key, as it was stored.
      storedValues = (0..<numKeys).flatMap { storedKeys[$0 * spec.headDim..<$0 * spec.headDim + spec.valueHeadDim] }
    }
    storedValues.withUnsafeMutableBufferPointer { stored in
      for row in 0..<numKeys * spec.numKVHeads where !keepsExactKeys && spec.mla == nil {
        layer.store(stored.baseAddress! + row * spec.valueHeadDim, count: spec.valueHeadDim, scale: layer.kvScales.value)
      }
    }
    var keys = [Double](repeating: 0, count: storedKeys.count)
    var values = [Double](repeating: 0, count: storedValues.count)
    var head = [Double](repeating: 0, count: spec.headDim)
    head.withUnsafeMutableBufferPointer { x in
      for key in 0..<numKeys {
        for kvHead in 0..<spec.numKVHeads {
          let row = key * spec.numKVHeads + kvHead
          for dim in 0..<spec.headDim { x[dim] = storedKeys[row * spec.headDim + dim] }
          if let rope, isDeferred {
            let largest = x.reduce(0) { max($0, $1.magnitude) }
            rope.rotate(x.baseAddress!, position: RequestRows.Position(repeating: key))
            layer.roundRotatedKey(x.baseAddress!, largestStored: largest)
          }
          for dim in 0..<spec.headDim { keys[(kvHead * spec.headDim + dim) * numKeys + key] = x[dim] }
          for dim in 0..<spec.valueHeadDim {
            values[(kvHead * numKeys + key) * spec.valueHeadDim + dim] = storedValues[row * spec.valueHeadDim + dim]
          }
        }
      }
    }
    self.layer = layer
    self.rope = rope
    self.rows = rows
    self.numKeys = numKeys
    self.keys = keys
    self.values = values
    self.storedKeys = storedKeys
    self.storedValues = storedValues
  }

  /// One query's finished and rounded heads, `[numHeads][headDim]`.
  public func finishedQuery(_ query: Int) -> [Double] {
    let spec = layer.spec
    var q = rows.q[query * spec.queryWidth..<(query + 1) * spec.queryWidth].map(Double.init)
    q.withUnsafeMutableBufferPointer { q in
      for head in 0..<spec.numHeads {
        let x = q.baseAddress! + head * spec.headDim
        if let norm = layer.queryNorm { ReferenceLayer.normalise(x, norm) }
        if let rope { rope.rotate(x, position: rows.queryPosition(query)) }
        layer.roundQuery(x)
      }
    }
    return q
  }

  /// One query's attention.
  /// - Parameters:
  ///   - output: receives `[numHeads][valueHeadDim]`; zeros where the query sees nothing.
  ///   - logSumExp: receives `[numHeads]`, base 2; −∞ where the query sees nothing and has no sink.
  public func attend(
    query: Int, visible: VisibleKeys, output: UnsafeMutablePointer<Double>, logSumExp: UnsafeMutablePointer<Double>
  ) {
    let spec = layer.spec
    let q = finishedQuery(query)
    let first = visible.range.lowerBound
    let count = visible.range.count
    let scale = Double(spec.scale)
    withUnsafeTemporaryAllocation(of: Double.self, capacity: max(count, 1)) { buffer in
      let scores = buffer.baseAddress!
      for head in 0..<spec.numHeads {
        let kvHead = head / spec.groupSize
        for key in 0..<count { scores[key] = 0 }
        keys.withUnsafeBufferPointer { keys in
          for dim in 0..<spec.headDim {
            let factor = q[head * spec.headDim + dim]
            let row = keys.baseAddress! + (kvHead * spec.headDim + dim) * numKeys + first
            for key in 0..<count { scores[key] += factor * row[key] }
          }
        }
        for key in 0..<count { scores[key] *= scale }
        if let cap = spec.softCap { for key in 0..<count { scores[key] = Double(cap) * tanh(scores[key] / Double(cap)) } }
        if let bits = visible.bits { for key in 0..<count where !bits[key] { scores[key] = -.infinity } }
        let sink = layer.sinks.map { Double($0[head]) } ?? -.infinity
        var largest = sink
        for key in 0..<count where scores[key] > largest || scores[key].isNaN { largest = scores[key] }  // NaN stays
        let result = output + head * spec.valueHeadDim
        for dim in 0..<spec.valueHeadDim { result[dim] = 0 }
        guard largest != -.infinity else {
          logSumExp[head] = -.infinity
          continue
        }
        var sum = exp(sink - largest)
        for key in 0..<count {
          scores[key] = exp(scores[key] - largest)
          sum += scores[key]
        }
        values.withUnsafeBufferPointer { values in
          for key in 0..<count where scores[key] != 0 {
            let weight = scores[key]
            let value = values.baseAddress! + (kvHead * numKeys + first + key) * spec.valueHeadDim
            for dim in 0..<spec.valueHeadDim { result[dim] += weight * value[dim] }
          }
        }
        for dim in 0..<spec.valueHeadDim { result[dim] /= sum }
        logSumExp[head] = (largest + log(sum)) / log(2)
      }
    }
  }
}
