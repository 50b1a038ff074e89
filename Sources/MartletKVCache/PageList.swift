// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Page ids in the order of their coming, each at most once: append, remove and look at the oldest in constant time, in memory made once.
struct PageList {
  private var previous: [Int32]
  private var next: [Int32]
  /// The oldest and the newest; −1 where the list is empty.
  private(set) var first: Int32 = -1
  private var last: Int32 = -1
  private(set) var count = 0

  init(capacity: Int) {
    previous = Array(repeating: -1, count: capacity)
    next = Array(repeating: -1, count: capacity)
  }

  /// The page that came after this one; −1 after the newest.
  func page(after page: Int32) -> Int32 { next[Int(page)] }

  /// - Precondition: the page is not in the list.
  mutating func append(_ page: Int32) {
    previous[Int(page)] = last
    next[Int(page)] = -1
    if last < 0 { first = page } else { next[Int(last)] = page }
    last = page
    count += 1
  }

  /// - Precondition: the page is in the list.
  mutating func remove(_ page: Int32) {
    let (before, after) = (previous[Int(page)], next[Int(page)])
    if before < 0 { first = after } else { next[Int(before)] = after }
    if after < 0 { last = before } else { previous[Int(after)] = before }
    count -= 1
  }
}
