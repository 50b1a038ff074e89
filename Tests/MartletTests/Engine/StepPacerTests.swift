// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Martlet
import MartletAttention
import MartletCPU
import MartletCore
import MartletModels
import MartletTestSupport
import Testing

/// Llama whose steps take a time of the test's choice, by a clock of the test's.
private final class TimedModel: LanguageModel, ModelArchitecture {
  static let name = "llama"
  static let clock = ManualClock()
  /// What a step takes: so much, and so much more a token.
  static let base = Duration.milliseconds(40)
  static let perToken = Duration.milliseconds(2)
  private let model: any LanguageModel

  static func attentionLayers(of source: any ModelSource, on device: any Device) throws -> [AttentionLayerSpec] {
    try ModelRegistry.builtIn.architecture(of: source).attentionLayers(of: source, on: device)
  }

  static func load(_ source: any ModelSource, in context: ModelContext) throws -> any LanguageModel {
    TimedModel(model: try Llama.load(source, in: context))
  }

  private init(model: any LanguageModel) { self.model = model }

  var configuration: ModelConfiguration { model.configuration }
  var attention: [AttentionLayer] { model.attention }

  func forward(tokens: Tensor, metadata: AttentionMetadata, on queue: any DeviceQueue) throws -> Tensor {
    Self.clock.advance(by: Self.base + Self.perToken * tokens.shape[0])
    return try model.forward(tokens: tokens, metadata: metadata, on: queue)
  }

  func logits(of hidden: Tensor, rows: Tensor, output: Tensor, on queue: any DeviceQueue) {
    model.logits(of: hidden, rows: rows, output: output, on: queue)
  }
}

@Suite("A step's time", .timeLimit(.minutes(45)))
struct StepPacerTests {
  @Test("is kept by as many prompt tokens as fit into it, from above and from below", arguments: [1, 30, 500])
  func closesIn(start: Int) {
    var pacer = StepPacer(target: .milliseconds(100), most: 512)
    pacer.took(.milliseconds(100) / start, promptTokens: 1)
    for _ in 0..<30 {
      let tokens = pacer.promptTokens
      pacer.took(.milliseconds(40) + .milliseconds(2) * tokens, promptTokens: tokens)
    }
    #expect((28...30).contains(pacer.promptTokens), "\(pacer.promptTokens) of (100 − 40) / 2")
  }

  @Test("grows at most twofold from a step to the next, and a prompt always gets its least")
  func limits() {
    var pacer = StepPacer(target: .milliseconds(100), most: 512)
    let first = pacer.promptTokens
    pacer.took(.zero, promptTokens: first)
    #expect(pacer.promptTokens == 2 * first)
    pacer.took(.seconds(60), promptTokens: 64)
    #expect(pacer.promptTokens == StepPacer.leastTokens)
    for _ in 0..<20 { pacer.took(.microseconds(1), promptTokens: pacer.promptTokens) }
    #expect(pacer.promptTokens == 512)
    // Two tokens in fifty milliseconds do not say that a hundred take a hundred seconds.
    pacer.took(.milliseconds(50), promptTokens: 2)
    #expect(pacer.promptTokens == 512)
    #expect(StepPacer(target: nil, most: 300).promptTokens == 300)
    #expect(StepPacer(target: .seconds(1), most: 3).promptTokens == 3)
  }

  /// A prompt of 1000 tokens takes 2 s in steps of 512, and 3.3 s in steps of 100 ms.
  @Test("is what another's answer waits for, not the prompt that joins; and no bit depends on it")
  func joiningPrompt() async throws {
    let clock = TimedModel.clock
    let registry = ModelRegistry([TimedModel.self])
    let prompt = Prompt.tokenIDs(Tiny.prompt(1000, seed: 4))
    let brief = SamplingParams(temperature: 1, maxTokens: 3, logprobs: 2, ignoresEndTokens: true)
    var bits: [[UInt32]] = []
    for target in [nil, Duration.milliseconds(100)] {
      let llm = try Tiny.endless(seed: 51, maxBatchSize: 2, models: registry, targetStepTime: target, clock: clock)
      let steady = try llm.generate("goes on", sampling: SamplingParams(ignoresEndTokens: true))
      _ = try await Tiny.statistics(of: llm) { $0.generatedTokens > 3 }
      let before = llm.statistics.interTokenTime.longest
      #expect(before <= .milliseconds(60))
      let joins = try llm.generate(prompt, sampling: brief)
      bits.append(try await joins.output().bits)
      let statistics = llm.statistics
      if target == nil {
        #expect(statistics.interTokenTime.longest > .seconds(1), "the test's clock shows the freeze")
      } else {
        #expect(statistics.interTokenTime.longest <= .milliseconds(160), "the first guess may be wrong by 64 tokens, not by 512")
        #expect(statistics.timeToFirstToken.longest <= .seconds(5), "and the prompt comes forward: 3.3 s are the least")
      }
      steady.cancel()
      await llm.shutdown()
    }
    #expect(bits[0] == bits[1])
  }

  @Test("is no limit while nobody generates")
  func alone() async throws {
    let llm = try Tiny.llm(TinyModel(.llama, seed: 51) { $0.contextLength = 600 }, maxNumTokens: 256, targetStepTime: .nanoseconds(1))
    _ = try await llm.generate(.tokenIDs(Tiny.prompt(512, seed: 1)), sampling: SamplingParams(maxTokens: 1)).output()
    #expect(llm.statistics.steps == 2)
  }

  @Test("must be one")
  func validation() {
    #expect { try Tiny.llm(TinyModel(.llama, seed: 51), targetStepTime: .zero) } throws: { "\($0)".contains("targetStepTime") }
  }
}
