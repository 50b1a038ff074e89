// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Measures the loop's steps: what of each the model took, what sampling, and what everything else.
///
/// A turn is a step and what the loop does before it, since the step before or since it woke.
struct StepClock {
  private let clock: EngineClock
  /// When the turn and its step began, what the model and sampling took of it so far, and when the last part ended.
  private var turnBegan = Duration.zero
  private(set) var stepBegan = Duration.zero
  private var turnModelTime = Duration.zero
  private var turnSamplingTime = Duration.zero
  /// When the last part that was measured ended.
  private(set) var mark = Duration.zero
  private var stepTime = EngineStatistics.Times()
  private var modelTime = EngineStatistics.Times()
  private var samplingTime = EngineStatistics.Times()
  private var overheadTime = EngineStatistics.Times()
  private var timeToFirstToken = EngineStatistics.Times()
  private var interTokenTime = EngineStatistics.Times()

  init(_ clock: EngineClock) { self.clock = clock }

  var now: Duration { clock.now }

  /// The loop woke: the time that it slept is no turn's.
  mutating func wake() { turnBegan = clock.now }

  mutating func beginStep() {
    stepBegan = clock.now
    turnModelTime = .zero
    turnSamplingTime = .zero
  }

  /// What follows is measured from here on.
  mutating func start() { mark = clock.now }

  mutating func endModelPart() { turnModelTime += lap() }
  mutating func endSamplingPart() { turnSamplingTime += lap() }

  private mutating func lap() -> Duration {
    let last = mark
    mark = clock.now
    return mark - last
  }

  /// Ends the step and the turn; what follows is the next turn's.
  /// - Returns: what the step took.
  mutating func endStep() -> Duration {
    let ended = clock.now
    stepTime.add(ended - stepBegan)
    modelTime.add(turnModelTime)
    samplingTime.add(turnSamplingTime)
    overheadTime.add(ended - turnBegan - turnModelTime - turnSamplingTime)
    turnBegan = ended
    return ended - stepBegan
  }

  /// Books the request's new token, which came at ``mark``.
  mutating func token(of request: Request, _ meters: EngineMeters?) {
    if let last = request.lastTokenTime {
      interTokenTime.add(mark - last)
      meters?.nextToken(after: mark - last)
    } else {
      request.firstTokenTime = mark
      timeToFirstToken.add(mark - request.submitted)
      meters?.firstToken(after: mark - request.submitted)
    }
    request.lastTokenTime = mark
  }

  func write(to statistics: inout EngineStatistics) {
    statistics.stepTime = stepTime
    statistics.modelTime = modelTime
    statistics.samplingTime = samplingTime
    statistics.overheadTime = overheadTime
    statistics.timeToFirstToken = timeToFirstToken
    statistics.interTokenTime = interTokenTime
  }
}
