// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

struct CPUAttentionKernels: AttentionKernels {
  let instructionSet: InstructionSet
  let pool: WorkerPool

  func obstacles(layout: KVLayout, numHeads: Int) -> [String] { ["attention kernels are not built yet"] }
  func append(_ arguments: AppendArguments, on queue: any DeviceQueue) { preconditionFailure("attention kernels are not built yet") }
  func attend(_ arguments: AttendArguments, on queue: any DeviceQueue) { preconditionFailure("attention kernels are not built yet") }
}
