// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Martlet
import MartletTemplates
import MartletTokenizers

/// What was said so far, and the model that it is said to.
struct Conversation {
  let llm: LLM
  private var system: [ChatMessage]
  private let tools: [JSON]?
  private let options: ChatOptions
  private let sampling: SamplingOptions
  private let seed: UInt64
  /// Questions and answers in turn; a question waits for its answer at the end.
  private var messages: [ChatMessage] = []
  /// How many of them, from the first on, the model is not told any more.
  private var forgottenCount = 0
  private var questionCount: UInt64 = 0

  init(llm: LLM, system: String?, tools: [JSON]?, options: ChatOptions, sampling: SamplingOptions) {
    self.llm = llm
    self.system = Self.system(system)
    self.tools = tools
    self.options = options
    self.sampling = sampling
    seed = sampling.seed ?? (sampling.temperature > 0 ? UInt64.random(in: 0...UInt64(UInt32.max)) : 0)
    if sampling.temperature > 0 && sampling.seed == nil { Terminal.note("Seed \(seed).") }
  }

  private static func system(_ text: String?) -> [ChatMessage] { text.map { [ChatMessage(role: "system", content: $0)] } ?? [] }

  private func prompt(_ messages: some Sequence<ChatMessage>) -> Prompt { .chat(system + messages, tools: tools, options: options) }

  /// Whether the model's template can write such a conversation at all.
  func check() throws {
    let question = [ChatMessage(role: "user", content: "?")]
    let tokens = try llm.tokenIDs(of: prompt(question))
    if tokens.count >= llm.maxSequenceLength {
      throw LLMError.promptTooLong(tokens: tokens.count, maxSequenceLength: llm.maxSequenceLength)
    }
    // Many templates know no tools, and pass over them without a word.
    if let tools, !tools.isEmpty, try tokens == llm.tokenIDs(of: .chat(system + question, options: options)) {
      Terminal.note("The chat template writes no tools: the model does not see those of --tools.")
    }
  }

  /// What was said, the system message first, and what the model has forgotten since included.
  var transcript: [ChatMessage] { system + messages }

  /// Forgets what was said, and keeps the system message.
  mutating func clear() {
    messages = []
    forgottenCount = 0
  }

  /// Sets the system message, or takes it away (nil).
  /// - Throws: what ``check()`` does; the message is then as it was.
  mutating func set(system text: String?) throws {
    let old = system
    system = Self.system(text)
    do { try check() } catch {
      system = old
      throw error
    }
  }

  /// Submits a question after all that was said, or as much of it as leaves room for an answer.
  ///
  /// - Throws: `LLMError` where the question does not fit even alone, `TokenizerError` where the template cannot write it; the conversation is
  ///   then as it was, less what was forgotten for it.
  mutating func ask(_ question: String) throws -> Generation {
    messages.append(ChatMessage(role: "user", content: question))
    // A long limit on answers must not empty a short context: half of it stays for what was said.
    let room = min(sampling.maxTokens, llm.maxSequenceLength / 2)
    let before = forgottenCount
    defer {
      if forgottenCount > before {
        Terminal.note(
          "The context (\(llm.maxSequenceLength) tokens) is full: the oldest \(forgottenCount - before) messages were forgotten.")
      }
    }
    while true {
      let told = messages[forgottenCount...]
      do {
        let prompt = prompt(told)
        let length = try llm.tokenIDs(of: prompt).count
        if length + room > llm.maxSequenceLength && told.count > 2 {
          throw LLMError.promptTooLong(tokens: length, maxSequenceLength: llm.maxSequenceLength)
        }
        // Every answer draws from a seed of its own.
        let generation = try llm.generate(prompt, sampling: sampling.params(seed: seed &+ questionCount))
        questionCount += 1
        return generation
      } catch {
        guard told.count > 2, (error as? LLMError)?.isAboutLength == true else {
          messages.removeLast()
          throw error
        }
        forgottenCount += 2
      }
    }
  }

  /// The answer that was written, whole or stopped; without one the question does not count either.
  mutating func note(answer: String) {
    if answer.isEmpty { messages.removeLast() } else { messages.append(ChatMessage(role: "assistant", content: answer)) }
  }
}

extension LLMError {
  /// Whether a shorter conversation would do.
  fileprivate var isAboutLength: Bool {
    code == .promptTooLong || code == .cacheTooSmall
  }
}
