// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletCUDA
import MartletCore
import Testing

@Suite("Compiled kernels that are kept")
struct KernelCompilerTests {
  static let program = NVRTCTests.program
  static let hopper = CUDAArchitecture(major: 9, minor: 0)

  private func files(in folder: String) throws -> [String] { try FileManager.default.contentsOfDirectory(atPath: folder).sorted() }

  /// Nothing is at any of these places.
  private let nowhere = [NVRTCPlace.path("/nowhere")]

  @Test("are found again, without a compiler, too")
  func cache() async throws {
    let compilers = try await NVRTCFolder.places()
    try await withTemporaryFolder { folder in
      // A folder that is not there yet.
      let cache = folder + "/a/b"
      let image = try KernelCompiler(CUDAKernelOptions(compilers: compilers, cache: cache)).image(of: Self.program, for: Self.hopper)
      let names = try files(in: cache)
      #expect(names.count == 1 && names[0].hasPrefix("double.sm_90a.") && names[0].hasSuffix(".nvrtc-13.5.cubin"), "\(names)")
      let without = KernelCompiler(CUDAKernelOptions(compilers: nowhere, cache: cache))
      #expect(try without.image(of: Self.program, for: Self.hopper) == image)
      // Another GPU has other machine code.
      let error = #expect(throws: DeviceError.self) { try without.image(of: Self.program, for: CUDAArchitecture(major: 8, minor: 0)) }
      #expect(error?.code == .kernelCompilerUnavailable)
    }
  }

  @Test("are those of this source, these headers and these options")
  func key() async throws {
    let compilers = try await NVRTCFolder.places()
    try await withTemporaryFolder { folder in
      let compiler = KernelCompiler(CUDAKernelOptions(compilers: compilers, cache: folder))
      let text = Self.program.text, headers = Self.program.headers, options = Self.program.options
      let others = [
        Self.program, KernelProgram(name: "double", file: "double.cu", text: text + "\n", headers: headers, options: options),
        KernelProgram(
          name: "double", file: "double.cu", text: text, headers: [.init(name: "factor.h", text: "#define FACTOR 3.0f")], options: options),
        KernelProgram(name: "double", file: "double.cu", text: text, headers: headers, options: ["-std=c++17", "-DWEIGHT=2.0f"]),
      ]
      for program in others { _ = try compiler.image(of: program, for: Self.hopper) }
      #expect(try files(in: folder).count == others.count)
    }
  }

  @Test("that were cut off, changed, or put there by somebody else are compiled anew", arguments: [0, 1, 2, 3])
  func damaged(kind: Int) async throws {
    let compilers = try await NVRTCFolder.places()
    try await withTemporaryFolder { folder in
      let options = CUDAKernelOptions(compilers: compilers, cache: folder)
      let image = try KernelCompiler(options).image(of: Self.program, for: Self.hopper)
      let path = "\(folder)/\(try files(in: folder)[0])", url = URL(fileURLWithPath: path)
      let whole = try Data(contentsOf: url)
      var bytes = whole
      switch kind {
      case 0: bytes.removeLast(bytes.count / 2)
      case 1: bytes[bytes.count - 10] ^= 1
      case 2: bytes = Data(image)  // a cubin of another program's cache, without the first line
      default: bytes = Data()
      }
      try bytes.write(to: url)
      let error = #expect(throws: DeviceError.self) {
        try KernelCompiler(CUDAKernelOptions(compilers: nowhere, compiledKernels: [folder])).image(of: Self.program, for: Self.hopper)
      }
      #expect(error?.description.contains("\(path) are damaged") ?? false, "\(String(describing: error))")
      #expect(try KernelCompiler(options).image(of: Self.program, for: Self.hopper) == image)
      #expect(try Data(contentsOf: url) == whole, "the file is written anew")
    }
  }

  @Test("come with the program, for a GPU and for later ones of its major version")
  func shipped() async throws {
    let compilers = try await NVRTCFolder.places()
    try await withTemporaryFolder { folder in
      let compiler = KernelCompiler(CUDAKernelOptions(compilers: compilers))
      let byteCount = try compiler.compile(Self.program, target: "sm_80", into: folder)
      let shipped = KernelCompiler(CUDAKernelOptions(compilers: nowhere, compiledKernels: [folder]))
      for minor in [0, 6, 9] {
        #expect(try shipped.image(of: Self.program, for: CUDAArchitecture(major: 8, minor: minor)).count == byteCount)
      }
      #expect(throws: DeviceError.self) { try shipped.image(of: Self.program, for: Self.hopper) }
    }
  }

  @Test("may be written by several processes at the same time")
  func processes() async throws {
    let compilers = try await NVRTCFolder.places()
    guard case .path(let library)? = compilers.first else { return }
    try await withTemporaryFolder { folder in
      @Sendable func another() async {
        await #expect(processExitsWith: .success) { [folder = folder as String, library = library as String] in
          for _ in 0..<20 {
            let options = CUDAKernelOptions(compilers: [.path(library)], cache: folder)
            let image = try KernelCompiler(options).image(of: KernelCompilerTests.program, for: KernelCompilerTests.hopper)
            guard image.starts(with: [0x7F, UInt8(ascii: "E"), UInt8(ascii: "L"), UInt8(ascii: "F")]) else { exit(2) }
            // The other process may have taken it away in the meantime.
            for name in try FileManager.default.contentsOfDirectory(atPath: folder) where name.hasSuffix(".cubin") {
              try? FileManager.default.removeItem(atPath: "\(folder)/\(name)")
            }
          }
          _ = try KernelCompiler(CUDAKernelOptions(compilers: [.path(library)], cache: folder)).image(
            of: KernelCompilerTests.program, for: KernelCompilerTests.hopper)
        }
      }
      async let first: Void = another()
      async let second: Void = another()
      _ = await (first, second)
      let names = try files(in: folder)
      #expect(names.count <= 1, "nothing but the one file is left: \(names)")
    }
  }

  @Test("are compiled all the same where they cannot be kept, and that is told")
  func unwritable() async throws {
    let compilers = try await NVRTCFolder.places()
    try await withTemporaryFolder { folder in
      try write("a file", to: "\(folder)/file")
      let compiler = KernelCompiler(CUDAKernelOptions(compilers: compilers, cache: "\(folder)/file/cache"))
      _ = try compiler.image(of: Self.program, for: Self.hopper)
      _ = try compiler.image(of: Self.program, for: Self.hopper)
      #expect(compiler.remarks == ["compiled kernels cannot be kept in \(folder)/file/cache: Not a directory"])
    }
  }
}
