// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletTemplates
import MartletTokenizers

/// A reply of a server, with the time of every piece: written down while it comes, read when nobody has to wait for it.
package struct RecordedAnswer: Sendable {
  /// Nothing where no head came.
  package var status: Int?
  package var contentType = ""
  package var bytes: [UInt8] = []
  /// How many bytes there were after each piece, and when it came, in seconds since the request's time.
  package var pieces: [(end: Int, time: Double)] = []
  /// What went wrong with the connection.
  package var failure: String?
  /// When it ended, well or not.
  package var ended = 0.0

  package init() {}

  /// The body as JSON, where it is some.
  var json: JSON? { try? JSON(parsing: String(decoding: bytes, as: UTF8.self)) }

  /// What a client sees of it.
  package var sample: ServeBenchReport.Sample {
    var sample = ServeBenchReport.Sample(ended: ended)
    guard failure == nil, let status else {
      sample.failure = failure ?? "no answer"
      return sample
    }
    guard status == 200 else {
      sample.failure = "HTTP \(status)" + (Self.kind(of: json?["error"]).map { ", \($0)" } ?? "")
      sample.message = json?["error"]?["message"]?.string
      return sample
    }
    guard contentType.lowercased().hasPrefix("text/event-stream") else {
      sample.failure = "no stream of events, but \(contentType.isEmpty ? "no type" : contentType)"
      return sample
    }
    readEvents(into: &sample)
    return sample
  }

  private func readEvents(into sample: inout ServeBenchReport.Sample) {
    var events = ServerSentEvents()
    var (start, isDone, last) = (0, false, Double?.none)
    for piece in pieces {
      for event in events.add(bytes[start..<piece.end]) {
        if event == "[DONE]" {
          isDone = true
          continue
        }
        guard let json = try? JSON(parsing: event) else {
          sample.failure = "an event that is not JSON"
          sample.message = String(event.prefix(200))
          return
        }
        if let error = json["error"], !error.isNull {
          sample.failure = "an error event" + (Self.kind(of: error).map { ", \($0)" } ?? "")
          sample.message = error["message"]?.string
          return
        }
        sample.add(usage: json["usage"])
        for choice in json["choices"]?.array ?? [] {
          if let reason = choice["finish_reason"], !reason.isNull { isDone = true }
          guard Self.hasText(choice) else { continue }
          if let last { sample.betweenEvents.append(piece.time - last) } else { sample.timeToFirstToken = piece.time }
          last = piece.time
          sample.events += 1
        }
      }
      start = piece.end
    }
    sample.lastEvent = last
    // Without either the connection may have been cut.
    if !isDone { sample.failure = "a stream without its end" }
  }

  /// Whether a token shows in it: text, thoughts or a call.
  private static func hasText(_ choice: JSON) -> Bool {
    let delta = choice["delta"]
    let texts = [choice["text"], delta?["content"], delta?["reasoning_content"], delta?["reasoning"]]
    return texts.contains { !($0?.string ?? "").isEmpty } || !(delta?["tool_calls"]?.array ?? []).isEmpty
  }

  private static func kind(of error: JSON?) -> String? { error?["code"]?.string ?? error?["type"]?.string }
}

extension JSON {
  /// Of a JSON number without a fraction.
  var wholeNumber: Int? { if case .integer(let number) = self { number } else { nil } }
}
