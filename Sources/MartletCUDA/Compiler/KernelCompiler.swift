// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

package import MartletCore
import Synchronization

/// Where compiled kernels come from.
public struct CUDAKernelOptions: Sendable {
  /// Where the compiler is looked for, in this order.
  public var compilers: [NVRTCPlace]
  /// Folders of kernels that were compiled before, as `KernelCompiler` writes them; with all of them there, no compiler is needed.
  public var compiledKernels: [String]
  /// The folder in which kernels that had to be compiled are kept; nil keeps none, and each start compiles them anew.
  public var cache: String?

  public init(compilers: [NVRTCPlace] = NVRTCPlace.all(), compiledKernels: [String] = [], cache: String? = nil) {
    self.compilers = compilers
    self.compiledKernels = compiledKernels
    self.cache = cache
  }
}

/// Finds compiled kernels, or compiles them: first what came with the program, then the cache, then NVRTC.
///
/// With a compiler at hand only what it made itself is taken from the cache; without one, what any compiler made of the same source.
package final class KernelCompiler: Sendable {
  private let options: CUDAKernelOptions
  private let compiler = Mutex<Result<NVRTC, DeviceError>?>(nil)
  private let notes = Mutex<[String]>([])

  package init(_ options: CUDAKernelOptions) { self.options = options }

  /// What somebody should know who wonders about a slow start: compilers and folders that could not be used.
  package var remarks: [String] { notes.withLock(\.self) }

  /// - Returns: a cubin that a GPU of this architecture runs.
  package func image(of program: KernelProgram, for architecture: CUDAArchitecture) throws(DeviceError) -> [UInt8] {
    for folder in options.compiledKernels {
      if let image = try find(program, for: architecture, in: folder) { return image }
    }
    let compiler: NVRTC
    do throws(DeviceError) { compiler = try nvrtc() } catch {
      if let cache = options.cache, let image = try find(program, for: architecture, in: cache) { return image }
      throw error
    }
    guard let target = architecture.target(known: compiler.architectures) else {
      throw DeviceError(
        .kernelCompilationFailed,
        "NVRTC \(compiler.version) (\(compiler.path)) compiles for no GPU of compute capability \(architecture); install a newer one")
    }
    let key = CubinFolder.Key(program, target: target), cache = options.cache.map(CubinFolder.init)
    // A damaged file of the cache is written anew.
    if case .image(let image)? = cache?.find(key, compiler: compiler.version) { return image }
    let image = try compiler.compile(program, target: target)
    do { try cache?.store(image, key, compiler: compiler.version) } catch {
      let note = "compiled kernels cannot be kept in \(options.cache ?? ""): \(error.reason)"
      notes.withLock { if !$0.contains(note) { $0.append(note) } }
    }
    return image
  }

  /// Compiles for one target and puts the result into a folder, from which ``CUDAKernelOptions/compiledKernels`` takes it.
  package func compile(_ program: KernelProgram, target: String, into folder: String) throws(DeviceError) -> Int {
    let compiler = try nvrtc()
    let image = try compiler.compile(program, target: target)
    do {
      try CubinFolder(path: folder).store(image, CubinFolder.Key(program, target: target), compiler: compiler.version)
    } catch {
      throw DeviceError(.kernelCompilationFailed, "compiled kernels cannot be written to \(folder): \(error.reason); name another folder")
    }
    return image.count
  }

  private func find(_ program: KernelProgram, for architecture: CUDAArchitecture, in folder: String) throws(DeviceError) -> [UInt8]? {
    for target in architecture.targets {
      switch CubinFolder(path: folder).find(CubinFolder.Key(program, target: target), compiler: nil) {
      case .image(let image): return image
      case .damaged(let path):
        throw DeviceError(.kernelCompilationFailed, "the compiled kernels in \(path) are damaged: fetch them again, or remove the file")
      case .nothing: continue
      }
    }
    return nil
  }

  /// The compiler, looked for once.
  private func nvrtc() throws(DeviceError) -> NVRTC {
    try compiler.withLock { (compiler) throws(DeviceError) in
      if let compiler { return try compiler.get() }
      let found: Result<NVRTC, DeviceError>
      do throws(DeviceError) { found = .success(try NVRTC(at: options.compilers)) } catch { found = .failure(error) }
      compiler = found
      return try found.get()
    }
  }
}
