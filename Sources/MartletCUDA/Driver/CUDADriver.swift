// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

package import MartletCore

/// NVIDIA's driver as this process sees it: the functions of libcuda, found while the program runs, and which GPUs there are.
///
/// Nothing of CUDA is needed to build or to link. All entry points come from `cuGetProcAddress_v2`, asked for as they were in CUDA 12.0: a plain
/// look-up of `cuMemAlloc` gives the function of CUDA 2. Whoever has a `libcuda` of his own, as tests have, hands its `cuGetProcAddress_v2` in.
package final class CUDADriver: Sendable {
  /// The CUDA version that the driver supports: 1000 · major + 10 · minor.
  package let version: Int
  /// GPUs that the process may use.
  package let deviceCount: Int
  let calls: CUDADriverCalls

  /// Functions as they were in CUDA 12.0, which a driver of version 525 has.
  private static let interfaceVersion: Int32 = 12000

  /// The driver of this machine.
  /// - Throws: ``DeviceError/Code/cudaUnavailable`` where there is none or no GPU.
  package static func system() throws(DeviceError) -> CUDADriver {
    let library: DynamicLibrary
    do { library = try DynamicLibrary("libcuda.so.1") } catch {
      throw DeviceError(
        .cudaUnavailable,
        "there is no NVIDIA driver on this machine (\(error.reason)); install version 525 or newer (in a container: pass the GPU "
          + "through), or run on the CPU")
    }
    return try CUDADriver(procAddress: library.symbol("cuGetProcAddress_v2"))
  }

  /// - Parameter procAddress: the library's `cuGetProcAddress_v2`.
  package init(procAddress: UnsafeMutableRawPointer?) throws(DeviceError) {
    guard let procAddress else {
      throw DeviceError(.cudaUnavailable, "the NVIDIA driver of this machine is older than version 525; install that or a newer one")
    }
    let find = unsafeBitCast(procAddress, to: CUDADriverCalls.ProcAddress.self)
    let calls = try CUDADriverCalls { (name) throws(DeviceError) in
      var address: UnsafeMutableRawPointer?
      var status: Int32 = 0
      guard find(name, &address, Self.interfaceVersion, 0, &status) == 0, let address else {
        throw DeviceError(.cudaUnavailable, "the NVIDIA driver of this machine has no \(name); install version 525 or newer")
      }
      return address
    }
    self.calls = calls
    func check(_ code: Int32, _ call: StaticString) throws(DeviceError) {
      if code != 0 { throw calls.failure(code, call, device: "cuda", code: .cudaUnavailable) }
    }
    try check(calls.initialize(0), "cuInit")
    var version: Int32 = 0, count: Int32 = 0
    try check(calls.driverGetVersion(&version), "cuDriverGetVersion")
    try check(calls.deviceGetCount(&count), "cuDeviceGetCount")
    guard count > 0 else {
      throw DeviceError(
        .cudaUnavailable, "the NVIDIA driver sees no GPU; look at `nvidia-smi` and at CUDA_VISIBLE_DEVICES, or run on the CPU")
    }
    self.version = Int(version)
    deviceCount = Int(count)
  }

  /// What a GPU is, without using it.
  /// - Throws: ``DeviceError/Code/cudaUnavailable`` where there is none of this number.
  package func properties(of ordinal: Int) throws(DeviceError) -> CUDAProperties {
    guard ordinal >= 0 && ordinal < deviceCount else {
      let there = deviceCount == 1 ? "there is one GPU, cuda:0" : "there are \(deviceCount) GPUs, cuda:0 to cuda:\(deviceCount - 1)"
      throw DeviceError(.cudaUnavailable, "there is no GPU cuda:\(ordinal): \(there)")
    }
    let name = "cuda:\(ordinal)", calls = calls
    func check(_ code: Int32, _ call: StaticString) throws(DeviceError) {
      if code != 0 { throw calls.failure(code, call, device: name) }
    }
    var device: Int32 = 0
    try check(calls.deviceGet(&device, Int32(ordinal)), "cuDeviceGet")
    func attribute(_ number: Int32) throws(DeviceError) -> Int {
      var value: Int32 = 0
      try check(calls.deviceGetAttribute(&value, number, device), "cuDeviceGetAttribute")
      return Int(value)
    }
    var title = [CChar](repeating: 0, count: 256)
    try check(calls.deviceGetName(&title, Int32(title.count), device), "cuDeviceGetName")
    var byteCount = 0
    try check(calls.deviceTotalMem(&byteCount, device), "cuDeviceTotalMem")
    // CU_DEVICE_ATTRIBUTE_…: 75 and 76 COMPUTE_CAPABILITY_MAJOR and MINOR, 16 MULTIPROCESSOR_COUNT, 97 MAX_SHARED_MEMORY_PER_BLOCK_OPTIN.
    return CUDAProperties(
      ordinal: ordinal, title: String(decoding: title.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self),
      architecture: CUDAArchitecture(major: try attribute(75), minor: try attribute(76)), multiprocessorCount: try attribute(16),
      sharedByteCountOfBlock: try attribute(97), byteCount: byteCount, handle: device)
  }
}

/// What is known of a GPU before it is used.
package struct CUDAProperties: Sendable {
  /// Its number among those that the process may use.
  package let ordinal: Int
  /// "NVIDIA H100 80GB HBM3".
  package let title: String
  package let architecture: CUDAArchitecture
  package let multiprocessorCount: Int
  /// The most shared memory that a block can ask for.
  package let sharedByteCountOfBlock: Int
  /// Of its memory.
  package let byteCount: Int
  let handle: Int32

  /// "cuda:0".
  package var name: String { "cuda:\(ordinal)" }
}
