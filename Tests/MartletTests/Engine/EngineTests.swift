// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Martlet
import MartletFormats
import MartletKVCache
import MartletTestSupport
import MartletTokenizers
import Testing

/// What a caller sees of the engine, on tiny models.
@Suite("The engine", .timeLimit(.minutes(45)))
struct EngineTests {
  static let model = TinyModel(.llama, seed: 11)

  @Test("streams chunks that together are the answer")
  func streaming() async throws {
    let llm = try Tiny.llm(Self.model)
    let sampling = SamplingParams(maxTokens: 20, ignoresEndTokens: true)
    var chunks: [GenerationChunk] = []
    let generation = try llm.generate("Hello there", sampling: sampling)
    for try await chunk in generation { chunks.append(chunk) }
    #expect(chunks.allSatisfy { !$0.tokenIDs.isEmpty } && chunks.reduce(0) { $0 + $1.tokenIDs.count } == 20)
    #expect(chunks.dropLast().allSatisfy { $0.finishReason == nil } && chunks.last?.finishReason == .length)
    let output = try await llm.generate("Hello there", sampling: sampling).output()
    #expect(output.promptTokenIDs == generation.promptTokenIDs && output.promptTokenIDs == "Hello there".utf8.map { llm.byteToken($0) })
    #expect(output.text == chunks.map(\.text).joined() && output.tokenIDs == chunks.flatMap(\.tokenIDs))
    #expect(output.text == llm.tokenizer.decode(output.tokenIDs.map(Int32.init), continuesText: true))
  }

  @Test("ends before a stop string, and at an end token, which is no text")
  func ends() async throws {
    let plain = SamplingParams(maxTokens: 30, ignoresEndTokens: true)
    let llm = try Tiny.llm(Self.model)
    let free = try await llm.generate("abc", sampling: plain).output()

    // A stop string of two tokens that the free answer contains.
    let prefix = llm.tokenizer.decode(free.tokenIDs.prefix(8).map(Int32.init), continuesText: true)
    let both = llm.tokenizer.decode(free.tokenIDs.prefix(10).map(Int32.init), continuesText: true)
    let stop = String(both.unicodeScalars.suffix(2).map(Character.init))
    var stopping = plain
    stopping.stop = [stop]
    let stopped = try await llm.generate("abc", sampling: stopping).output()
    #expect(stopped.finishReason == .stopString && !stopped.text.contains(stop) && free.text.hasPrefix(stopped.text))
    #expect(stopped.text.unicodeScalars.count <= prefix.unicodeScalars.count + 2)

    // The same model in a file that calls the answer's fifth token its end token.
    var model = Self.model
    let end = free.tokenIDs[4]
    model.overrides["tokenizer.ggml.eos_token_id"] = .uint32(UInt32(end))
    var normal = plain
    normal.ignoresEndTokens = false
    let ended = try await Tiny.llm(model).generate("abc", sampling: normal).output()
    let length = free.tokenIDs.firstIndex(of: end)! + 1
    #expect(ended.finishReason == .endToken && ended.tokenIDs == Array(free.tokenIDs.prefix(length)))
    #expect(ended.text == llm.tokenizer.decode(free.tokenIDs.prefix(length - 1).map(Int32.init), continuesText: true))
  }

  @Test("goes to the end of the context where nothing else ends it")
  func contextEnd() async throws {
    let llm = try Tiny.llm(Self.model, context: 48)
    let output = try await llm.generate(.tokenIDs(Tiny.prompt(10, seed: 1)), sampling: SamplingParams(ignoresEndTokens: true)).output()
    #expect(output.finishReason == .length && output.tokenIDs.count == 38)
    let last = try await llm.generate(.tokenIDs(Tiny.prompt(47, seed: 1)), sampling: SamplingParams(ignoresEndTokens: true)).output()
    #expect(last.tokenIDs.count == 1)
  }

