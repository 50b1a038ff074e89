// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Foundation
import Martlet
import MartletCUDA
import MartletCore

/// Where a model runs: on the processor, or on one of the machine's GPUs.
struct DeviceOptions: ParsableArguments {
  @OptionGroup var choice: DeviceChoiceOptions
  @OptionGroup var processor: ProcessorOptions

  func makeDevice() throws -> any Device { try choice.makeDevice { try processor.makeDevice() } }
}

/// Which device, without what can be chosen of the processor.
struct DeviceChoiceOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Where the model runs: cpu, or cuda:N for the NVIDIA GPU of this number (cuda is cuda:0); `martlet devices` lists them.",
      valueName: "name"))
  var device = DeviceChoice.cpu

  /// - Throws: where there is no such GPU. None is used for it.
  func validateThere() throws {
    guard case .cuda(let ordinal) = device else { return }
    _ = try CUDADevice.description(of: ordinal)
  }

  /// - Parameter processor: makes the CPU.
  func makeDevice(processor: () throws -> any Device) throws -> any Device {
    switch device {
    case .cpu: try processor()
    case .cuda(let ordinal): try CUDADevice(ordinal: ordinal, kernels: Places.cudaKernels())
    }
  }
}

/// `cpu`, `cuda`, `cuda:1`.
enum DeviceChoice: ExpressibleByArgument, Equatable {
  case cpu
  case cuda(Int)

  init?(argument: String) {
    let parts = argument.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
    switch (parts.first, parts.count) {
    case ("cpu", 1): self = .cpu
    case ("cuda", 1): self = .cuda(0)
    case ("cuda", 2):
      // Digits alone: Int would take a sign.
      guard parts[1].allSatisfy({ $0.isASCII && $0.isNumber }), let ordinal = Int(parts[1]) else { return nil }
      self = .cuda(ordinal)
    default: return nil
    }
  }

  var defaultValueDescription: String {
    switch self {
    case .cpu: "cpu"
    case .cuda(let ordinal): "cuda:\(ordinal)"
    }
  }
}

extension Places {
  /// Where the kernels of GPUs come from: compiled ones from `../lib/martlet/kernels` beside the program, others from NVRTC, whose library or folder
  /// `MARTLET_NVRTC` names. What is compiled is kept in the folder of models.
  static func cudaKernels() -> CUDAKernelOptions {
    let program = Bundle.main.executableURL?.resolvingSymlinksInPath().deletingLastPathComponent().path
    let prefixes = ["VIRTUAL_ENV", "CONDA_PREFIX"].compactMap { value($0) } + [NSHomeDirectory() + "/.local"]
    return CUDAKernelOptions(
      compilers: NVRTCPlace.all(named: value("MARTLET_NVRTC"), programFolder: program, pythonPrefixes: prefixes),
      compiledKernels: program.map { ["\($0)/../lib/martlet/kernels"] } ?? [], cache: models() + "/kernels")
  }
}
