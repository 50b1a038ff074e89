// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletFormats
import MartletModels
import MartletTestSupport
import Testing

/// Tiny models against a forward in double that shares no code with them.
@Suite("The forward of a model")
struct ForwardTests {
  static let cases: [(name: String, model: TinyModel)] = [
    ("Llama", TinyModel(.llama, seed: 1)),
    (
      "Llama with an output matrix and stretched frequencies",
      TinyModel(.llama, seed: 2) { model in
        model.hasOutput = true
        model.hasRopeFrequencies = true
        model.ropeTheta = 500_000
      }
    ),
    ("Llama with one key/value head for each query head", TinyModel(.llama, seed: 3) { $0.numKVHeads = 4 }),
    ("Qwen 2", TinyModel(.qwen2, seed: 6) { $0.ropeTheta = 1_000_000 }),
    (
      "Qwen 3 with heads that are wider than the model is",
      TinyModel(.qwen3, seed: 7) { model in
        model.headDim = 64
        model.hasOutput = true
      }
    ),
    ("Gemma 3", TinyModel(.gemma3, seed: 4) { $0.ropeTheta = 1_000_000 }),
    (
      "Gemma 3 with a global layer in every place",
      TinyModel(.gemma3, seed: 5) { model in
        model.numLayers = 2
        model.window = 64
      }
    ),
  ]

  static let tokens: [Int32] = {
    var generator = SeededGenerator(seed: 42)
    return (0..<40).map { _ in Int32.random(in: 0..<256, using: &generator) }
  }()

  /// The kernels' activations have at least the 16 bits of two int8 digits, weights are exact: with logits of about 8 and a handful of
  /// layers an error beyond 0.02 is a wrong formula, not rounding.
  @Test("equals the formula in double", arguments: cases.indices, ["VANILLA", "TRTLLM"])
  func equalsReference(index: Int, backend: String) throws {
    let model = Self.cases[index].model
    let expected = ReferenceModel(model: model).logits(Self.tokens)
    let found = try ModelHarness(model.file(), backend: backend).logits(Self.tokens)
    #expect(found.count == expected.count)
    var worst = 0.0
    for (found, expected) in zip(found, expected) {
      for (f, e) in zip(found, expected) { worst = max(worst, abs(Double(f) - e)) }
    }
    #expect(worst < 0.02, "\(Self.cases[index].name): the worst logit is off by \(worst)")
  }

  @Test("gives the same bits in chunks as whole", arguments: cases.indices, ["VANILLA", "TRTLLM"])
  func chunked(index: Int, backend: String) throws {
    let harness = try ModelHarness(Self.cases[index].model.file(), backend: backend)
    let whole = try harness.logits(Self.tokens)
    for chunks in [[16, 16], [1, 1, 1], [7, 30], Array(repeating: 1, count: 40)] {
      let parts = try harness.logits(Self.tokens, chunks: chunks)
      #expect(parts.elementsEqual(whole) { $0.elementsEqual($1) { $0.bitPattern == $1.bitPattern } }, "in chunks of \(chunks)")
    }
  }
}
