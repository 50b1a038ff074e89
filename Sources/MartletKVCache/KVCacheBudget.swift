// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// What one pool would like: the input of the budget's division.
struct KVPoolDemand {
  let key: KVPool.Key
  let layers: [Int]
  let bytesPerPage: Int
  /// The most pages that one sequence of the greatest length holds at a time.
  let pagesPerSequence: Int
}

/// Divides bytes among pools.
enum KVCacheBudget {
  /// The most pages that a sequence of `length` tokens, computed at most `chunk` tokens at a time, holds at one time.
  static func peakPages(length: Int, chunk: Int, window: Int?, pageSize: Int) -> Int {
    let whole = (length + pageSize - 1) / pageSize
    guard let window, length > 0 else { return whole }
    // A step sees its chunk and window − 1 tokens before it: that many neighbours, at any alignment to pages.
    let visible = min(window - 1 + max(1, min(chunk, length)), length)
    return min(whole, (visible + pageSize - 2) / pageSize + 1)
  }

  /// Pages of each pool.
  ///
  /// First the pools get what one sequence takes, as long as the budget can hold at all: no other division would hold a longer one. The
  /// rest is divided in proportion to what a sequence of the greatest length takes of each pool; what a pool cannot use (more than
  /// `maxSequences` such sequences) goes to the others.
  /// - Returns: nil where the bytes do not hold one page of each pool.
  static func pages(
    _ pools: [KVPoolDemand], budget: Int, maxSequenceLength: Int, maxSequences: Int, chunk: Int, pageSize: Int
  ) -> [Int]? {
    func peak(_ length: Int) -> [Int] {
      pools.map { peakPages(length: length, chunk: chunk, window: $0.key.window, pageSize: pageSize) }
    }
    func bytes(_ pages: [Int]) -> Int { zip(pages, pools).reduce(0) { $0 + $1.0 * $1.1.bytesPerPage } }
    guard bytes(peak(1)) <= budget else { return nil }
    // The longest sequence, by bisection: what a sequence takes never falls with its length.
    var fits = 1
    var tooLong = maxSequenceLength + 1
    while tooLong - fits > 1 {
      let middle = (fits + tooLong) / 2
      if bytes(peak(middle)) <= budget { fits = middle } else { tooLong = middle }
    }
    var pages = peak(fits)
    let most = pools.map { $0.pagesPerSequence * maxSequences }
    var remaining = budget - bytes(pages)
    var open = pools.indices.filter { pages[$0] < most[$0] }
    while !open.isEmpty {
      let sequenceBytes = open.reduce(0) { $0 + pools[$1].pagesPerSequence * pools[$1].bytesPerPage }
      let before = remaining
      for index in open {
        let share = Int(Double(before) * Double(pools[index].pagesPerSequence) / Double(sequenceBytes))
        let taken = min(share, most[index] - pages[index], remaining / pools[index].bytesPerPage)
        pages[index] += taken
        remaining -= taken * pools[index].bytesPerPage
      }
      let stillOpen = open.filter { pages[$0] < most[$0] }
      if stillOpen.count == open.count { break }
      open = stillOpen
    }
    return pages
  }
}
