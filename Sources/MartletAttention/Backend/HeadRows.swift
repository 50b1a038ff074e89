// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// The heads of some tokens in host memory, anywhere in wider rows: the room in which Swift normalises and rotates.
///
/// The pointer is borrowed from a tensor that outlives every use.
struct HeadRows {
  /// The first head of the first token.
  let base: UnsafeMutablePointer<Float>
  /// Elements from one token to the next.
  let rowStride: Int
  let numTokens: Int
  let numHeads: Int
  let headDim: Int

  /// The heads from column `column` on of the first `numTokens` rows of `tensor`.
  init(_ tensor: Tensor, column: Int = 0, numTokens: Int, numHeads: Int, headDim: Int) {
    let columns = tensor.shape[tensor.shape.rank - 1]
    enforce(
      tensor.dataType == .f32 && tensor.count >= numTokens * columns && column + numHeads * headDim <= columns,
      "\(tensor.shape) \(tensor.dataType) does not hold \(numHeads) heads of \(headDim) f32 at column \(column) for \(numTokens) tokens")
    guard let start = tensor.unsafeHostPointer(to: Float.self)?.baseAddress else {
      fatalError("the host cannot reach a tensor that it is to adapt")
    }
    base = start + column
    rowStride = columns
    self.numTokens = numTokens
    self.numHeads = numHeads
    self.headDim = headDim
  }

  func head(token: Int, _ head: Int) -> UnsafeMutablePointer<Float> { base + token * rowStride + head * headDim }

  /// Copies the elements of `source`, which has as many.
  func copy(from source: HeadRows) {
    for token in 0..<numTokens {
      head(token: token, 0).update(from: source.head(token: token, 0), count: numHeads * headDim)
    }
  }

  /// RMS norm of each head: x · weight / √(mean(x²) + ε), the mean in double.
  func normalise(_ norm: HeadNorm) {
    guard let weight = norm.weight.unsafeHostPointer(to: Float.self) else {
      fatalError("the host cannot reach the weight of a head norm")
    }
    for token in 0..<numTokens {
      for index in 0..<numHeads {
        let x = head(token: token, index)
        var squares = 0.0
        for dim in 0..<headDim { squares += Double(x[dim]) * Double(x[dim]) }
        let factor = Float(1 / (squares / Double(headDim) + Double(norm.epsilon)).squareRoot())
        for dim in 0..<headDim { x[dim] = x[dim] * factor * weight[dim] }
      }
    }
  }

  /// Turns each pair by its token's angles: two products and one sum in float32.
  /// - Parameter axisColumns: where positions are those of three axes, how far their rows lie apart.
  func rotate(_ rope: RopeTable, positions: UnsafePointer<Int32>, axisColumns: Int?) {
    let axes = rope.axes.map { axes in
      guard let axes = axes.unsafeHostPointer(to: Int32.self) else { fatalError("the host cannot reach the axes of a rotation table") }
      return axes
    }
    withUnsafeTemporaryAllocation(of: Float.self, capacity: rope.dim) { gathered in
      for token in 0..<numTokens {
        var angles = Self.angles(rope, position: Int(positions[token]))
        if let axes, let axisColumns {
          for pair in 0..<rope.dim / 2 {
            let row = Self.angles(rope, position: Int(positions[Int(axes[pair]) * axisColumns + token]))
            (gathered[2 * pair], gathered[2 * pair + 1]) = (row[2 * pair], row[2 * pair + 1])
          }
          angles = UnsafePointer(gathered.baseAddress!)
        }
        for index in 0..<numHeads { Self.rotate(head(token: token, index), rope, angles) }
      }
    }
  }

  /// The angles of one position, `[dim / 2][cos, sin]`.
  static func angles(_ rope: RopeTable, position: Int) -> UnsafePointer<Float> {
    enforce(position >= 0 && position < rope.values.shape[0], "position \(position) of a rotation table of \(rope.values.shape[0])")
    guard let table = rope.values.unsafeHostPointer(to: Float.self)?.baseAddress else {
      fatalError("the host cannot reach the rotation table")
    }
    return UnsafePointer(table + position * rope.dim)
  }

  /// Turns the pairs of one head.
  static func rotate(_ x: UnsafeMutablePointer<Float>, _ rope: RopeTable, _ angles: UnsafePointer<Float>) {
    let half = rope.dim / 2
    for pair in 0..<half {
      let first = rope.firstDim + (rope.isNeoX ? pair : 2 * pair)
      let second = first + (rope.isNeoX ? half : 1)
      let (cosine, sine) = (angles[2 * pair], angles[2 * pair + 1])
      let (a, b) = (x[first], x[second])
      x[first] = a * cosine - b * sine
      x[second] = b * cosine + a * sine
    }
  }
}
