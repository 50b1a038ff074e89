// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// A stream of a GPU. Calls return before their work is done; the host's memory that a copy reads or writes stays as it is until ``finish()``.
///
/// What fails is told by ``finish()``; after it the queue does nothing more. Used by one thread at a time.
final class CUDAQueue: DeviceQueue {
  let context: CUDAContext
  /// 0 where it could not be made; then there is a failure.
  private(set) var stream: CUDAContext.Handle = 0
  private var failure: DeviceError?
  private var isRecording = false
  /// What kernels work in, made when a call first needs so much. Work runs in order, so that one is enough for all calls.
  private var scratch: DeviceBuffer?

  init(_ context: CUDAContext) {
    self.context = context
    do throws(DeviceError) { stream = try context.makeStream() } catch { failure = error }
  }

  deinit { if stream != 0 { context.destroy(stream: stream) } }

  func copy<Element>(_ source: HostBuffer<Element>, count: Int, to destination: Tensor) {
    enforce(count >= 0 && count <= source.count, "a copy of \(count) elements from a host buffer of \(source.count)")
    enforce(count <= destination.count, "a copy of \(count) elements to a tensor of \(destination.count)")
    enforce(
      MemoryLayout<Element>.stride == destination.dataType.byteCount, "\(Element.self) is not as wide as \(destination.dataType)")
    guard count > 0 else { return }
    run { (stream) throws(DeviceError) in
      try context.copyToDevice(
        source.unsafeStorage.baseAddress!, destination.address, byteCount: count * destination.dataType.byteCount, on: stream)
    }
  }

  func copy<Element>(_ source: Tensor, to destination: HostBuffer<Element>) {
    enforce(source.count <= destination.count, "a copy of \(source.count) elements to a host buffer of \(destination.count)")
    enforce(MemoryLayout<Element>.stride == source.dataType.byteCount, "\(Element.self) is not as wide as \(source.dataType)")
    guard source.count > 0 else { return }
    run { (stream) throws(DeviceError) in
      try context.copyToHost(source.address, destination.unsafeStorage.baseAddress!, byteCount: source.byteCount, on: stream)
    }
  }

  func copy(_ source: Tensor, to destination: Tensor) {
    enforce(source.dataType == destination.dataType, "a copy of \(source.dataType) elements to a tensor of \(destination.dataType)")
    enforce(source.count <= destination.count, "a copy of \(source.count) elements to a tensor of \(destination.count)")
    let distance = max(source.address, destination.address) - min(source.address, destination.address)
    enforce(distance >= UInt(source.byteCount), "a copy of \(source.byteCount) bytes to a place \(distance) bytes from them")
    guard source.count > 0 else { return }
    run { (stream) throws(DeviceError) in
      try context.copy(source.address, to: destination.address, byteCount: source.byteCount, on: stream)
    }
  }

  /// Ends the process with the failure's sentence where something failed: whoever calls this reads results next.
  func wait() {
    do { try finish() } catch { fatalError("\(error)") }
  }

  func finish() throws(DeviceError) {
    enforce(!isRecording, "a queue that records cannot be waited for")
    run { (stream) throws(DeviceError) in try context.synchronize(stream) }
    if let failure { throw failure }
  }

  func record(_ body: () throws -> Void) throws -> (any DeviceRecording)? {
    enforce(!isRecording, "a queue that records cannot begin another recording")
    if let failure { throw failure }
    try context.beginCapture(stream)
    isRecording = true
    var bodyError: (any Error)?
    do { try body() } catch { bodyError = error }
    isRecording = false
    let result = Result { () throws(DeviceError) in try context.endCapture(stream) }
    if let error = bodyError ?? failure {
      if case .success(let graph) = result { context.destroy(graph: graph) }
      throw error
    }
    return CUDARecording(try result.get(), context)
  }

  func replay(_ recording: any DeviceRecording) {
    guard let recording = recording as? CUDARecording, recording.context === context else {
      fatalError("a recording of another device was given to \(context.properties.name)")
    }
    run { (stream) throws(DeviceError) in try context.launch(graph: recording.graph, on: stream) }
  }

  /// Calls `body` unless something has failed before, and keeps its failure.
  func run(_ body: (CUDAContext.Handle) throws(DeviceError) -> Void) {
    guard failure == nil else { return }
    do throws(DeviceError) { try body(stream) } catch { failure = error }
  }

  /// A step that needs a kernel which is not there fails, and nothing reads its results.
  func refuse(_ what: String) {
    run { (_) throws(DeviceError) in throw .missingKernel(device: context.properties.name, what) }
  }

  /// Memory for one call's kernels, at least as much as asked for. What it holds is gone with the next call.
  func scratch(byteCount: Int) throws(DeviceError) -> UInt {
    if let scratch, scratch.byteCount >= byteCount { return scratch.address }
    guard !isRecording else {
      throw DeviceError(
        .cudaFailed,
        "device \(context.properties.name): a recording needs \(byteCount) bytes of scratch memory and its queue has "
          + "\(scratch?.byteCount ?? 0); run the same calls once before they are recorded")
    }
    scratch = nil
    let buffer = try context.makeBuffer(byteCount: byteCount)
    scratch = buffer
    return buffer.address
  }

  /// The queue for kernels of a device.
  /// - Precondition: it is one of that device's.
  static func of(_ queue: any DeviceQueue, on context: CUDAContext, _ caller: StaticString) -> CUDAQueue {
    guard let queue = queue as? CUDAQueue, queue.context === context else {
      fatalError("\(caller): a queue of another device was given to \(context.properties.name)")
    }
    return queue
  }
}

/// A graph of copies and kernels, used by the thread of its queue.
final class CUDARecording: DeviceRecording {
  let context: CUDAContext
  let graph: CUDAContext.Handle

  init(_ graph: CUDAContext.Handle, _ context: CUDAContext) {
    self.graph = graph
    self.context = context
  }

  deinit { context.destroy(graph: graph) }
}

extension CUDAContext {
  /// Zeroed memory, given back when the last reference goes.
  func makeBuffer(byteCount: Int) throws(DeviceError) -> DeviceBuffer {
    let address = try allocate(byteCount: byteCount)
    return DeviceBuffer(address: address, byteCount: byteCount, hostAddress: nil) { [self] in free(address) }
  }
}
