// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import Logging
import MartletTemplates

/// Log lines on standard error: for people, or JSON for programs.
enum ServeLog {
  static func logger(_ format: ServeLogFormat) -> Logger {
    switch format {
    case .text: Logger(label: "martlet") { StreamLogHandler.standardError(label: $0) }
    case .json: Logger(label: "martlet") { _ in JSONLogHandler() }
    }
  }
}

/// One object a line.
private struct JSONLogHandler: LogHandler {
  var metadata: Logger.Metadata = [:]
  var logLevel: Logger.Level = .info

  subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  func log(event: LogEvent) {
    var line: JSON.Object = [
      "time": .string(Date().ISO8601Format()), "level": .string(event.level.rawValue), "message": .string("\(event.message)"),
    ]
    for (key, value) in metadata.merging(event.metadata ?? [:], uniquingKeysWith: { $1 }).sorted(by: { $0.key < $1.key }) {
      let text = "\(value)"
      // What a client chose, such as an id, stays the text that it is.
      if key == "status" || key.hasSuffix("_ms") || key.hasSuffix("_tokens"), let number = Double(text), number.isFinite {
        line[key] = Int(text).map { .integer($0) } ?? .number(number)
      } else {
        line[key] = key == "stream" ? .bool(text == "true") : .string(text)
      }
    }
    FileHandle.standardError.write(Data((JSON.object(line).text + "\n").utf8))
  }
}
