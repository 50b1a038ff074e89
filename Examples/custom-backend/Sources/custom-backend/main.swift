// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// `custom-backend verify` proves the backend against float64; `custom-backend generate MODEL.gguf` writes text through it.

import Foundation
import Martlet
import MartletAttention
import MartletAttentionTestKit
import MartletCPU

let registry = AttentionBackendRegistry.builtIn.adding(ExampleAttention.self)

switch CommandLine.arguments.dropFirst().first {
case "verify" where CommandLine.arguments.count == 2:
  // A failed precondition ends a process. So the cells are run in another one, and after such an end in a new one, which goes on behind it.
  let journal = FileManager.default.temporaryDirectory.appendingPathComponent("custom-backend-\(UUID().uuidString)").path
  let status = try VerificationJournal.supervise(["verify", journal], journal: journal)
  try? FileManager.default.removeItem(atPath: journal)
  exit(status)

case "verify":
  let device = try CPUDevice(threads: 1)
  var verification = Verification(
    [ConformanceSubject(ExampleAttention.self)], on: ConformanceTarget(device: device, hasBF16Dots: false),
    lawDevices: [device, try CPUDevice(threads: 2)], concurrency: 2)
  verification.strength = .pairs
  let report = try await verification.run(journal: VerificationJournal(path: CommandLine.arguments[2]))
  for cell in report.failedCells { print(cell) }
  for law in report.brokenLaws { print(law) }
  for words in report.unserved { print(words) }
  let verdict = report.isPassed ? "passed" : "FAILED"
  print("refused \(report.refusedCells.count) of \(report.cells.count) cells; with \(report.laws.count) laws: \(verdict)")
  if !report.isPassed { exit(1) }

case "generate" where CommandLine.arguments.count == 3:
  let configuration = EngineConfiguration(attentionBackend: ExampleAttention.name, attentionBackends: registry)
  let llm = try LLM(model: CommandLine.arguments[2], configuration: configuration)
  for try await chunk in try llm.generate("The capital of France is", sampling: SamplingParams(maxTokens: 16)) {
    print(chunk.text, terminator: "")
  }
  print()
  await llm.shutdown()

default:
  print("custom-backend verify | custom-backend generate MODEL.gguf")
  exit(1)
}
