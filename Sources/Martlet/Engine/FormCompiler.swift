// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletGrammar
import MartletTokenizers

/// Compiles forms of answers for one model, on the thread of whoever asks, and keeps those that were used last.
///
/// The tokens as bytes, which all forms share, are made for the first of them: a model whose answers have no form takes no memory for it.
final class FormCompiler: Sendable {
  private let tokenizer: any Tokenizer
  /// Values of a row of logits.
  private let vocabularySize: Int
  private let cache = Guarded<GrammarCache?>(nil)

  init(_ tokenizer: any Tokenizer, vocabularySize: Int) {
    self.tokenizer = tokenizer
    self.vocabularySize = vocabularySize
  }

  func constraint(for form: AnswerForm) throws(GrammarError) -> GrammarConstraint {
    let source = try form.source()
    // Whoever comes while the tokens are read waits for them; forms are compiled side by side.
    let cache = cache.withLock { cache in
      if let cache { return cache }
      let made = GrammarCache(vocabulary: vocabulary())
      cache = made
      return made
    }
    return try cache.constraint(for: source)
  }

  /// The tokens that a row has logits for. Control tokens are no text, and what lies beyond the tokenizer's vocabulary only fills the row up.
  private func vocabulary() -> TokenVocabulary {
    let tokens = (0..<vocabularySize).map { id -> [UInt8]? in
      id < tokenizer.vocabularySize && !tokenizer.isControl(Int32(id)) ? tokenizer.bytes(of: Int32(id)) : nil
    }
    return TokenVocabulary(tokens: tokens, endTokens: tokenizer.endTokens.map(Int.init))
  }
}
