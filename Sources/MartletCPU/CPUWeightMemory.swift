// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore
import Synchronization

/// Where a device's packed weights lie: one behind the other in chunks of huge pages.
///
/// Most matrices of a small model, and those of a model's experts, are smaller than a huge page or end within one. Each with memory of its own
/// would lie on small pages, or leave half of a huge one unused; here neighbours share it. A chunk is free when its last weight is.
///
/// Each node has chunks of its own: which memory they are is decided by who touches them first, in pages of 2 MiB (where the system has no huge pages
/// to give, of 4 KiB). A piece below 64 KiB is touched by whoever asks for it.
final class CPUWeightMemory: Sendable {
  /// A chunk, kept by the weights in it.
  final class Chunk: Sendable {
    let memory: CPUMemory
    let byteCount: Int

    init(byteCount: Int) throws(DeviceError) {
      memory = try CPUMemory.allocate(byteCount: byteCount)
      self.byteCount = byteCount
    }

    deinit { memory.free() }
  }

  /// The memory of one weight: zeroed, aligned to 64 bytes.
  struct Piece: Sendable {
    fileprivate let chunk: Chunk
    fileprivate let offset: Int

    var baseAddress: UnsafeMutableRawPointer { chunk.memory.baseAddress + offset }
  }

  private struct Current {
    /// The chunk that the next weight goes to; its weights keep it.
    weak var chunk: Chunk?
    var used = 0
  }

  private static let chunkByteCount = 64 << 20
  /// A weight below this is not worth a huge page: models of tests have only such.
  private static let leastShared = 64 << 10
  private let currents: [Mutexed]

  /// A node's, behind a lock.
  private final class Mutexed: Sendable {
    let current = Mutex(Current())
  }

  init(nodeCount: Int = 1) { currents = (0..<nodeCount).map { _ in Mutexed() } }

  /// - Parameter node: the place of the node whose it is.
  /// - Throws: ``DeviceError/Code/outOfMemory``.
  func allocate(byteCount: Int, node: Int = 0) throws(DeviceError) -> Piece {
    // A chunk's last pages are wasted at most, which is little of a weight that fills half of one.
    guard byteCount >= Self.leastShared, byteCount <= Self.chunkByteCount / 2 else {
      return Piece(chunk: try Chunk(byteCount: byteCount), offset: 0)
    }
    return try currents[node].current.withLock { (current) throws(DeviceError) in
      if let chunk = current.chunk, current.used + byteCount <= chunk.byteCount {
        defer { current.used += (byteCount + 63) / 64 * 64 }
        return Piece(chunk: chunk, offset: current.used)
      }
      // Where memory is too short for a chunk, it may still do for the weight.
      guard let chunk = try? Chunk(byteCount: Self.chunkByteCount) else { return Piece(chunk: try Chunk(byteCount: byteCount), offset: 0) }
      current.chunk = chunk
      current.used = (byteCount + 63) / 64 * 64
      return Piece(chunk: chunk, offset: 0)
    }
  }
}
