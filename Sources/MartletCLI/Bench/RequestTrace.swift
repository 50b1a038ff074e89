// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletAttentionTestKit

/// What people ask of a server, drawn: when each request comes, with which prompt, and how long its answer is.
///
/// A pure function of ``Workload``. Arrivals and each request have random numbers of their own, so that another rate changes no prompt and one
/// more request none of those before it.
package struct RequestTrace: Sendable, Hashable {
  package struct Workload: Sendable, Hashable {
    package var requests: Int
    /// Requests a second, on average: a Poisson process. nil is all at once.
    package var rate: Double?
    /// Of a prompt, without the shared prefix.
    package var promptTokens: LengthDistribution
    package var outputTokens: LengthDistribution
    /// Tokens of the one prefix that a share of the prompts begins with, and that share, 0…1.
    package var sharedPrefixTokens: Int
    package var sharedPrefixShare: Double
    /// Token ids are 0..<this.
    package var vocabularySize: Int
    package var seed: UInt64

    package init(
      requests: Int, rate: Double?, promptTokens: LengthDistribution, outputTokens: LengthDistribution, sharedPrefixTokens: Int,
      sharedPrefixShare: Double, vocabularySize: Int, seed: UInt64
    ) {
      self.requests = requests
      self.rate = rate
      self.promptTokens = promptTokens
      self.outputTokens = outputTokens
      self.sharedPrefixTokens = sharedPrefixTokens
      self.sharedPrefixShare = sharedPrefixShare
      self.vocabularySize = vocabularySize
      self.seed = seed
    }

    /// The most tokens of one request, prompt and answer.
    package var maximumLength: Int { sharedPrefixTokens + promptTokens.maximum + outputTokens.maximum }
  }

  package struct Request: Sendable, Hashable {
    /// After the trace's beginning.
    package var arrival: Duration
    package var prompt: [Int]
    package var beginsWithPrefix: Bool
    package var outputTokens: Int
  }

  /// In the order of arrival.
  package var requests: [Request]

  package init(_ workload: Workload) {
    func tokens(_ count: Int, _ random: inout SeededNumbers) -> [Int] {
      (0..<count).map { _ in Int.random(in: 0..<workload.vocabularySize, using: &random) }
    }
    var prefixNumbers = SeededNumbers(seed: workload.seed, 0)
    let prefix = tokens(workload.sharedPrefixTokens, &prefixNumbers)
    var arrivals = SeededNumbers(seed: workload.seed, 1)
    var seconds = 0.0
    requests = (0..<workload.requests).map { index in
      // Between two events of a Poisson process lies an exponentially distributed time. The first comes at once.
      let uniform = Double.random(in: 0..<1, using: &arrivals)
      if let rate = workload.rate, index > 0 { seconds -= log(1 - uniform) / rate }
      var random = SeededNumbers(seed: workload.seed, 2, index)
      let shares = Double.random(in: 0..<1, using: &random) < workload.sharedPrefixShare
      let outputTokens = workload.outputTokens.draw(using: &random)
      let own = workload.promptTokens.draw(using: &random)
      return Request(
        arrival: .seconds(seconds), prompt: (shares ? prefix : []) + tokens(own, &random), beginsWithPrefix: shares,
        outputTokens: outputTokens)
    }
  }
}
