// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletAttention
import MartletCore

/// TensorRT-LLM's own tests of attention backends, at their original shapes: T1 to T6 and T8 of its PyTorch backend's suite.
///
/// Where the original compares backends with each other under tolerances up to 0.4, every backend is compared with float64 here, over keys
/// and values rounded as the cache rounds them. Of long contexts a sample of rows is compared; the result says how many.
public enum AttentionScenarios {
  /// Runs all scenarios on all subjects, computing each truth once.
  public static func run(
    _ subjects: [ConformanceSubject], on target: ConformanceTarget, concurrency: Int, progress: (ScenarioResult) -> Void = { _ in }
  ) async -> [ScenarioResult] {
    // Without a journal nothing can fail.
    (try? await run(subjects, on: target, concurrency: concurrency, journal: nil, progress: progress)) ?? []
  }

  static func run(
    _ subjects: [ConformanceSubject], on target: ConformanceTarget, concurrency: Int, journal: VerificationJournal?,
    progress: (ScenarioResult) -> Void
  ) async throws(VerificationError) -> [ScenarioResult] {
    let scenarios = all()
    func part(_ scenario: OriginalScenario, _ subject: ConformanceSubject) -> String {
      "scenario \(subject.name) \(scenario.kvType.rawValue): \(scenario.name)"
    }
    var results: [ScenarioResult] = []
    var next = 0
    while next < scenarios.count && !Task.isCancelled {
      let batch = Array(scenarios[next..<min(next + concurrency, scenarios.count)])
      next += batch.count
      let wanted = batch.map { scenario in
        Set(
          subjects.filter { journal?.knows(part(scenario, $0)) != true }.map {
            $0.rounding(ConformanceCase(backend: $0.name, kvType: scenario.kvType), on: target)
          })
      }
      let truths = await concurrentMap(Array(zip(batch, wanted)), concurrency: concurrency) { $0.truth($1) }
      for (scenario, truth) in zip(batch, truths) {
        for subject in subjects where !Task.isCancelled {
          func run() -> ScenarioResult { scenario.run(subject, truth, on: target) }
          let isKnown = journal?.knows(part(scenario, subject)) == true
          let empty = ScenarioResult(
            name: scenario.name, backend: subject.name, kvType: scenario.kvType, verdict: .passed,
            tolerance: ConformanceSubject.tolerance(scenario.kvType))
          let result =
            try journal?.result(
              of: part(scenario, subject), read: { ScenarioResult(empty, $0) },
              broke: {
                var result = empty
                result.verdict = .failed([$0])
                return result
              }, entry: \.entry, run: run) ?? run()
          results.append(result)
          if !isKnown { progress(result) }
        }
      }
    }
    return results
  }

  static func all() -> [OriginalScenario] { t1() + t2() + t3() + t4() + t5() + t6() + t8() }

  private static func scales(_ type: DataType) -> QuantConfig? {
    type == .f8e4m3 ? QuantConfig(kvScales: KVScales(key: 0.0231, value: 0.0173)) : nil
  }

  /// T1: two contexts and two generations over pages of 128, in halves too.
  private static func t1() -> [OriginalScenario] {
    [split("T1", [AttentionLayerSpec(layerIndex: 0, numHeads: 32, headDim: 128, numKVHeads: 8)], .bf16)]
  }

  /// T2: the same batch over one to three layers of different key/value heads, one of them without attention.
  private static func t2() -> [OriginalScenario] {
    func layers(_ kvHeads: [Int?], _ headDim: Int) -> [AttentionLayerSpec] {
      kvHeads.enumerated().compactMap { index, count in
        count.map { AttentionLayerSpec(layerIndex: index, numHeads: 32, headDim: headDim, numKVHeads: $0) }
      }
    }
    return [
      split("T2, 1 layer", layers([8], 128), .bf16), split("T2, 2 layers", layers([8, 8], 64), .f16),
      split("T2, 2 layers of different heads", layers([8, 16], 128), .bf16),
      split("T2, 3 layers, one without attention", layers([8, nil, 16], 64), .f16),
    ]
  }

  private static func split(_ name: String, _ specs: [AttentionLayerSpec], _ type: DataType) -> OriginalScenario {
    OriginalScenario(
      name: name, specs: specs, kvType: type, pageSize: 128,
      sequences: [
        .init(cached: 30, queries: 3, isContext: true), .init(cached: 40, queries: 2, isContext: true),
        .init(cached: 62, queries: 1, isContext: false), .init(cached: 75, queries: 1, isContext: false),
      ], comparesHalves: true, seed: 101)
  }

  /// T3: generations on metadata for captured graphs, batches of 1 and 16.
  private static func t3() -> [OriginalScenario] {
    [(1, DataType.f16, [32]), (16, .bf16, [32]), (16, .bf16, [32, 16])].map { batch, type, kvHeads in
      var random = SeededNumbers(seed: 103, batch)
      return OriginalScenario(
        name: "T3, graph of \(batch), \(kvHeads.count) layers",
        specs: kvHeads.enumerated().map { AttentionLayerSpec(layerIndex: $0, numHeads: 32, headDim: 128, numKVHeads: $1) }, kvType: type,
        pageSize: 128,
        sequences: (0..<batch).map { _ in .init(cached: 1 + random.index(below: 126), queries: 1, isContext: false) }, comparesGraph: true,
        seed: 103)
    }
  }

