// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Foundation
import Martlet
import MartletAttention
import MartletAttentionTestKit
import MartletCPU
import MartletCore
import MartletKVCache

struct BenchAttention: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "attention",
    abstract: "Times attention beside the machine's ceilings.",
    discussion: """
      A workload is a layer's shape and the requests of a step: 32,8,128:8*1@4095 is 32 query heads on 8 key/value heads of 128 dims, and 8 \
      requests with one new token each after 4095 cached ones; 32,8,128:2048@0 a prompt of 2048 tokens, 32,8,128:8192@0/512 a prompt in \
      chunks of 512; 128,mla,512+64:1@4095 latent attention, 128 heads against one latent of 512 dims and 64 of positions. Ceilings (float32, bf16 and int8 peak, read bandwidth over as many bytes as a workload reads) are measured in the same \
      run. The roof of a workload is the longer of its operations at the peak and its bytes at the bandwidth. Times are medians, of append \
      and attention together; operations are counted as 2 · heads · dims of a key and of a value, for each query and key that it sees. No model is needed.
      """)

  @Argument(
    help: ArgumentHelp("What to time (default: prompts and generations of well-known shapes).", valueName: "workload"),
    transform: workload)
  var workloads: [AttentionWorkload] = []

  @Option(
    name: .customLong("kv-cache-dtype"),
    help: ArgumentHelp("A type of cached keys and values: f32, f16, bf16, fp8 or int8; may be given again.", valueName: "type"))
  var types: [CacheDataType] = [.bf16]

  @Option(name: .customLong("backend"), help: ArgumentHelp("An attention backend; may be given again.", valueName: "name"))
  var backends: [String] = ["TRTLLM"]

  @Option(name: .customLong("page-size"), parsing: .unconditional, help: ArgumentHelp("Tokens in a page, a power of two.", valueName: "n"))
  var pageSize = 32

  @OptionGroup var device: ProcessorOptions

  @Option(parsing: .unconditional, help: ArgumentHelp("Runs of each workload after one that is not counted.", valueName: "n"))
  var repeats = 7

  @Option(help: ArgumentHelp("Draw a roofline to this SVG file.", valueName: "file"))
  var plot: String?

  @Option(
    name: .customLong("compare"),
    help: ArgumentHelp(
      "Another program's results, as --json prints them, for the table and the plot; may be given again.", valueName: "file"))
  var peers: [String] = []

  @Flag(help: "Print one JSON object.")
  var json = false

  func validate() throws {
    try validatePositive(repeats, "--repeats")
    if pageSize < 1 || pageSize > KVCacheConfig.mostTokensPerPage || pageSize & (pageSize - 1) != 0 {
      throw ValidationError("--page-size is \(pageSize); a power of two up to \(KVCacheConfig.mostTokensPerPage) is needed")
    }
    do {
      for name in backends { _ = try AttentionBackendRegistry.builtIn.backend(named: name) }
    } catch {
      throw ValidationError("\(error)")
    }
  }

  func run() async throws {
    let peers = try peers.map { path in
      do { return try AttentionBenchReport(path: path) } catch let error as CocoaError {
        throw CommandError("the results \"\(path)\" cannot be read: \(CommandError.reason(error))")
      }
    }
    let report = try await interruptible { [self] in
      var bench = try AttentionBenchRun(device.makeDevice(), threads: device.threadCount, pageSize: pageSize, repeats: repeats)
      let workloads = workloads.isEmpty ? Self.standard : workloads
      let progress = ProgressLine()
      for workload in workloads {
        for name in backends {
          for type in types {
            progress.show("\(workload) \(name) \(type.rawValue)")
            try Task.checkCancellation()
            try bench.measure(workload, AttentionBackendRegistry.builtIn.backend(named: name), type.dataType)
          }
        }
      }
      progress.clear()
      return bench.report
    }
    // Whatever becomes of the plot, what was measured is told.
    if json { try Terminal.writeJSON(report) } else { try Terminal.write(report.table(beside: peers)) }
    if let plot { try SVG.write(RooflinePlot([report] + peers).svg, to: plot) }
  }

  private static func workload(_ text: String) throws -> AttentionWorkload {
    guard let workload = AttentionWorkload(text) else {
      throw ValidationError("\"\(text)\" is no workload; one looks like 32,8,128:2048@0 or 32,8,128:8*1@4095")
    }
    return workload
  }

  private static let standard =
    ["32,8,128:512@0", "32,8,128:2048@0", "32,8,128:4096@0", "9,3,64:2048@0", "4,1,256:2048@0"].compactMap { AttentionWorkload($0) }
    + [1, 8, 32].flatMap { batch in [1024, 4096, 16384].compactMap { AttentionWorkload("32,8,128:\(batch)*1@\($0 - 1)") } }
}
