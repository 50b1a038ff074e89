// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Foundation
package import MartletAttentionTestKit

/// How many tokens prompts or answers have.
package enum LengthDistribution: Sendable, Hashable {
  /// Each number of the range as often.
  case uniform(ClosedRange<Int>)
  /// e to a normal number of mean ln(`median`) and deviation `sigma`: few are long. Cut at 1 and at ``maximum``.
  case lognormal(median: Int, sigma: Double)

  /// The most tokens: eight medians of a log-normal distribution, which at σ = 0.8 one draw in 200 exceeds.
  package var maximum: Int {
    switch self {
    case .uniform(let range): range.upperBound
    case .lognormal(let median, _): 8 * median
    }
  }

  package func draw(using random: inout SeededNumbers) -> Int {
    switch self {
    case .uniform(let range): return Int.random(in: range, using: &random)
    case .lognormal(let median, let sigma):
      // Box and Muller 1958.
      let (u, v) = (Double.random(in: 0..<1, using: &random), Double.random(in: 0..<1, using: &random))
      let normal = (-2 * log(1 - u)).squareRoot() * cos(2 * .pi * v)
      return min(max(Int((Double(median) * exp(sigma * normal)).rounded()), 1), maximum)
    }
  }
}

/// `128`, `64..512` or `lognormal:200:0.8` (median and sigma).
extension LengthDistribution: ExpressibleByArgument {
  package init?(argument: String) {
    if argument.hasPrefix("lognormal:") {
      let parts = argument.split(separator: ":", omittingEmptySubsequences: false)
      guard parts.count == 3, let median = Int(parts[1]), (1...1_000_000).contains(median), let sigma = Double(parts[2]), sigma >= 0,
        sigma <= 10
      else { return nil }
      self = .lognormal(median: median, sigma: sigma)
      return
    }
    let bounds = argument.components(separatedBy: "..").map { Int($0) }
    guard bounds.count <= 2, let least = bounds[0], let most = bounds[bounds.count - 1], least >= 1, most >= least,
      most <= 1 << 31
    else { return nil }
    self = .uniform(least...most)
  }

  package var defaultValueDescription: String {
    switch self {
    case .uniform(let range): range.count == 1 ? "\(range.lowerBound)" : "\(range.lowerBound)..\(range.upperBound)"
    case .lognormal(let median, let sigma): "lognormal:\(median):\(sigma)"
    }
  }
}
