// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Which requests may hold pages of the key/value cache at one time.
///
/// Under both, nobody starves: the one that was admitted first of those that run, the oldest, has all it needs in every step. With
/// c = min(`chunkSize`, `maxNumTokens` − `maxBatchSize` + 1, 8), the fewest tokens of its context that the oldest gets in a step (every other
/// request may take one, and ``EngineConfiguration/targetStepTime`` leaves at least eight to prompts), a request of at most n tokens, prompt
/// and answer, of which at most a are generated, needs at most s = ⌈n / c⌉ + a steps once it is the oldest, whatever was paused and computed
/// again. So it ends within the sum of s over itself and those that were admitted before it and had not ended when it was submitted. Without
/// priorities and fairness keys those are the ones that came before it; with them (``RequestOptions``) at most eight times as many, and seven.
public enum CapacityPolicy: String, Sendable, Hashable, CaseIterable {
  /// A request is admitted when the pages that it can ever hold at one time are not promised to others. Once admitted it runs to its end.
  case guaranteedNoEvict = "guaranteed-no-evict"
  /// A request is admitted when its tokens so far fit, and each step takes the pages of that step only. Where a step does not fit, the
  /// request that was admitted last pauses: it gives up its pages and waits in front of the others to compute its tokens again.
  ///
  /// More requests run at one time; some work is done twice. The tokens of no request change. The oldest request never pauses.
  case maxUtilization = "max-utilization"
}
