// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Synchronization

/// Where one answer is in its form. A copy goes its own way from there, so that tokens that are only tried can be taken back.
///
/// ```swift
/// var matcher = constraint.makeMatcher()
/// var mask = TokenMask(numTokens: vocabulary.numTokens)
/// while !matcher.isFinished {
///   try matcher.fill(&mask)
///   guard try matcher.advance(sample(mask)) else { … }   // the token was not in the mask
/// }
/// ```
///
/// Every text that can be reached can be finished: a mask is never empty unless the vocabulary lacks the bytes that must come.
public struct GrammarMatcher: Sendable {
  /// The form and the vocabulary.
  public let constraint: GrammarConstraint
  private var state: Automaton.StateID = -1
  private var generation = -1
  /// The bytes so far: states are found again by them after the automaton was made anew.
  private var bytes: [UInt8] = []
  /// Whether a token has ended the answer.
  public private(set) var isFinished = false

  init(_ constraint: GrammarConstraint) { self.constraint = constraint }

  /// Whether the answer may end here.
  public var isAccepting: Bool {
    mutating get throws(GrammarError) { try withState { automaton, _, state in automaton.isAccepting(state) } }
  }

  /// Sets `mask`, which must be as large as the vocabulary, to the tokens that may come; none after the end.
  public mutating func fill(_ mask: inout TokenMask) throws(GrammarError) {
    guard !isFinished else { return mask.removeAll() }
    try withState { automaton, masks, state in masks.make(&mask, state, &automaton) }
  }

  /// Goes on by a token; false, and nothing is changed, if it may not come.
  public mutating func advance(_ token: Int) throws(GrammarError) -> Bool {
    guard !isFinished && token >= 0 && token < constraint.vocabulary.numTokens else { return false }
    if constraint.vocabulary.endTokens.contains(token) {
      isFinished = try isAccepting
      return isFinished
    }
    let text = constraint.vocabulary.bytes(token)
    return text.isEmpty ? false : try advance(bytes: text)
  }

  /// Goes on by bytes; false, and nothing is changed, if they may not come.
  public mutating func advance(bytes text: some Collection<UInt8>) throws(GrammarError) -> Bool {
    guard !isFinished else { return false }
    let after = try withState { automaton, _, state in
      var state = state
      for byte in text {
        state = automaton.next(state, byte)
        if state == Automaton.dead { break }
      }
      return state
    }
    guard after != Automaton.dead else { return false }
    state = after
    bytes.append(contentsOf: text)
    return true
  }

  /// The bytes that must come, as far as there is one way to go on and the answer may not end: at most `limit`. They can be written without asking
  /// the model, in the tokens that the tokenizer makes of them.
  public mutating func forcedBytes(limit: Int = 1024) throws(GrammarError) -> [UInt8] {
    guard !isFinished else { return [] }
    return try withState { automaton, _, state in
      var state = state
      var forced: [UInt8] = []
      while forced.count < limit && !automaton.isAccepting(state) {
        let first = automaton.firstBytes(state)
        guard first.count == 1 else { break }
        first.forEach { forced.append($0) }
        state = automaton.next(state, forced[forced.count - 1])
      }
      return forced
    }
  }

  /// Calls `body` with the automaton and the state of the answer. Where the automaton's memory is used up, it is made anew and the answer read again.
  private mutating func withState<T: Sendable>(
    _ body: (inout Automaton, inout MaskMaker, Automaton.StateID) -> T
  ) throws(GrammarError) -> T {
    let (state, generation, bytes, constraint) = (state, generation, bytes, constraint)
    let found: (T, Automaton.StateID, Int)? = constraint.work.withLock { work in
      var state = state
      var isFresh = false
      work.automaton.allowSteps()
      if generation != work.generation { state = Self.read(bytes, &work.automaton) }
      while true {
        if !work.automaton.isExhausted {
          let result = body(&work.automaton, &work.masks, state)
          if !work.automaton.isExhausted { return (result, state, work.generation) }
        }
        if isFresh { return nil }
        let next = work.generation + 1
        work = GrammarConstraint.newWork(constraint.grammar, constraint.vocabulary)
        work.generation = next
        isFresh = true
        state = Self.read(bytes, &work.automaton)
      }
    }
    guard let found else {
      throw .limit(
        "the next token takes more than the \(constraint.grammar.limits.automatonByteCount) bytes that automata may take: make the form simpler"
      )
    }
    self.state = found.1
    self.generation = found.2
    return found.0
  }

  private static func read(_ bytes: [UInt8], _ automaton: inout Automaton) -> Automaton.StateID {
    bytes.reduce(automaton.start()) { automaton.next($0, $1) }
  }
}
