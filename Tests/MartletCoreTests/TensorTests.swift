// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore
import Synchronization
import Testing

/// Memory of the test's own with the numbers 0, 1, 2, … in it.
private func countingBuffer(_ count: Int, released: (@Sendable () -> Void)? = nil) -> DeviceBuffer {
  let memory = UnsafeMutableBufferPointer<Float>.allocate(capacity: count)
  _ = memory.initialize(from: (0..<count).map { Float($0) })
  let address = UInt(bitPattern: memory.baseAddress!)
  return DeviceBuffer(address: address, byteCount: count * 4, hostAddress: memory.baseAddress!) {
    UnsafeMutableRawPointer(bitPattern: address)!.deallocate()
    released?()
  }
}

extension Tensor {
  fileprivate var elements: [Float] { Array(unsafeHostPointer(to: Float.self)!) }
}

@Suite struct `A tensor` {
  @Test func `is a view of its buffer`() {
    let buffer = countingBuffer(24)
    let tensor = Tensor(buffer, byteOffset: 16, shape: Shape(4, 5), dataType: .f32)
    #expect(tensor.count == 20)
    #expect(tensor.byteCount == 80)
    #expect(tensor.address == buffer.address + 16)
    #expect(tensor.elements == (4..<24).map { Float($0) })
    tensor.unsafeHostPointer(to: Float.self)![0] = -1
    #expect(Tensor(buffer, shape: Shape(24), dataType: .f32).elements[4] == -1)
  }

  @Test func `gives rows, of every rank`() {
    let buffer = countingBuffer(24)
    #expect(Tensor(buffer, shape: Shape(24), dataType: .f32).rows(5..<7).elements == [5, 6])
    #expect(Tensor(buffer, shape: Shape(6, 4), dataType: .f32).rows(1..<3).elements == (4..<12).map { Float($0) })
    let cube = Tensor(buffer, shape: Shape(4, 3, 2), dataType: .f32).rows(3..<4)
    #expect(cube.shape == Shape(1, 3, 2))
    #expect(cube.elements == (18..<24).map { Float($0) })
    let four = Tensor(buffer, shape: Shape(2, 3, 2, 2), dataType: .f32).rows(1..<2)
    #expect(four.shape == Shape(1, 3, 2, 2))
    #expect(four.elements == (12..<24).map { Float($0) })
    #expect(cube.prefix(0).count == 0)
    // A view of a view counts from the view.
    #expect(Tensor(buffer, shape: Shape(6, 4), dataType: .f32).rows(2..<6).rows(1..<2).elements == [12, 13, 14, 15])
    #expect(Tensor(buffer, shape: Shape(0, 4), dataType: .f32).rows(0..<0).shape == Shape(0, 4))
  }

  @Test func `takes another shape of the same count`() {
    let tensor = Tensor(countingBuffer(24), shape: Shape(6, 4), dataType: .f32)
    #expect(tensor.rows(2..<5).reshaped(Shape(2, 2, 3)).elements == (8..<20).map { Float($0) })
  }

  @Test func `keeps its buffer alive, and only as long as it lives`() {
    let released = Atomic(0)
    var view: Tensor? = Tensor(
      countingBuffer(8) { released.wrappingAdd(1, ordering: .relaxed) }, shape: Shape(2, 4), dataType: .f32
    ).rows(1..<2)
    #expect(view!.elements == [4, 5, 6, 7])
    #expect(released.load(ordering: .relaxed) == 0)
    view = nil
    #expect(released.load(ordering: .relaxed) == 1)
  }

  @Test func `has no host pointer where the host cannot reach it`() {
    let buffer = DeviceBuffer(address: 4096, byteCount: 64, hostAddress: nil) {}
    #expect(Tensor(buffer, shape: Shape(16), dataType: .f32).unsafeHostPointer(to: Float.self) == nil)
  }

  @Test func `stops the program past its buffer, its rows, its count or its type`() async {
    await #expect(processExitsWith: .failure) { _ = Tensor(countingBuffer(8), byteOffset: 4, shape: Shape(8), dataType: .f32) }
    await #expect(processExitsWith: .failure) { _ = Tensor(countingBuffer(8), byteOffset: -4, shape: Shape(2), dataType: .f32) }
    await #expect(processExitsWith: .failure) { _ = Tensor(countingBuffer(8), shape: Shape(2, 4), dataType: .f32).rows(1..<3) }
    await #expect(processExitsWith: .failure) { _ = Tensor(countingBuffer(8), shape: Shape(8), dataType: .f32).reshaped(Shape(9)) }
    await #expect(processExitsWith: .failure) {
      _ = Tensor(countingBuffer(8), shape: Shape(8), dataType: .f32).unsafeHostPointer(to: UInt16.self)
    }
  }
}