  private static func t4Layer(_ index: Int = 0, _ type: DataType = .f16) -> AttentionLayerSpec {
    AttentionLayerSpec(layerIndex: index, numHeads: 64, headDim: 128, numKVHeads: 16, quantConfig: scales(type))
  }

  /// T4: chunks of 32 over prefixes of 992 in pages of 256.
  private static func t4() -> [OriginalScenario] {
    [DataType.f16, .f8e4m3].map { type in
      OriginalScenario(
        name: "T4, chunks over pages", specs: [t4Layer(0, type)], kvType: type, pageSize: 256,
        sequences: Array(repeating: .init(cached: 992, queries: 32, isContext: true), count: 7), seed: 104)
    }
  }

  /// T5: contexts of 32: causal, full, and over encoders of 32 and 64.
  private static func t5() -> [OriginalScenario] {
    let own = Array(repeating: OriginalScenario.Sequence(cached: 0, queries: 32, isContext: true), count: 7)
    var scenarios = [
      OriginalScenario(name: "T5, causal", specs: [t4Layer()], kvType: .f16, pageSize: 256, sequences: own, seed: 105),
      OriginalScenario(name: "T5, full", specs: [t4Layer()], kvType: .f16, pageSize: 256, sequences: own, mask: .full, seed: 105),
    ]
    for keys in [32, 64] {
      scenarios.append(
        OriginalScenario(
          name: "T5, encoder of \(keys)", specs: [t4Layer()], kvType: .f16, pageSize: 256,
          sequences: Array(repeating: .init(cached: 0, queries: 32, newKeys: keys, isContext: true), count: 7), mask: .full, isCross: true,
          seed: 105))
    }
    return scenarios
  }

  /// T6: four layers, two contexts and five generations in flight, in f16 and e4m3, over their own keys and an encoder's.
  private static func t6() -> [OriginalScenario] {
    [DataType.f16, .f8e4m3].flatMap { type in
      let specs = (0..<4).map { t4Layer($0, type) }
      let own = OriginalScenario(
        name: "T6, in flight", specs: specs, kvType: type, pageSize: 256,
        sequences: Array(repeating: .init(cached: 992, queries: 32, isContext: true), count: 2)
          + Array(repeating: .init(cached: 1023, queries: 1, isContext: false), count: 5), seed: 106)
      let cross = OriginalScenario(
        name: "T6, in flight over encoders", specs: specs, kvType: type, pageSize: 256,
        sequences: Array(repeating: .init(cached: 0, queries: 32, newKeys: 64, isContext: true), count: 2)
          + Array(repeating: .init(cached: 1024, queries: 1, newKeys: 0, isContext: false), count: 5), mask: .full, isCross: true, seed: 106
      )
      return [own, cross]
    }
  }

  /// T8: the attention of well-known models, contexts, generations and mixed batches, in bf16 and e4m3.
  private static func t8() -> [OriginalScenario] {
    var scenarios: [OriginalScenario] = []
    for shape in ModelShape.all {
      for type in [DataType.bf16, .f8e4m3] { scenarios += phases(shape, type, pageSize: 32) }
    }
    for name in ["llama3-8b", "llama2-7b", "gemma3-1b"] { scenarios += phases(.named(name), .f16, pageSize: 64) }
    for name in ["llama3-8b", "t5", "bart"] {
      for (what, factors) in [("as long", [1, 1, 1]), ("longer", [2, 3, 6])] {
        scenarios.append(
          OriginalScenario(
            name: "T8 \(name), encoder \(what)", specs: [spec(.named(name), .bf16, positional: false)], kvType: .bf16, pageSize: 32,
            sequences: zip([73, 41, 17], factors).map { .init(cached: 0, queries: $0, newKeys: $0 * $1, isContext: true) }, mask: .full,
            isCross: true, seed: 108))
      }
    }
    return scenarios
  }

  private static func spec(_ shape: ModelShape, _ type: DataType, positional: Bool = true) -> AttentionLayerSpec {
    AttentionLayerSpec(
      layerIndex: 0, numHeads: shape.heads, headDim: shape.headDim, numKVHeads: shape.kvHeads, window: shape.window,
      quantConfig: scales(type), positionalEmbedding: positional ? shape.positional : nil)
  }

  private static func phases(_ shape: ModelShape, _ type: DataType, pageSize: Int) -> [OriginalScenario] {
    let long = (shape.window ?? 1024) + 17
    func scenario(_ phase: String, _ sequences: [OriginalScenario.Sequence], graph: Bool = false) -> OriginalScenario {
      OriginalScenario(
        name: "T8 \(shape.name), \(phase)", specs: [spec(shape, type)], kvType: type, pageSize: pageSize, sequences: sequences,
        comparesGraph: graph, seed: 108)
    }
    let lengths = [long, 73, 41]
    return [
      scenario("contexts", lengths.map { .init(cached: 0, queries: $0, isContext: true) }),
      scenario("generations", lengths.map { .init(cached: $0, queries: 1, isContext: false) }, graph: true),
      scenario(
        "mixed",
        [
          .init(cached: 0, queries: long, isContext: true), .init(cached: long, queries: 1, isContext: false),
          .init(cached: 73, queries: 1, isContext: false),
        ]),
    ]
  }
}
