// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import Martlet
import MartletCPU
import MartletCore
import MartletKVCache
import MartletTestSupport
import MartletTokenizers
import Testing

/// Engines on real models, for tests.
enum RealModel {
  static func llm(
    _ name: String, backend: String = "TRTLLM", dataType: DataType = .bf16, fp8Inputs: Bool = false, pageSize: Int = 32, context: Int = 640,
    maxBatchSize: Int = 8, maxNumTokens: Int = 512, chunkSize: Int? = nil, threads: Int = 2, instructionSet: String? = nil,
    activations: Activations = .exact
  ) async throws -> LLM {
    try LLM(
      model: await RealModelFile.path(name),
      configuration: EngineConfiguration(
        device: CPUDevice(instructionSet: instructionSet, threads: threads), attentionBackend: backend,
        kvCache: KVCacheConfig(dataType: dataType, pageSize: .tokens(pageSize)), quantConfig: QuantConfig(fp8Inputs: fp8Inputs),
        activations: activations, maxSequenceLength: context,
        maxBatchSize: maxBatchSize, maxNumTokens: maxNumTokens, chunkSize: chunkSize))
  }
}

/// `Fixtures/<model>.json`: a float32 forward of the dequantised weights, by another engine.
struct GoldenRecord: Decodable, Sendable {
  struct Prompt: Decodable, Sendable {
    var prompt: String?
    var chatUserMessage: String?
    var promptTokenIDs: [Int]
    var greedyTokenIDs: [Int]
    /// Log-probability of the best less the second best token at each step, in nats.
    var margins: [Double]

    enum CodingKeys: String, CodingKey {
      case prompt, margins
      case chatUserMessage = "chat_user_message"
      case promptTokenIDs = "prompt_token_ids"
      case greedyTokenIDs = "greedy_token_ids"
    }

    /// What is asked of the engine.
    func request() throws -> Martlet.Prompt {
      if let chatUserMessage { return .chat([ChatMessage(role: "user", content: chatUserMessage)]) }
      return .text(try #require(prompt))
    }

    /// The steps before the first one whose margin is below `margin`: what exact engines must agree on.
    func decidedCount(margin: Double) -> Int { margins.firstIndex { $0 < margin } ?? margins.count }
  }
  struct Passage: Decodable, Sendable {
    var tokenIDs: [Int]
    var text: String
    var logprobs: [Double]
    var perplexity: Double

    enum CodingKeys: String, CodingKey {
      case text, logprobs, perplexity
      case tokenIDs = "token_ids"
    }
  }
  var prompts: [Prompt]
  var passage: Passage

  init(_ model: String) throws {
    let url = try #require(Bundle.module.url(forResource: model, withExtension: "json", subdirectory: "Fixtures"))
    self = try JSONDecoder().decode(GoldenRecord.self, from: Data(contentsOf: url))
  }
}
