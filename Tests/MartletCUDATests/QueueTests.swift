// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletCUDAStandIn
import MartletCUDA
import MartletCore
import Testing

@Suite("A queue of a GPU")
struct QueueTests {
  @Test("runs in order, and later than it is called")
  func order() throws {
    let device = try StandIn.device(), queue = device.makeQueue()
    let values = try device.makeTensor(Shape(1, 4), .f32)
    let input = try device.makeHostBuffer(of: Float.self, count: 6), output = try device.makeHostBuffer(of: Float.self, count: 4)
    for index in 0..<6 { input[index] = Float(index + 1) }
    queue.copy(input, count: 4, to: values)
    device.tensorKernels.scale(values, by: 3, softCap: nil, on: queue)
    queue.copy(values, to: output)
    #expect((0..<4).map { output[$0] } == [0, 0, 0, 0], "nobody has waited")
    try queue.finish()
    #expect((0..<4).map { output[$0] } == [3, 6, 9, 12])
  }

  @Test("copies within the GPU")
  func copy() throws {
    let device = try StandIn.device(), queue = device.makeQueue()
    let values = try device.tensor([1, 2, 3, 4, 5, 6], Shape(3, 2))
    queue.copy(values.rows(0..<1), to: values.rows(2..<3))
    queue.wait()
    #expect(try device.values(values) == [1, 2, 3, 4, 1, 2])
  }

  @Test("refuses a copy onto itself, and queues and tensors of other devices")
  func contracts() async {
    await #expect(processExitsWith: .failure) {
      let device = try StandIn.device()
      let values = try device.makeTensor(Shape(3, 2), .f32)
      device.makeQueue().copy(values.rows(0..<2), to: values.rows(1..<3))
    }
    await #expect(processExitsWith: .failure) {
      let device = try StandIn.device(), other = try StandIn.device()
      device.tensorKernels.scale(try device.makeTensor(Shape(1, 2), .f32), by: 2, softCap: nil, on: other.makeQueue())
    }
    await #expect(processExitsWith: .failure) {
      let device = try StandIn.device(), queue = device.makeQueue()
      _ = try queue.record { queue.wait() }
    }
  }

  /// Copies in, computes, copies out.
  private func compute(
    _ device: CUDADevice, _ input: HostBuffer<Float>, _ values: Tensor, _ output: HostBuffer<Float>, on queue: any DeviceQueue
  ) {
    queue.copy(input, count: input.count, to: values)
    device.tensorKernels.scale(values, by: 0.5, softCap: 3, on: queue)
    device.tensorKernels.unitRows(values, on: queue)
    queue.copy(values, to: output)
  }

  @Test("records calls without running them, and runs them as often as it is told, on what is there then")
  func recording() throws {
    let device = try StandIn.device(), queue = device.makeQueue(), count = 12
    let values = try device.makeTensor(Shape(3, 4), .f32)
    let input = try device.makeHostBuffer(of: Float.self, count: count), output = try device.makeHostBuffer(of: Float.self, count: count)
    let recording = try #require(try queue.record { compute(device, input, values, output, on: queue) })
    try queue.finish()
    #expect((0..<count).allSatisfy { output[$0] == 0 }, "nothing ran")
    var random = SeededGenerator(seed: 5)
    for _ in 0..<3 {
      let numbers = random.floats(count, scale: 4)
      for (index, number) in numbers.enumerated() { input[index] = number }
      queue.replay(recording)
      try queue.finish()
      let replayed = (0..<count).map { output[$0].bitPattern }
      compute(device, input, values, output, on: queue)
      try queue.finish()
      #expect(replayed == (0..<count).map { output[$0].bitPattern })
    }
  }

  @Test("tells what cannot be recorded, and goes on")
  func failedRecording() throws {
    struct Stop: Error {}
    let device = try StandIn.device(), queue = device.makeQueue()
    let values = try device.tensor([1, 2], Shape(1, 2))
    #expect(throws: Stop.self) {
      _ = try queue.record {
        device.tensorKernels.scale(values, by: 2, softCap: nil, on: queue)
        throw Stop()
      }
    }
    martlet_stand_in_fail("cuGraphInstantiateWithFlags", 2)
    #expect(throws: DeviceError.self) { _ = try queue.record { device.tensorKernels.scale(values, by: 2, softCap: nil, on: queue) } }
    device.tensorKernels.scale(values, by: 5, softCap: nil, on: queue)
    try queue.finish()
    #expect(try device.values(values) == [5, 10])
  }

  @Test("of a device that runs what is called at once records nothing")
  func defaults() throws {
    final class Immediate: DeviceQueue {
      func copy<Element>(_ source: HostBuffer<Element>, count: Int, to destination: Tensor) {}
      func copy<Element>(_ source: Tensor, to destination: HostBuffer<Element>) {}
      func copy(_ source: Tensor, to destination: Tensor) {}
      func wait() {}
    }
    let queue: any DeviceQueue = Immediate()
    try queue.finish()
    #expect(try queue.record { Issue.record("the body must not run") } == nil)
  }
}
