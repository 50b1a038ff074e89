// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletCUDAKernels
public import MartletCore

/// An NVIDIA GPU as a device: its own memory, streams as queues, and kernels that are compiled for it when it is first used.
///
/// Nothing of CUDA is needed to build or to link: the driver (libcuda) and the compiler (NVRTC) are opened while the program runs. Kernels of layers with
/// experts are not there yet; a step that needs them ends in ``DeviceError/Code/missingKernel``.
public final class CUDADevice: Device {
  package let context: CUDAContext
  private let library: KernelLibrary
  private let compiler: KernelCompiler?

  /// - Parameters:
  ///   - ordinal: which of the GPUs that the process may use.
  ///   - kernels: where compiled kernels come from.
  /// - Throws: ``DeviceError/Code/cudaUnavailable`` where there is no driver, or no such GPU that the kernels run on;
  ///   ``DeviceError/Code/kernelCompilerUnavailable`` where kernels must be compiled and nothing can do it;
  ///   ``DeviceError/Code/kernelCompilationFailed`` where that fails, ``DeviceError/Code/cudaFailed`` where a call of the driver does.
  public convenience init(ordinal: Int = 0, kernels: CUDAKernelOptions = CUDAKernelOptions()) throws(DeviceError) {
    let context = try CUDAContext(try CUDADriver.system(), ordinal: ordinal)
    let compiler = KernelCompiler(kernels), architecture = context.properties.architecture
    try self.init(context, compiler: compiler) { (program) throws(DeviceError) in try compiler.image(of: program, for: architecture) }
  }

  /// - Parameter image: the machine code of a program.
  package init(
    _ context: CUDAContext, compiler: KernelCompiler? = nil, image: @escaping @Sendable (KernelProgram) throws(DeviceError) -> [UInt8]
  ) throws(DeviceError) {
    let architecture = context.properties.architecture, oldest = CUDAArchitecture.oldest
    guard (architecture.major, architecture.minor) >= (oldest.major, oldest.minor) else {
      throw DeviceError(
        .cudaUnavailable,
        "\(context.properties.name) (\(context.properties.title)) has compute capability \(architecture), and the kernels need \(oldest) or "
          + "more; choose another GPU, or run on the CPU")
    }
    self.context = context
    self.compiler = compiler
    library = KernelLibrary(context, image: image)
    // What every model needs, now rather than in its first step.
    for kernel in [martlet_cuda_kernel_rms_norm, martlet_cuda_kernel_pack, martlet_cuda_kernel_append] {
      try library.load(Int32(kernel.rawValue))
    }
  }

  /// The GPUs of this machine, in the order of their numbers, in words: "NVIDIA H100 80GB HBM3, 80 GiB, compute capability 9.0".
  /// - Throws: ``DeviceError/Code/cudaUnavailable`` where there is no driver or no GPU, with the reason.
  public static func descriptions() throws(DeviceError) -> [String] {
    let driver = try CUDADriver.system()
    var all: [String] = []
    for ordinal in 0..<driver.deviceCount { all.append(try driver.properties(of: ordinal).description) }
    return all
  }

  /// The GPU of this number in words.
  /// - Throws: ``DeviceError/Code/cudaUnavailable`` where there is none.
  public static func description(of ordinal: Int) throws(DeviceError) -> String {
    try CUDADriver.system().properties(of: ordinal).description
  }

  public var name: String { context.properties.name }
  public var summary: String {
    let version = context.driver.version
    return (["\(context.properties.description), driver for CUDA \(version / 1000).\(version % 1000 / 10)"] + (compiler?.remarks ?? []))
      .joined(separator: "; ")
  }
  /// Of the GPU's memory; 0 where the driver does not say.
  public var availableByteCount: Int { (try? context.freeByteCount()) ?? 0 }

  public var workerCount: Int { context.properties.multiprocessorCount }

  public var tensorKernels: any TensorKernels { CUDATensorKernels(context: context, library: library) }
  public var attentionKernels: any AttentionKernels { CUDAAttentionKernels(context: context, library: library) }

  public func makeBuffer(byteCount: Int) throws(DeviceError) -> DeviceBuffer { try context.makeBuffer(byteCount: byteCount) }

  public func makeHostBuffer<Element>(of type: Element.Type, count: Int) throws(DeviceError) -> HostBuffer<Element> {
    let memory = try context.allocateHost(byteCount: count * MemoryLayout<Element>.stride)
    let start = memory.bindMemory(to: Element.self, capacity: count)
    nonisolated(unsafe) let address = memory
    return HostBuffer(adopting: UnsafeMutableBufferPointer(start: start, count: count)) { [context] in context.freeHost(address) }
  }

  /// Its first call tells where the driver refuses a stream.
  public func makeQueue() -> any DeviceQueue { CUDAQueue(context) }

  public var activations: [Activations] { [.exact, .bf16] }

  public func prepare(_ parts: [Weight], activations: Activations) throws(DeviceError) -> any PreparedWeight {
    let weight = try CUDAPreparedWeight(parts, activations: activations, on: context, library)
    for part in weight.parts {
      // Each of the three kernels of its format; they are one program.
      try library.load(Int32(martlet_cuda_kernel_product_few_f32.rawValue) + part.format)
    }
    return weight
  }

  public func preparedByteCount(_ format: WeightFormat, rows: Int, columns: Int) -> Int {
    CUDAPreparedWeight.byteCount(format, rows: rows, columns: columns)
  }

  /// None yet: an outside backend calls the kernel tables.
  public func service<Service>(_ type: Service.Type) -> Service? { nil }
}

extension CUDAProperties: CustomStringConvertible {
  package var description: String {
    "\(title), \(byteCount >> 30) GiB, compute capability \(architecture), \(multiprocessorCount) multiprocessors"
  }
}
