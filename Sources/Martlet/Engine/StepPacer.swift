// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// How many prompt tokens a step may compute while others generate, so that it takes about ``EngineConfiguration/targetStepTime``.
///
/// A controller and no model of the machine: after a step of n prompt tokens that took t, the next may have n · target / t of them. Where a step
/// takes a + b · n, this closes in on (target − a) / b from either side without swinging (its derivative there is a / target, between 0 and 1),
/// and it follows where b grows with the length of a context. Steps of prompts alone, which have no limit, teach it too, so that it knows
/// the machine before the first answer flows.
package struct StepPacer {
  /// The fewest prompt tokens that a step gets, whatever they take: a prompt always comes forward.
  package static let leastTokens = 8
  /// The first guess.
  private static let firstTokens = 32

  private let target: Duration?
  private let most: Int
  private var tokens: Double

  /// - Parameters:
  ///   - target: what a step may take; nil sets no limit.
  ///   - most: the most tokens that a step can hold.
  package init(target: Duration?, most: Int) {
    self.target = target
    self.most = most
    tokens = Double(min(Self.firstTokens, most))
  }

  /// The most prompt tokens of a step in which somebody generates.
  package var promptTokens: Int { target == nil ? most : max(min(Int(tokens), most), min(Self.leastTokens, most)) }

  /// Learns from a step.
  package mutating func took(_ time: Duration, promptTokens count: Int) {
    guard let target, count > 0 else { return }
    let fitting = time > .zero ? Double(count) * (target / time) : .infinity
    // A short prompt that kept to the time says nothing against a longer one.
    if count < promptTokens && fitting < tokens && time <= target { return }
    // One quick step is no proof: it may have found its weights in a cache that the next will not.
    tokens = max(min(fitting, 2 * tokens, Double(most)), Double(min(Self.leastTokens, most)))
  }
}
