// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Martlet
import MartletAttention
import MartletCPU
import MartletCore
import MartletFormats
import MartletKVCache
import MartletModels
import MartletTestSupport
import Testing

/// One arithmetic for every row: a request's tokens and logits depend on nothing but the request, bit for bit.
@Suite("The law of one arithmetic", .serialized)
struct LawTests {
  /// A prompt of 150 tokens of the recorded passage and 24 tokens of answer, with the bits of twenty log-probabilities each.
  private func bits(_ llm: LLM, _ tokens: [Int], beside others: [[Int]] = []) async throws -> [UInt32] {
    let sampling = SamplingParams(maxTokens: 24, logprobs: 20, ignoresEndTokens: true)
    let generations = try llm.generate(([tokens] + others).map { .tokenIDs($0) }, sampling: sampling)
    var outputs: [GenerationOutput] = []
    for generation in generations { outputs.append(try await generation.output()) }
    return outputs[0].bits + (try await llm.score(tokens)).map(\.bitPattern)
  }

  @Test(
    "holds for real models alone and among others, from cached prefixes, in chunks, for page sizes and threads",
    arguments: GoldenTests.models)
  func realModels(model: String) async throws {
    let passage = try GoldenRecord(model).passage.tokenIDs
    let tokens = Array(passage.prefix(150))
    let others = [Array(passage.dropFirst(150).prefix(90)), Array(passage.suffix(33)), [passage[7]]]
    let llm = try await RealModel.llm(model, context: 256)
    let alone = try await bits(llm, tokens)
    let sampling = SamplingParams(maxTokens: 24, logprobs: 20, ignoresEndTokens: true)
    let again = try await llm.generate(.tokenIDs(tokens), sampling: sampling).output()
    #expect(again.cachedPromptTokens == 149 && again.bits == Array(alone.prefix(again.bits.count)), "from the pages that it left")
    #expect(try await bits(llm, tokens, beside: others) == alone, "among others")
    #expect(try await bits(RealModel.llm(model, pageSize: 16, context: 256, chunkSize: 16), tokens) == alone, "chunks of 16, pages of 16")
    #expect(try await bits(RealModel.llm(model, pageSize: 64, context: 256, chunkSize: 64), tokens) == alone, "chunks of 64, pages of 64")
    let single = try await RealModel.llm(model, context: 256, chunkSize: 64, threads: 1)
    #expect(try await bits(single, tokens, beside: others) == alone, "one thread, among others, in chunks of 64")
  }

  /// A harness of its own, because the engine shows log-probabilities, not all logits.
  private struct Runner {
    let runner: ModelRunner

    init(
      _ source: any ModelSource, backend: String, dataType: DataType, activations: Activations, pageSize: Int, threads: Int,
      maxSequenceLength: Int
    ) throws {
      let device = try CPUDevice(threads: threads)
      let config = KVCacheConfig(dataType: dataType, pageSize: .tokens(pageSize))
      let context = AttentionContext(
        device: device, kvCache: config, maxNumRequests: 4, maxNumTokens: 256, maxSequenceLength: maxSequenceLength,
        workerCount: threads)
      let loaded = try ModelRegistry.builtIn.architecture(of: source).load(
        source,
        in: ModelContext(
          attention: context, attentionBackend: AttentionBackendRegistry.builtIn.backend(named: backend), maxLogitRows: 256,
          activations: activations))
      let cache = try KVCacheManager(layers: loaded.attention.map(\.kvLayerSpec), in: context)
      runner = try ModelRunner(model: loaded, cache: cache, context: context, maxLogitRows: 256)
    }

    /// All logits of the first of these sequences, which share every step, a chunk of each at a time.
    func logits(_ sequences: [[Int32]], chunk: Int) throws -> [UInt32] {
      var bits: [UInt32] = []
      for id in sequences.indices { #expect(runner.cache.addSequence(id)) }
      defer { for id in sequences.indices { runner.cache.remove(id) } }
      var done = 0
      while done < sequences.map(\.count).max()! {
        try runner.beginStep(isDecode: false)
        // The first request stands last among the contexts, so that its rows move with the others' lengths.
        for id in sequences.indices.reversed() where done < sequences[id].count {
          let end = min(done + chunk, sequences[id].count)
          #expect(runner.cache.extend(id, to: end))
          runner.add(id, tokens: sequences[id][done..<end], cachedTokens: done, promptLength: sequences[id].count, isContext: true)
        }
        try runner.forward()
        let end = min(done + chunk, sequences[0].count)
        if done < end {
          let start = runner.metadata.numTokens - (end - done)
          try runner.withLogits(count: end - done, row: { start + $0 }) { _, row in
            for index in row.indices { bits.append(row[index].bitPattern) }
          }
        }
        for id in sequences.indices where done < sequences[id].count {
          runner.cache.computed(id, upTo: min(done + chunk, sequences[id].count))
        }
        done += chunk
      }
      return bits
    }
  }

  @Test("holds for every logit", arguments: TinyModel.Architecture.allCases, GoldenTests.variants)
  func everyLogit(architecture: TinyModel.Architecture, variant: GoldenTests.Variant) throws {
    let model = TinyModel(architecture, seed: 31)
    let sequences = [70, 100, 3, 41].enumerated().map { Tiny.prompt($1, seed: UInt64($0)).map(Int32.init) }
    let source = try model.file()
    // Floats are multiplied in int8 as in exact products.
    for activations in Tiny.activations where activations != .int8 {
      func runner(pageSize: Int, threads: Int) throws -> Runner {
        try Runner(
          source, backend: variant.backend, dataType: variant.dataType, activations: activations, pageSize: pageSize, threads: threads,
          maxSequenceLength: 128)
      }
      let alone = try runner(pageSize: 16, threads: 1).logits([sequences[0]], chunk: 128)
      #expect(alone.count == 70 * model.vocabularySize)
      for (pageSize, threads, chunk) in [(16, 2, 16), (64, 1, 64), (64, 2, 1), (32, 2, 37)] {
        let together = try runner(pageSize: pageSize, threads: threads).logits(sequences, chunk: chunk)
        #expect(together == alone, "\(activations), pages of \(pageSize), \(threads) threads, chunks of \(chunk), among others")
      }
    }
  }

  /// The weights of the other test are floats.
  @Test(
    "holds for every logit of weights in blocks, of experts and of latents, however rows are rounded",
    arguments: ["qwen3-moe-mixed", "deepseek-v2", "gpt-oss-mxfp4", "fp8-block", "nvfp4"], Tiny.activations)
  func everyKindOfWeight(name: String, activations: Activations) throws {
    let source = try ModelRegistry.builtIn.source(HuggingFaceDirectory(path: TinyCheckpoint.file(name)))
    // The vocabulary has 128 tokens, the context 64 places.
    let sequences = [50, 60, 3, 41].enumerated().map { Tiny.prompt($1, seed: 70 + UInt64($0)).map { Int32($0 % 128) } }
    func runner(pageSize: Int, threads: Int) throws -> Runner {
      try Runner(
        source, backend: "TRTLLM", dataType: .bf16, activations: activations, pageSize: pageSize, threads: threads, maxSequenceLength: 64)
    }
    let alone = try runner(pageSize: 16, threads: 1).logits([sequences[0]], chunk: 64)
    for (pageSize, threads, chunk) in [(16, 2, 1), (64, 1, 7), (32, 2, 64)] {
      let together = try runner(pageSize: pageSize, threads: threads).logits(sequences, chunk: chunk)
      #expect(together == alone, "pages of \(pageSize), \(threads) threads, chunks of \(chunk), among others")
    }
  }
}
