// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Martlet

/// Conversations of many users with one model, as a server keeps them. Everything that it needs is in `Martlet`.
actor ChatService {
  /// What a handler of a server turns into a status.
  enum Failure: Error { case overloaded, busy, tooLong, unavailable }

  private let llm: LLM
  private let system: String
  private let deadline: Duration
  private var conversations: [String: Conversation] = [:]
  private var answering: [String: Generation] = [:]

  init(model: String, system: String, deadline: Duration) async throws {
    var configuration = EngineConfiguration(maxBatchSize: 8)
    configuration.maxWaitingRequests = 16
    configuration.maxWaitingTokens = 32_000
    llm = try await LLM.load(model: model, configuration: configuration)
    self.system = system
    self.deadline = deadline
  }

  /// Answers a user's question after all that this user has said, and hands out the text as it comes.
  func ask(_ question: String, from user: String, onText: @Sendable (String) -> Void = { _ in }) async throws -> GenerationOutput {
    if answering[user] != nil { throw Failure.busy }
    var conversation = conversations[user] ?? Conversation(system: system)
    let sampling = SamplingParams(maxTokens: 40, timeout: deadline)
    let generation: Generation
    do {
      // Users take turns, whoever asks most.
      let options = RequestOptions(fairnessKey: user)
      generation = try conversation.ask(question, of: llm, sampling: sampling, requestOptions: options).generation
    } catch let error as LLMError {
      switch error.code {
      case .overloaded: throw Failure.overloaded
      case .promptTooLong, .cacheTooSmall: throw Failure.tooLong
      case .stopped: throw Failure.unavailable
      default: throw error
      }
    }
    answering[user] = generation
    defer { answering[user] = nil }
    var output = GenerationOutput(promptTokenIDs: generation.promptTokenIDs, tokenIDs: [], text: "", finishReason: .cancelled)
    // Where the handler's task is cancelled, because its client has gone, this throws, and the conversation stays as it was.
    for try await chunk in generation {
      onText(chunk.text)
      output.text += chunk.text
      output.tokenIDs += chunk.tokenIDs
      output.finishReason = chunk.finishReason ?? output.finishReason
    }
    conversation.note(answer: output.text)
    conversations[user] = conversation
    return output
  }

  /// Ends the answer that a user waits for; what there is of it counts.
  func stop(_ user: String) { answering[user]?.cancel() }

  func forget(_ user: String) { conversations[user] = nil }

  func history(of user: String) -> [ChatMessage] { conversations[user]?.transcript ?? [] }

  var statistics: EngineStatistics { llm.statistics }

  /// Refuses new questions, gives running answers a while to end, and ends the rest.
  func shutdown() async { await llm.shutdown(gracePeriod: .seconds(5)) }
}
