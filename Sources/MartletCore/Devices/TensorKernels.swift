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

  /// `output[r, :] = (input[r, :] − m) · weight / √(variance + epsilon) + bias` of the row's mean m and variance; weight and bias `[columns]`. `output`
  /// may be `input`.
  func layerNorm(_ input: Tensor, weight: Tensor, bias: Tensor, epsilon: Float, output: Tensor, on queue: any DeviceQueue)

  /// `output[r, n] = Σₖ input[r, k] · weight[n, k]`, input `[tokens, columns]`, output `[tokens, rows of weight]`.
  ///
  /// Integer codes stay integers; a block's scale and minimum are applied in float32. What the input is made of, and what becomes of the sums, is
  /// done on the way, to the bits of the kernels that do it alone: it saves passes over memory, and decides nothing.
  func product(_ input: ProductInput, _ weight: any PreparedWeight, output: ProductOutput, on queue: any DeviceQueue)

  /// `accumulator[r, :] += scale · addend[r, :]`; with a scale of 1 the plain sum, to the bit.
  func add(_ addend: Tensor, scaledBy scale: Float, to accumulator: Tensor, on queue: any DeviceQueue)

  /// `accumulator[r, :] += row`; row `[columns]`.
  func addRow(_ row: Tensor, to accumulator: Tensor, on queue: any DeviceQueue)

  /// `accumulator[i, :] += rows[e, :]` for every entry i of expert e, as the plan has sorted them; rows `[numExperts, columns]`, accumulator
  /// `[entries, columns]`.
  func addExpertRows(_ rows: Tensor, plan: ExpertPlan, to accumulator: Tensor, on queue: any DeviceQueue)

  /// `values[r, i] = scale · values[r, i]`, or, with a soft cap, `cap · tanh(scale · values[r, i] / cap)`; values `[n, columns]`.
  /// - Precondition: a cap is above 0.
  func scale(_ values: Tensor, by scale: Float, softCap: Float?, on queue: any DeviceQueue)

  /// `values[r, 0..<columns] *= factors[rows[r]]`: a factor for each row, such as one that its position asks for. values `[n, at least columns]`, factors
  /// `[any]`, rows int32 `[n]`.
  /// - Precondition: every row is an element of `factors`.
  func scaleRows(_ values: Tensor, columns: Int, by factors: Tensor, rows: Tensor, on queue: any DeviceQueue)

  /// `output[r, i] = activation(gateUp[r, i]) · gateUp[r, width + i]`, gateUp `[n, 2·width]`, output `[n, width]`; what the clamped one multiplies has a
  /// limit, too.
  func gatedActivation(_ activation: GatedActivation, gateUp: Tensor, output: Tensor, on queue: any DeviceQueue)

  /// `values[r, i] = ½x·(1 + erf(x / √2))` of `x = values[r, i] + bias[i]`; bias `[columns]`, nil = 0.
  func gelu(_ values: Tensor, bias: Tensor?, on queue: any DeviceQueue)

  /// `accumulator[r, :] += table[rows[r], :]`, table `[any, columns]`, rows int32 `[n]`.
  /// - Precondition: every row is one of `table`.
  func addChosenRows(of table: Tensor, rows: Tensor, to accumulator: Tensor, on queue: any DeviceQueue)

  /// `output[s, :]` is made of the rows `input[starts[s] ..< starts[s + 1], :]`: their mean, the first or the last; starts int32 `[s + 1]`. What a piece
  /// gets does not depend on who lies beside it.
  /// - Precondition: pieces lie within `input` in ascending order, and each has a row.
  func poolRows(_ method: RowPooling, _ input: Tensor, starts: Tensor, output: Tensor, on queue: any DeviceQueue)

  /// `values[r, :] /= max(|values[r, :]|, 1e-12)`: rows of length 1.
  func unitRows(_ values: Tensor, on queue: any DeviceQueue)

  /// `output[i, :] = input[rows[i], :]`, rows int32 `[n]`.
  func gatherRows(_ input: Tensor, rows: Tensor, output: Tensor, on queue: any DeviceQueue)

  /// Copies the first `width` values of each head of each row.
  /// - Precondition: both places lie within their tensors and do not overlap.
  func copyHeads(_ input: HeadPlace, to output: HeadPlace, rows: Int, heads: Int, width: Int, on queue: any DeviceQueue)

  /// `output[h, r, n] = Σₖ input[h, r, k] · weights[h][n, k]`: each head has a matrix of its own. input `[heads · rows, columns]`, output
  /// `[heads · rows, rows of a weight]`, head by head.
  /// - Precondition: one weight for each head, all of one shape.
  func headProduct(_ input: Tensor, _ weights: [any PreparedWeight], output: Tensor, on queue: any DeviceQueue)

  /// Chooses each row's experts by the router's outputs `[n, numExperts]`, and sorts what they must compute by expert: fills the plan.
  ///
  /// - Parameters:
  ///   - bias: float32 `[numExperts]`, added to scores for the choice only; nil = none.
  ///   - plan: of `n` rows, with the routing's experts.
  ///   - load: int32 `[numExperts]`, to which the entries of each expert are added, modulo 2³²; nil = nobody counts.
  func route(_ outputs: Tensor, bias: Tensor?, routing: ExpertRouting, plan: ExpertPlan, load: Tensor?, on queue: any DeviceQueue)

  /// `output[i, n] = Σₖ x[i, k] · weights[e][n, k]` for every entry i of expert e, as the plan has sorted them; output `[entries, rows of a weight]`. What a
  /// row gets does not depend on who shares its expert.
  ///
  /// - Parameter isSorted: whether `input` has the plan's entries, `[entries, columns]`; else it has rows, `[n, columns]`, and x is the row of each entry.
  /// - Precondition: one weight for each expert, all of one shape.
  func expertProduct(
    _ input: Tensor, isSorted: Bool, _ weights: [any PreparedWeight], plan: ExpertPlan, output: Tensor, on queue: any DeviceQueue)

  /// `output[r, :] = Σⱼ weight(r, j) · input[place(r, j), :]` over the experts of row r, by the plan, in the order of their choice; input
  /// `[entries, columns]`, output `[n, columns]`.
  func combineExperts(_ input: Tensor, plan: ExpertPlan, output: Tensor, on queue: any DeviceQueue)
}

