// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletKernels
import Synchronization

/// The device's memory for coded inputs: one for all products, because a queue runs one at a time.
///
/// It grows when a product needs more than any before it, and never shrinks: steps that repeat allocate nothing.
///
/// Products on several threads take turns here, as they do in the ``WorkerPool``.
final class CPUCodedInputs: Sendable {
  private struct Storage: ~Copyable {
    var slabs = UnsafeMutableBufferPointer<martlet_input_slab>(start: nil, count: 0)
    deinit { slabs.deallocate() }
  }

  private let storage = Mutex(Storage())

  /// Calls `body` with memory for at least `count` slabs, aligned to a cache line, contents unspecified.
  func withSlabs(count: Int, _ body: (UnsafeMutablePointer<martlet_input_slab>) -> Void) {
    storage.withLock { storage in
      if storage.slabs.count < count {
        storage.slabs.deallocate()
        let capacity = max(count, 64)
        let memory = UnsafeMutableRawPointer.allocate(byteCount: capacity * MemoryLayout<martlet_input_slab>.stride, alignment: 64)
        storage.slabs = UnsafeMutableBufferPointer(
          start: memory.bindMemory(to: martlet_input_slab.self, capacity: capacity), count: capacity)
      }
      body(storage.slabs.baseAddress!)
    }
  }
}
