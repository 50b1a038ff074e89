// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletAttention
import MartletCore
import MartletKVCache

/// What was found when a backend's rows were compared with the truth.
///
/// An output's error is relative to the rms of its (row, head) vector; one that is e4m3 is excused half a step of the truth's, which is the
/// rounding itself. A log-sum-exp's error is relative to its size, or absolute below 1.
struct Comparison {
  private(set) var largestError = 0.0
  private(set) var largestLogSumExpError = 0.0
  /// The largest distance of a stored element from float64, in units of what is allowed; 0 = all the same.
  private(set) var largestStoredError = 0.0
  /// e4m3 elements of the output that are not the truth's, and all.
  private(set) var differingCodes = 0
  private(set) var codes = 0
  /// The first thing of each kind that is wrong.
  private(set) var problems: [String] = []

  private let scenario: ConformanceScenario
  private let tolerance: Double
  private var kinds: Set<String> = []

  init(_ scenario: ConformanceScenario, tolerance: Double) {
    self.scenario = scenario
    self.tolerance = tolerance
  }

  private mutating func fail(_ kind: String, _ words: @autoclosure () -> String) {
    if kinds.insert(kind).inserted { problems.append(words()) }
  }

  /// Compares a request's rows, of which the truth may have some only.
  /// - Parameter firstQuery: the number of the query that `rows` begin with.
  mutating func compare(_ id: Int, _ rows: AttentionHarness.Rows?, with truth: Golden.Request, firstQuery: Int = 0) {
    let spec = scenario.layer.spec
    let isFP8 = spec.quantConfig?.fp8Output ?? false
    let rows = rows ?? AttentionHarness.Rows()
    for (row, number) in truth.queries.enumerated() where number >= firstQuery {
      let query = number - firstQuery
      guard (query + 1) * spec.numHeads <= rows.logSumExp.count else {
        fail("missing", "request \(id) has no output for query \(number)")
        return
      }
      for head in 0..<spec.numHeads {
        let exact = truth.values[(row * spec.numHeads + head) * spec.valueHeadDim..<(row * spec.numHeads + head + 1) * spec.valueHeadDim]
        let start = (query * spec.numHeads + head) * spec.valueHeadDim
        let rms = (exact.reduce(0) { $0 + $1 * $1 } / Double(spec.valueHeadDim)).squareRoot()
        var error = 0.0
        for (dim, value) in exact.enumerated() {
          if isFP8 {
            error = larger(
              error, errorOfCode(rows.codes[start + dim], value, rms: rms, "request \(id) query \(number) head \(head) dim \(dim)"))
          } else {
            let difference = (Double(rows.values[start + dim]) - value).magnitude
            error = larger(error, rms > 0 ? difference / rms : difference == 0 ? 0 : .infinity)
          }
        }
        largestError = larger(largestError, error)
        if !(error <= tolerance) {
          fail("output", "output of request \(id) query \(number) head \(head) is off by \(Self.short(error)) of its rms")
        }
        let sum = Double(rows.logSumExp[query * spec.numHeads + head])
        let exactSum = truth.logSumExp[row * spec.numHeads + head]
        let sumError = sum == exactSum ? 0 : (sum - exactSum).magnitude / max(1, exactSum.isFinite ? exactSum.magnitude : 1)
        largestLogSumExpError = larger(largestLogSumExpError, sumError)
        if !(sumError <= tolerance) {
          fail("lse", "log-sum-exp of request \(id) query \(number) head \(head) is \(sum), not \(Self.short(exactSum))")
        }
      }
    }
  }

  private mutating func errorOfCode(_ code: UInt8, _ exact: Double, rms: Double, _ place: @autoclosure () -> String) -> Double {
    let scaled = exact * Double(scenario.outputScale)
    let truth = FloatFormat.e4m3.round(scaled)
    let value = Self.value(ofE4M3: code)
    codes += 1
    if value == truth { return 0 }
    differingCodes += 1
    if value.isNaN {
      fail("NaN", "e4m3 output of \(place()) is NaN")
      return .infinity
    }
    let unit = rms * Double(scenario.outputScale)
    let excess = max(0, (value - scaled).magnitude - FloatFormat.e4m3.step(at: truth) / 2)
    // A step down from a power of two is half as large as the step up.
    if (value - truth).magnitude > FloatFormat.e4m3.step(at: truth) && excess > tolerance * unit {
      fail("steps", "e4m3 output of \(place()) is \(value), more than a step from \(truth)")
    }
    return unit > 0 ? excess / unit : .infinity
  }

