// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Martlet
import MartletAttention
import MartletCore
import MartletFormats
import MartletModels
import MartletTestSupport
import Testing

/// Llama, but for a step with token 250 it has no memory.
private final class BrittleModel: LanguageModel, ModelArchitecture {
  static let token: Int32 = 250
  static let name = "llama"
  private let base: any LanguageModel

  static func attentionLayers(of source: any ModelSource, on device: any Device) throws -> [AttentionLayerSpec] {
    try ModelRegistry.builtIn.architecture(of: source).attentionLayers(of: source, on: device)
  }

  static func load(_ source: any ModelSource, in context: ModelContext) throws -> any LanguageModel {
    BrittleModel(base: try Llama.load(source, in: context))
  }

  private init(base: any LanguageModel) { self.base = base }

  var configuration: ModelConfiguration { base.configuration }
  var attention: [AttentionLayer] { base.attention }

  func forward(tokens: Tensor, metadata: AttentionMetadata, on queue: any DeviceQueue) throws -> Tensor {
    guard let ids = tokens.unsafeHostPointer(to: Int32.self) else { preconditionFailure("this test runs on the CPU") }
    if ids.contains(Self.token) { throw DeviceError.outOfMemory(device: "brittle", requested: 250, available: 0) }
    return try base.forward(tokens: tokens, metadata: metadata, on: queue)
  }

  func logits(of hidden: Tensor, rows: Tensor, output: Tensor, on queue: any DeviceQueue) {
    base.logits(of: hidden, rows: rows, output: output, on: queue)
  }
}

/// What is left when a step cannot be computed.
@Suite("An engine whose step fails", .timeLimit(.minutes(45)))
struct FailureTests {
  @Test("tells everybody why, gives back every page, and takes no more")
  func failure() async throws {
    let llm = try Tiny.endless(seed: 71, maxBatchSize: 3, models: ModelRegistry([BrittleModel.self]))
    let endless = SamplingParams(logitBias: [Int(BrittleModel.token): -100], ignoresEndTokens: true)
    let running = try llm.generate([.tokenIDs([1, 2]), .tokenIDs([3])], sampling: endless)
    #expect(try await Tiny.statistics(of: llm) { $0.runningRequests == 2 && $0.generatedTokens > 4 }.runningRequests == 2)
    let culprits = try llm.generate(Array(repeating: .tokenIDs([4, 250]), count: 3), sampling: endless)
    for generation in running + culprits {
      await #expect { try await generation.output() } throws: { "\($0)".contains("brittle") }
    }
    await llm.shutdown()
    #expect { try llm.generate("late") } throws: { "\($0)".contains("brittle") }
    await #expect { try await llm.score([1, 2]) } throws: { "\($0)".contains("brittle") }
    let statistics = llm.statistics
    #expect(statistics.ended == [.failed: 5] && statistics.runningRequests == 0 && statistics.waitingRequests == 0)
    #expect(statistics.hasEveryPage)
  }
}
