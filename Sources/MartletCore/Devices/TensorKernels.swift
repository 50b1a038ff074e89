// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// The kernels of a transformer other than attention. Every tensor is float32 unless said otherwise; rows are tokens.
///
/// **One arithmetic for every row**: a row of a result depends on that row of the input alone, by the same operations in the same order,
/// whatever the number of rows or threads. Inputs and outputs must not overlap unless a call says so.
public protocol TensorKernels: Sendable {
  /// `output[r, :] = scale · weight[tokens[r], :]`, tokens int32 `[n]`, output `[n, columns]`.
  /// - Precondition: every token is a row of `weight`.
  func embed(tokens: Tensor, weight: any PreparedWeight, scale: Float, output: Tensor, on queue: any DeviceQueue)

  /// `output[r, :] = input[r, :] · weight / √(mean(input[r, :]²) + epsilon)`; weight `[columns]`. `output` may be `input`.
  func rmsNorm(_ input: Tensor, weight: Tensor, epsilon: Float, output: Tensor, on queue: any DeviceQueue)

  /// `output[r, n] = Σₖ input[r, k] · weight[n, k]`, input `[tokens, columns]`, output `[tokens, rows of weight]`.
  ///
  /// Integer codes stay integers; a block's scale and minimum are applied in float32.
  func product(_ input: Tensor, _ weight: any PreparedWeight, output: Tensor, on queue: any DeviceQueue)

  /// `accumulator[r, :] += addend[r, :]`.
  func add(_ addend: Tensor, to accumulator: Tensor, on queue: any DeviceQueue)

  /// `accumulator[r, :] += row`; row `[columns]`.
  func addRow(_ row: Tensor, to accumulator: Tensor, on queue: any DeviceQueue)

  /// `output[r, i] = activation(gateUp[r, i]) · gateUp[r, width + i]`, gateUp `[n, 2·width]`, output `[n, width]`.
  func gatedActivation(_ activation: GatedActivation, gateUp: Tensor, output: Tensor, on queue: any DeviceQueue)

  /// `output[i, :] = input[rows[i], :]`, rows int32 `[n]`.
  func gatherRows(_ input: Tensor, rows: Tensor, output: Tensor, on queue: any DeviceQueue)
}

/// The nonlinearity of a gated feed-forward layer.
public enum GatedActivation: Sendable, Hashable {
  /// x·σ(x) (Llama).
  case silu
  /// 0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))) (Gemma).
  case geluTanh
}
