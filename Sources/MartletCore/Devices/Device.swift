// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Where tensors live and kernels run: memory, ordered queues, two kernel tables and `service(_:)`.
///
/// Backends and models are plain Swift that calls the tables; a new device is one module that fills them.
/// A device is made once, at the composition root, and shared.
public protocol Device: AnyObject, Sendable {
  /// "cpu", "cuda:0".
  var name: String { get }
  /// What a person wants to know of it: the processor's features in use, the threads.
  var summary: String { get }
  /// Bytes of device memory that can still be allocated, as far as the device can tell.
  var availableByteCount: Int { get }
  /// How many pieces of work run at the same time, such as threads or multiprocessors: a hint for cutting work, which never changes a result. By default 1.
  var workerCount: Int { get }

  var tensorKernels: any TensorKernels { get }
  var attentionKernels: any AttentionKernels { get }

  /// Zeroed memory, aligned to at least 64 bytes.
  /// - Throws: ``DeviceError/Code/outOfMemory`` with the sizes.
  func makeBuffer(byteCount: Int) throws(DeviceError) -> DeviceBuffer
  /// Zeroed host memory that copies need not stage.
  func makeHostBuffer<Element>(of type: Element.Type, count: Int) throws(DeviceError) -> HostBuffer<Element>
  /// A new queue; work on one queue runs in order.
  func makeQueue() -> any DeviceQueue
  /// What products of this device can be asked for, ``Activations/exact`` first. By default nothing else.
  var activations: [Activations] { get }
  /// Brings the weights, stacked by rows, into the order that this device's kernels read.
  ///
  /// Products with them round their rows as `activations` says; `embed` reads the same values whatever it says. Weights of one layer's experts or heads,
  /// which go into one call, have the same.
  /// - Throws: ``DeviceError/Code/unsupportedWeight`` where the device has no kernel for a format or a shape,
  ///   ``DeviceError/Code/unsupportedActivations`` for what is not among ``activations``.
  func prepare(_ parts: [Weight], activations: Activations) throws(DeviceError) -> any PreparedWeight
  /// Bytes that a matrix takes once it is prepared, alone or stacked.
  func preparedByteCount(_ format: WeightFormat, rows: Int, columns: Int) -> Int
  /// Has the system give a tensor's memory now rather than at its first use: who makes memory for every step does so before the first is waited for.
  /// What the tensor holds stays. By default nothing, as of memory that is there once it is made.
  /// - Precondition: no kernel runs on the tensor.
  func populate(_ tensor: Tensor)
  /// Makes what the device's own kernels work in when `productRows` rows at a time are multiplied by the weights prepared so far. By default
  /// nothing; without it, memory is made when a product first needs it.
  func reserve(productRows: Int) throws(DeviceError)
  /// What only this device has, by type; nil where it has none. An outside backend finds its worker pool or module loader here.
  func service<Service>(_ type: Service.Type) -> Service?
}

/// An ordered stream of work. Kernels and copies on one queue run in the order in which they were called; the CPU runs them at once.
public protocol DeviceQueue: AnyObject {
  /// Copies the first `count` elements of `source` into the first `count` of `destination`.
  func copy<Element>(_ source: HostBuffer<Element>, count: Int, to destination: Tensor)
  /// Copies all elements of `source` into the first of `destination`.
  func copy<Element>(_ source: Tensor, to destination: HostBuffer<Element>)
  /// Copies all elements of `source` into the first of `destination`, on the device.
  /// - Precondition: both are of one data type, and share no byte.
  func copy(_ source: Tensor, to destination: Tensor)
  /// Returns when everything called before has finished. Where some of it failed it ends the process with the reason, as who waits reads results next.
  func wait()
  /// The same, for whoever can go on without: throws what failed. A queue that failed does no more. By default ``wait()``, as of queues on which nothing
  /// fails.
  func finish() throws(DeviceError)
  /// Calls `body` and records what it puts on this queue, which is not run; ``replay(_:)`` runs it. By default nil without a call of `body`, as of queues
  /// that run what is called at once.
  ///
  /// Addresses and sizes are those of the recording, contents those of the replay, of host buffers too. Whoever holds a recording holds the memory that it
  /// names. `body` waits for nothing and makes no buffers.
  /// - Throws: what `body` throws, and ``DeviceError`` where something cannot be recorded.
  func record(_ body: () throws -> Void) throws -> (any DeviceRecording)?
  /// Runs what was recorded, after everything called before.
  /// - Precondition: the recording is one of this device's.
  func replay(_ recording: any DeviceRecording)
}

/// Calls on a queue that were recorded, to be run as one.
public protocol DeviceRecording: AnyObject {}

extension DeviceQueue {
  public func finish() throws(DeviceError) { wait() }
  public func record(_ body: () throws -> Void) throws -> (any DeviceRecording)? { nil }
  public func replay(_ recording: any DeviceRecording) {
    fatalError("a recording of another device was given to a queue that records nothing")
  }
}

extension Device {
  public var workerCount: Int { 1 }
  public func populate(_ tensor: Tensor) {}
  public func reserve(productRows: Int) throws(DeviceError) {}
  public var activations: [Activations] { [.exact] }

  /// Weights whose products are ``Activations/exact``.
  public func prepare(_ parts: [Weight]) throws(DeviceError) -> any PreparedWeight { try prepare(parts, activations: .exact) }

  /// A zeroed tensor of its own buffer.
  public func makeTensor(_ shape: Shape, _ dataType: DataType) throws(DeviceError) -> Tensor {
    Tensor(try makeBuffer(byteCount: max(shape.count, 1) * dataType.byteCount), shape: shape, dataType: dataType)
  }
}
