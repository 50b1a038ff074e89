// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletAttention

/// The attention of a well-known model, as TensorRT-LLM's backend tests list them.
struct ModelShape: Sendable {
  var name: String
  var heads: Int
  var kvHeads: Int
  var headDim: Int
  var window: Int?
  var positional: PositionalEmbeddingParams?

  private init(_ name: String, _ heads: Int, _ kvHeads: Int, _ headDim: Int, window: Int? = nil, rope: Bool? = true, theta: Double = 10000)
  {
    self.name = name
    self.heads = heads
    self.kvHeads = kvHeads
    self.headDim = headDim
    self.window = window
    positional = rope.map { PositionalEmbeddingParams(RopeParams(dim: headDim, theta: theta), isNeoX: $0) }
  }

  static let all: [ModelShape] = [
    ModelShape("llama3-8b", 32, 8, 128, theta: 500_000),
    ModelShape("llama3-70b", 64, 8, 128, theta: 500_000),
    ModelShape("llama3-405b", 128, 8, 128, theta: 500_000),
    ModelShape("llama4", 40, 8, 128, theta: 500_000),
    ModelShape("llama3.2-1b", 32, 8, 64, theta: 500_000),
    ModelShape("llama3.2-3b", 24, 8, 128, theta: 500_000),
    ModelShape("mixtral-8x22b", 48, 8, 128, theta: 1_000_000),
    ModelShape("qwen2-7b", 28, 4, 128, theta: 1_000_000),
    ModelShape("qwen2-0.5b", 14, 2, 64, theta: 1_000_000),
    ModelShape("qwen3-30b-moe", 32, 4, 128, theta: 1_000_000),
    ModelShape("tinyllama", 32, 4, 64),
    ModelShape("nemotron-h", 32, 2, 128, rope: nil),
    ModelShape("glm4", 96, 8, 128),
    ModelShape("qwen3-next", 16, 2, 256, theta: 10_000_000),
    ModelShape("llama2-7b", 32, 32, 128),
    ModelShape("llama2-13b", 40, 40, 128),
    ModelShape("phi3", 32, 32, 96),
    ModelShape("gpt-oss", 64, 8, 64, rope: false, theta: 150_000),
    ModelShape("gpt-oss, window", 64, 8, 64, window: 128, rope: false, theta: 150_000),
    ModelShape("gemma3-1b", 4, 1, 256, theta: 1_000_000),
    ModelShape("gemma3-12b", 16, 8, 256, theta: 1_000_000),
    ModelShape("gemma4", 8, 1, 512, theta: 1_000_000),
    ModelShape("mistral, window", 32, 8, 128, window: 4096),
    ModelShape("starcoder2-3b, window", 24, 2, 128, window: 4096),
    ModelShape("starcoder2-7b, window", 36, 4, 128, window: 4096),
    ModelShape("cohere2, window", 32, 8, 128, window: 4096, rope: false, theta: 50_000),
    ModelShape("t5", 12, 12, 64, rope: nil),
    ModelShape("bart", 16, 16, 64, rope: nil),
  ]

  static func named(_ name: String) -> ModelShape { all.first { $0.name == name }! }
}
