// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import Testing

/// `martlet verify` as a person and as a program run it.
@Suite struct VerifyTests {
  struct Report: Decodable {
    struct Cell: Decodable {
      var axes: [String: String]
      var seed: UInt64
      var verdict: String
      var words: [String]
      var error: Double?
      var tolerance: Double
    }
    struct Law: Decodable {
      var backend: String
      var kv: String
      var law: String
      var verdict: String
      var comparisons: Int
    }
    var device: String
    var seed: UInt64
    var passed: Bool
    var cells: [Cell]
    var laws: [Law]
    var scenarios: [Law]
    var unserved: [String]
  }

  @Test func `verify runs the golden backend and prints every cell as JSON`() throws {
    let result = try CommandLine.run(["verify", "--backend", "vanilla", "--seed", "7", "--json"])
    let report = try result.json(Report.self)
    #expect(result.status == 0 && report.passed && report.seed == 7)
    #expect(Set(report.cells.map { $0.axes["backend"] }) == ["VANILLA"])
    #expect(report.cells.count > 70)
    for cell in report.cells {
      #expect(cell.axes.count == 12)
      #expect(cell.verdict == "passed" && cell.words.isEmpty)
      #expect((cell.error ?? .infinity) <= cell.tolerance)
    }
    #expect(Set(report.laws.map(\.kv)) == ["f32", "f16", "bf16", "f8e4m3", "i8"])
    #expect(report.laws.allSatisfy { $0.verdict == "holds" && $0.comparisons > 0 })
    #expect(report.scenarios.isEmpty && report.unserved.isEmpty)
  }

  @Test func `verify prints a table, on the instruction set that it is told`() throws {
    let result = try CommandLine.run(["verify", "--backend", "VANILLA", "--instruction-set", "portable"])
    #expect(result.status == 0)
    #expect(result.output.hasPrefix("portable ("))
    #expect(result.output.contains("everything holds: refused 0 of "))
    #expect(result.output.split(separator: "\n").count { $0.hasPrefix("VANILLA") && $0.hasSuffix("passed") } == 5)
  }

  @Test func `verify refuses what it does not know`() throws {
    let backend = try CommandLine.run(["verify", "--backend", "FLASH"])
    #expect(backend.status == 64 && backend.error.contains("attention backend \"FLASH\" is unknown"))
    let device = try CommandLine.run(["verify", "--device", "tpu"])
    #expect(device.status == 64 && device.error.contains("'tpu' is invalid for '--device <name>'"), "\(device.error)")
    // No machine has so many, and most have none.
    let number = try CommandLine.run(["verify", "--device", "cuda:99"])
    #expect(number.status == 1 && number.error.contains("there is no "), "\(number.error)")
    let set = try CommandLine.run(["verify", "--instruction-set", "mmx"])
    #expect(set.status == 1 && set.error.contains("mmx"))
  }
}
