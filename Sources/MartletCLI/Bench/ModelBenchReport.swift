// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletAttention

/// What `martlet bench model` found. Times are in seconds.
package struct ModelBenchReport: Encodable, Sendable {
  /// In billions a second; all threads together.
  package struct Ceilings: Encodable, Sendable {
    package var f32: Double
    package var bf16: Double?
    /// Of tiles: what products of many rows are made with where there are any, in bf16 and, in two digits, exactly.
    package var bf16Tiles: Double?
    package var i16: Double?
    package var i8: Double?
    package var readGigabytesPerSecond: Double

    enum CodingKeys: String, CodingKey {
      case f32, bf16, i16, i8
      case bf16Tiles = "bf16_tiles"
      case readGigabytesPerSecond = "read_gb_per_s"
    }

    package init(f32: Double, bf16: Double?, bf16Tiles: Double?, i16: Double?, i8: Double?, readGigabytesPerSecond: Double) {
      self.f32 = f32
      self.bf16 = bf16
      self.bf16Tiles = bf16Tiles
      self.i16 = i16
      self.i8 = i8
      self.readGigabytesPerSecond = readGigabytesPerSecond
    }
  }

  package struct FirstPrompt: Encodable, Sendable {
    package var tokens: Int
    /// To its first token.
    package var seconds: Double
  }

  package struct Result: Encodable, Sendable {
    package var part: ModelBenchPlan.Part
    package var workload: String
    /// Of a prompt the time to the first token; of generation and of several requests from when every request has its first token to the last. A median.
    package var seconds: Double
    /// Tokens of the prompt, or those that came in that time, by it. Of the run with the median time.
    package var tokensPerSecond: Double
    /// From the submission to the last token: the median, and all generated tokens by it.
    package var wholeSeconds: Double
    package var wholeTokensPerSecond: Double
    package var timeToFirstToken: Double
    package var samples: [Double]
    /// Of what is timed: operations of products and of attention, bytes of weights and of the cache.
    package var productOperations = 0.0
    package var attentionOperations = 0.0
    package var weightBytes = 0.0
    package var cacheBytes = 0.0
    package var breakdown: StepBreakdown?

    package var gflops: Double { (productOperations + attentionOperations) / seconds * 1e-9 }
    package var gigabytesPerSecond: Double { (weightBytes + cacheBytes) / seconds * 1e-9 }

    enum CodingKeys: String, CodingKey {
      case part, workload, seconds, samples, breakdown, gflops
      case tokensPerSecond = "tokens_per_s"
      case wholeSeconds = "whole_s"
      case wholeTokensPerSecond = "whole_tokens_per_s"
      case timeToFirstToken = "time_to_first_token_s"
      case productOperations = "product_operations"
      case attentionOperations = "attention_operations"
      case weightBytes = "weight_bytes"
      case cacheBytes = "cache_bytes"
      case gigabytesPerSecond = "gb_per_s"
    }

    package func encode(to encoder: any Encoder) throws {
      var container = encoder.container(keyedBy: CodingKeys.self)
      try container.encode(part, forKey: .part)
      try container.encode(workload, forKey: .workload)
      try container.encode(seconds, forKey: .seconds)
      try container.encode(tokensPerSecond, forKey: .tokensPerSecond)
      try container.encode(wholeSeconds, forKey: .wholeSeconds)
      try container.encode(wholeTokensPerSecond, forKey: .wholeTokensPerSecond)
      try container.encode(timeToFirstToken, forKey: .timeToFirstToken)
      try container.encode(samples, forKey: .samples)
      try container.encode(productOperations, forKey: .productOperations)
      try container.encode(attentionOperations, forKey: .attentionOperations)
      try container.encode(weightBytes, forKey: .weightBytes)
      try container.encode(cacheBytes, forKey: .cacheBytes)
      try container.encode(gflops, forKey: .gflops)
      try container.encode(gigabytesPerSecond, forKey: .gigabytesPerSecond)
      try container.encodeIfPresent(breakdown, forKey: .breakdown)
    }

    /// - Parameter samples: at least one.
    package init(_ entry: ModelBenchPlan.Entry, samples: [ModelSample]) {
      part = entry.part
      workload = entry.workload.description
      func seconds(_ sample: ModelSample) -> Double { entry.part == .prompt ? sample.firstToken : sample.generationSeconds }
      let sorted = samples.sorted { seconds($0) < seconds($1) }
      let middle = sorted[sorted.count / 2]
      self.seconds = seconds(middle)
      self.samples = samples.map(seconds)
      let tokens = entry.part == .prompt ? entry.workload.requests * entry.workload.promptTokens : middle.tokensAfterFirst
      tokensPerSecond = Double(tokens) / Swift.max(self.seconds, 1e-9)
      let whole = samples.sorted { $0.end < $1.end }[samples.count / 2]
      wholeSeconds = whole.end
      wholeTokensPerSecond = Double(whole.tokens) / Swift.max(whole.end, 1e-9)
      timeToFirstToken = samples.map(\.firstToken).sorted()[samples.count / 2]
    }

    /// What was counted while the workload was watched.
    package mutating func add(_ breakdown: StepBreakdown) {
      self.breakdown = breakdown
      let steps = Double(breakdown.steps)
      productOperations = breakdown.productOperations * steps
      attentionOperations = breakdown.attentionOperations * steps
      weightBytes = breakdown.weightBytes * steps
      cacheBytes = breakdown.cacheBytes * steps
    }
  }

  package struct Model: Encodable, Sendable {
    package var model: String
    package var architecture: String
    /// The key/value cache, in words.
    package var cache: String
    package var fileBytes: Int
    package var loadSeconds: Double
    package var firstPrompt: FirstPrompt
    /// The most that the process had in memory until the first prompt was answered, and until each workload had run once. nil where the system does not say.
    package var peakResidentBytes: Int?
    package var peakResidentBytesOfAll: Int?
    /// Medians of what was measured in turn with the workloads.
    package var ceilings: Ceilings
    package var results: [Result]

    enum CodingKeys: String, CodingKey {
      case model, architecture, cache, ceilings, results
      case fileBytes = "file_bytes"
      case loadSeconds = "load_s"
      case firstPrompt = "first_prompt"
      case peakResidentBytes = "peak_resident_bytes"
      case peakResidentBytesOfAll = "peak_resident_bytes_of_all"
    }
  }

  package var device: String
  /// How products rounded rows.
  package var activations: String
  /// In which form latent attention read prompts.
  package var latentPrompts: String
  package var seed: UInt64
  package var models: [Model]

  enum CodingKeys: String, CodingKey {
    case device, activations, seed, models
    case latentPrompts = "latent_prompts"
  }

  /// Tables.
  package var text: String {
    let latents = latentPrompts == LatentPrompts.absorbed.description ? "" : ", latent prompts \(latentPrompts)"
    return models.reduce("\(device), activations \(activations)\(latents)\n") { $0 + "\n" + Self.text(of: $1) }
  }

  private static func number(_ value: Double, _ digits: Int) -> String { String(format: "%.\(digits)f", value) }

  private static func text(of model: Model) -> String {
    let ceilings = model.ceilings
    func megabytes(_ count: Int) -> String { "\(count / 1_000_000) MB" }
    var text =
      "\(model.model) (\(model.architecture), \(megabytes(model.fileBytes))), loaded in \(number(model.loadSeconds, 2)) s, first prompt of "
    text += "\(model.firstPrompt.tokens) tokens in \(number(model.firstPrompt.seconds, 3)) s"
    if let peak = model.peakResidentBytes { text += ", at most \(megabytes(peak)) in memory until then" }
    if let peak = model.peakResidentBytesOfAll { text += " and \(megabytes(peak)) in all" }
    text += "\ncache: \(model.cache)\n"
    // Few processors have tiles: of those that have none they are no column.
    let known: [(name: String, peak: Double?)] =
      [("f32", ceilings.f32), ("bf16", ceilings.bf16)] + (ceilings.bf16Tiles == nil ? [] : [("bf16 tiles", ceilings.bf16Tiles)])
      + [("int16", ceilings.i16), ("int8", ceilings.i8)]
    let peaks = known.compactMap { name, peak in peak.map { "\(name) \(number($0, 0))" } }
    text += "peak, GFLOP/s: \(peaks.joined(separator: ", ")); reading \(number(ceilings.readGigabytesPerSecond, 1)) GB/s\n\n"
    var rows = [["", "workload", "ms", "tokens/s", "whole", "GFLOP/s"] + known.map { "of \($0.name)" } + ["GB/s", "of read"]]
    for result in model.results {
      func share(_ rate: Double, _ peak: Double?) -> String { peak.map { "\(number(rate / $0 * 100, 0)) %" } ?? "–" }
      rows.append(
        [
          result.part.rawValue, result.workload, number(result.seconds * 1e3, 1), number(result.tokensPerSecond, 1),
          result.part == .concurrency ? number(result.wholeTokensPerSecond, 1) : "", number(result.gflops, 1),
        ] + known.map { share(result.gflops, $0.peak) } + [
          number(result.gigabytesPerSecond, 1), share(result.gigabytesPerSecond, ceilings.readGigabytesPerSecond),
        ])
    }
    let widths = rows[0].indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
    for row in rows {
      let cells = row.enumerated().map { index, cell in
        let padding = String(repeating: " ", count: widths[index] - cell.count)
        return index < 2 ? cell + padding : padding + cell
      }
      text += cells.joined(separator: "  ") + "\n"
    }
    for result in model.results {
      guard let breakdown = result.breakdown else { continue }
      text += "\n\(result.part.rawValue) \(result.workload): \(breakdown.steps) step\(breakdown.steps == 1 ? "" : "s") of "
      text += "\(number(breakdown.tokensPerStep, 1)) tokens, on average\n" + breakdown.text
    }
    return text
  }
}
