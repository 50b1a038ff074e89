// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import Martlet
import MartletCPU
import MartletFormats
import MartletModels
import MartletTestSupport
import Testing

/// `LLM.embed`, against what Transformers computed with the same files in float64 (`newer/encoders.py`).
@Suite("Vectors of texts")
struct EmbedTests {
  private static let path = TinyCheckpoint.file("bert")

  private let texts: [String]
  private let prompts: [[Int]]
  private let expected: [[Float]]

  init() throws {
    let json = try JSONValue(path: Self.path + "/expected.json")
    texts = try #require(json["texts"]).elements.map { $0.string! }
    let prompts = try #require(json["prompts"]).elements.map { $0.elements.map { $0.integer! } }
    let file = try SafetensorsFile(path: Self.path + "/expected.safetensors")
    expected = try prompts.indices.map { try file.floats("embedding.\($0)") }
    self.prompts = prompts
  }

  private func llm(
    _ path: String = path, maxNumTokens: Int = 512, pooling: Pooling? = nil, change: (inout EngineConfiguration) -> Void = { _ in }
  ) throws -> LLM {
    var configuration = EngineConfiguration(device: try CPUDevice(threads: 2), maxNumTokens: maxNumTokens, pooling: pooling)
    change(&configuration)
    return try LLM(model: path, configuration: configuration)
  }

  private func distance(_ a: [Float], _ b: [Float]) -> Float {
    let largest = b.reduce(0) { max($0, abs($1)) }
    return a.count == b.count ? zip(a, b).reduce(0) { max($0, abs($1.0 - $1.1)) } / largest : .infinity
  }

  /// As in the tests of the model: float32 beside float64.
  @Test("are those that Transformers computes of the same texts, from a directory and from a GGUF file")
  func truth() async throws {
    for path in [Self.path, Self.path + "/model.gguf"] {
      let llm = try llm(path)
      #expect(llm.embeddingSize == 36 && llm.pooling == Pooling(.mean))
      #expect(try texts.map { try llm.tokenIDs(of: .text($0)) } == prompts)
      let vectors = try await llm.embed(texts.map { .text($0) })
      for (vector, (tokens, expected)) in zip(vectors, zip(prompts, expected)) {
        #expect(distance(vector.values, expected) < 1e-5 && vector.tokenCount == tokens.count)
      }
      #expect(try await llm.embed(prompts.map { .tokenIDs($0) }) == vectors)
    }
  }

  @Test("are the same to the bit alone, together, in small steps, and beside other calls", arguments: Tiny.activations)
  func sameBits(activations: Activations) async throws {
    let large = try llm { $0.activations = activations }
    let small = try llm(maxNumTokens: 16) {
      $0.activations = activations
      $0.maxSequenceLength = 20
    }
    var alone: [[Float]] = []
    for text in texts { alone.append(try await large.embed(.text(text)).values) }
    let many = (0..<700).map { texts[$0 % texts.count] }
    for llm in [large, small] {
      try await withThrowingTaskGroup(of: [Embedding].self) { group in
        for _ in 0..<3 { group.addTask { try await llm.embed(many.map { .text($0) }) } }
        for try await vectors in group {
          #expect(vectors.enumerated().allSatisfy { $1.values == alone[$0 % texts.count] })
        }
      }
      #expect(llm.statistics.ended == [.embedded: llm === large ? 2104 : 2100])
      #expect(llm.statistics.waitingRequests == 0 && llm.statistics.steps > 20)
    }
  }