  /// At the end: whether too many e4m3 elements differ.
  mutating func finish() {
    if codes > 0 && Double(differingCodes) > Self.mostDifferingCodes * Double(codes) {
      let (differing, all) = (differingCodes, codes)
      fail("differing", "\(differing) of \(all) e4m3 outputs differ from the truth's, more than \(Self.mostDifferingCodes * 100) %")
    }
  }

  /// Compares what the cache gives back with what float64 stores.
  mutating func compareStored(_ id: Int, _ contents: KVContents, with truth: Golden.Request) {
    let layer = scenario.layer
    let isDeferred = layer.spec.positionalEmbedding?.kind == .deferred
    let computesKeys = layer.keyNorm != nil || layer.spec.positionalEmbedding != nil && !isDeferred
    compareStored("key", id, contents, contents.keys, truth.storedKeys, layer.spec.headDim, layer.kvScales.key, isComputed: computesKeys)
    // A value that is part of its key has its key's scale, which rotated dims may have made.
    compareStored(
      "value", id, contents, contents.values, truth.storedValues, layer.spec.valueHeadDim, layer.kvScales.value,
      isComputed: computesKeys && layer.spec.mla != nil && layer.kvType == .i8)
  }

  private mutating func compareStored(
    _ name: String, _ id: Int, _ contents: KVContents, _ stored: [Float], _ exact: [Double], _ dims: Int, _ scale: Float, isComputed: Bool
  ) {
    let heads = contents.numKVHeads
    for (index, position) in contents.positions.enumerated() {
      for head in 0..<heads {
        let mine = (index * heads + head) * dims
        let true0 = (position * heads + head) * dims
        let largest = exact[true0..<true0 + dims].reduce(0) { max($0, $1.magnitude) }
        for dim in 0..<dims {
          // The cache gives float32 back; the truth of a scaled type has more digits.
          let (value, truth) = (Double(stored[mine + dim]), Double(Float(exact[true0 + dim])))
          if value == truth { continue }
          let allowed = scenario.layer.storeTolerance(truth, largest: largest, scale: scale, isComputed: isComputed)
          let error = allowed > 0 ? (value - truth).magnitude / allowed : .infinity
          largestStoredError = larger(largestStoredError, error)
          if !(error <= 1) {
            fail(
              "stored \(name)",
              "stored \(name) of request \(id) position \(position) head \(head) dim \(dim) is \(value), not \(Self.short(truth))"
                + (isComputed ? "" : " exactly"))
          }
        }
      }
    }
  }

  private func larger(_ a: Double, _ b: Double) -> Double { a.isNaN || b.isNaN ? .nan : max(a, b) }

  /// For a person: three digits.
  static func short(_ value: Double) -> String {
    guard value.isFinite, value != 0 else { return "\(value)" }
    var exponent = 0
    var digits = value.magnitude
    while digits >= 10 { digits /= 10; exponent += 1 }
    while digits < 1 { digits *= 10; exponent -= 1 }
    let rounded = (digits * 100).rounded() / 100
    return "\(value < 0 ? "-" : "")\(rounded)e\(exponent)"
  }

  /// The value of an e4m3 code, from the format's definition: 4 bits of exponent with bias 7, 3 of fraction, all ones a NaN.
  static func value(ofE4M3 code: UInt8) -> Double {
    let exponent = Int(code >> 3 & 15)
    let fraction = Double(code & 7) / 8
    if code & 0x7F == 0x7F { return .nan }
    let magnitude =
      exponent == 0
      ? Double(sign: .plus, exponent: -6, significand: fraction) : Double(sign: .plus, exponent: exponent - 7, significand: 1 + fraction)
    return code & 0x80 == 0 ? magnitude : -magnitude
  }

  /// With float32 keys: sums of some hundred float32 products, relative to their rms.
  static let float32Tolerance = 1e-5
  /// Everything narrower: a probability rounded to bf16 is off by up to 2⁻⁹ of itself, a query by as much.
  static let narrowTolerance = 1e-2
  /// An output that is off by 1e-3 of its rms turns about one element in fifty to the neighbouring code.
  static let mostDifferingCodes = 0.08
}
