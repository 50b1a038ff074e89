// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Rotary positions: position p turns pair i of a head by the angle p · frequency(i).
///
/// Frequencies and tables are computed in double; a table is rounded once to float32.
public struct RopeParams: Sendable, Hashable {
  /// How frequencies are stretched beyond the length that the model was first trained for.
  public enum Scaling: Sendable, Hashable {
    case none
    /// Every frequency divided by `factor`.
    case linear(factor: Double)
    /// The base multiplied by alpha^(dim / (dim − 2)).
    case dynamic(alpha: Double)
    /// Llama 3.1: wavelengths above `originalMaxPositions / lowFreqFactor` are stretched, those below
    /// `originalMaxPositions / highFreqFactor` kept, those between blended.
    case llama3(factor: Double, lowFreqFactor: Double = 1, highFreqFactor: Double = 4, originalMaxPositions: Int = 8192)
    /// YaRN (arXiv 2309.00071): fast pairs are kept, slow ones stretched, with a linear ramp between pairs that turn `betaFast` and
    /// `betaSlow` times within the original length; cosines and sines are multiplied by mscale(factor, mscale) / mscale(factor, mscaleAllDim).
    /// The ramp's ends are numbers of pairs, rounded outwards unless `truncates` is false.
    case yarn(
      factor: Double, originalMaxPositions: Int, betaFast: Double = 32, betaSlow: Double = 1, mscale: Double = 1, mscaleAllDim: Double = 0,
      truncates: Bool = true)
    /// LongRoPE: each pair has its own divisor, from the long list if the engine's longest sequence passes the original length. Cosines and
    /// sines are multiplied by √(1 + ln(maxPositions / originalMaxPositions) / ln(originalMaxPositions)), unless a factor is given.
    case longRope(
      shortFactors: [Double], longFactors: [Double], originalMaxPositions: Int, maxPositions: Int, attentionFactor: Double? = nil)
  }

  /// Head dims that are rotated; the rest pass.
  public var dim: Int
  /// The base of the frequencies, theta^(−2i / dim).
  public var theta: Double
  /// How frequencies are stretched.
  public var scaling: Scaling
  /// A divisor for each pair's frequency after scaling, as some files store them (`rope_freqs`); nil = all 1.
  public var frequencyDivisors: [Double]?

  public init(dim: Int, theta: Double = 10000, scaling: Scaling = .none, frequencyDivisors: [Double]? = nil) {
    self.dim = dim
    self.theta = theta
    self.scaling = scaling
    self.frequencyDivisors = frequencyDivisors
  }

  /// Why these parameters cannot be used, in words; nil where they can.
  public var problem: String? {
    if dim < 2 || dim % 2 != 0 { return "the rotated dims must be an even number above 0, not \(dim)" }
    if !(theta > 0 && theta.isFinite) { return "the base must be above 0, not \(theta)" }
    if let divisors = frequencyDivisors {
      if divisors.count != dim / 2 { return "\(divisors.count) frequency divisors for \(dim / 2) pairs" }
      if !divisors.allSatisfy({ $0 > 0 && $0.isFinite }) { return "a frequency divisor is not above 0" }
    }
    func positive(_ value: Double) -> Bool { value > 0 && value.isFinite }
    switch scaling {
    case .none: return nil
    case .linear(let factor): return positive(factor) ? nil : "the linear factor must be above 0, not \(factor)"
    case .dynamic(let alpha):
      if dim == 2 { return "dynamic scaling needs more than 2 rotated dims" }
      return positive(alpha) ? nil : "alpha must be above 0, not \(alpha)"
    case .llama3(let factor, let low, let high, let original):
      if !positive(factor) || !positive(low) || !positive(high) { return "the llama3 factors \(factor), \(low), \(high) must be above 0" }
      if high <= low { return "the llama3 high frequency factor \(high) must be above the low one, \(low)" }
      return original > 0 ? nil : "the original length must be above 0, not \(original)"
    case .yarn(let factor, let original, let fast, let slow, _, _, _):
      if !positive(factor) || !positive(fast) || !positive(slow) {
        return "the yarn factor and betas \(factor), \(fast), \(slow) must be above 0"
      }
      return original > 0 ? nil : "the original length must be above 0, not \(original)"
    case .longRope(let short, let long, let original, let most, _):
      if short.count != dim / 2 || long.count != dim / 2 {
        return "\(short.count) short and \(long.count) long factors for \(dim / 2) pairs"
      }
      if !(short + long).allSatisfy(positive) { return "a longrope factor is not above 0" }
      return original > 1 && most > 0 ? nil : "the lengths must be above 1, not \(original) and \(most)"
    }
  }
}
