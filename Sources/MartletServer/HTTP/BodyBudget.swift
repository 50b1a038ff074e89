// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import HTTPTypes
import Synchronization

/// The bytes of bodies that are being read, over all connections. What is made of a body while it is read takes many times its bytes, and how many
/// connections there are is for others to say: so the sum has a bound, and what goes beyond it is refused before it is read.
final class BodyBudget: Sendable {
  let limit: Int
  private let count = Mutex(0)

  init(limit: Int) { self.limit = limit }

  fileprivate func take(_ bytes: Int) -> Bool {
    count.withLock { count in
      if bytes > limit - count { return false }
      count += bytes
      return true
    }
  }

  fileprivate func give(_ bytes: Int) { count.withLock { $0 -= bytes } }
}

/// One body's part of them.
final class BodyShare: Sendable {
  private let budget: BodyBudget
  private let count = Mutex(0)

  init(of budget: BodyBudget) { self.budget = budget }

  /// Counts bytes that have arrived.
  /// - Throws: ``APIError`` 503 where others leave no room for them.
  func add(_ bytes: Int) throws {
    if !budget.take(bytes) {
      throw APIError(
        .serviceUnavailable,
        "the server reads as many bytes of requests as it may at once, \(budget.limit) (ServerConfiguration.maxBodyBytesInFlight); try again soon",
        code: "overloaded", headers: APIError.retry(after: 1))
    }
    count.withLock { $0 += bytes }
  }

  /// The body has been read, or is of no use any more.
  func end() {
    budget.give(
      count.withLock { count in
        defer { count = 0 }
        return count
      })
  }
}
#endif
