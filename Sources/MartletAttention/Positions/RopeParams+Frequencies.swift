// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletLibc

extension RopeParams {
  /// The angle per position of each pair, after scaling: `dim / 2` values.
  /// - Parameter maxSequenceLength: the engine's longest sequence, which chooses LongRoPE's list once for all requests.
  public func frequencies(maxSequenceLength: Int) -> [Double] {
    let pairs = dim / 2
    func plain(base: Double) -> [Double] { (0..<pairs).map { pow(base, -2 * Double($0) / Double(dim)) } }
    let scaled: [Double]
    switch scaling {
    case .none: scaled = plain(base: theta)
    case .linear(let factor): scaled = plain(base: theta).map { $0 / factor }
    case .dynamic(let alpha): scaled = plain(base: theta * pow(alpha, Double(dim) / Double(dim - 2)))
    case .llama3(let factor, let lowFreqFactor, let highFreqFactor, let originalMaxPositions):
      let original = Double(originalMaxPositions)
      scaled = plain(base: theta).map { frequency in
        let wavelength = 2 * Double.pi / frequency
        if wavelength < original / highFreqFactor { return frequency }
        if wavelength > original / lowFreqFactor { return frequency / factor }
        let smooth = (original / wavelength - lowFreqFactor) / (highFreqFactor - lowFreqFactor)
        return (1 - smooth) * frequency / factor + smooth * frequency
      }
    case .yarn(let factor, let originalMaxPositions, let betaFast, let betaSlow, _, _, let truncates):
      // The pair that turns `rotations` times within the original length.
      func pair(turning rotations: Double) -> Double {
        Double(dim) * log(Double(originalMaxPositions) / (rotations * 2 * Double.pi)) / (2 * log(theta))
      }
      let first = pair(turning: betaFast), last = pair(turning: betaSlow)
      let low = max(truncates ? first.rounded(.down) : first, 0)
      let high = min(truncates ? last.rounded(.up) : last, Double(dim - 1))
      let width = high == low ? 0.001 : high - low
      scaled = plain(base: theta).enumerated().map { index, frequency in
        let stretched = min(max((Double(index) - low) / width, 0), 1)
        return frequency / factor * stretched + frequency * (1 - stretched)
      }
    case .longRope(let shortFactors, let longFactors, let originalMaxPositions, _, _):
      let factors = maxSequenceLength > originalMaxPositions ? longFactors : shortFactors
      scaled = zip(plain(base: theta), factors).map { $0 / $1 }
    }
    guard let divisors = frequencyDivisors else { return scaled }
    return zip(scaled, divisors).map { $0 / $1 }
  }

  /// What multiplies every cosine and sine.
  public var magnitude: Double {
    switch scaling {
    case .none, .linear, .dynamic, .llama3: return 1
    case .yarn(let factor, _, _, _, let mscale, let mscaleAllDim, _):
      func magnitude(_ scale: Double) -> Double { factor <= 1 ? 1 : 0.1 * scale * log(factor) + 1 }
      return magnitude(mscale) / magnitude(mscaleAllDim)
    case .longRope(_, _, let originalMaxPositions, let maxPositions, let attentionFactor):
      if let attentionFactor { return attentionFactor }
      if maxPositions <= originalMaxPositions { return 1 }
      let original = Double(originalMaxPositions)
      return (1 + log(Double(maxPositions) / original) / log(original)).squareRoot()
    }
  }

  /// Cosines and sines of positions 0 ..< `maxPositions`: `[maxPositions][dim / 2][cos, sin]`.
  public func table(maxPositions: Int) -> [Float] {
    let frequencies = frequencies(maxSequenceLength: maxPositions)
    let magnitude = magnitude
    var table: [Float] = []
    table.reserveCapacity(maxPositions * dim)
    for position in 0..<maxPositions {
      for frequency in frequencies {
        let angle = Double(position) * frequency
        table.append(Float(cos(angle) * magnitude))
        table.append(Float(sin(angle) * magnitude))
      }
    }
    return table
  }
}
