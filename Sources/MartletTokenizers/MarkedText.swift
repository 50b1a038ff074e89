// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// A text that a program wrote around values that it was handed: a rendered chat template around the messages of a conversation.
///
/// A mark such as `<|im_end|>` is that token where the program wrote it, and text where a value has it: so no message can end its own turn.
/// ``Tokenizer/encode(_:)`` keeps the two apart.
public struct MarkedText: Sendable, Hashable {
  /// The whole text.
  public var text: String
  /// The bytes of `text.utf8` that came from values, in ascending order; no two ranges overlap.
  public var contents: [Range<Int>]

  /// A text of which `contents` came from values, by default nothing.
  public init(_ text: String = "", contents: [Range<Int>] = []) {
    self.text = text
    self.contents = contents
  }

  /// A text of parts that each came from a value or not.
  public init(_ parts: some Sequence<(text: String, isContent: Bool)>) {
    self.init()
    for part in parts { append(part.text, isContent: part.isContent) }
  }

  /// Puts `part` at the end. Contents that touch become one range.
  public mutating func append(_ part: String, isContent: Bool) {
    let start = text.utf8.count
    text += part
    if isContent { contents.appendMerging(start..<text.utf8.count) }
  }
}

extension [Range<Int>] {
  /// Appends a range that begins where the last one ends or later; one that touches it lengthens it, an empty one is left out.
  mutating func appendMerging(_ range: Range<Int>) {
    guard !range.isEmpty else { return }
    if let last, last.upperBound == range.lowerBound {
      self[count - 1] = last.lowerBound..<range.upperBound
    } else {
      append(range)
    }
  }
}
