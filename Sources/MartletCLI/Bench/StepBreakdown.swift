// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletCPU

/// Where the time of steps went, by kind of kernel and, of products, by shape: what a benchmark of a model prints and writes.
///
/// The rows, ``samplingSeconds`` and ``otherSeconds`` are all of ``stepSeconds``: a call counts as long as the engine waited for it, on one thread or on
/// all.
package struct StepBreakdown: Encodable, Sendable {
  /// The calls of one kernel, of products those with one shape and format. All numbers are those of a step on average.
  package struct Row: Encodable, Sendable {
    package var kind: KernelCall.Kind
    package var kernel: String
    /// Of products: outputs x inputs of the weight, and its formats.
    package var weight: String?
    package var calls: Double
    package var seconds: Double
    /// Of the step.
    package var share: Double
    /// Of the threads' time meanwhile, what they spent in tasks.
    package var busy: Double
    package var gflops: Double?
    package var gigabytesPerSecond: Double?

    enum CodingKeys: String, CodingKey {
      case kind, kernel, weight, calls, seconds, share, busy, gflops
      case gigabytesPerSecond = "gb_per_s"
    }
  }

  /// Steps that it is about, and their tokens on average.
  package var steps: Int
  package var tokensPerStep: Double
  /// A step on average.
  package var stepSeconds: Double
  /// Longest first.
  package var rows: [Row]
  /// The choice of tokens from logits.
  package var samplingSeconds: Double
  /// What is neither a kernel nor the choice of tokens: the schedule, the tables of attention, copies to the device.
  package var otherSeconds: Double
  /// Of the threads' time in a step, what they did not spend in tasks: while all were called (fork, join, and who has no task left), and while one
  /// thread alone went on.
  package var forkWaitShare: Double
  package var aloneWaitShare: Double
  /// Products with weights and attention, and what they must read of weights and cache, of a step.
  package var productOperations: Double
  package var attentionOperations: Double
  package var weightBytes: Double
  package var cacheBytes: Double

  enum CodingKeys: String, CodingKey {
    case steps, rows
    case tokensPerStep = "tokens_per_step"
    case stepSeconds = "step_s"
    case samplingSeconds = "sampling_s"
    case otherSeconds = "other_s"
    case forkWaitShare = "fork_wait_share"
    case aloneWaitShare = "alone_wait_share"
    case productOperations = "product_operations"
    case attentionOperations = "attention_operations"
    case weightBytes = "weight_bytes"
    case cacheBytes = "cache_bytes"
  }

  private struct Key: Hashable {
    var kind: KernelCall.Kind
    var kernel: String
    var weight: WeightDescription?
  }

  fileprivate struct Sum {
    var calls = 0
    var seconds = 0.0
    var busySeconds = 0.0
    var operations = 0.0
    var byteCount = 0.0
  }

  /// - Parameters:
  ///   - weights: of the device, by which calls name theirs.
  ///   - threads: of the pool.
  package init(_ steps: [StepRecorder.Step], weights: [WeightDescription], threads: Int) {
    self.steps = steps.count
    let count = Double(max(steps.count, 1)), allThreads = Double(threads)
    tokensPerStep = Double(steps.reduce(0) { $0 + $1.tokens }) / count
    let all = steps.reduce(0) { $0 + $1.span.seconds }
    stepSeconds = all / count
    samplingSeconds = steps.reduce(0) { $0 + $1.samplings.reduce(0) { $0 + $1.seconds } } / count
    var sums: [Key: Sum] = [:]
    var (forkedSeconds, forkedBusy) = (0.0, 0.0)
    (productOperations, attentionOperations, weightBytes, cacheBytes) = (0, 0, 0, 0)
    for step in steps {
      for call in step.calls {
        let work = call.call
        let key = Key(
          kind: work.kind, kernel: work.name.description, weight: work.weight.flatMap { weights.indices.contains($0) ? weights[$0] : nil })
        var (seconds, busy) = (call.span.seconds, 0.0)
        for run in call.runs {
          if run.part == .coding {
            // Codes are made for a product, and are none of its arithmetic.
            seconds -= run.span.seconds
            sums[Key(kind: .coding, kernel: "codeInputs", weight: nil), default: Sum()].add(run)
          } else {
            busy += run.busySeconds
          }
        }
        sums[key, default: Sum()].add(
          Sum(calls: 1, seconds: seconds, busySeconds: busy, operations: work.operations, byteCount: work.byteCount))
        if work.kind == .attend {
          attentionOperations += work.operations / count
          cacheBytes += work.byteCount / count
        } else {
          productOperations += work.operations / count
          weightBytes += work.byteCount / count
        }
      }
      for run in step.calls.flatMap(\.runs) + step.otherRuns where run.taskCount > 1 {
        forkedSeconds += run.span.seconds
        forkedBusy += run.busySeconds
      }
    }
    rows = sums.map { key, sum in
      Row(
        kind: key.kind, kernel: key.kernel, weight: key.weight?.description, calls: Double(sum.calls) / count,
        seconds: sum.seconds / count, share: sum.seconds / max(all, 1e-12),
        busy: sum.busySeconds / max(allThreads * sum.seconds, 1e-12),
        gflops: sum.operations > 0 ? sum.operations / max(sum.seconds, 1e-12) * 1e-9 : nil,
        gigabytesPerSecond: sum.byteCount > 0 ? sum.byteCount / max(sum.seconds, 1e-12) * 1e-9 : nil)
    }.sorted { ($1.seconds, $0.kernel) < ($0.seconds, $1.kernel) }
    otherSeconds = stepSeconds - samplingSeconds - rows.reduce(0) { $0 + $1.seconds }
    let threadSeconds = max(allThreads * all, 1e-12)
    forkWaitShare = (allThreads * forkedSeconds - forkedBusy) / threadSeconds
    // Alone: whatever is no run of several tasks, on all threads but one.
    aloneWaitShare = (allThreads - 1) * (all - forkedSeconds) / threadSeconds
  }

  /// A table: the kinds, and below each of several kernels or shapes its rows.
  package var text: String {
    func number(_ value: Double, _ digits: Int) -> String { String(format: "%.\(digits)f", value) }
    func percent(_ share: Double) -> String { number(share * 100, 1) + " %" }
    var lines = [["", "calls", "ms", "of step", "busy", "GFLOP/s", "GB/s"]]
    func line(_ name: String, _ rows: [Row]) {
      let seconds = rows.reduce(0) { $0 + $1.seconds }
      func rate(_ rate: (Row) -> Double?) -> String {
        let rates = rows.compactMap { row in rate(row).map { $0 * row.seconds } }
        return rates.isEmpty ? "" : number(rates.reduce(0, +) / max(seconds, 1e-12), 1)
      }
      lines.append([
        name, number(rows.reduce(0) { $0 + $1.calls }, 0), number(seconds * 1e3, 3), percent(rows.reduce(0) { $0 + $1.share }),
        percent(rows.reduce(0) { $0 + $1.busy * $1.seconds } / max(seconds, 1e-12)), rate(\.gflops), rate(\.gigabytesPerSecond),
      ])
    }
    let kinds = KernelCall.Kind.allCases.map { kind in (kind, rows.filter { $0.kind == kind }) }.filter { !$0.1.isEmpty }
    for (kind, own) in kinds.sorted(by: { $0.1.reduce(0) { $0 + $1.seconds } > $1.1.reduce(0) { $0 + $1.seconds } }) {
      line(kind.rawValue, own)
      if own.count > 1 || own[0].weight != nil {
        for row in own { line("  " + [row.kernel, row.weight].compactMap(\.self).joined(separator: " "), [row]) }
      }
    }
    lines.append(["choice of tokens", "", number(samplingSeconds * 1e3, 3), percent(samplingSeconds / max(stepSeconds, 1e-12))])
    lines.append(["all else", "", number(otherSeconds * 1e3, 3), percent(otherSeconds / max(stepSeconds, 1e-12))])
    lines.append(["step", "", number(stepSeconds * 1e3, 3)])
    let widths = lines[0].indices.map { column in lines.map { $0.indices.contains(column) ? $0[column].count : 0 }.max() ?? 0 }
    var text = ""
    for cells in lines {
      let padded = cells.enumerated().map { index, cell in
        let padding = String(repeating: " ", count: widths[index] - cell.count)
        return index == 0 ? cell + padding : padding + cell
      }
      text += "  " + padded.joined(separator: "  ") + "\n"
    }
    text +=
      "  threads wait \(percent(forkWaitShare)) of their time in forks and joins, \(percent(aloneWaitShare)) while one goes on alone\n"
    return text
  }
}

extension StepBreakdown.Sum {
  fileprivate mutating func add(_ other: Self) {
    calls += other.calls
    seconds += other.seconds
    busySeconds += other.busySeconds
    operations += other.operations
    byteCount += other.byteCount
  }

  fileprivate mutating func add(_ run: StepRecorder.Run) {
    add(StepBreakdown.Sum(calls: 1, seconds: run.span.seconds, busySeconds: run.busySeconds))
  }
}
