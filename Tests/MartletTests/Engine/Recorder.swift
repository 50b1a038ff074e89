// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Logging

/// Keeps what is logged.
struct Recorder: LogHandler {
  var metadata: Logger.Metadata = [:]
  var logLevel: Logger.Level = .trace
  let record: @Sendable (Logger.Level, String, Logger.Metadata) -> Void

  init(_ record: @escaping @Sendable (Logger.Level, String, Logger.Metadata) -> Void) { self.record = record }

  subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  func log(event: LogEvent) {
    record(event.level, "\(event.message)", event.metadata ?? [:])
  }
}
