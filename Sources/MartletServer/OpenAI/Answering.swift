// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import AsyncAlgorithms
import Martlet

/// What happens to the answers of one request.
enum AnswerEvent: Sendable {
  /// Sample `index` goes on.
  case chunk(index: Int, GenerationChunk)
  /// Nothing happened for a while.
  case silence
}

extension Exchange {
  /// Reads several generations at once, in the order in which things happen, until all have ended. The readers wait for `body`, and a generation
  /// that nobody reads is one chunk that grows.
  ///
  /// - Throws: what `body` throws; what a generation fails with. The others are cancelled then.
  func read(_ generations: [Generation], silence: Duration, _ body: (AnswerEvent) async throws -> Void) async throws {
    let channel = AsyncThrowingChannel<AnswerEvent, any Error>()
    try await watching(generations) {
      defer { for generation in generations { generation.cancel() } }
      try await withThrowingTaskGroup(of: Void.self) { group in
        for (index, generation) in generations.enumerated() {
          group.addTask {
            do {
              for try await chunk in generation { await channel.send(.chunk(index: index, chunk)) }
            } catch { channel.fail(error) }
          }
        }
        group.addTask {
          while true {
            try await Task.sleep(for: silence)
            await channel.send(.silence)
          }
        }
        defer { group.cancelAll() }
        var open = generations.count
        for try await event in channel {
          if case .chunk(_, let chunk) = event {
            book(chunk)
            if chunk.finishReason != nil { open -= 1 }
          }
          try await body(event)
          if open == 0 { break }
        }
        group.cancelAll()
      }
    }
  }

  /// Waits for all answers.
  func outputs(of generations: [Generation]) async throws -> [GenerationOutput] {
    try await watching(generations) {
      var outputs: [GenerationOutput] = []
      do {
        for generation in generations {
          let output = try await generation.output()
          outputs.append(output)
        }
      } catch {
        for generation in generations { generation.cancel() }
        throw error
      }
      let (prompt, cached) = (outputs.first?.promptTokenIDs.count ?? 0, outputs.first?.cachedPromptTokens ?? 0)
      let completion = outputs.reduce(0) { $0 + $1.tokenIDs.count }
      note {
        $0.promptTokens += prompt
        $0.cachedTokens += cached
        $0.completionTokens += completion
        $0.finish = outputs.first?.finishReason.rawValue
      }
      return outputs
    }
  }

  private func book(_ chunk: GenerationChunk) {
    if !chunk.tokenIDs.isEmpty { noteFirstToken() }
    note {
      $0.completionTokens += chunk.tokenIDs.count
      if let cached = chunk.cachedPromptTokens { $0.cachedTokens = max($0.cachedTokens, cached) }
      if let reason = chunk.finishReason { $0.finish = reason.rawValue }
    }
  }
}
#endif
