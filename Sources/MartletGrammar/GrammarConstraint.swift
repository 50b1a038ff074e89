// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Synchronization

/// A form of answers for one vocabulary: what the answers of all requests with this form share.
///
/// Automata and masks are made as answers meet them, and kept within ``GrammarLimits/automatonByteCount`` and ``GrammarLimits/maskByteCount``. One lock
/// guards them; each ``GrammarMatcher`` holds it for one call.
public final class GrammarConstraint: Sendable {
  struct Work: Sendable {
    var automaton: Automaton
    var masks: MaskMaker
    /// Counts the automata: states of an earlier one mean nothing in a later one.
    var generation = 0
  }

  /// The form.
  public let grammar: CompiledGrammar
  /// The vocabulary.
  public let vocabulary: TokenVocabulary
  let work: Mutex<Work>

  public init(_ grammar: CompiledGrammar, vocabulary: TokenVocabulary) {
    self.grammar = grammar
    self.vocabulary = vocabulary
    work = Mutex(Self.newWork(grammar, vocabulary))
  }

  static func newWork(_ grammar: CompiledGrammar, _ vocabulary: TokenVocabulary) -> Work {
    Work(
      automaton: Automaton(grammar.grammar, grammar.expressions, byteLimit: grammar.limits.automatonByteCount),
      masks: MaskMaker(vocabulary, byteLimit: grammar.limits.maskByteCount))
  }

  /// Bytes of memory that it takes, about.
  public var byteCount: Int { grammar.byteCount + work.withLock { $0.automaton.byteCount + $0.masks.byteCount } }

  /// At the beginning of an answer.
  public func makeMatcher() -> GrammarMatcher { GrammarMatcher(self) }
}
