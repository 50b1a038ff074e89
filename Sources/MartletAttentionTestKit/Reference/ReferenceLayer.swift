// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletAttention
public import MartletCore

/// How a query is rounded before its product with the keys.
public enum QueryRounding: Sendable, Hashable {
  /// Not at all: products in float32.
  case float32
  /// To bf16, as dot products of bf16 pairs take it.
  case bfloat16
  /// To e4m3, saturated: `QuantConfig.fp8Inputs`.
  case e4m3
  /// To e4m3, in a product of bf16 pairs.
  case e4m3InPairs

  /// Whether the product is of bf16 pairs: then keys that are rotated as they are read are rounded to bf16 too.
  var isOfPairs: Bool { self == .bfloat16 || self == .e4m3InPairs }
}

/// One attention layer as plain numbers: what the float64 reference reads.
///
/// Tensors of the layer are handed in as arrays, so that the reference never touches a device.
public struct ReferenceLayer: Sendable {
  /// The layer; its tensors are not read.
  public var spec: AttentionLayerSpec
  /// The type of the stored keys and values.
  public var kvType: DataType
  /// The scales of e4m3 keys and values.
  public var kvScales: KVScales
  /// `[numHeads]`, or nil.
  public var sinks: [Float]?
  /// `[headDim]` and ε, or nil.
  public var queryNorm: (weight: [Float], epsilon: Float)?
  /// `[headDim]` and ε, or nil.
  public var keyNorm: (weight: [Float], epsilon: Float)?
  /// The engine's longest sequence, which chooses LongRoPE's list.
  public var maxSequenceLength: Int
  /// What happens to queries before the product.
  public var queryRounding: QueryRounding

  public init(
    _ spec: AttentionLayerSpec, kvType: DataType, kvScales: KVScales = KVScales(), sinks: [Float]? = nil,
    queryNorm: (weight: [Float], epsilon: Float)? = nil, keyNorm: (weight: [Float], epsilon: Float)? = nil, maxSequenceLength: Int,
    queryRounding: QueryRounding = .float32
  ) {
    self.spec = spec
    self.kvType = kvType
    self.kvScales = kvScales
    self.sinks = sinks
    self.queryNorm = queryNorm
    self.keyNorm = keyNorm
    self.maxSequenceLength = maxSequenceLength
    self.queryRounding = queryRounding
  }
}

// MARK: - Finishing and storing heads

extension ReferenceLayer {
  /// RMS norm of one head: x · weight / √(mean(x²) + ε).
  static func normalise(_ x: UnsafeMutablePointer<Double>, _ norm: (weight: [Float], epsilon: Float)) {
    let squares = norm.weight.indices.reduce(0) { $0 + x[$1] * x[$1] }
    let factor = 1 / (squares / Double(norm.weight.count) + Double(norm.epsilon)).squareRoot()
    for dim in norm.weight.indices { x[dim] *= factor * Double(norm.weight[dim]) }
  }

  /// Rounds a finished query head to what the product takes.
  func roundQuery(_ x: UnsafeMutablePointer<Double>) {
    let format: FloatFormat
    switch queryRounding {
    case .float32: return
    case .bfloat16: format = .bfloat16
    case .e4m3, .e4m3InPairs: format = .e4m3
    }
    for dim in 0..<spec.headDim { x[dim] = format.round(x[dim]) }
  }

  /// Replaces one finished head by what the cache gives back for it: rounded or quantised, then widened.
  func store(_ x: UnsafeMutablePointer<Double>, count: Int, scale: Float) {
    switch kvType {
    case .f32: for dim in 0..<count { x[dim] = Double(Float(x[dim])) }
    case .f16: for dim in 0..<count { x[dim] = FloatFormat.half.round(x[dim]) }
    case .bf16: for dim in 0..<count { x[dim] = FloatFormat.bfloat16.round(x[dim]) }
    case .f8e4m3:
      // The contract: sat(x · (1/s)), the factor computed once in float32.
      let factor = 1 / scale
      for dim in 0..<count { x[dim] = FloatFormat.e4m3.round(Double(Float(x[dim]) * factor)) * Double(scale) }
    case .i8:
      var largest: Float = 0
      for dim in 0..<count { largest = max(largest, Float(x[dim]).magnitude) }
      if largest == 0 {
        for dim in 0..<count { x[dim] = 0 }
        return
      }
      let factor = 127 / largest
      let step = Double(largest / 127)
      for dim in 0..<count { x[dim] = Double((Float(x[dim]) * factor).rounded(.toNearestOrEven)) * step }
    case .i32: fatalError("keys and values are not stored as i32")
    }
  }

