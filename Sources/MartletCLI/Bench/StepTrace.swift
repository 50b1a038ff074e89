// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCPU

/// Steps as Chrome's trace events, which Perfetto and `chrome://tracing` open: for each workload a process, in it a track of steps, one of kernels
/// and one for each worker.
///
/// Every slice is a complete event (`ph` X) in microseconds (Trace Event Format). Slices of a track nest: a choice of a token lies in its step, a run
/// of the worker pool in its kernel's call.
package struct StepTrace: Encodable, Sendable {
  package struct Event: Encodable, Sendable {
    package var name: String
    /// X: a slice; M: a name of a process or a track.
    package var ph: String
    package var pid: Int
    package var tid: Int
    /// Microseconds.
    package var ts: Double?
    package var dur: Double?
    package var cat: String?
    package var args: [String: Argument]?
  }

  package enum Argument: Encodable, Sendable {
    case text(String)
    case number(Double)

    package func encode(to encoder: any Encoder) throws {
      var container = encoder.singleValueContainer()
      switch self {
      case .text(let text): try container.encode(text)
      case .number(let number): try container.encode(number)
      }
    }
  }

  package private(set) var traceEvents: [Event] = []
  package let displayTimeUnit = "ms"
  private var processes = 0

  private static let stepTrack = 0, kernelTrack = 1, firstWorkerTrack = 2

  private enum CodingKeys: String, CodingKey { case traceEvents, displayTimeUnit }

  package init() {}

  /// Adds steps as a process of their own.
  /// - Parameter name: of the process.
  package mutating func add(_ steps: [StepRecorder.Step], named name: String, weights: [WeightDescription], threads: Int) {
    processes += 1
    let process = processes
    func label(_ kind: String, _ track: Int, _ text: String) {
      traceEvents.append(Event(name: kind, ph: "M", pid: process, tid: track, args: ["name": .text(text)]))
    }
    func slice(_ name: String, _ category: String, _ track: Int, _ span: StepRecorder.Span, _ arguments: [String: Argument] = [:]) {
      traceEvents.append(
        Event(
          name: name, ph: "X", pid: process, tid: track, ts: Double(span.begin) * 1e-3, dur: Double(span.end - span.begin) * 1e-3,
          cat: category, args: arguments.isEmpty ? nil : arguments))
    }
    func runs(_ runs: [StepRecorder.Run], of name: String) {
      for run in runs {
        let name = run.part == .main ? name : "\(run.part.rawValue) for \(name)"
        slice(run.part == .main ? "run" : run.part.rawValue, "run", Self.kernelTrack, run.span, ["tasks": .number(Double(run.taskCount))])
        for share in run.shares {
          slice(name, "worker", Self.firstWorkerTrack + share.worker, share.span, ["busy_us": .number(Double(share.busy) * 1e-3)])
        }
      }
    }
    label("process_name", 0, name)
    label("thread_name", Self.stepTrack, "steps")
    label("thread_name", Self.kernelTrack, "kernels")
    for worker in 0..<threads { label("thread_name", Self.firstWorkerTrack + worker, "worker \(worker)") }
    for step in steps {
      slice(
        "step of \(step.tokens) token\(step.tokens == 1 ? "" : "s")", "step", Self.stepTrack, step.span,
        ["contexts": .number(Double(step.contexts)), "generations": .number(Double(step.generations))])
      for span in step.samplings { slice("choice of a token", "sampling", Self.stepTrack, span) }
      for call in step.calls {
        let weight = call.call.weight.flatMap { weights.indices.contains($0) ? weights[$0].description : nil }
        let title = [call.call.name.description, weight].compactMap(\.self).joined(separator: " ")
        var arguments: [String: Argument] = ["rows": .number(Double(call.call.rows))]
        if call.call.operations > 0 {
          arguments["gflops"] = .number(call.call.operations / max(call.span.seconds, 1e-9) * 1e-9)
          arguments["gb_per_s"] = .number(call.call.byteCount / max(call.span.seconds, 1e-9) * 1e-9)
        }
        slice(title, call.call.kind.rawValue, Self.kernelTrack, call.span, arguments)
        runs(call.runs, of: title)
      }
      runs(step.otherRuns, of: "outside kernels")
    }
  }
}
