// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import DequeModule

/// The requests that wait, and whose turn it is.
///
/// Those that paused come first, for they had begun. Of the others those with the highest priority, and among equals each fairness key in turn,
/// the oldest of a key first. Neither priorities nor many keys can keep a request waiting for ever: every ``turnOfOldest``th admission goes to
/// the request that came first, so that one with w older ones before it is at the latest admission number ``turnOfOldest`` · (w + 1) from
/// its arrival on. Where nobody gives a priority or a key, the order is that of arrival.
package struct WaitingQueue {
  /// Every so many admissions the oldest request has its turn.
  package static let turnOfOldest = 8

  /// Requests of one priority, by id. The id of what was taken out of the middle stays until it comes to the front, and a key without requests in
  /// `turns` likewise, so that taking out never searches; the request itself goes at once.
  private struct Level {
    let priority: Int
    var count = 0
    /// Keys in the order of their turns; the first one has requests.
    var turns: Deque<String?> = []
    /// The first one of each key waits.
    var requests: [String?: Deque<Int>] = [:]
  }

  private var paused: Deque<Request> = []
  /// The others.
  private var waiting: [Int: Request] = [:]
  /// Their ids in the order of arrival, with some that wait no more; the first one does.
  private var arrivals: Deque<Int> = []
  /// The highest priority first; none is empty.
  private var levels: [Level] = []
  private var admissions = 0
  /// Their tokens.
  private(set) var tokenCount = 0

  package init() {}

  package var count: Int { paused.count + waiting.count }
  package var isEmpty: Bool { count == 0 }

  package mutating func append(_ request: Request) {
    waiting[request.id] = request
    arrivals.append(request.id)
    tokenCount += request.tokens.count
    let place = levels.firstIndex { $0.priority <= request.priority } ?? levels.endIndex
    if place == levels.endIndex || levels[place].priority != request.priority {
      levels.insert(Level(priority: request.priority), at: place)
    }
    levels[place].count += 1
    if levels[place].requests[request.fairnessKey] == nil { levels[place].turns.append(request.fairnessKey) }
    levels[place].requests[request.fairnessKey, default: []].append(request.id)
  }

  /// Puts a request that had begun before all others.
  package mutating func resume(_ request: Request) {
    paused.prepend(request)
    tokenCount += request.tokens.count
  }

  /// Whose turn it is.
  package var first: Request? {
    if let request = paused.first { return request }
    if admissions % Self.turnOfOldest == Self.turnOfOldest - 1 { return arrivals.first.flatMap { waiting[$0] } }
    guard let level = levels.first, let key = level.turns.first else { return nil }
    return level.requests[key]?.first.flatMap { waiting[$0] }
  }

  /// Takes ``first`` out, because it is admitted.
  package mutating func removeFirst() {
    guard let request = first else { return }
    tokenCount -= request.tokens.count
    if !paused.isEmpty {
      paused.removeFirst()
      return
    }
    admissions += 1
    take(request, isAdmitted: true)
  }

  /// Takes a request out, wherever it is.
  package mutating func remove(_ id: Int) -> Request? {
    if let index = paused.firstIndex(where: { $0.id == id }) {
      let request = paused.remove(at: index)
      tokenCount -= request.tokens.count
      return request
    }
    guard let request = waiting[id] else { return nil }
    tokenCount -= request.tokens.count
    take(request, isAdmitted: false)
    return request
  }

  private mutating func take(_ request: Request, isAdmitted: Bool) {
    waiting[request.id] = nil
    while let id = arrivals.first, waiting[id] == nil { arrivals.removeFirst() }
    guard let place = levels.firstIndex(where: { $0.priority == request.priority }) else { return }
    levels[place].count -= 1
    if levels[place].count == 0 {
      levels.remove(at: place)
      return
    }
    let key = request.fairnessKey
    while let head = levels[place].requests[key]?.first, waiting[head] == nil { levels[place].requests[key]?.removeFirst() }
    // A key that had its turn goes behind the others.
    if isAdmitted, levels[place].turns.first == .some(key) {
      levels[place].turns.removeFirst()
      levels[place].turns.append(key)
    }
    while let key = levels[place].turns.first, levels[place].requests[key]?.isEmpty ?? true {
      levels[place].turns.removeFirst()
      levels[place].requests[key] = nil
    }
  }

  /// Requests that had begun.
  var pausedRequests: some Collection<Request> { paused }
  /// The others, in the order of their arrival.
  var arrivedRequests: some Sequence<Request> { arrivals.lazy.compactMap { [waiting] in waiting[$0] } }

  package func forEach(_ body: (Request) -> Void) {
    for request in paused { body(request) }
    for request in waiting.values { body(request) }
  }
}
