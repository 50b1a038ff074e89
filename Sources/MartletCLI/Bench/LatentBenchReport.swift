// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation

/// What the two forms of latent attention took.
struct LatentBenchReport: Encodable {
  struct Result: Encodable {
    /// The backend.
    var engine: String
    /// As `AttentionWorkload` reads it.
    var workload: String
    var dtype: String
    /// Medians of a run through the workload.
    var absorbedSeconds: Double
    var expandedSeconds: Double
    /// From how many new tokens on an engine expands, unless it is told another number; nil = never.
    var leastExpandedTokens: Int?
    var absorbedSamples: [Double]
    var expandedSamples: [Double]

    enum CodingKeys: String, CodingKey {
      case engine, workload, dtype
      case absorbedSeconds = "absorbed_s"
      case expandedSeconds = "expanded_s"
      case leastExpandedTokens = "least_expanded_tokens"
      case absorbedSamples = "absorbed_samples"
      case expandedSamples = "expanded_samples"
    }
  }

  var machine: String
  /// How products rounded rows.
  var activations: String
  /// Dims of a key without position, and of a value.
  var heads: String
  var results: [Result]

  var table: String {
    var rows = [["workload", "engine", "type", "absorbed, ms", "expanded, ms", "ratio", "from"]]
    for result in results {
      rows.append([
        result.workload, result.engine, result.dtype, String(format: "%.1f", result.absorbedSeconds * 1e3),
        String(format: "%.1f", result.expandedSeconds * 1e3), String(format: "%.2f x", result.absorbedSeconds / result.expandedSeconds),
        result.leastExpandedTokens.map { "\($0) tokens" } ?? "never",
      ])
    }
    let widths = rows[0].indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
    return rows.reduce("\(machine), activations \(activations), heads of \(heads)\n") { text, row in
      let cells = row.enumerated().map { index, cell in
        let padding = String(repeating: " ", count: widths[index] - cell.count)
        return index < 3 ? cell + padding : padding + cell
      }
      return text + cells.joined(separator: "  ").trimmingCharacters(in: .whitespaces) + "\n"
    }
  }
}
