// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletKernels
public import MartletCore

/// What a CPU device can do at best, measured with all of its threads: the roofs that a kernel's speed is compared with.
///
/// The loops are those of the device's own instruction set. A machine's clock and its neighbours change from one minute to the next, so roofs
/// are measured in the same run as what is compared with them.
public struct CPUCeilings: Sendable {
  /// What is done as fast as possible.
  public enum Operation: Sendable, Hashable {
    /// Fused multiply-adds of float32.
    case f32
    /// Dot products of bf16 pairs.
    case bf16
    /// Products of bf16 tiles.
    case bf16Tiles
    /// Dot products of int16 pairs.
    case i16
    /// Dot products of four int8.
    case i8
    /// e4m3 in the first-level cache, widened and multiplied with so many rows (1…6).
    case widenedE4M3(rows: Int)
    /// int8 in the first-level cache, widened and multiplied with so many rows (1…6).
    case widenedI8(rows: Int)
  }

  private let device: CPUDevice
  private let clock: any Clock<Duration>
  private let cached: HostMemoryOwner

  private var kernels: martlet_ceiling_kernels { device.instructionSet.table.pointee.ceilings }
  /// Bytes that the decoding loops go through in one pass.
  private static let cachedByteCount = 8192

  /// - Parameter clock: what the measuring goes by.
  public init(_ device: CPUDevice, clock: any Clock<Duration>) throws(DeviceError) {
    self.device = device
    self.clock = clock
    cached = HostMemoryOwner(try CPUMemory.allocate(byteCount: Self.cachedByteCount))
  }

  /// Multiplications and additions a second, counted apart: the best of `tries`, each of about `seconds`.
  /// - Returns: nil where the instruction set has no instruction for it.
  public func operationsPerSecond(_ operation: Operation, tries: Int = 5, seconds: Double = 0.02) -> Double? {
    guard let (function, operations, rows) = loop(operation) else { return nil }
    let threads = device.pool.threadCount
    func time(_ passes: Int) -> Double {
      let arguments = martlet_ceiling_arguments(
        passes: Int64(passes), data: UnsafePointer(cached.memory.baseAddress.assumingMemoryBound(to: UInt8.self)), bytes_per_task: 0,
        rows: Int32(rows))
      return clock.seconds { device.pool.run(taskCount: threads, function: function, with: arguments) }
    }
    var passes = 1000
    while time(passes) < seconds / 4 { passes *= 2 }
    passes *= 4
    let best = (0..<tries).map { _ in time(passes) }.min() ?? .infinity
    return Double(passes * operations * threads) / best
  }

  private func loop(_ operation: Operation) -> (martlet_task_function, operations: Int, rows: Int)? {
    let kernels = kernels
    func decoding(_ function: martlet_task_function?, _ rows: Int) -> (martlet_task_function, operations: Int, rows: Int)? {
      enforce((1...6).contains(rows), "a decoding loop of \(rows) rows; 1 to 6 are possible")
      return function.map { ($0, 2 * rows * Self.cachedByteCount, rows) }
    }
    return switch operation {
    case .f32: kernels.multiply_f32.map { ($0, Int(kernels.operations_f32), 0) }
    case .bf16: kernels.multiply_bf16.map { ($0, Int(kernels.operations_bf16), 0) }
    case .bf16Tiles: kernels.multiply_bf16_tiles.map { ($0, Int(kernels.operations_bf16_tiles), 0) }
    case .i16: kernels.multiply_i16.map { ($0, Int(kernels.operations_i16), 0) }
    case .i8: kernels.multiply_i8.map { ($0, Int(kernels.operations_i8), 0) }
    case .widenedE4M3(let rows): decoding(kernels.decode_e4m3, rows)
    case .widenedI8(let rows): decoding(kernels.decode_i8, rows)
    }
  }

  /// Memory to be read, of the size that a kernel works on.
  public func makeReader(byteCount: Int) throws(DeviceError) -> Reader { try Reader(device, clock: clock, byteCount: byteCount) }

  /// Reads a buffer again and again: what memory, or the cache that the buffer fits, gives at best.
  public struct Reader: Sendable {
    private let device: CPUDevice
    private let clock: any Clock<Duration>
    private let owner: HostMemoryOwner
    private let taskCount: Int
    private let bytesPerTask: Int

    fileprivate init(_ device: CPUDevice, clock: any Clock<Duration>, byteCount: Int) throws(DeviceError) {
      self.device = device
      self.clock = clock
      // Slices large enough to stream, small enough to share out evenly.
      taskCount = max(device.pool.threadCount, min(byteCount >> 20, 64 * device.pool.threadCount))
      bytesPerTask = max(512, byteCount / taskCount / 512 * 512)
      owner = HostMemoryOwner(try CPUMemory.allocate(byteCount: taskCount * bytesPerTask))
      owner.memory.baseAddress.initializeMemory(as: UInt8.self, repeating: 1, count: taskCount * bytesPerTask)
    }

    /// Bytes a second of one pass, or of as many as take a millisecond.
    public func bytesPerSecond() -> Double {
      let passes = max(1, (64 << 20) / (taskCount * bytesPerTask))
      let arguments = martlet_ceiling_arguments(
        passes: Int64(passes), data: UnsafePointer(owner.memory.baseAddress.assumingMemoryBound(to: UInt8.self)),
        bytes_per_task: Int64(bytesPerTask), rows: 0)
      let function = device.instructionSet.table.pointee.ceilings.read!
      let time = clock.seconds { device.pool.run(taskCount: taskCount, function: function, with: arguments) }
      return Double(passes * taskCount * bytesPerTask) / time
    }
  }
}

/// Frees its memory when nobody reads it any more.
private final class HostMemoryOwner: Sendable {
  let memory: CPUMemory
  init(_ memory: CPUMemory) { self.memory = memory }
  deinit { memory.free() }
}

extension Clock<Duration> {
  fileprivate func seconds(_ body: () -> Void) -> Double {
    let time = measure(body)
    return Double(time.components.seconds) + Double(time.components.attoseconds) * 1e-18
  }
}
