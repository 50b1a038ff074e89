// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Synchronization

/// A form as its text.
public enum GrammarSource: Sendable {
  case jsonSchema(String, JSONSchemaOptions = JSONSchemaOptions())
  case regex(String)
  case gbnf(String)

  /// Compiles it.
  public func compile(limits: GrammarLimits = GrammarLimits()) throws(GrammarError) -> CompiledGrammar {
    switch self {
    case .jsonSchema(let text, let options): try CompiledGrammar(jsonSchema: text, options: options, limits: limits)
    case .regex(let text): try CompiledGrammar(regex: text, limits: limits)
    case .gbnf(let text): try CompiledGrammar(gbnf: text, limits: limits)
    }
  }
}

extension GrammarSource: Hashable {
  /// Texts are the same if their bytes are: strings that only look alike are different forms.
  public static func == (a: GrammarSource, b: GrammarSource) -> Bool {
    switch (a, b) {
    case (.jsonSchema(let x, let options), .jsonSchema(let y, let others)): options == others && x.utf8.elementsEqual(y.utf8)
    case (.regex(let x), .regex(let y)), (.gbnf(let x), .gbnf(let y)): x.utf8.elementsEqual(y.utf8)
    default: false
    }
  }

  public func hash(into hasher: inout Hasher) {
    switch self {
    case .jsonSchema(let text, let options):
      hasher.combine(options)
      for byte in text.utf8 { hasher.combine(byte) }
    case .regex(let text), .gbnf(let text):
      for byte in text.utf8 { hasher.combine(byte) }
    }
  }
}

/// Forms that were compiled for a vocabulary, those that were used last: so that requests with the same form compile it once and share its masks.
///
/// The bound counts what the forms take when one is added; they grow while they are used, each up to its ``GrammarLimits``.
public final class GrammarCache: Sendable {
  private struct Entry: Sendable {
    var constraint: GrammarConstraint
    var lastUse: Int
  }

  private struct Entries: Sendable {
    var all: [GrammarSource: Entry] = [:]
    var numUses = 0
  }

  /// The vocabulary of all forms.
  public let vocabulary: TokenVocabulary
  /// Bytes that the forms may take together.
  public let byteLimit: Int
  private let limits: GrammarLimits
  private let entries = Mutex(Entries())

  public init(vocabulary: TokenVocabulary, byteLimit: Int = 256 << 20, limits: GrammarLimits = GrammarLimits()) {
    self.vocabulary = vocabulary
    self.byteLimit = byteLimit
    self.limits = limits
  }

  /// The form of `source`, compiled now if it is not there. Two callers who ask for the same new form at once both compile it; one result is kept.
  public func constraint(for source: GrammarSource) throws(GrammarError) -> GrammarConstraint {
    let known = entries.withLock { entries -> GrammarConstraint? in
      entries.numUses += 1
      entries.all[source]?.lastUse = entries.numUses
      return entries.all[source]?.constraint
    }
    if let known { return known }
    let made = GrammarConstraint(try source.compile(limits: limits), vocabulary: vocabulary)
    return entries.withLock { entries in
      if let known = entries.all[source] { return known.constraint }
      entries.numUses += 1
      entries.all[source] = Entry(constraint: made, lastUse: entries.numUses)
      var byUse = entries.all.sorted { $0.value.lastUse < $1.value.lastUse }.map {
        (source: $0.key, byteCount: $0.value.constraint.byteCount)
      }
      var total = byUse.reduce(0) { $0 + $1.byteCount }
      while total > byteLimit && byUse.count > 1 {
        let oldest = byUse.removeFirst()
        entries.all[oldest.source] = nil
        total -= oldest.byteCount
      }
      return made
    }
  }

  /// Forms that are kept.
  public var count: Int { entries.withLock { $0.all.count } }
}
