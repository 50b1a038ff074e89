// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// An int32 table of the step: filled on the host, copied in place to the device. Both memories are allocated once, at the greatest size.
struct StepTable {
  let host: HostBuffer<Int32>
  /// The whole table on the device.
  let device: Tensor

  init(count: Int, on device: any Device) throws {
    host = try device.makeHostBuffer(of: Int32.self, count: max(count, 1))
    self.device = try device.makeTensor(Shape(max(count, 1)), .i32)
  }

  /// Copies the first `count` entries and returns a view of them.
  func upload(_ count: Int, on queue: any DeviceQueue) -> Tensor {
    queue.copy(host, count: count, to: device)
    return device.prefix(count)
  }
}
