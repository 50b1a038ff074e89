// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// The functions of libcuda that Martlet calls, as NVIDIA's "CUDA Driver API" declares them for CUDA 12.0.
///
/// Handles (`CUcontext`, `CUstream`, `CUmodule`, …) are pointers that nobody here looks into: they are written as integers of their size, so that they can
/// be handed from thread to thread. Device addresses (`CUdeviceptr`) are integers of 64 bits in C, too. `CUdevice` and every result are `int`.
struct CUDADriverCalls: Sendable {
  typealias ProcAddress =
    @convention(c) @Sendable (
      UnsafePointer<CChar>, UnsafeMutablePointer<UnsafeMutableRawPointer?>, Int32, UInt64, UnsafeMutablePointer<Int32>
    ) -> Int32
  typealias Handle = UInt
  typealias Out<Value> = UnsafeMutablePointer<Value>

  let initialize: @convention(c) @Sendable (UInt32) -> Int32
  let driverGetVersion: @convention(c) @Sendable (Out<Int32>) -> Int32
  let getErrorName: @convention(c) @Sendable (Int32, Out<UnsafePointer<CChar>?>) -> Int32
  let getErrorString: @convention(c) @Sendable (Int32, Out<UnsafePointer<CChar>?>) -> Int32

  let deviceGetCount: @convention(c) @Sendable (Out<Int32>) -> Int32
  let deviceGet: @convention(c) @Sendable (Out<Int32>, Int32) -> Int32
  let deviceGetName: @convention(c) @Sendable (Out<CChar>, Int32, Int32) -> Int32
  let deviceGetAttribute: @convention(c) @Sendable (Out<Int32>, Int32, Int32) -> Int32
  let deviceTotalMem: @convention(c) @Sendable (Out<Int>, Int32) -> Int32

  let primaryContextRetain: @convention(c) @Sendable (Out<Handle>, Int32) -> Int32
  let primaryContextRelease: @convention(c) @Sendable (Int32) -> Int32
  let contextSetCurrent: @convention(c) @Sendable (Handle) -> Int32
  let contextSynchronize: @convention(c) @Sendable () -> Int32

  let memGetInfo: @convention(c) @Sendable (Out<Int>, Out<Int>) -> Int32
  let memAlloc: @convention(c) @Sendable (Out<UInt>, Int) -> Int32
  let memFree: @convention(c) @Sendable (UInt) -> Int32
  let memAllocHost: @convention(c) @Sendable (Out<UnsafeMutableRawPointer?>, Int) -> Int32
  let memFreeHost: @convention(c) @Sendable (UnsafeMutableRawPointer) -> Int32
  let memsetD8Async: @convention(c) @Sendable (UInt, UInt8, Int, Handle) -> Int32
  let memcpyHtoDAsync: @convention(c) @Sendable (UInt, UnsafeRawPointer, Int, Handle) -> Int32
  let memcpyDtoHAsync: @convention(c) @Sendable (UnsafeMutableRawPointer, UInt, Int, Handle) -> Int32
  let memcpyDtoDAsync: @convention(c) @Sendable (UInt, UInt, Int, Handle) -> Int32

  let streamCreate: @convention(c) @Sendable (Out<Handle>, UInt32) -> Int32
  let streamDestroy: @convention(c) @Sendable (Handle) -> Int32
  let streamSynchronize: @convention(c) @Sendable (Handle) -> Int32

  let moduleLoadData: @convention(c) @Sendable (Out<Handle>, UnsafeRawPointer) -> Int32
  let moduleUnload: @convention(c) @Sendable (Handle) -> Int32
  let moduleGetFunction: @convention(c) @Sendable (Out<Handle>, Handle, UnsafePointer<CChar>) -> Int32
  let functionSetAttribute: @convention(c) @Sendable (Handle, Int32, Int32) -> Int32
  let launchKernel:
    @convention(c) @Sendable (
      Handle, UInt32, UInt32, UInt32, UInt32, UInt32, UInt32, UInt32, Handle, UnsafePointer<UnsafeMutableRawPointer?>,
      UnsafePointer<UnsafeMutableRawPointer?>?
    ) -> Int32

  let streamBeginCapture: @convention(c) @Sendable (Handle, Int32) -> Int32
  let streamEndCapture: @convention(c) @Sendable (Handle, Out<Handle>) -> Int32
  let graphInstantiate: @convention(c) @Sendable (Out<Handle>, Handle, UInt64) -> Int32
  let graphLaunch: @convention(c) @Sendable (Handle, Handle) -> Int32
  let graphDestroy: @convention(c) @Sendable (Handle) -> Int32
  let graphExecDestroy: @convention(c) @Sendable (Handle) -> Int32

