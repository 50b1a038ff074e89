// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore

/// What a GPU refuses, beside what every device can: codes of ``DeviceError``.
extension DeviceError.Code {
  /// There is no NVIDIA driver, no GPU, or none of that number.
  public static let cudaUnavailable = DeviceError.Code(rawValue: "cudaUnavailable")
  /// A call of the driver failed; the description has the call and the driver's name of the failure.
  public static let cudaFailed = DeviceError.Code(rawValue: "cudaFailed")
  /// There are no compiled kernels for this GPU, and no compiler (NVRTC) to make them.
  public static let kernelCompilerUnavailable = DeviceError.Code(rawValue: "kernelCompilerUnavailable")
  /// The compiler refused a kernel; the description ends with its log.
  public static let kernelCompilationFailed = DeviceError.Code(rawValue: "kernelCompilationFailed")
  /// The device has no kernel for what was asked.
  public static let missingKernel = DeviceError.Code(rawValue: "missingKernel")
}

extension DeviceError {
  /// ``Code/missingKernel``.
  static func missingKernel(device: String, _ what: String) -> DeviceError {
    DeviceError(.missingKernel, "device \(device): \(what) has no CUDA kernel yet; run this model on the CPU")
  }
}
