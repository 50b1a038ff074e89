// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletLibc
package import MartletCore

/// NVIDIA's compiler of kernels, found while the program runs. It needs no GPU and no driver.
///
/// It compiles to machine code of one target (`sm_90a`), never to PTX: the assembler, which sees what registers there are, has then had its say, and an old
/// driver can load what a new compiler made.
package struct NVRTC: Sendable {
  /// "13.5".
  package let version: String
  /// The file that was opened.
  package let path: String
  /// Compute capabilities that it compiles for, 10 · major + minor.
  package let architectures: [Int]
  private let calls: Calls

  /// Opens the first of the places that holds a compiler.
  /// - Throws: ``DeviceError/Code/kernelCompilerUnavailable`` where none does, with all of them.
  package init(at places: [NVRTCPlace]) throws(DeviceError) {
    var failures: [String] = []
    for path in places.flatMap(\.candidates) {
      let library: DynamicLibrary
      do {
        // Up to CUDA 13.0 the compiler does not find its own second half where that lies beside it.
        if let second = NVRTCPlace.builtins(beside: path) { _ = try DynamicLibrary(second, isGlobal: true) }
        library = try DynamicLibrary(path)
      } catch {
        if path.contains("/") { failures.append(error.reason) }
        continue
      }
      self = try NVRTC(library)
      return
    }
    let tried = places.map(\.description).joined(separator: ", ")
    throw DeviceError(
      .kernelCompilerUnavailable,
      "no NVRTC, the compiler of CUDA kernels, was found (looked at: \(tried)"
        + (failures.isEmpty ? "" : "; \(failures.joined(separator: "; "))")
        + "); install it (pip install nvidia-cuda-nvrtc, or the CUDA toolkit) and name its folder, or name a folder of compiled kernels")
  }

  private init(_ library: DynamicLibrary) throws(DeviceError) {
    path = library.path
    calls = try Calls(library)
    var major: Int32 = 0, minor: Int32 = 0, count: Int32 = 0
    try calls.check(calls.version(&major, &minor), "nvrtcVersion")
    version = "\(major).\(minor)"
    try calls.check(calls.architectureCount(&count), "nvrtcGetNumSupportedArchs")
    var known = [Int32](repeating: 0, count: Int(count))
    try calls.check(calls.architectures(&known), "nvrtcGetSupportedArchs")
    architectures = known.map(Int.init)
  }

  /// - Parameter target: `sm_` and a number, with `a` where what only that GPU has is used.
  /// - Returns: a cubin.
  /// - Throws: ``DeviceError/Code/kernelCompilationFailed`` with the compiler's log.
  package func compile(_ source: KernelProgram, target: String) throws(DeviceError) -> [UInt8] {
    enforce(target.hasPrefix("sm_"), "kernels are compiled to machine code (sm_…), not to \(target)")
    let headers = CStrings(source.headers.map(\.text)), names = CStrings(source.headers.map(\.name))
    var program: UInt = 0
    try calls.check(
      calls.create(&program, source.text, source.file, Int32(source.headers.count), headers.pointers, names.pointers),
      "nvrtcCreateProgram")
    defer { _ = calls.destroy(&program) }
    let options = CStrings(["--gpu-architecture=\(target)"] + source.options)
    let result = calls.compile(program, Int32(options.pointers.count), options.pointers)
    guard result == 0 else {
      throw DeviceError(
        .kernelCompilationFailed,
        "NVRTC \(version) (\(path)) cannot compile \(source.name) for \(target): \(calls.words(result)). This is a mistake in Martlet, or the "
          + "compiler is one that it does not know: report it with this log.\n\(log(of: program))")
    }
    var byteCount = 0
    try calls.check(calls.cubinSize(program, &byteCount), "nvrtcGetCUBINSize")
    var cubin = [UInt8](repeating: 0, count: byteCount)
    try calls.check(cubin.withUnsafeMutableBytes { calls.cubin(program, $0.baseAddress!) }, "nvrtcGetCUBIN")
    return cubin
  }

  private func log(of program: UInt) -> String {
    var byteCount = 0
    guard calls.logSize(program, &byteCount) == 0, byteCount > 0 else { return "" }
    var text = [UInt8](repeating: 0, count: byteCount)
    guard text.withUnsafeMutableBytes({ calls.log(program, $0.baseAddress!) }) == 0 else { return "" }
    return String(decoding: text.prefix { $0 != 0 }, as: UTF8.self)
  }

  /// The functions of libnvrtc, as NVIDIA's "NVRTC" declares them. A program (`nvrtcProgram`) is a pointer that nobody here looks into.
  private struct Calls: Sendable {
    typealias Out<Value> = UnsafeMutablePointer<Value>

    let version: @convention(c) @Sendable (Out<Int32>, Out<Int32>) -> Int32
    let architectureCount: @convention(c) @Sendable (Out<Int32>) -> Int32
    let architectures: @convention(c) @Sendable (Out<Int32>) -> Int32
    let create:
      @convention(c) @Sendable (
        Out<UInt>, UnsafePointer<CChar>, UnsafePointer<CChar>, Int32, UnsafePointer<UnsafePointer<CChar>?>?,
        UnsafePointer<UnsafePointer<CChar>?>?
      ) -> Int32
    let compile: @convention(c) @Sendable (UInt, Int32, UnsafePointer<UnsafePointer<CChar>?>) -> Int32
    let destroy: @convention(c) @Sendable (Out<UInt>) -> Int32
    let cubinSize: @convention(c) @Sendable (UInt, Out<Int>) -> Int32
    let cubin: @convention(c) @Sendable (UInt, UnsafeMutableRawPointer) -> Int32
    let logSize: @convention(c) @Sendable (UInt, Out<Int>) -> Int32
    let log: @convention(c) @Sendable (UInt, UnsafeMutableRawPointer) -> Int32
    let errorString: @convention(c) @Sendable (Int32) -> UnsafePointer<CChar>?
    let path: String

    init(_ library: DynamicLibrary) throws(DeviceError) {
      path = library.path
      func call<Function>(_ name: String) throws(DeviceError) -> Function {
        guard let address = library.symbol(name) else {
          throw DeviceError(
            .kernelCompilerUnavailable,
            "\(library.path) has no \(name): it is no NVRTC, or one before CUDA 11.3; install a newer one (pip install nvidia-cuda-nvrtc)")
        }
        return unsafeBitCast(address, to: Function.self)
      }
      version = try call("nvrtcVersion")
      architectureCount = try call("nvrtcGetNumSupportedArchs")
      architectures = try call("nvrtcGetSupportedArchs")
      create = try call("nvrtcCreateProgram")
      compile = try call("nvrtcCompileProgram")
      destroy = try call("nvrtcDestroyProgram")
      cubinSize = try call("nvrtcGetCUBINSize")
      cubin = try call("nvrtcGetCUBIN")
      logSize = try call("nvrtcGetProgramLogSize")
      log = try call("nvrtcGetProgramLog")
      errorString = try call("nvrtcGetErrorString")
    }

    func words(_ result: Int32) -> String {
      (errorString(result).map { String(cString: $0) } ?? "an error without a name") + " (\(result))"
    }

    func check(_ result: Int32, _ call: StaticString) throws(DeviceError) {
      guard result != 0 else { return }
      throw DeviceError(
        .kernelCompilationFailed, "NVRTC (\(path)): \(call) failed with \(words(result)); install another NVRTC, or name its folder")
    }
  }
}

/// Texts as C reads them, as long as this lives.
private final class CStrings {
  private(set) var pointers: [UnsafePointer<CChar>?]

  init(_ texts: [String]) { pointers = texts.map { UnsafePointer(strdup($0)) } }

  deinit { for pointer in pointers { free(UnsafeMutablePointer(mutating: pointer)) } }
}
