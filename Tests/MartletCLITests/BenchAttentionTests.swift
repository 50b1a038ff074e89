// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import Testing

/// `martlet bench attention` as a person and as a program run it.
@Suite struct BenchAttentionTests {
  struct Report: Decodable {
    struct Ceilings: Decodable { var f32: Double }
    struct Result: Decodable {
      var engine: String
      var workload: String
      var dtype: String
      var seconds: Double
      var gflops: Double
      var roof_s: Double
      var samples: [Double]
    }
    var ceilings: Ceilings
    var results: [Result]
  }

  @Test func `bench attention times each workload beside the ceilings, compares and plots`() throws {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("martlet-bench-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let workloads = ["4,2,64:100@0", "4,2,64:3*1@99"]
    let result = try CommandLine.run(
      ["bench", "attention"] + workloads + ["--kv-cache-dtype", "bf16", "--kv-cache-dtype", "fp8", "--repeats", "3", "--json"])
    let report = try result.json(Report.self)
    #expect(result.status == 0 && report.ceilings.f32 > 0.1)
    #expect(report.results.map(\.workload) == workloads.flatMap { [$0, $0] })
    #expect(report.results.map(\.dtype) == ["bf16", "fp8", "bf16", "fp8"])
    for result in report.results {
      #expect(result.engine == "TRTLLM" && result.samples.count == 3 && result.seconds == result.samples.sorted()[1])
      #expect(result.gflops > 0 && result.roof_s > 0)
    }

    // Its own results as another program's: a ratio for each type beside each of ours, and points of both in the plot.
    let file = folder.appendingPathComponent("peer.json"), plot = folder.appendingPathComponent("roof.svg")
    try Data(result.output.utf8).write(to: file)
    let table = try CommandLine.run([
      "bench", "attention", workloads[0], "--repeats", "1", "--compare", file.path, "--plot", plot.path,
    ])
    #expect(table.status == 0 && table.output.split(separator: "\n").count { $0.hasSuffix(" x") } == 2, "\(table.output)\(table.error)")
    let svg = try String(contentsOf: plot, encoding: .utf8)
    #expect(svg.hasPrefix("<svg") && svg.contains("f32 peak") && svg.components(separatedBy: "<title>").count == 6)
  }

  @Test(arguments: [
    (["32,7,128:1@0"], "no workload"), (["--page-size", "24"], "power of two"), (["--backend", "NONE"], "NONE"),
    (["--compare", "/nowhere.json"], "/nowhere.json"),
  ])
  func `bench attention says what is wrong`(arguments: [String], words: String) throws {
    let result = try CommandLine.run(["bench", "attention"] + arguments)
    #expect(result.status != 0 && result.error.contains(words), "\(result.error)")
  }
}
