// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletKernels
import MartletCore
import Synchronization

/// The device's memory for coded inputs: one for all products, because a queue runs one at a time.
///
/// Who knows the rows of the largest product reserves it, on huge pages. Otherwise it grows when a product needs more than any before it, and never
/// shrinks: steps that repeat allocate nothing.
///
/// Products on several threads take turns here, as they do in the ``WorkerPool``.
final class CPUCodedInputs: Sendable {
  private struct Storage: ~Copyable {
    var slabs = UnsafeMutableRawBufferPointer(start: nil, count: 0)
    /// Where several products are one run: what they are, and their first tasks.
    var products = UnsafeMutableBufferPointer<martlet_product_arguments>(start: nil, count: 0)
    var firstTasks = UnsafeMutableBufferPointer<Int32>(start: nil, count: 0)
    /// Where the slabs lie, if they were reserved.
    var reserved: CPUMemory?
    /// The most bytes of slabs that a row has for a weight of this device.
    var slabBytesOfRow = 0

    deinit {
      releaseSlabs()
      products.deallocate()
      firstTasks.deallocate()
    }

    func releaseSlabs() {
      if let reserved { reserved.free() } else { slabs.deallocate() }
    }

    mutating func reserve(slabBytes count: Int, products productCount: Int) {
      if slabs.count < count || slabs.count == 0 {
        releaseSlabs()
        reserved = nil
        slabs = .allocate(byteCount: max(count, 64 << 10), alignment: 64)
      }
      if products.count < productCount {
        products.deallocate()
        firstTasks.deallocate()
        products = .allocate(capacity: productCount)
        firstTasks = .allocate(capacity: productCount)
      }
    }
  }

  private let storage = Mutex(Storage())

  /// Says how many bytes of slabs a row has for a weight.
  func expect(slabBytesOfRow: Int) { storage.withLock { $0.slabBytesOfRow = max($0.slabBytesOfRow, slabBytesOfRow) } }

  /// Makes memory for `rows` rows of the widest weight, and has the system give it.
  func reserve(rows: Int, on pool: WorkerPool) throws(DeviceError) {
    try storage.withLock { storage throws(DeviceError) in
      let byteCount = rows * storage.slabBytesOfRow
      guard byteCount > storage.slabs.count else { return }
      let memory = try CPUMemory.allocate(byteCount: byteCount)
      CPUMemory.populate(memory.baseAddress, byteCount: byteCount, on: pool)
      storage.releaseSlabs()
      storage.reserved = memory
      storage.slabs = UnsafeMutableRawBufferPointer(start: memory.baseAddress, count: byteCount)
    }
  }

  /// Calls `body` with at least as many bytes for slabs, aligned to a cache line, contents unspecified.
  func withSlabs(byteCount: Int, _ body: (UnsafeMutableRawPointer) -> Void) {
    storage.withLock { storage in
      storage.reserve(slabBytes: byteCount, products: 0)
      body(storage.slabs.baseAddress!)
    }
  }

  /// The same, with memory for the arguments of several products and for their first tasks.
  func withSlabs(
    byteCount: Int, products: Int,
    _ body: (UnsafeMutableRawPointer, UnsafeMutablePointer<martlet_product_arguments>, UnsafeMutablePointer<Int32>) -> Void
  ) {
    storage.withLock { storage in
      storage.reserve(slabBytes: byteCount, products: products)
      body(storage.slabs.baseAddress!, storage.products.baseAddress!, storage.firstTasks.baseAddress!)
    }
  }
}
