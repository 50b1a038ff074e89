// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// The bytes of a text on its way to tokens, and which of them are contents: there the names of control tokens are text.
struct MarkedBytes: Sendable {
  var bytes: [UInt8]
  /// In ascending order; no two touch.
  var contents: [Range<Int>] = []
  /// Whether what is first here is the first of the whole text: a normaliser may have taken that away.
  var isBeginning = true
  /// Whether names that end a turn are text in contents even if the file calls them text: they are then found in any other.
  var withholdsEnds = false

  init(_ bytes: [UInt8]) { self.bytes = bytes }

  /// What `encode(_:parsesSpecialTokens:)` is asked for: the whole text is contents, or none of it.
  init(_ text: String, parsesSpecialTokens: Bool) {
    bytes = Array(text.utf8)
    if !parsesSpecialTokens { contents.appendMerging(0..<bytes.count) }
  }

  init(_ text: MarkedText) {
    bytes = Array(text.text.utf8)
    withholdsEnds = true
    var end = 0
    for range in text.contents {
      enforce(
        range.lowerBound >= end && range.upperBound <= bytes.count,
        "contents \(range) follow \(end) in a text of \(bytes.count) bytes")
      contents.appendMerging(range)
      end = range.upperBound
    }
  }

  /// A part of the text, as a text of its own.
  /// - Parameter cursor: Asked for parts in ascending order.
  func part(_ range: Range<Int>, _ cursor: inout ContentCursor) -> MarkedBytes {
    var part = MarkedBytes(Array(bytes[range]))
    part.withholdsEnds = withholdsEnds
    cursor.forEachOverlap(with: range) { part.contents.appendMerging($0.lowerBound - range.lowerBound..<$0.upperBound - range.lowerBound) }
    return part
  }
}

/// Says of places in a text, asked in ascending order of their beginnings, whether contents are there. Linear in the text for all questions
/// together.
struct ContentCursor {
  enum Overlap { case none, partial, whole }

  private let contents: [Range<Int>]
  private var next = 0

  init(_ text: MarkedBytes) { contents = text.contents }

  private mutating func advance(to position: Int) {
    while next < contents.count, contents[next].upperBound <= position { next += 1 }
  }

  /// Whether the byte at `position` is contents.
  mutating func contains(_ position: Int) -> Bool {
    advance(to: position)
    return next < contents.count && contents[next].lowerBound <= position
  }

  /// How much of `range`, which is not empty, is contents.
  mutating func overlap(with range: Range<Int>) -> Overlap {
    advance(to: range.lowerBound)
    guard next < contents.count, contents[next].lowerBound < range.upperBound else { return .none }
    return contents[next].lowerBound <= range.lowerBound && contents[next].upperBound >= range.upperBound ? .whole : .partial
  }

  /// Calls `body` with the contents in `range`, cut at its ends.
  mutating func forEachOverlap(with range: Range<Int>, _ body: (Range<Int>) -> Void) {
    advance(to: range.lowerBound)
    var index = next
    while index < contents.count, contents[index].lowerBound < range.upperBound {
      body(contents[index].clamped(to: range))
      index += 1
    }
  }
}

/// Writes a text anew, part by part in order, and keeps track of what in it is contents.
struct MarkedRewriting {
  private let source: MarkedBytes
  private var cursor: ContentCursor
  private(set) var result: MarkedBytes

  init(_ source: MarkedBytes) {
    self.source = source
    cursor = ContentCursor(source)
    result = MarkedBytes([])
    result.bytes.reserveCapacity(source.bytes.count + source.bytes.count / 2)
    result.withholdsEnds = source.withholdsEnds
  }

  private mutating func noteBeginning(_ range: Range<Int>) {
    if result.bytes.isEmpty { result.isBeginning = source.isBeginning && range.lowerBound == 0 }
  }

  /// The part as it is.
  mutating func copy(_ range: Range<Int>) {
    let offset = result.bytes.count - range.lowerBound
    noteBeginning(range)
    result.bytes += source.bytes[range]
    guard !source.contents.isEmpty else { return }
    var copied = result.contents
    result.contents = []
    cursor.forEachOverlap(with: range) { copied.appendMerging($0.lowerBound + offset..<$0.upperBound + offset) }
    result.contents = copied
  }

  /// Other bytes for the part: contents if any byte of the part is, or where nothing is replaced, if what follows is.
  mutating func replace(_ range: Range<Int>, with bytes: some Collection<UInt8>) {
    let start = result.bytes.count
    if !bytes.isEmpty { noteBeginning(range) }
    result.bytes += bytes
    guard !source.contents.isEmpty else { return }
    let isContent = range.isEmpty ? cursor.contains(range.lowerBound) : cursor.overlap(with: range) != .none
    if isContent { result.contents.appendMerging(start..<result.bytes.count) }
  }
}
