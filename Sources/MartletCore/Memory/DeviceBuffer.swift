// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// A block of a device's memory, freed when the last reference goes.
///
/// Only devices make one. Everyone else holds a ``Tensor`` over it.
///
/// `@unchecked Sendable`: the buffer itself is immutable; its contents are ordered by the ``DeviceQueue`` that kernels run on.
public final class DeviceBuffer: @unchecked Sendable {
  /// The address in the device's own address space: for the CPU a pointer, for a GPU a device pointer.
  public let address: UInt
  /// Usable bytes from `address`.
  public let byteCount: Int
  /// The same memory as the host sees it; nil where the host cannot reach it.
  public let hostAddress: UnsafeMutableRawPointer?
  private let release: @Sendable () -> Void

  public init(address: UInt, byteCount: Int, hostAddress: UnsafeMutableRawPointer?, release: @escaping @Sendable () -> Void) {
    self.address = address
    self.byteCount = byteCount
    self.hostAddress = hostAddress
    self.release = release
  }

  deinit { release() }
}
