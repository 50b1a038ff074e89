// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// Who shares what while a plan is made: scratch memory of the planner, allocated once.
///
/// Within one chunk the requests that hold the same pages are a linked list, whose first member leads it and is found by its first page.
final class AttentionCascade: Sendable {
  enum Membership: Equatable {
    case none
    case leader(alone: Bool)
    case follower
  }

  /// `[pages of the pool]`: the request that leads the page's chunk, or −1.
  private let leaders: HostBuffer<Int32>
  /// `[requests]`: the leader of the request in this chunk, or −1.
  private let leaderOf: HostBuffer<Int32>
  /// `[requests]`: the next member, or −1.
  private let next: HostBuffer<Int32>
  /// `[requests]`: of a leader, the last member.
  private let last: HostBuffer<Int32>
  /// `[requests]`: of a leader, the page it is found by.
  private let pageOf: HostBuffer<Int32>
  /// `[requests]`: 1 for those that share a chunk.
  private let shares: HostBuffer<Int32>
  /// `[requests]`: the merge of the first head of a request that joined, or −1; and its first row of states.
  private let merges: HostBuffer<Int32>
  private let stateRows: HostBuffer<Int32>
  /// `[1]`: requests of the batch.
  private let requestCount: HostBuffer<Int32>

  init(pageCount: Int, maxNumRequests: Int, on device: any Device) throws(DeviceError) {
    func buffer(_ count: Int) throws(DeviceError) -> HostBuffer<Int32> { try device.makeHostBuffer(of: Int32.self, count: max(count, 1)) }
    leaders = try buffer(pageCount)
    leaders.unsafeStorage.update(repeating: -1)
    leaderOf = try buffer(maxNumRequests)
    next = try buffer(maxNumRequests)
    last = try buffer(maxNumRequests)
    pageOf = try buffer(maxNumRequests)
    shares = try buffer(maxNumRequests)
    merges = try buffer(maxNumRequests)
    stateRows = try buffer(maxNumRequests)
    requestCount = try buffer(1)
  }

  // MARK: The batch

  func begin(numRequests: Int) {
    for request in 0..<numRequests {
      shares[request] = 0
      merges[request] = -1
    }
  }

  func markSharer(_ request: Int) { shares[request] = 1 }
  func isSharer(_ request: Int) -> Bool { shares[request] == 1 }

  func join(_ request: Int, merge: Int, stateRow: Int) {
    merges[request] = Int32(merge)
    stateRows[request] = Int32(stateRow)
  }

  func hasJoined(_ request: Int) -> Bool { merges[request] >= 0 }
  func merge(of request: Int) -> Int { Int(merges[request]) }
  func stateRow(of request: Int) -> Int { Int(stateRows[request]) }

  // MARK: One chunk

  func beginChunk(numRequests: Int) {
    requestCount[0] = Int32(numRequests)
    for request in 0..<numRequests { leaderOf[request] = -1 }
  }

  func leader(ofPage page: Int32) -> Int? { leaders[Int(page)] >= 0 ? Int(leaders[Int(page)]) : nil }

  func lead(_ page: Int32, _ request: Int) {
    leaders[Int(page)] = Int32(request)
    pageOf[request] = page
    leaderOf[request] = Int32(request)
    next[request] = -1
    last[request] = Int32(request)
  }

  func follow(_ leader: Int, _ request: Int) {
    leaderOf[request] = Int32(leader)
    next[Int(last[leader])] = Int32(request)
    next[request] = -1
    last[leader] = Int32(request)
  }

  /// Forgets the pages; the lists stay until the next chunk.
  func endChunk() {
    for request in 0..<Int(requestCount[0]) where leaderOf[request] == Int32(request) { leaders[Int(pageOf[request])] = -1 }
  }

  func membership(of request: Int) -> Membership {
    let leader = leaderOf[request]
    if leader < 0 { return .none }
    return leader == Int32(request) ? .leader(alone: next[request] < 0) : .follower
  }

  /// Calls `body` with the members of a group in the order of the batch, the leader first.
  func forEachMember(of leader: Int, _ body: (Int) -> Void) {
    var request = Int32(leader)
    while request >= 0 {
      body(Int(request))
      request = next[Int(request)]
    }
  }
}