  /// Rounds a stored key head that was rotated as it was read to what the product takes: in units of its codes, for scales come later.
  func roundRotatedKey(_ x: UnsafeMutablePointer<Double>, largestStored: Double) {
    guard queryRounding.isOfPairs, largestStored > 0 else { return }
    let unit: Double
    switch kvType {
    case .f32, .f16, .i32: return
    case .bf16: unit = 1
    case .f8e4m3: unit = Double(kvScales.key)
    case .i8: unit = largestStored / 127
    }
    for dim in 0..<spec.headDim { x[dim] = FloatFormat.bfloat16.round(x[dim] / unit) * unit }
  }

  /// How far a stored element may be from what float64 would store: nothing where it is only rounded, one step of the type where it was
  /// computed in float32 first, and a few roundings of the head's largest element beside it.
  func storeTolerance(_ exact: Double, largest: Double, scale: Float, isComputed: Bool) -> Double {
    guard isComputed else { return 0 }
    // A norm's sum, a factor, a table rounded to float32, two products and a sum: at most six roundings of 2⁻²⁴.
    let arithmetic = 6 * 0x1p-24 * largest
    switch kvType {
    case .f32: return arithmetic
    case .f16: return FloatFormat.half.step(at: exact) + arithmetic
    case .bf16: return FloatFormat.bfloat16.step(at: exact) + arithmetic
    case .f8e4m3: return FloatFormat.e4m3.step(at: exact / Double(scale)) * Double(scale) + arithmetic
    case .i8: return largest / 127 * 1.001 + arithmetic
    case .i32: return 0
    }
  }

  /// Whether a float32 and a float64 computation of a finished head may be rounded apart in a way that matters: an element lies beside a
  /// tie, and the step is more than a thousandth of the head's largest element.
  static func isDoubtful(_ x: UnsafePointer<Double>, count: Int, rounding: TieRounding) -> Bool {
    var largest = 0.0
    for dim in 0..<count { largest = max(largest, x[dim].magnitude) }
    let noise = 6 * 0x1p-24 * largest
    for dim in 0..<count {
      let (distance, step): (Double, Double)
      switch rounding {
      case .none: return false
      case .format(let format, let scale):
        step = format.step(at: x[dim] / scale) * scale
        distance = format.distanceFromTie(x[dim] / scale) * step
        if x[dim].magnitude / scale >= format.greatest { continue }
      case .int8:
        step = largest / 127
        let steps = x[dim].magnitude / step
        distance = (steps - steps.rounded(.down) - 0.5).magnitude * step
      }
      if distance < noise && step > largest / 1000 { return true }
    }
    return false
  }

  /// How finished heads are rounded, for ``isDoubtful(_:count:rounding:)``.
  enum TieRounding {
    case none
    case format(FloatFormat, scale: Double)
    case int8
  }

  /// The rounding of stored keys that were computed.
  var keyRounding: TieRounding {
    guard keyNorm != nil || spec.positionalEmbedding.map({ $0.kind == .rope }) ?? false else { return .none }
    switch kvType {
    case .f32, .i32: return .none
    case .f16: return .format(.half, scale: 1)
    case .bf16: return .format(.bfloat16, scale: 1)
    case .f8e4m3: return .format(.e4m3, scale: Double(kvScales.key))
    case .i8: return .int8
    }
  }

  /// The rounding of queries that were computed, on a device that takes bf16 pairs too.
  var computedQueryRounding: TieRounding {
    guard queryNorm != nil || spec.positionalEmbedding != nil else { return .none }
    if queryRounding == .e4m3 { return .format(.e4m3, scale: 1) }
    return kvType == .f32 || kvType == .f16 ? .none : .format(.bfloat16, scale: 1)
  }
}
