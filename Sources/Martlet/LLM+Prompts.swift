// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletTemplates
import MartletTokenizers

// From a prompt to the tokens of a request, and the limits that it is held to.

extension LLM {
  /// The longest text of a prompt, in bytes: more than any context, and far less than where tokenizers run out of 32-bit places.
  package static let mostTextBytes = 1 << 28

  /// The tokens that a prompt becomes, as `generate` would submit it.
  public func tokenIDs(of prompt: Prompt) throws -> [Int] { try prepare(prompt).tokenIDs }

  /// A prompt that can be looked at before it is submitted. Its template has run, and its text is tokens.
  ///
  /// - Parameter mostTextBytes: a longer text is refused (``LLMError/Code/textTooLong``) before it is taken apart.
  package func prepare(_ prompt: Prompt, mostTextBytes: Int = LLM.mostTextBytes) throws -> PreparedPrompt {
    let tokens: [Int]
    var key: AnswerMemory.PromptKey?
    var positions: TokenPositions?
    switch prompt {
    case .tokenIDs(let ids): tokens = ids
    case .placedTokenIDs(let ids, let places):
      tokens = ids
      positions = places
    case .text(let text):
      try check(text, most: mostTextBytes)
      let encoded = tokenizer.encode(text, parsesSpecialTokens: false)
      let frame = tokenizer.textFrame
      // Who makes vectors reads a whole text, and who writes the beginning of one.
      tokens = (embeddingSize == nil ? tokenizer.beginning(encoded) : frame.before + encoded + frame.after).map(Int.init)
    case .chat(let messages, let tools, let documents, var options):
      if messages.isEmpty { throw LLMError.emptyPrompt }
      options.now = options.now ?? .now
      let template = try chatTemplate.get()
      let text = try template.render(messages, tools: tools, documents: documents, options: options)
      try check(text.text, most: mostTextBytes)
      // More of an answer is no answer to the prompt.
      if answers != nil, !options.continuesFinalMessage { key = AnswerMemory.PromptKey(text, options.specialTokensInContent) }
      let known = answers?.tokens(
        of: AnswerMemory.Conversation(messages: messages, options: options, text: text) {
          try template.render($0, tools: tools, documents: documents, options: $1)
        })
      tokens =
        (known ?? tokenizer.promptTokens(of: text, specialTokensInContent: options.specialTokensInContent)).map(Int.init)
    }
    try check(tokens)
    if let positions { try check(positions, of: tokens) }
    return PreparedPrompt(tokenIDs: tokens, key: key, positions: positions)
  }

  /// What is known of answers' tokens: how many answers, and their bytes.
  package var rememberedAnswerSize: (answers: Int, byteCount: Int) { answers?.size ?? (0, 0) }
  /// How often an answer's own tokens took its text's place.
  package var rememberedAnswerUses: Int { answers?.replacements ?? 0 }

  func check(_ text: String, most: Int = LLM.mostTextBytes) throws(LLMError) {
    if text.utf8.count > most { throw .textTooLong(byteCount: text.utf8.count, most: most) }
  }

  func check(_ tokens: [Int]) throws(LLMError) {
    if tokens.isEmpty { throw .emptyPrompt }
    for token in tokens where token < 0 || token >= model.vocabularySize {
      throw .unknownToken(id: token, vocabularySize: model.vocabularySize)
    }
  }

  private func check(_ positions: TokenPositions, of tokens: [Int]) throws(LLMError) {
    if !takesTokenPositions { throw .invalidPositions("the model \"\(model.name)\" has one position a token; give the token ids alone") }
    for (axis, values) in [("time", positions.time), ("height", positions.height), ("width", positions.width)] {
      if values.count != tokens.count {
        throw .invalidPositions("\(values.count) of \(axis) for \(tokens.count) tokens; give one for each")
      }
      for value in values where !(0..<maxSequenceLength).contains(value) {
        throw .invalidPositions("\(value) of \(axis) is outside 0..<\(maxSequenceLength), the context (maxSequenceLength)")
      }
    }
  }

  /// The same, of a prompt whose tokens may be further on than there are tokens: the answer's positions stay within the context too.
  func maxLength(of prompt: PreparedPrompt, maxTokens: Int?) throws(LLMError) -> Int {
    let length = try maxLength(promptLength: prompt.tokenIDs.count, maxTokens: maxTokens)
    guard let ahead = prompt.positions.map({ $0.next - prompt.tokenIDs.count }), ahead > 0 else { return length }
    let most = maxSequenceLength - ahead
    if most <= prompt.tokenIDs.count || maxTokens != nil && length > most {
      throw .invalidPositions(
        "the answer begins at \(ahead + prompt.tokenIDs.count), and with it positions reach \(length + ahead), beyond the context of \(maxSequenceLength); "
          + "lower maxTokens or raise the context (maxSequenceLength)")
    }
    return min(length, most)
  }

  /// The most tokens of a request, prompt and answer.
  func maxLength(promptLength: Int, maxTokens: Int?) throws(LLMError) -> Int {
    if promptLength >= maxSequenceLength { throw .promptTooLong(tokens: promptLength, maxSequenceLength: maxSequenceLength) }
    // Without a wish of its own, an answer goes as far as context and cache do, but at least one token.
    let wish = maxTokens ?? max(min(maxSequenceLength, cacheCapacity + 1) - promptLength, 1)
    let length = min(promptLength + min(wish, maxSequenceLength), maxSequenceLength)
    if Request.mostCached(maxLength: length) > cacheCapacity {
      throw .cacheTooSmall(tokens: length, available: cacheSummary)
    }
    return length
  }
}

/// A prompt as it is submitted.
package struct PreparedPrompt: Sendable {
  package let tokenIDs: [Int]
  /// What an answer to it is known by; nil where none can be.
  let key: AnswerMemory.PromptKey?
  /// Where its tokens are, where that is more than their order.
  var positions: TokenPositions?
}
