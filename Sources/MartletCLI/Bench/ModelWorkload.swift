// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletAttentionTestKit

/// Requests that are submitted at once to an idle engine, each with a prompt and an answer of a given length: `8x128+64` is 8 requests with prompts of 128
/// tokens and answers of 64.
package struct ModelWorkload: Sendable, Hashable, CustomStringConvertible {
  package var requests: Int
  package var promptTokens: Int
  package var generatedTokens: Int

  package init(requests: Int, promptTokens: Int, generatedTokens: Int) {
    self.requests = requests
    self.promptTokens = promptTokens
    self.generatedTokens = generatedTokens
  }

  /// nil where the text is no workload.
  package init?(_ text: String) {
    let parts = text.split(separator: "x", omittingEmptySubsequences: false)
    guard parts.count == 2, let requests = Int(parts[0]) else { return nil }
    let lengths = parts[1].split(separator: "+", omittingEmptySubsequences: false).map { Int($0) }
    guard lengths.count == 2, let prompt = lengths[0], let generated = lengths[1] else { return nil }
    let sizes = 1...1 << 20
    guard sizes.contains(requests), sizes.contains(prompt), sizes.contains(generated) else { return nil }
    self.init(requests: requests, promptTokens: prompt, generatedTokens: generated)
  }

  package var description: String { "\(requests)x\(promptTokens)+\(generatedTokens)" }

  /// Of one request.
  package var length: Int { promptTokens + generatedTokens }

  /// Random token ids, other ones for each request and each `series`.
  package func prompts(vocabularySize: Int, seed: UInt64, series: Int) -> [[Int]] {
    (0..<requests).map { request in
      var random = SeededNumbers(seed: seed, series, request)
      return (0..<promptTokens).map { _ in Int.random(in: 0..<vocabularySize, using: &random) }
    }
  }
}

/// When the tokens of one run of a workload came, in seconds since it was submitted.
package struct ModelSample: Sendable, Hashable {
  /// The first token of all, and the time at which every request had its first.
  package var firstToken = Double.infinity
  package var lastFirstToken = 0.0
  /// The last token of all.
  package var end = 0.0
  package var tokens = 0
  /// Tokens that came after every request had its first.
  package var tokensAfterFirst = 0

  package init() {}

  /// - Parameter arrivals: of each request when tokens came, in order, and how many at a time.
  package init(_ arrivals: [[(seconds: Double, count: Int)]]) {
    for own in arrivals {
      guard let first = own.first, let last = own.last else { continue }
      firstToken = min(firstToken, first.seconds)
      lastFirstToken = max(lastFirstToken, first.seconds)
      end = max(end, last.seconds)
      tokens += own.reduce(0) { $0 + $1.count }
    }
    for own in arrivals {
      tokensAfterFirst += own.filter { $0.seconds > lastFirstToken }.reduce(0) { $0 + $1.count }
    }
  }

  /// From when every request had its first token to the last token.
  package var generationSeconds: Double { end - lastFirstToken }
}
