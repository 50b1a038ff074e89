// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletCUDAKernels
import MartletCore
import Synchronization

/// The kernels of this package on one GPU: a program is loaded when one of its kernels is first needed, and stays.
final class KernelLibrary: Sendable {
  private let context: CUDAContext
  /// The machine code of a program.
  private let image: @Sendable (KernelProgram) throws(DeviceError) -> [UInt8]
  private let state = Mutex(State())

  private struct State {
    struct Kernel {
      var function: CUDAContext.Handle = 0
      /// Shared memory that its launches may ask for.
      var sharedByteCount = CUDAContext.freelySharedByteCount
    }

    var modules: [String: CUDAContext.Handle] = [:]
    /// By `martlet_cuda_kernel_id`; a function of 0 was not needed yet.
    var kernels = [Kernel](repeating: Kernel(), count: Int(martlet_cuda_kernel_count.rawValue))
  }

  init(_ context: CUDAContext, image: @escaping @Sendable (KernelProgram) throws(DeviceError) -> [UInt8]) {
    self.context = context
    self.image = image
  }

  deinit { state.withLock { $0.modules.values.forEach { context.unload(module: $0) } } }

  /// Loads a kernel now, and all of its program, so that no step waits for it later, and its failure is told where one can do something about it.
  func load(_ kernel: Int32) throws(DeviceError) {
    try state.withLock { (state) throws(DeviceError) in _ = try find(kernel, in: &state) }
  }

  /// Puts the kernel that a rule names on a stream; nothing where its grid is empty.
  /// - Parameter rule: what is launched for the argument: a `martlet_cuda_launch_…`.
  func launch<Argument: BitwiseCopyable>(
    _ rule: (UnsafePointer<Argument>) -> martlet_cuda_launch, _ argument: Argument, on stream: CUDAContext.Handle
  ) throws(DeviceError) {
    let launch = withUnsafePointer(to: argument, rule)
    if launch.grid_x == 0 { return }
    let function = try state.withLock { (state) throws(DeviceError) in
      let function = try find(launch.kernel, in: &state)
      let index = Int(launch.kernel), wanted = Int(launch.shared_bytes)
      if wanted > state.kernels[index].sharedByteCount {
        try context.allow(function, sharedByteCount: wanted)
        state.kernels[index].sharedByteCount = wanted
      }
      return function
    }
    try withUnsafePointer(to: argument) { (pointer) throws(DeviceError) in
      try context.launch(
        function, grid: (launch.grid_x, launch.grid_y, launch.grid_z), threads: launch.block_x, sharedByteCount: launch.shared_bytes,
        argument: pointer, on: stream)
    }
  }

  private func find(_ kernel: Int32, in state: inout State) throws(DeviceError) -> CUDAContext.Handle {
    let known = state.kernels[Int(kernel)].function
    if known != 0 { return known }
    let program = KernelProgram(of: kernel)
    let module: CUDAContext.Handle
    if let loaded = state.modules[program.name] {
      module = loaded
    } else {
      module = try context.loadModule(try image(program))
      state.modules[program.name] = module
    }
    let function = try context.function(martlet_cuda_kernel_at(kernel).name, in: module)
    state.kernels[Int(kernel)].function = function
    return function
  }
}
