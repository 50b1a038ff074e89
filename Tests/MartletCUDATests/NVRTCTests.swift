// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletCUDA
import MartletCore
import Testing

@Suite("NVRTC")
struct NVRTCTests {
  static let program = KernelProgram(
    name: "double", file: "double.cu",
    text: """
      #include "factor.h"
      extern "C" __global__ void multiply(float *values, int count) {
        int i = blockIdx.x * blockDim.x + threadIdx.x;
        if (i < count) values[i] *= FACTOR * WEIGHT;
      }
      """,
    headers: [.init(name: "factor.h", text: "#define FACTOR 2.0f")], options: ["-std=c++17", "-DWEIGHT=1.0f"])

  @Test("compiles a program with a header and a definition to an ELF file of machine code, the same every time")
  func compiles() async throws {
    let nvrtc = try NVRTC(at: try await NVRTCFolder.places())
    #expect(nvrtc.version == "13.5")
    for target in ["sm_80", "sm_90a", "sm_120a"] {
      let cubin = try nvrtc.compile(Self.program, target: target)
      // ELF's first bytes, and EM_CUDA, 190, where it has its machine.
      #expect(cubin.starts(with: [0x7F, UInt8(ascii: "E"), UInt8(ascii: "L"), UInt8(ascii: "F")]))
      #expect(cubin[18] == 190 && cubin[19] == 0)
      #expect(String(decoding: cubin, as: UTF8.self).contains("multiply"))
      #expect(try nvrtc.compile(Self.program, target: target) == cubin)
    }
  }

  @Test("tells what it cannot compile, with its log")
  func log() async throws {
    let nvrtc = try NVRTC(at: try await NVRTCFolder.places())
    let broken = KernelProgram(name: "broken", file: "broken.cu", text: "extern \"C\" __global__ void f() { undeclared = 1; }")
    let error = #expect(throws: DeviceError.self) { try nvrtc.compile(broken, target: "sm_80") }
    #expect(error?.code == .kernelCompilationFailed)
    let words = error?.description ?? ""
    #expect(words.contains("broken for sm_80") && words.contains("NVRTC_ERROR_COMPILATION (6)"), "\(words)")
    #expect(words.contains("broken.cu(1)") && words.contains("identifier \"undeclared\" is undefined"), "\(words)")
  }

  @Test("refuses PTX, which no assembler has seen")
  func machineCode() async throws {
    let places = try await NVRTCFolder.places()
    guard case .path(let folder)? = places.first else { return }
    await #expect(processExitsWith: .failure) { [folder = folder as String] in
      _ = try NVRTC(at: [.path(folder)]).compile(NVRTCTests.program, target: "compute_80")
    }
  }

  @Test("is looked for where somebody said, and nowhere else")
  func named() throws {
    #expect(NVRTCPlace.all(named: "/opt/nvrtc", programFolder: "/opt/martlet/bin", pythonPrefixes: ["/venv"]) == [.path("/opt/nvrtc")])
    let error = #expect(throws: DeviceError.self) { try NVRTC(at: NVRTCPlace.all(named: "/nowhere/libnvrtc.so.13")) }
    #expect(error?.code == .kernelCompilerUnavailable)
    let words = error?.description ?? ""
    #expect(words.contains("looked at: /nowhere/libnvrtc.so.13;"), "\(words)")
    #expect(words.contains("pip install nvidia-cuda-nvrtc"), "\(words)")
  }

  @Test("is looked for beside the program, in Python's packages, in the toolkit's folder, in the system's, in this order")
  func order() {
    let places = NVRTCPlace.all(programFolder: "/opt/martlet/bin", pythonPrefixes: ["/venv", "/home/a/.local"])
    #expect(
      places == [
        .path("/opt/martlet/bin/../lib"), .python(prefix: "/venv"), .python(prefix: "/home/a/.local"), .python(prefix: "/usr/local"),
        .python(prefix: "/usr"), .path("/usr/local/cuda/lib64"), .system,
      ])
  }

  @Test("is found in a folder and among Python's packages, the newest first")
  func candidates() async throws {
    try await withTemporaryFolder { folder in
      for file in [
        "lib/python3.9/site-packages/nvidia/cuda_nvrtc/lib/libnvrtc.so.12", "lib/python3.11/site-packages/nvidia/cu13/lib/libnvrtc.so.13",
        "lib/python3.11/site-packages/nvidia/cu13/lib/libnvrtc.so", "lib/python2/site-packages/nvidia/cu13/lib/libnvrtc.so.13",
        "lib/libnvrtc.so.12", "lib/libnvrtc.so.11", "named",
      ] { try write("", to: "\(folder)/\(file)") }
      let packages = "\(folder)/lib/python3."
      #expect(
        NVRTCPlace.python(prefix: folder).candidates == [
          "\(packages)9/site-packages/nvidia/cuda_nvrtc/lib/libnvrtc.so.12", "\(packages)11/site-packages/nvidia/cu13/lib/libnvrtc.so.13",
          "\(packages)11/site-packages/nvidia/cu13/lib/libnvrtc.so",
        ])
      #expect(NVRTCPlace.path("\(folder)/lib").candidates == ["\(folder)/lib/libnvrtc.so.12"])
      #expect(NVRTCPlace.path("\(folder)/named").candidates == ["\(folder)/named"])
      #expect(NVRTCPlace.system.candidates == ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"])
      // What lies there is no library, and the system says so.
      let error = #expect(throws: DeviceError.self) { try NVRTC(at: [.path("\(folder)/lib")]) }
      #expect(error?.description.contains("\(folder)/lib/libnvrtc.so.12: file too short") ?? false, "\(String(describing: error))")
    }
  }

  @Test("another library is no NVRTC")
  func anotherLibrary() {
    let error = #expect(throws: DeviceError.self) { try NVRTC(at: [.path("libm.so.6")]) }
    #expect(error?.description.contains("libm.so.6 has no nvrtcVersion") ?? false, "\(String(describing: error))")
  }

  @Test("a GPU runs its own machine code, and that of older ones of its major version")
  func targets() {
    #expect(CUDAArchitecture(major: 8, minor: 6).targets == ["sm_86", "sm_85", "sm_84", "sm_83", "sm_82", "sm_81", "sm_80"])
    #expect(CUDAArchitecture(major: 9, minor: 0).targets == ["sm_90a", "sm_90"])
    #expect(CUDAArchitecture(major: 10, minor: 3).targets == ["sm_103a", "sm_103", "sm_102", "sm_101", "sm_100"])
    let known = [75, 80, 86, 90, 100]
    #expect(CUDAArchitecture(major: 8, minor: 9).target(known: known) == "sm_86")
    #expect(CUDAArchitecture(major: 9, minor: 0).target(known: known) == "sm_90a")
    #expect(CUDAArchitecture(major: 10, minor: 3).target(known: known) == "sm_100")
    #expect(CUDAArchitecture(major: 12, minor: 0).target(known: known) == nil)
  }
}
