// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Lists of numbers, each of which is there once: equal lists have equal numbers, from 0 in the order in which they came.
struct ListTable: Sendable {
  private(set) var storage: [Int32] = []
  /// Where each list begins, and where the last one ends.
  private(set) var starts: [Int32] = [0]
  private var slots = [Int32](repeating: -1, count: 256)

  var count: Int { starts.count - 1 }
  var byteCount: Int { (storage.count + starts.count + slots.count) * 4 }

  func range(_ list: Int32) -> Range<Int> { Int(starts[Int(list)])..<Int(starts[Int(list) + 1]) }

  mutating func intern(_ list: [Int32]) -> Int32 {
    var slot = Self.hash(list[...]) & (slots.count - 1)
    while slots[slot] >= 0 {
      let range = range(slots[slot])
      if range.count == list.count && storage[range].elementsEqual(list) { return slots[slot] }
      slot = (slot + 1) & (slots.count - 1)
    }
    let number = Int32(count)
    slots[slot] = number
    storage.append(contentsOf: list)
    starts.append(Int32(storage.count))
    if count * 2 > slots.count { grow() }
    return number
  }

  private static func hash(_ list: ArraySlice<Int32>) -> Int {
    var hash: UInt64 = 0xCBF2_9CE4_8422_2325
    for value in list {
      hash = (hash ^ UInt64(UInt32(bitPattern: value))) &* 0x9E37_79B9_7F4A_7C15
      hash ^= hash >> 29
    }
    return Int(truncatingIfNeeded: hash ^ hash >> 32)
  }

  private mutating func grow() {
    slots = [Int32](repeating: -1, count: slots.count * 2)
    for list in 0..<count {
      var slot = Self.hash(storage[range(Int32(list))]) & (slots.count - 1)
      while slots[slot] >= 0 { slot = (slot + 1) & (slots.count - 1) }
      slots[slot] = Int32(list)
    }
  }
}
