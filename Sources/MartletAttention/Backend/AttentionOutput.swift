// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore

/// Where a layer's attention goes.
public struct AttentionOutput: Sendable {
  /// `[numTokens, numHeads·valueHeadDim]`: float32, or f8e4m3 where the layer's `QuantConfig` has FP8 output.
  public var values: Tensor
  /// float32 `[numTokens, numHeads]`: m + log2 d of each row's softmax, base 2, −∞ for a row that sees nothing; nil if not wanted.
  public var logSumExp: Tensor?

  public init(values: Tensor, logSumExp: Tensor? = nil) {
    self.values = values
    self.logSumExp = logSumExp
  }
}
