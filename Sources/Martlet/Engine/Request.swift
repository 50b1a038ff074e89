// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletKVCache
import MartletTokenizers

/// A request inside the loop: its tokens, how many of them are computed, and where its answer goes.
///
/// There is no prefill phase and no decode phase: a request has tokens, some of them computed, and each step computes more of them. When all
/// are, the last one's logits give the next token. A prompt that comes in chunks, a prompt that comes whole and an answer are the same.
package final class Request {
  package enum Purpose {
    case generation(AnswerWriter)
    case scoring(ScoreWriter)
  }

  package let id: Int
  /// The prompt, then the answer.
  package private(set) var tokens: [Int32]
  package let promptLength: Int
  /// nil where each token's position is its number.
  let positions: PlacedPrompt?
  /// The most tokens, prompt and answer; at least `promptLength`.
  package let maxLength: Int
  let purpose: Purpose
  /// What the service that asked calls it, for log lines.
  let name: String
  let priority: Int
  let fairnessKey: String?
  /// The service's, for log lines.
  let metadata: [String: String]
  /// When it was submitted, and by when it must have ended, on the engine's clock.
  let submitted: Duration
  let deadline: Duration?
  /// When the first step that had something of it began, and when its first and its last token came.
  var began: Duration?
  var firstTokenTime: Duration?
  var lastTokenTime: Duration?
  /// What ``beginning(_:)`` found.
  private var promptBeginning: String?
  /// Tokens whose keys and values are in the cache.
  package internal(set) var computed = 0
  /// Tokens that come in chunks: the prompt, and after a pause what had been generated too.
  package private(set) var contextLength: Int
  /// Tokens that the step being planned computes.
  var planned = 0
  /// Why it ends with this step: logits of its prompt that are no numbers.
  var failure: LLMError?
  /// How often it gave up its pages to older requests.
  package private(set) var pauses = 0
  /// The prompt's tokens that were found in the cache when the request was first admitted; nil before.
  var cachedPromptTokens: Int?

  package init(
    id: Int, prompt: [Int32], positions: TokenPositions? = nil, maxLength: Int, purpose: Purpose, submitted: Duration, deadline: Duration?,
    name: String = "", priority: Int = 0, fairnessKey: String? = nil, metadata: [String: String] = [:]
  ) {
    self.id = id
    self.name = name
    self.priority = priority
    self.fairnessKey = fairnessKey
    self.metadata = metadata
    tokens = prompt
    promptLength = prompt.count
    self.positions = positions.map(PlacedPrompt.init)
    contextLength = prompt.count
    self.maxLength = maxLength
    self.purpose = purpose
    self.submitted = submitted
    self.deadline = deadline
  }

  /// Makes room for the answer. What only waits shares its prompt's memory with the other samples of it.
  func begin() { tokens.reserveCapacity(maxLength) }

  /// Tokens that wait to be computed.
  package var remaining: Int { tokens.count - computed }
  /// Whether what remains is the token that was generated last.
  package var isGenerating: Bool { computed >= contextLength }
  /// Whether the logits of the prompt's rows are wanted, so that none of them may be taken from a cache.
  var needsPromptRows: Bool {
    switch purpose {
    case .generation(let writer): writer.sampling.promptLogprobs != nil
    case .scoring: true
    }
  }
  /// How long its pages are kept after it; nil as the cache is configured.
  var cacheRetention: KVRetention? {
    switch purpose {
    case .generation(let writer): writer.sampling.cacheRetention
    case .scoring: nil
    }
  }
  /// Whether nothing of it may be taken from the cache.
  var computesWholePrompt: Bool { needsPromptRows || positions != nil }
  /// Rows of the prompt whose logits were told already: after a pause they are computed again.
  var promptRowsWritten: Int {
    switch purpose {
    case .generation(let writer): writer.promptTokensWritten
    case .scoring(let writer): writer.scores.count
    }
  }
  /// The most tokens that ever lie in the cache: the last one is never fed.
  var mostCached: Int { Self.mostCached(maxLength: maxLength) }

  package static func mostCached(maxLength: Int) -> Int { max(maxLength - 1, 1) }

  /// Forgets what is computed: all tokens so far are to be computed again, as a prompt is. What was streamed stays streamed.
  func pause() {
    pauses += 1
    computed = 0
    contextLength = tokens.count
  }

  /// The first characters of the prompt's text, at most `most`; made once.
  func beginning(_ most: Int, _ tokenizer: any Tokenizer) -> String {
    if let promptBeginning { return promptBeginning }
    // A character has at most four bytes, and nearly every token at least one.
    let text = tokenizer.decode(tokens.prefix(min(promptLength, 4 * most)))
    let beginning = String(text.unicodeScalars.prefix(most))
    promptBeginning = beginning
    return beginning
  }

  package func append(_ token: Int) { tokens.append(Int32(token)) }
}
