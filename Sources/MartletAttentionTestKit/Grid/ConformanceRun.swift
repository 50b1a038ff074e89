// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletAttention
public import MartletCore
import MartletKVCache

extension ConformanceSubject {
  /// Runs one cell, computing its truth first.
  public func run(_ example: ConformanceCase, on target: ConformanceTarget) -> ConformanceResult {
    let scenario = ConformanceScenario(example)
    return run(example, scenario, Golden(scenario, rounding: rounding(example, on: target)), on: target)
  }

  /// Runs one cell against a truth that was computed before.
  func run(
    _ example: ConformanceCase, _ scenario: ConformanceScenario, _ golden: Golden, on target: ConformanceTarget
  ) -> ConformanceResult {
    var comparison = Comparison(scenario, tolerance: Self.tolerance(example.kvType, headDim: example.headDim))
    let expected = expectedObstacle(example)
    let verdict: ConformanceResult.Verdict
    do {
      try run(scenario, example.page, example.input, on: target) { harness, pieces in
        for id in Set(pieces.map(\.id)).sorted() {
          guard let truth = golden.requests[id], let contents = try harness.contents(layer: 0, of: id) else { continue }
          comparison.compareStored(id, contents, with: truth)
        }
      } finally: { harness in
        for (id, truth) in golden.requests.sorted(by: { $0.key < $1.key }) { comparison.compare(id, harness.rows[0][id], with: truth) }
      }
      comparison.finish()
      if let expected {
        verdict = .failed(["served, though the table expects the obstacle \"\(expected.words)\""])
      } else {
        verdict = comparison.problems.isEmpty ? .passed : .failed(comparison.problems)
      }
    } catch let error as AttentionError where error.code == .obstacles {
      if obstacles == nil || expected.map({ words in error.reasons.contains { $0.contains(words.words) } }) ?? false {
        verdict = .refused(error.reasons)
      } else if let expected {
        verdict = .failed(["refused in other words than \"\(expected.words)\": " + error.reasons.joined(separator: "; ")])
      } else {
        verdict = .failed(["refused unexpectedly: " + error.reasons.joined(separator: "; ")])
      }
    } catch {
      verdict = .failed(["threw: \(error)"])
    }
    var result = ConformanceResult(example, verdict, tolerance: Self.tolerance(example.kvType, headDim: example.headDim))
    result.largestError = comparison.largestError
    result.largestLogSumExpError = comparison.largestLogSumExpError
    result.largestStoredError = comparison.largestStoredError
    result.differingCodes = comparison.differingCodes
    result.codes = comparison.codes
    return result
  }

  /// The largest error that is allowed with keys and values of a type. A score is a chain of as many roundings as a head has dims: beyond 256 there is
  /// room for more.
  public static func tolerance(_ type: DataType, headDim: Int = 64) -> Double {
    type == .f32 ? Comparison.float32Tolerance * max(1, Double(headDim) / 256) : Comparison.narrowTolerance
  }

  /// Why the backend refuses the layer of a cell; empty where it serves it.
  func refusal(of example: ConformanceCase, on target: ConformanceTarget) throws(DeviceError) -> [String] {
    let scenario = ConformanceScenario(outlineOf: example)
    return AttentionLayer.obstacles(
      to: try scenario.spec(on: target.device), backend: backend,
      in: options(scenario, example.page, example.input, on: target).context(on: target.device))
  }

  /// What a scenario's harness is made for.
  private func options(
    _ scenario: ConformanceScenario, _ page: ConformanceCase.Page, _ input: ConformanceCase.Input, on target: ConformanceTarget
  ) -> AttentionHarness.Options {
    let hasCache = scenario.usesCache || page != .linear
    let pageSize: KVCacheConfig.PageSize =
      switch page {
      case .tokens16: .tokens(16)
      case .tokens32: .tokens(32)
      case .tokens64: .tokens(64)
      case .linear: .linear
      }
    var options = AttentionHarness.Options(
      cache: hasCache
        ? KVCacheConfig(dataType: scenario.layer.kvType, pageSize: pageSize) : nil, maxSequenceLength: scenario.maxSequenceLength,
      // One more than there are, so that some pages are always free, and poisoned.
      maxSequences: scenario.requests.count + 1)
    options.usesCache = scenario.usesCache
    options.maxNumRequests = scenario.requests.count + 1
    options.maxNumTokens = max(scenario.steps.map { $0.reduce(0) { $0 + $1.newTokens } }.max() ?? 1, options.maxNumRequests)
    if scenario.isCross { options.maxNumKVTokens = scenario.steps.map { $0.reduce(0) { $0 + $1.keyCount } }.max() }
    options.workerCount = target.workerCount
    options.flashInferLayout = scenario.seed % 2 == 0 ? .nhd : .hnd
    options.masks = [scenario.mask]
    options.isCross = scenario.isCross
    // Queries and keys of cross attention are different tokens, which no fused row holds.
    options.input = scenario.isCross ? .separate : input
    return options
  }

  /// Takes the scenario's requests through its steps.
  private func run(
    _ scenario: ConformanceScenario, _ page: ConformanceCase.Page, _ input: ConformanceCase.Input, on target: ConformanceTarget,
    step check: (AttentionHarness, [AttentionHarness.Piece]) throws -> Void, finally: (AttentionHarness) throws -> Void
  ) throws {
    let harness = try AttentionHarness(
      backend, [scenario.spec(on: target.device)], requests: [scenario.requests], on: target.device,
      options(scenario, page, input, on: target))
    harness.mask = scenario.mask
    harness.outputScale = scenario.outputScale
    harness.bits = { scenario.maskBits($0, firstQuery: $1, queries: $2, keys: $3) }
    for pieces in scenario.steps { try harness.step(pieces) { try check(harness, pieces) } }
    try harness.manager?.checkIntegrity()
    try finally(harness)
  }
}
