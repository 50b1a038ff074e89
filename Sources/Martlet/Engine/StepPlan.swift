// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// What one step computes: some tokens of some requests, contexts first, then generations.
package struct StepPlan {
  package struct Entry {
    package var request: Request
    /// Tokens of the request, from its first uncomputed one.
    package var count: Int
    /// Where they begin among the step's tokens.
    var start: Int
  }

  package internal(set) var entries: [Entry] = []
  package internal(set) var numContexts = 0
  package internal(set) var numTokens = 0

  package init() {}

  var isEmpty: Bool { entries.isEmpty }

  mutating func removeAll() {
    entries.removeAll(keepingCapacity: true)
    numContexts = 0
    numTokens = 0
  }

  mutating func append(_ request: Request, count: Int) {
    entries.append(Entry(request: request, count: count, start: numTokens))
    numTokens += count
  }
}
