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

  /// Requests of one priority.
  private struct Level {
    let priority: Int
    /// Keys that have requests, in the order of their turns.
    var turns: Deque<String?> = []
    var requests: [String?: Deque<Request>] = [:]
  }

  private var paused: Deque<Request> = []
  /// The highest priority first; none is empty.
  private var levels: [Level] = []
  private var arrivals = 0
  private var admissions = 0
  package private(set) var count = 0
  /// Their tokens.
  private(set) var tokenCount = 0

  package init() {}

  package var isEmpty: Bool { count == 0 }

  package mutating func append(_ request: Request) {
    request.arrival = arrivals
    arrivals += 1
    count += 1
    tokenCount += request.tokens.count
    let place = levels.firstIndex { $0.priority <= request.priority } ?? levels.endIndex
    if place == levels.endIndex || levels[place].priority != request.priority {
      levels.insert(Level(priority: request.priority), at: place)
    }
    if levels[place].requests[request.fairnessKey] == nil { levels[place].turns.append(request.fairnessKey) }
    levels[place].requests[request.fairnessKey, default: []].append(request)
  }

  /// Puts a request that had begun before all others.
  package mutating func resume(_ request: Request) {
    paused.prepend(request)
    count += 1
    tokenCount += request.tokens.count
  }

  /// Whose turn it is.
  package var first: Request? {
    if let request = paused.first { return request }
    if admissions % Self.turnOfOldest == Self.turnOfOldest - 1 { return oldest }
    guard let level = levels.first, let key = level.turns.first else { return nil }
    return level.requests[key]?.first
  }

  private var oldest: Request? {
    var oldest: Request?
    for level in levels {
      for requests in level.requests.values {
        if let request = requests.first, request.arrival < oldest?.arrival ?? .max { oldest = request }
      }
    }
    return oldest
  }

  /// Takes ``first`` out, because it is admitted.
  package mutating func removeFirst() {
    guard let request = first else { return }
    count -= 1
    tokenCount -= request.tokens.count
    if !paused.isEmpty {
      paused.removeFirst()
      return
    }
    admissions += 1
    take(request, isTurn: true)
  }

  /// Takes a request out, wherever it is.
  package mutating func remove(_ id: Int) -> Request? {
    if let index = paused.firstIndex(where: { $0.id == id }) {
      let request = paused.remove(at: index)
      count -= 1
      tokenCount -= request.tokens.count
      return request
    }
    guard let request = find(id) else { return nil }
    count -= 1
    tokenCount -= request.tokens.count
    take(request, isTurn: false)
    return request
  }

  private func find(_ id: Int) -> Request? {
    for level in levels {
      for requests in level.requests.values {
        if let request = requests.first(where: { $0.id == id }) { return request }
      }
    }
    return nil
  }

  /// - Parameter isTurn: its key had its turn and goes behind the others.
  private mutating func take(_ request: Request, isTurn: Bool) {
    guard let place = levels.firstIndex(where: { $0.priority == request.priority }) else { return }
    let key = request.fairnessKey
    if levels[place].requests[key]?.first === request {
      levels[place].requests[key]?.removeFirst()
    } else {
      levels[place].requests[key]?.removeAll { $0 === request }
    }
    let isLast = levels[place].requests[key]?.isEmpty ?? true
    if isLast { levels[place].requests[key] = nil }
    if isLast || isTurn, let turn = levels[place].turns.firstIndex(of: key) {
      levels[place].turns.remove(at: turn)
      if !isLast { levels[place].turns.append(key) }
    }
    if levels[place].turns.isEmpty { levels.remove(at: place) }
  }

  package func forEach(_ body: (Request) -> Void) {
    for request in paused { body(request) }
    for level in levels {
      for requests in level.requests.values {
        for request in requests { body(request) }
      }
    }
  }
}
