// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Where the tokens of a prompt are in time, height and width, for models that turn their heads by three positions (mrope).
///
/// A text's tokens have the same position on all three axes, each one more than the last; the patches of an image share a time, and have rows and
/// columns that begin where the text before it ended. The answer goes on from ``next``.
public struct TokenPositions: Sendable, Hashable, Codable {
  /// Of each token of the prompt, from 0 on.
  public var time: [Int]
  public var height: [Int]
  public var width: [Int]

  public init(time: [Int], height: [Int], width: [Int]) {
    self.time = time
    self.height = height
    self.width = width
  }

  /// The position of the first token of the answer, on all axes: one more than the greatest of the prompt.
  public var next: Int { max(time.max() ?? -1, height.max() ?? -1, width.max() ?? -1) + 1 }
}

/// Positions as a step reads them.
package struct PlacedPrompt {
  /// Time, height and width, one after the other.
  private let values: [Int32]
  private let count: Int
  private let next: Int32

  init(_ positions: TokenPositions) {
    values = (positions.time + positions.height + positions.width).map(Int32.init)
    count = positions.time.count
    next = Int32(positions.next)
  }

  /// On an axis, of a token of the prompt or of the answer.
  func position(of token: Int, axis: Int) -> Int32 { token < count ? values[axis * count + token] : next + Int32(token - count) }
}
