// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Reads server-sent events as they come, in whichever pieces: WHATWG, HTML Living Standard, 9.2.6.
///
/// Only their data is kept: the fields `event`, `id` and `retry` and comments say nothing about tokens.
package struct ServerSentEvents {
  private var line: [UInt8] = []
  private var data: [UInt8] = []
  private var hasData = false
  /// Whether the last byte was a carriage return, so that a line feed after it ends no second line.
  private var wasReturn = false
  private var isFirstLine = true

  package init() {}

  /// Takes in some bytes.
  /// - Returns: the data of the events that end in them. An event without its empty line is none.
  package mutating func add(_ bytes: some Sequence<UInt8>) -> [String] {
    var events: [String] = []
    for byte in bytes {
      if wasReturn && byte == UInt8(ascii: "\n") {
        wasReturn = false
        continue
      }
      wasReturn = byte == UInt8(ascii: "\r")
      if wasReturn || byte == UInt8(ascii: "\n") {
        if let event = endLine() { events.append(event) }
      } else {
        line.append(byte)
      }
    }
    return events
  }

  private mutating func endLine() -> String? {
    // A byte order mark may stand before everything.
    if isFirstLine && line.starts(with: [0xEF, 0xBB, 0xBF]) { line.removeFirst(3) }
    isFirstLine = false
    defer { line.removeAll(keepingCapacity: true) }
    if line.isEmpty {
      defer {
        data.removeAll(keepingCapacity: true)
        hasData = false
      }
      return hasData ? String(decoding: data, as: UTF8.self) : nil
    }
    let colon = line.firstIndex(of: UInt8(ascii: ":")) ?? line.endIndex
    guard line[..<colon].elementsEqual("data".utf8) else { return nil }
    var value = line[colon...].dropFirst()
    if value.first == UInt8(ascii: " ") { value = value.dropFirst() }
    // Several fields of one event are its lines.
    if hasData { data.append(UInt8(ascii: "\n")) }
    data += value
    hasData = true
    return nil
  }
}
