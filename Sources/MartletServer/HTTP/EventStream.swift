// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import HTTPTypes
import Hummingbird
import Martlet
import MartletTemplates
import NIOCore

/// Server-sent events. An event is `data: {…}` on one line and an empty line; never an id or a retry field, which break the decoders of
/// OpenAI's clients.
struct EventStream {
  private var writer: any ResponseBodyWriter
  private var pending = ByteBuffer()
  /// When bytes last left.
  private(set) var lastWrite = ContinuousClock.now

  init(_ writer: any ResponseBodyWriter) { self.writer = writer }

  /// Adds an event; it leaves with ``flush()``.
  /// - Parameter name: for APIs whose clients look for it. OpenAI's completions have none.
  mutating func add(_ json: JSON, named name: String? = nil) {
    if let name { pending.writeString("event: \(name)\n") }
    pending.writeString(Self.line(json))
  }

  /// Adds one of many events that differ by nothing but a text.
  mutating func add(_ text: String, as events: TextEvents) { events.write(text, to: &pending) }

  /// An event without a name.
  static func line(_ json: JSON) -> String { "data: " + json.oneLine + "\n\n" }

  /// Adds the mark behind which OpenAI's clients close the connection: nothing may be done between it and the end of the body.
  mutating func addDone() { pending.writeString("data: [DONE]\n\n") }

  /// Sends what was added, as one piece.
  mutating func flush() async throws {
    if pending.readableBytes == 0 { return }
    let buffer = pending
    pending = ByteBuffer()
    lastWrite = .now
    try await writer.write(buffer)
  }

  /// A comment, or the event that an API has for it.
  mutating func keepAlive(named name: String? = nil) async throws {
    if let name { add(["type": .string(name)], named: name) } else { pending.writeString(": keep-alive\n\n") }
    try await flush()
  }

  mutating func finish() async throws {
    try await flush()
    try await writer.finish(nil)
  }

  static let headers: HTTPFields = [
    .contentType: "text/event-stream; charset=utf-8", .cacheControl: "no-cache", .accelBuffering: "no",
  ]
}

extension JSON {
  /// Without characters at which some readers of lines end one.
  var oneLine: String {
    let text = text
    // The bytes that they begin with, of which most texts have none.
    guard text.utf8.contains(where: { $0 == 0xE2 || $0 == 0xC2 }) else { return text }
    guard text.unicodeScalars.contains(where: { $0 == "\u{2028}" || $0 == "\u{2029}" || $0 == "\u{85}" }) else { return text }
    return text.unicodeScalars.reduce(into: "") { line, scalar in
      switch scalar {
      case "\u{2028}": line += #"\u2028"#
      case "\u{2029}": line += #"\u2029"#
      case "\u{85}": line += #"\u0085"#
      default: line.unicodeScalars.append(scalar)
      }
    }
  }
}
#endif
