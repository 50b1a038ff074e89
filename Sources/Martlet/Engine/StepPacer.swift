// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// How many prompt tokens a step may compute while others generate, so that it takes about ``EngineConfiguration/targetStepTime``, and up to
/// 1.6 times that while much waits to be computed.
///
/// A controller and no model of the machine: after a step of n prompt tokens that took t, the next may have n · target / t of them. Where a step
/// takes a + b · n, this closes in on (target − a) / b from either side without swinging (its derivative there is a / target, between 0 and 1),
/// and it follows where b grows with the length of a context. Steps of prompts alone, which have no limit, teach it too, so that it knows
/// the machine before the first answer flows.
///
/// What a generation takes by itself, a, comes again in every step, and where it is most of the target, little of a step is the prompt's: of 100 ms
/// with a = 63 ms 37 are, of 160 ms 97. So the target is stretched where much waits. What is learnt is kept as the tokens of the plain target and
/// converted by (target − a) / (plain target − a), so that a stretch that ends leaves nothing to unlearn. Steps that only generate show a; where
/// there are none, a counts as 0, and the controller finds its point by itself as it always does, after a few steps.
package struct StepPacer {
  /// The fewest prompt tokens that a step gets, whatever they take: a prompt always comes forward.
  package static let leastTokens = 8
  /// The first guess, low because nobody knows the machine yet: where it has room tokens double from step to step.
  private static let firstTokens = 16
  /// The most that a step may take, in targets. 1.6 times the default are 160 ms: a third of 250 ms, the longest gap in a stream that nobody should see,
  /// is left to steps that take longer than foreseen.
  package static let mostStretch = 1.6
  /// What waits for at most so many steps of the plain target, a second by default, is no reason to stretch it: a stream of even steps is worth that.
  private static let patientSteps = 10.0
  /// From so many on, three seconds, the stretch is whole; between them it grows in proportion, so that no token more or less makes a leap.
  private static let impatientSteps = 30.0
  /// The most that the stretch grows from a step to the next: what each tells of the machine counts before the next goes further.
  private static let rise = 0.25
  /// The most that a generation counts for, in targets. The rest is one rise, so that tokens at most double by one.
  private static let mostFixedTime = 0.75

  private let target: Duration?
  private let most: Int
  /// What fits into the plain target.
  private var tokens: Double
  /// What a step takes without prompts, in targets: a mean in which the last step counts a quarter.
  private var fixedTime = 0.0
  /// What the present step may take, in targets, and the most that it could have been given.
  private var stretch = 1.0
  private var reach = 1.0

  /// - Parameters:
  ///   - target: what a step may take where little waits; nil sets no limit.
  ///   - most: the most tokens that a step can hold.
  package init(target: Duration?, most: Int) {
    self.target = target
    self.most = most
    tokens = Double(min(Self.firstTokens, most))
  }

  /// The most prompt tokens of a step in which somebody generates.
  package var promptTokens: Int { target == nil ? most : tokens(within: stretch) }

  private func tokens(within stretch: Double) -> Int { max(min(Int(tokens * gain(stretch)), most), min(Self.leastTokens, most)) }

  /// How many times the tokens of the plain target fit into the stretched one.
  private func gain(_ stretch: Double) -> Double { (stretch - fixedTime) / (1 - fixedTime) }

  /// Chooses what the next step may take.
  /// - Parameter waitingTokens: prompt tokens that are to be computed, the next step's among them.
  package mutating func prepare(waitingTokens: Int) {
    if target == nil { return }
    let steps = Double(waitingTokens) / Double(tokens(within: 1))
    let impatience = max(0, min((steps - Self.patientSteps) / (Self.impatientSteps - Self.patientSteps), 1))
    stretch = min(1 + (Self.mostStretch - 1) * impatience, reach)
  }

  /// Learns from a step.
  package mutating func took(_ time: Duration, promptTokens count: Int) {
    guard let target else { return }
    let taken = max(time / target, 0)
    if count == 0 {
      fixedTime += (min(taken, Self.mostFixedTime) - fixedTime) / 4
      stretch = 1
      reach = 1
      return
    }
    let limit = promptTokens
    let keptLimit = count <= limit
    if !keptLimit { stretch = 1 }
    reach = keptLimit ? min(stretch + Self.rise, Self.mostStretch) : 1
    // Both as tokens of the plain target.
    let given = Double(count) / gain(stretch)
    let fitting = taken > 0 ? given * (stretch / taken) : .infinity
    if fitting < tokens {
      // A short prompt that kept to the time says nothing against a longer one.
      if count < limit && taken <= stretch { return }
      tokens = max(fitting, 1)
      return
    }
    // A step of the least tokens may have had more than was thought to fit.
    let proven = keptLimit ? max(tokens, min(given, fitting)) : tokens
    // One quick step is no proof: it may have found its weights in a cache that the next will not.
    let raised = min(fitting, 2 * proven, Double(most))
    // The longer steps are, the less there is between them and a gap that is seen, and the less a quick one counts: all of it at the plain target,
    // a quarter at 1.6 times that. One that took less than half is no accident.
    tokens = max(2 * taken <= stretch ? raised : proven + (raised - proven) / (stretch * stretch * stretch), 1)
  }
}
