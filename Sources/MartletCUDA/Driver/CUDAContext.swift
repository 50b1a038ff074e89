// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

package import MartletCore

/// One GPU in use: its primary context, which this process shares with whatever else of it uses the GPU.
///
/// Every call makes the context the thread's own first: a thread may have another, of somebody else's. Errors name the call.
///
/// Whatever ends a thing here (memory, streams, modules) does not say that it failed: it fails only where the context is lost, and then there is nothing
/// left to end.
package final class CUDAContext: Sendable {
  package typealias Handle = UInt

  package let driver: CUDADriver
  package let properties: CUDAProperties
  private let context: Handle
  /// For what must be finished when a call returns, such as zeroing memory.
  private let ownStream: Handle

  private var calls: CUDADriverCalls { driver.calls }

  package init(_ driver: CUDADriver, ordinal: Int) throws(DeviceError) {
    let properties = try driver.properties(of: ordinal), calls = driver.calls
    var context: Handle = 0, stream: Handle = 0
    func check(_ result: Int32, _ call: StaticString) throws(DeviceError) {
      if result != 0 { throw calls.failure(result, call, device: properties.name) }
    }
    try check(calls.primaryContextRetain(&context, properties.handle), "cuDevicePrimaryCtxRetain")
    do throws(DeviceError) {
      try check(calls.contextSetCurrent(context), "cuCtxSetCurrent")
      try check(calls.streamCreate(&stream, Self.nonBlocking), "cuStreamCreate")
    } catch {
      _ = calls.primaryContextRelease(properties.handle)
      throw error
    }
    self.driver = driver
    self.properties = properties
    self.context = context
    ownStream = stream
  }

  deinit {
    _ = calls.contextSetCurrent(context)
    _ = calls.streamDestroy(ownStream)
    _ = calls.primaryContextRelease(properties.handle)
  }

  /// CU_STREAM_NON_BLOCKING: streams that wait for no other, not even for the one that everybody has.
  private static let nonBlocking: UInt32 = 1

  /// Calls `body` with the context as the thread's own.
  private func call(_ name: StaticString, _ body: (CUDADriverCalls) -> Int32) throws(DeviceError) {
    var result = calls.contextSetCurrent(context)
    if result != 0 { throw calls.failure(result, "cuCtxSetCurrent", device: properties.name) }
    result = body(calls)
    if result != 0 { throw calls.failure(result, name, device: properties.name) }
  }

  // MARK: Memory

  /// Bytes of the GPU's memory that are free, whoever uses the others.
  package func freeByteCount() throws(DeviceError) -> Int {
    var free = 0, total = 0
    try call("cuMemGetInfo") { $0.memGetInfo(&free, &total) }
    return free
  }

  /// Zeroed memory of the GPU, aligned to 256 bytes.
  package func allocate(byteCount: Int) throws(DeviceError) -> UInt {
    var address: UInt = 0, isFull = false
    let wanted = max(byteCount, 1)
    do throws(DeviceError) {
      try call("cuMemAlloc") {
        let result = $0.memAlloc(&address, wanted)
        isFull = result == Self.outOfMemory
        return result
      }
    } catch {
      throw isFull ? .outOfMemory(device: properties.name, requested: byteCount, available: try freeByteCount()) : error
    }
    do throws(DeviceError) {
      try call("cuMemsetD8Async") { [ownStream] in $0.memsetD8Async(address, 0, wanted, ownStream) }
      try synchronize(ownStream)
    } catch {
      free(address)
      throw error
    }
    return address
  }

  /// Gives memory back, once the kernels that run on it have ended.
  package func free(_ address: UInt) { try? call("cuMemFree") { $0.memFree(address) } }

  /// Zeroed memory of the host from which and to which copies need no stage.
  package func allocateHost(byteCount: Int) throws(DeviceError) -> UnsafeMutableRawPointer {
    var memory: UnsafeMutableRawPointer?, isFull = false
    let wanted = max(byteCount, 1)
    do throws(DeviceError) {
      try call("cuMemAllocHost") {
        let result = $0.memAllocHost(&memory, wanted)
        isFull = result == Self.outOfMemory
        return result
      }
    } catch {
      guard isFull else { throw error }
      throw DeviceError(
        .outOfMemory,
        "device \(properties.name): the system refused \(byteCount) bytes of pinned host memory; lower the requests or tokens of a step, or "
          + "raise the limit on locked memory (`ulimit -l`)",
        requestedByteCount: byteCount)
    }
    guard let memory else { throw DeviceError(.cudaFailed, "device \(properties.name): cuMemAllocHost gave no memory") }
    memory.initializeMemory(as: UInt8.self, repeating: 0, count: wanted)
    return memory
  }

  /// Gives host memory back, once the copies that use it have ended.
  package func freeHost(_ memory: UnsafeMutableRawPointer) {
    // Unlike cuMemFree it is not documented to wait.
    try? call("cuCtxSynchronize") { $0.contextSynchronize() }
    try? call("cuMemFreeHost") { $0.memFreeHost(memory) }
  }

  /// CUDA_ERROR_OUT_OF_MEMORY.
  private static let outOfMemory: Int32 = 2

  package func copyToDevice(_ source: UnsafeRawPointer, _ destination: UInt, byteCount: Int, on stream: Handle) throws(DeviceError) {
    try call("cuMemcpyHtoDAsync") { $0.memcpyHtoDAsync(destination, source, byteCount, stream) }
  }

  package func copyToHost(_ source: UInt, _ destination: UnsafeMutableRawPointer, byteCount: Int, on stream: Handle) throws(DeviceError) {
    try call("cuMemcpyDtoHAsync") { $0.memcpyDtoHAsync(destination, source, byteCount, stream) }
  }

  package func copy(_ source: UInt, to destination: UInt, byteCount: Int, on stream: Handle) throws(DeviceError) {
    try call("cuMemcpyDtoDAsync") { $0.memcpyDtoDAsync(destination, source, byteCount, stream) }
  }

  /// Copies to the GPU and returns when it is done; the source may be any memory.
  package func upload(_ source: UnsafeRawBufferPointer, to destination: UInt) throws(DeviceError) {
    guard let start = source.baseAddress, source.count > 0 else { return }
    try copyToDevice(start, destination, byteCount: source.count, on: ownStream)
    try synchronize(ownStream)
  }

  // MARK: Streams

  package func makeStream() throws(DeviceError) -> Handle {
    var stream: Handle = 0
    try call("cuStreamCreate") { $0.streamCreate(&stream, Self.nonBlocking) }
    return stream
  }

  package func destroy(stream: Handle) { try? call("cuStreamDestroy") { $0.streamDestroy(stream) } }

  /// Returns when everything on the stream has ended; throws what failed of it.
  package func synchronize(_ stream: Handle) throws(DeviceError) { try call("cuStreamSynchronize") { $0.streamSynchronize(stream) } }

  // MARK: Kernels

  /// - Parameter image: a cubin.
  package func loadModule(_ image: [UInt8]) throws(DeviceError) -> Handle {
    var module: Handle = 0
    try call("cuModuleLoadData") { $0.moduleLoadData(&module, image) }
    return module
  }

  package func unload(module: Handle) { try? call("cuModuleUnload") { $0.moduleUnload(module) } }

  package func function(_ name: UnsafePointer<CChar>, in module: Handle) throws(DeviceError) -> Handle {
    var function: Handle = 0
    try call("cuModuleGetFunction") { $0.moduleGetFunction(&function, module, name) }
    return function
  }

  /// Lets launches of a kernel ask for so much shared memory; without it they get ``freelySharedByteCount``.
  package func allow(_ function: Handle, sharedByteCount: Int) throws(DeviceError) {
    // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES.
    try call("cuFuncSetAttribute") { $0.functionSetAttribute(function, 8, Int32(sharedByteCount)) }
  }

  /// Shared memory that a block gets without asking before.
  package static let freelySharedByteCount = 48 << 10

  /// Puts a kernel on a stream.
  /// - Parameter argument: the kernel's one argument, a struct, which is copied before the call returns.
  package func launch(
    _ function: Handle, grid: (x: UInt32, y: UInt32, z: UInt32), threads: UInt32, sharedByteCount: UInt32, argument: UnsafeRawPointer,
    on stream: Handle
  ) throws(DeviceError) {
    var arguments: UnsafeMutableRawPointer? = UnsafeMutableRawPointer(mutating: argument)
    try call("cuLaunchKernel") {
      $0.launchKernel(function, grid.x, grid.y, grid.z, threads, 1, 1, sharedByteCount, stream, &arguments, nil)
    }
  }

  // MARK: Graphs

  /// From now on calls on the stream are recorded and not run.
  package func beginCapture(_ stream: Handle) throws(DeviceError) {
    // CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do meanwhile is not in the way.
    try call("cuStreamBeginCapture") { $0.streamBeginCapture(stream, 1) }
  }

  /// What was called on the stream since, ready to be run.
  package func endCapture(_ stream: Handle) throws(DeviceError) -> Handle {
    var graph: Handle = 0, executable: Handle = 0
    try call("cuStreamEndCapture") { $0.streamEndCapture(stream, &graph) }
    defer { _ = calls.graphDestroy(graph) }
    try call("cuGraphInstantiateWithFlags") { $0.graphInstantiate(&executable, graph, 0) }
    return executable
  }

  package func launch(graph: Handle, on stream: Handle) throws(DeviceError) { try call("cuGraphLaunch") { $0.graphLaunch(graph, stream) } }

  package func destroy(graph: Handle) { try? call("cuGraphExecDestroy") { $0.graphExecDestroy(graph) } }
}