  @Test("may be their first values, brought to length 1 again")
  func dimensions() async throws {
    let llm = try llm()
    let whole = try await llm.embed(.text(texts[0])).values
    let short = try await llm.embed(.text(texts[0]), options: EmbeddingOptions(dimensions: 5)).values
    let length = whole.prefix(5).reduce(0) { $0 + $1 * $1 }.squareRoot()
    #expect(short.count == 5 && zip(short, whole).allSatisfy { abs($0 - $1 / length) < 1e-6 })
    for dimensions in [0, 37] {
      await #expect { try await llm.embed(.text("a"), options: EmbeddingOptions(dimensions: dimensions)) } throws: {
        ($0 as? LLMError)?.code == .invalidEmbedding && "\($0)".contains("between 1 and the model's 36")
      }
    }
  }

  @Test("of a text that is too long are refused, or those of its beginning")
  func tooLong() async throws {
    let llm = try llm()
    #expect(llm.maxSequenceLength == 48)
    let text = String(repeating: "swift ", count: 60)
    await #expect { try await llm.embed(.text(text)) } throws: {
      ($0 as? LLMError)?.code == .promptTooLong && "\($0)".contains("62 tokens") && "\($0)".contains("48")
    }
    let cut = try await llm.embed(.text(text), options: EmbeddingOptions(truncates: true))
    #expect(cut.tokenCount == 48)
    // The separator stays at the end.
    let whole = try await llm.embed(.text(String(repeating: "swift ", count: 46)))
    #expect(cut == whole)
    await #expect { try await llm.embed(.tokenIDs([])) } throws: { ($0 as? LLMError)?.code == .emptyPrompt }
    await #expect { try await llm.embed(.tokenIDs([128])) } throws: { ($0 as? LLMError)?.code == .unknownToken }
    #expect(try await llm.embed([]).isEmpty)
    #expect(try await llm.embed(.text("")).tokenCount == 2)
  }

  @Test("come from a model that makes some, and text from one that writes; a language model makes some where somebody says how")
  func otherModels() async throws {
    let encoder = try llm()
    #expect { try encoder.generate("The", sampling: SamplingParams(maxTokens: 2)) } throws: { ($0 as? LLMError)?.code == .writesNoText }
    await #expect { try await encoder.score([1, 2, 3]) } throws: { ($0 as? LLMError)?.code == .writesNoText }
    let path = TinyCheckpoint.file("qwen3")
    let writer = try llm(path)
    #expect(writer.embeddingSize == nil && writer.pooling == nil)
    await #expect { try await writer.embed(.tokenIDs([1, 2])) } throws: {
      ($0 as? LLMError)?.code == .makesNoEmbeddings && "\($0)".contains("pooling")
    }
    let pooled = try llm(path, pooling: Pooling(.last, normalizes: false))
    let mean = try llm(path, pooling: Pooling(.mean))
    let vector = try await pooled.embed(.tokenIDs([1, 2])).values
    let other = try await mean.embed(.tokenIDs([1, 2])).values
    #expect(vector.count == pooled.model.hiddenSize && abs(other.reduce(0) { $0 + $1 * $1 } - 1) < 1e-5 && vector != other)
    // Files of an encoder without a pooling: the error says what to say.
    let bare = try EditedCheckpoint("bert")
    try bare.remove("modules.json")
    #expect { try llm(bare.path) } throws: { ($0 as? ModelError)?.code == .writesNoText && "\($0)".contains("pooling") }
    #expect(try await llm(bare.path, pooling: Pooling(.first)).embed(.text("swift")).values.count == 36)
  }

  @Test("of a call that is cancelled, or comes to an engine that has ended, do not come; others do")
  func ends() async throws {
    let llm = try llm(maxNumTokens: 48)
    let cancelled = Task { try await llm.embed((0..<4000).map { _ in .text(texts[0]) }) }
    let other = Task { try await llm.embed(.text(texts[1])) }
    cancelled.cancel()
    await #expect(throws: CancellationError.self) { try await cancelled.value }
    #expect(try await distance(other.value.values, expected[1]) < 1e-5)
    var snapshots = llm.snapshots().makeAsyncIterator()
    let snapshot = await snapshots.next()
    #expect(snapshot?.pools.isEmpty == true && snapshot?.maxSequenceLength == 48)
    await llm.shutdown()
    #expect(llm.state == .ended(nil))
    await #expect { try await llm.embed(.text("a")) } throws: { ($0 as? LLMError)?.code == .stopped }
  }

  @Test("of more texts than may wait are made in portions, and those of too many calls are refused")
  func waitingLimits() async throws {
    let llm = try llm { $0.maxWaitingRequests = 3 }
    #expect(try await llm.embed((0..<10).map { .text(texts[$0 % texts.count]) }).count == 10)
  }
}
