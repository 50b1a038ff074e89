// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation

/// What an attention benchmark found, ours or another program's: the JSON that both write and read.
struct AttentionBenchReport: Codable {
  /// In billions of operations a second; all threads together.
  struct Ceilings: Codable {
    var f32: Double
    var bf16: Double?
    var i8: Double?
  }

  struct Result: Codable {
    /// The backend, or the other program.
    var engine: String
    /// As `AttentionWorkload` reads it.
    var workload: String
    var dtype: String
    var pageSize: Int?
    /// The median of a run through the workload.
    var seconds: Double
    var prepareSeconds: Double?
    var appendSeconds: Double?
    var gflops: Double
    var gigabytesPerSecond: Double
    /// The ceilings that were measured in turn with it.
    var peakGflops: Double?
    var readGigabytesPerSecond: Double?
    /// What the ceilings allow at best.
    var roofSeconds: Double?
    var isBoundByMemory: Bool?
    var samples: [Double]

    enum CodingKeys: String, CodingKey {
      case engine, workload, dtype, seconds, gflops, samples
      case pageSize = "page_size"
      case prepareSeconds = "prepare_s"
      case appendSeconds = "append_s"
      case gigabytesPerSecond = "gb_per_s"
      case peakGflops = "peak_gflops"
      case readGigabytesPerSecond = "read_gb_per_s"
      case roofSeconds = "roof_s"
      case isBoundByMemory = "bound_by_memory"
    }
  }

  var engine: String
  var machine: String
  var ceilings: Ceilings?
  var results: [Result]

  init(engine: String, machine: String, ceilings: Ceilings?, results: [Result]) {
    self.engine = engine
    self.machine = machine
    self.ceilings = ceilings
    self.results = results
  }

  /// Reads another program's results.
  init(path: String) throws {
    do {
      self = try JSONDecoder().decode(Self.self, from: Data(contentsOf: URL(fileURLWithPath: path)))
    } catch {
      throw CommandError("\(path) holds no results of an attention benchmark, as --json prints them: \(error)")
    }
  }

  func table(beside peers: [AttentionBenchReport]) -> String {
    var text = "\(machine)\n"
    if let ceilings {
      text += "peak, GFLOP/s: f32 \(rounded(ceilings.f32))"
      if let bf16 = ceilings.bf16 { text += ", bf16 \(rounded(bf16))" }
      if let i8 = ceilings.i8 { text += ", int8 \(rounded(i8))" }
      text += "\n"
    }
    var rows = [["workload", "engine", "type", "ms", "GFLOP/s", "GB/s", "roof", "of roof", "append", "prepare"]]
    for result in results {
      rows.append(row(result))
      for peer in peers.flatMap(\.results) where peer.workload == result.workload {
        rows.append(row(peer) + [String(format: "%.2f x", peer.seconds / result.seconds)])
      }
    }
    let widths = rows[0].indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
    for row in rows {
      let cells = row.enumerated().map { index, cell in
        let padding = String(repeating: " ", count: index < widths.count ? widths[index] - cell.count : 0)
        return index < 3 ? cell + padding : padding + cell
      }
      text += cells.joined(separator: "  ").trimmingCharacters(in: .whitespaces) + "\n"
    }
    return text
  }

  private func row(_ result: Result) -> [String] {
    [
      result.workload, result.engine, result.dtype, String(format: "%.3f", result.seconds * 1e3), rounded(result.gflops),
      String(format: "%.1f", result.gigabytesPerSecond), result.isBoundByMemory.map { $0 ? "memory" : "compute" } ?? "",
      result.roofSeconds.map { String(format: "%.0f %%", $0 / result.seconds * 100) } ?? "",
      result.appendSeconds.map { String(format: "%.1f %%", $0 / result.seconds * 100) } ?? "",
      result.prepareSeconds.map { String(format: "%.3f ms", $0 * 1e3) } ?? "",
    ]
  }

  private func rounded(_ value: Double) -> String { String(format: "%.0f", value) }
}