/// What a product reads: rows, or what is made of them on the way.
public enum ProductInput: Sendable {
  /// `[tokens, columns]`.
  case rows(Tensor)
  /// ``TensorKernels/rmsNorm(_:weight:epsilon:output:on:)`` of rows `[tokens, columns]`; weight `[columns]`.
  case normalized(Tensor, weight: Tensor, epsilon: Float)
  /// ``TensorKernels/gatedActivation(_:gateUp:output:on:)`` of `gateUp`, `[tokens, 2·columns]`.
  case gated(GatedActivation, gateUp: Tensor)

  /// Rows of the product.
  public var rowCount: Int {
    switch self {
    case .rows(let tensor), .normalized(let tensor, _, _), .gated(_, let tensor): tensor.shape[0]
    }
  }
}

/// Where a product's sums go.
public struct ProductOutput: Sendable {
  /// `[tokens, rows of the weight]`.
  public var tensor: Tensor
  /// `[rows of the weight]`, added to the sums; nil = 0.
  public var bias: Tensor?
  /// Multiplies what is then added to the tensor's values; nil: the tensor's values are replaced.
  public var additionScale: Float?

  /// What replaces a tensor's values.
  public init(_ tensor: Tensor, bias: Tensor? = nil) {
    self.tensor = tensor
    self.bias = bias
  }

  /// What is added to a tensor's values, as by ``TensorKernels/add(_:scaledBy:to:on:)``. The product's input must not be the tensor, but may be made of it.
  public static func adding(to tensor: Tensor, scaledBy scale: Float = 1) -> ProductOutput {
    var output = ProductOutput(tensor)
    output.additionScale = scale
    return output
  }
}

/// Where the heads of rows lie in a float32 tensor: `column` is the first value of the first head of the first row, strides are in values.
public struct HeadPlace: Sendable {
  public var tensor: Tensor
  public var column: Int
  public var rowStride: Int
  public var headStride: Int

  public init(_ tensor: Tensor, column: Int = 0, rowStride: Int, headStride: Int) {
    self.tensor = tensor
    self.column = column
    self.rowStride = rowStride
    self.headStride = headStride
  }
}

extension TensorKernels {
  /// `output[r, n] = Σₖ input[r, k] · weight[n, k]`.
  public func product(_ input: Tensor, _ weight: any PreparedWeight, output: Tensor, on queue: any DeviceQueue) {
    product(.rows(input), weight, output: ProductOutput(output), on: queue)
  }

  /// `accumulator[r, :] += addend[r, :]`.
  public func add(_ addend: Tensor, to accumulator: Tensor, on queue: any DeviceQueue) {
    add(addend, scaledBy: 1, to: accumulator, on: queue)
  }
}

/// What makes one row of several.
public enum RowPooling: String, Sendable, Hashable, Codable, CaseIterable {
  case mean, first, last
}

/// The nonlinearity of a gated feed-forward layer.
public enum GatedActivation: Sendable, Hashable {
  /// x·σ(x) (Llama).
  case silu
  /// 0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))) (Gemma).
  case geluTanh
  /// g·σ(alpha·g)·(1 + u): g is x, at most `limit`, and u what is multiplied, within ±`limit` (gpt-oss).
  case clamped(alpha: Float, limit: Float)
}
