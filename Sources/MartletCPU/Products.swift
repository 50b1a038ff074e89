// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

package import MartletCore

final class CPUPreparedWeight: PreparedWeight {
  let rows = 0
  let columns = 0
  let byteCount = 0

  init(_ parts: [Weight], instructionSet: InstructionSet) throws(DeviceError) {
    throw .unsupportedWeight(device: "cpu", weight: parts.first?.name ?? "", reason: "products are not built yet")
  }
}

extension CPUTensorKernels {
  package func embed(tokens: Tensor, weight: any PreparedWeight, scale: Float, output: Tensor, on queue: any DeviceQueue) {
    preconditionFailure("products are not built yet")
  }

  package func product(_ input: Tensor, _ weight: any PreparedWeight, output: Tensor, on queue: any DeviceQueue) {
    preconditionFailure("products are not built yet")
  }
}