  init(_ find: (String) throws(DeviceError) -> UnsafeMutableRawPointer) throws(DeviceError) {
    func call<Function>(_ name: String) throws(DeviceError) -> Function { unsafeBitCast(try find(name), to: Function.self) }
    initialize = try call("cuInit")
    driverGetVersion = try call("cuDriverGetVersion")
    getErrorName = try call("cuGetErrorName")
    getErrorString = try call("cuGetErrorString")
    deviceGetCount = try call("cuDeviceGetCount")
    deviceGet = try call("cuDeviceGet")
    deviceGetName = try call("cuDeviceGetName")
    deviceGetAttribute = try call("cuDeviceGetAttribute")
    deviceTotalMem = try call("cuDeviceTotalMem")
    primaryContextRetain = try call("cuDevicePrimaryCtxRetain")
    primaryContextRelease = try call("cuDevicePrimaryCtxRelease")
    contextSetCurrent = try call("cuCtxSetCurrent")
    contextSynchronize = try call("cuCtxSynchronize")
    memGetInfo = try call("cuMemGetInfo")
    memAlloc = try call("cuMemAlloc")
    memFree = try call("cuMemFree")
    memAllocHost = try call("cuMemAllocHost")
    memFreeHost = try call("cuMemFreeHost")
    memsetD8Async = try call("cuMemsetD8Async")
    memcpyHtoDAsync = try call("cuMemcpyHtoDAsync")
    memcpyDtoHAsync = try call("cuMemcpyDtoHAsync")
    memcpyDtoDAsync = try call("cuMemcpyDtoDAsync")
    streamCreate = try call("cuStreamCreate")
    streamDestroy = try call("cuStreamDestroy")
    streamSynchronize = try call("cuStreamSynchronize")
    moduleLoadData = try call("cuModuleLoadData")
    moduleUnload = try call("cuModuleUnload")
    moduleGetFunction = try call("cuModuleGetFunction")
    functionSetAttribute = try call("cuFuncSetAttribute")
    launchKernel = try call("cuLaunchKernel")
    streamBeginCapture = try call("cuStreamBeginCapture")
    streamEndCapture = try call("cuStreamEndCapture")
    graphInstantiate = try call("cuGraphInstantiateWithFlags")
    graphLaunch = try call("cuGraphLaunch")
    graphDestroy = try call("cuGraphDestroy")
    graphExecDestroy = try call("cuGraphExecDestroy")
  }

  /// A call's failure in words: the call, the driver's name and number of it, and the way out.
  func failure(_ result: Int32, _ call: StaticString, device: String, code: DeviceError.Code = .cudaFailed) -> DeviceError {
    func text(_ get: @convention(c) (Int32, Out<UnsafePointer<CChar>?>) -> Int32) -> String? {
      var name: UnsafePointer<CChar>?
      return get(result, &name) == 0 ? name.map { String(cString: $0) } : nil
    }
    let name = text(getErrorName) ?? "an error without a name"
    let words = text(getErrorString).map { ", \($0)" } ?? ""
    return DeviceError(code, "device \(device): \(call) failed with \(name) (\(result)\(words)); \(Self.wayOut(result))")
  }

  /// What to do about a `CUresult`.
  private static func wayOut(_ result: Int32) -> String {
    switch result {
    case 34: "the libcuda.so.1 that was found is a toolkit's stub: put the driver's before it in the library path"
    case 100: "no GPU is visible: look at `nvidia-smi` and at CUDA_VISIBLE_DEVICES"
    case 2: "lower the context length, the key/value cache budget, or the requests or tokens of a step"
    case 46: "another process has the GPU for itself: end it, or choose another GPU"
    case 200, 209, 218, 300:
      "the compiled kernels are not for this GPU: remove them from their folder, so that they are compiled anew"
    case 500: "the compiled kernels are of another version of Martlet: remove them from their folder, so that they are compiled anew"
    case 700, 714, 715, 716, 717, 718, 719:
      "a kernel did what it must not, and this process can use the GPU no more: start it again, and report what it ran"
    case 803: "the driver's library and its kernel module differ: restart the machine, or update the container's driver libraries"
    case 804: "the driver is older than the libcuda.so.1 that was found and cannot work with it: update the driver"
    default: "see `nvidia-smi` and the kernel's log (`dmesg`), and start this process again"
    }
  }
}
