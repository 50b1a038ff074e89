// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletLibc
import MartletCore

/// Zeroed memory of this process, aligned to 64 bytes; from 2 MiB on mapped by itself, at a huge page's boundary, so that the kernel
/// can back it with huge pages and takes it back whole.
///
/// `@unchecked Sendable`: an address and a length; whoever owns the buffer orders access.
struct CPUMemory: @unchecked Sendable {
  let baseAddress: UnsafeMutableRawPointer
  /// Bytes of the mapping; 0 where the memory came from the allocator.
  private let mappedByteCount: Int

  private static let hugePage = 2 << 20

  /// - Throws: ``DeviceError/Code/outOfMemory`` where the system says no, or where the memory of the machine or of the process's control
  ///   group cannot hold it: Linux would say yes and kill the process at the first use.
  static func allocate(byteCount: Int) throws(DeviceError) -> CPUMemory {
    enforce(byteCount >= 0, "a buffer of \(byteCount) bytes")
    guard byteCount >= hugePage else {
      var pointer: UnsafeMutableRawPointer?
      guard posix_memalign(&pointer, 64, max(byteCount, 64)) == 0, let pointer else {
        throw .outOfMemory(device: "cpu", requested: byteCount, available: CPULimits().availableByteCount)
      }
      memset(pointer, 0, max(byteCount, 64))
      return CPUMemory(baseAddress: pointer, mappedByteCount: 0)
    }
    let available = CPULimits().availableByteCount
    guard byteCount <= available, let start = map(byteCount: byteCount) else {
      throw .outOfMemory(device: "cpu", requested: byteCount, available: available)
    }
    return CPUMemory(baseAddress: start, mappedByteCount: roundedUp(byteCount))
  }

  /// Has the system give memory now, by the threads of `pool`: each huge page that begins in it by one of them. What it holds stays.
  ///
  /// To clear a huge page takes a tenth of a millisecond, and threads that write to a new one at the same time clear one each, of which all but one
  /// are thrown away. Threads that pack neighbouring rows do just that, and so do those that write the first keys and values of a cache.
  ///
  /// - Precondition: nobody writes to the memory meanwhile.
  static func populate(_ start: UnsafeMutableRawPointer, byteCount: Int, on pool: WorkerPool) {
    let range = HugePages(start, byteCount: byteCount)
    guard range.count > 0 else { return }
    pool.run(taskCount: range.count) { task, _, _ in range.populate(task) }
  }

  /// The same of a piece for each node of the pool's ``WorkerPool/homes``, by workers of that node: its memory gives them.
  static func populateAtHome(_ pieces: [(start: UnsafeMutableRawPointer, byteCount: Int)], on pool: WorkerPool) {
    let ranges = pieces.map { HugePages($0.start, byteCount: $0.byteCount) }
    let firstTasks = ranges.reduce(into: [0]) { $0.append($0.last! + $1.count) }
    pool.runAtHome(firstTasks: firstTasks) { task in
      let node = firstTasks.lastIndex { $0 <= task }!
      ranges[node].populate(task - firstTasks[node])
    }
  }

  /// The huge pages that begin in a piece of memory.
  private struct HugePages: @unchecked Sendable {
    private let start: UnsafeMutableRawPointer
    private let byteCount: Int
    var count: Int { (byteCount + hugePage - 1) / hugePage }

    init(_ piece: UnsafeMutableRawPointer, byteCount: Int) {
      let lead = (hugePage - Int(UInt(bitPattern: piece) % UInt(hugePage))) % hugePage
      start = piece + lead
      self.byteCount = max(0, byteCount - lead)
    }

    func populate(_ index: Int) { martlet_populate_pages(start + index * hugePage, min(hugePage, byteCount - index * hugePage)) }
  }

  func free() {
    if mappedByteCount > 0 { munmap(baseAddress, mappedByteCount) } else { CMartletLibc.free(baseAddress) }
  }

  /// A mapping that starts at a huge page's boundary: one huge page too many, the ends given back.
  private static func map(byteCount: Int) -> UnsafeMutableRawPointer? {
    let wanted = roundedUp(byteCount), reserved = wanted + hugePage
    guard let mapping = martlet_map_memory(reserved) else { return nil }
    let lead = (hugePage - Int(UInt(bitPattern: mapping) % UInt(hugePage))) % hugePage
    let start = mapping + lead
    if lead > 0 { munmap(mapping, lead) }
    if lead < hugePage { munmap(start + wanted, hugePage - lead) }
    martlet_wish_for_huge_pages(start, wanted)  // where huge pages are off, small ones serve
    return start
  }

  private static func roundedUp(_ byteCount: Int) -> Int { (byteCount + hugePage - 1) / hugePage * hugePage }
}