  @Test("refuses at once what can never run, and says which option moves the limit")
  func refusals() async throws {
    let llm = try Tiny.llm(Self.model, context: 64)
    func refusal(_ prompt: Prompt, _ sampling: SamplingParams = SamplingParams()) -> String {
      do {
        _ = try llm.generate(prompt, sampling: sampling)
        return "none"
      } catch { return "\(error)" }
    }
    #expect(refusal(.tokenIDs(Tiny.prompt(64, seed: 1))).contains("maxSequenceLength"))
    #expect(refusal(.tokenIDs([])).contains("no tokens"))
    #expect(refusal(.text("")).contains("no tokens"))
    #expect(refusal(.tokenIDs([3, 100_000])).contains("100000"))
    #expect(refusal(.tokenIDs([-1])).contains("-1"))
    #expect(refusal("a", SamplingParams(topP: 2)).contains("topP"))
    #expect(refusal("a") == "none")
    await #expect(throws: LLMError.self) { try await llm.score([]) }
    await #expect(throws: LLMError.self) { try await llm.score(Tiny.prompt(65, seed: 1)) }

    // Two pages of sixteen tokens in the whole cache: 16 tokens · 2 layers · 2 heads · 2 · 32 dims · 2 bytes each.
    let small = try Tiny.llm(Self.model, budget: .bytes(2 * 16 * 2 * 2 * 2 * 32 * 2), context: 64)
    #expect { try small.generate(.tokenIDs(Tiny.prompt(30, seed: 1)), sampling: SamplingParams(maxTokens: 10)) } throws: {
      "\($0)".contains("kvCache.budget")
    }
    let fits = try await small.generate(.tokenIDs(Tiny.prompt(30, seed: 1)), sampling: SamplingParams(maxTokens: 3)).output()
    #expect(fits.tokenIDs.count <= 3 && !fits.tokenIDs.isEmpty)
  }

  @Test("refuses configurations that cannot work, by option")
  func configurations() throws {
    #expect { try Tiny.llm(Self.model, context: 100_000) } throws: { "\($0)".contains("maxSequenceLength") }
    #expect { try Tiny.llm(Self.model, maxBatchSize: 200) } throws: { "\($0)".contains("maxNumTokens") }
    #expect { try Tiny.llm(Self.model, chunkSize: 0) } throws: { "\($0)".contains("chunkSize") }
    #expect { try Tiny.llm(Self.model, backend: "NONE") } throws: { "\($0)".contains("NONE") && "\($0)".contains("VANILLA") }
    #expect { try Tiny.llm(Self.model, budget: .bytes(10)) } throws: { "\($0)".contains("budget") }
  }

  @Test("frees the pages of a request that is cancelled, whose stream is dropped, or whose reader's task is cancelled")
  func cancellation() async throws {
    let llm = try Tiny.llm(Self.model, backend: "VANILLA")
    let endless = SamplingParams(ignoresEndTokens: true)
    func isFree(_ statistics: EngineStatistics) -> Bool {
      statistics.runningRequests == 0 && statistics.waitingRequests == 0 && statistics.pools.allSatisfy { $0.heldPages == 0 }
    }

    let generation = try llm.generate("cancel me", sampling: endless)
    generation.cancel()
    let output = try await generation.output()
    #expect(output.finishReason == .cancelled)
    #expect(isFree(try await Tiny.statistics(of: llm, when: isFree)))

    do {
      let dropped = try llm.generate("drop me", sampling: endless)
      for try await _ in dropped { break }
    }
    #expect(isFree(try await Tiny.statistics(of: llm, when: isFree)))

    let reader = Task { try await llm.generate("leave me", sampling: endless).output() }
    reader.cancel()
    await #expect(throws: CancellationError.self) { try await reader.value }
    let statistics = try await Tiny.statistics(of: llm, when: isFree)
    #expect(isFree(statistics) && statistics.pools.allSatisfy { $0.freePages + $0.cachedPages == $0.totalPages })
  }

  @Test("finishes what runs when it is shut down or let go, then takes no more")
  func shutdown() async throws {
    let sampling = SamplingParams(maxTokens: 40, ignoresEndTokens: true)
    let llm = try Tiny.llm(Self.model)
    let generation = try llm.generate("the last", sampling: sampling)
    await llm.shutdown()
    #expect(try await generation.output().tokenIDs.count == 40)
    #expect { try llm.generate("too late") } throws: { "\($0)".contains("shut down") }
    await llm.shutdown()

    let orphan = try Tiny.llm(Self.model).generate("orphan", sampling: sampling)
    #expect(try await orphan.output().tokenIDs.count == 40)
  }

  @Test("counts steps, tokens and requests")
  func statistics() async throws {
    let llm = try Tiny.llm(Self.model, maxNumTokens: 32)
    let prompts = (0..<3).map { Prompt.tokenIDs(Tiny.prompt(20, seed: UInt64($0))) }
    let generations = try llm.generate(prompts, sampling: SamplingParams(maxTokens: 5, ignoresEndTokens: true))
    for generation in generations { _ = try await generation.output() }
    let statistics = try await Tiny.statistics(of: llm) { $0.finishedRequests == 3 }
    #expect(statistics.promptTokens == 60 && statistics.generatedTokens == 15 && statistics.finishedRequests == 3)
    // 60 prompt tokens, 32 at most a step, take two steps; what generates along the way fills them.
    #expect(statistics.steps >= 6 && statistics.steps <= 9)
    #expect(statistics.pools.count == 1 && statistics.pools[0].heldPages == 0)
  }

  @Test("renders a conversation with the file's template, special tokens included")
  func chat() throws {
    let llm = try Tiny.llm(Self.model)
    let tokens = try llm.tokenIDs(of: .chat([ChatMessage(role: "user", content: "<|im_end|>")]))
    // The template's marks become tokens, the person's own text does not: one turn has one end.
    #expect(tokens.first == 257 && tokens.count { $0 == 258 } == 1)
    let parsed = ChatOptions(specialTokensInContent: .parsed)
    let trusted = try llm.tokenIDs(of: .chat([ChatMessage(role: "user", content: "<|im_end|>")], options: parsed))
    #expect(trusted.count { $0 == 258 } == 2)
    #expect(try !llm.tokenIDs(of: .text("<|im_start|>")).contains(257))
    var model = Self.model
    model.overrides["tokenizer.chat_template"] = .some(nil)
    let mute = try Tiny.llm(model)
    #expect { try mute.generate(.chat([ChatMessage(role: "user", content: "hi")])) } throws: { "\($0)".contains("chat template") }
  }
}

extension LLM {
  /// The token of one byte in a tiny model's vocabulary.
  fileprivate func byteToken(_ byte: UInt8) -> Int {
    (0..<256).first { tokenizer.bytes(of: Int32($0)) == [byte] } ?? -1
  }
}
