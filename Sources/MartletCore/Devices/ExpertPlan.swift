// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// How a layer with experts chooses, for each row, those that compute it.
public struct ExpertRouting: Sendable, Hashable {
  /// What makes scores of the router's outputs.
  public enum Scoring: Sendable, Hashable { case softmax, sigmoid }

  /// Experts in groups of neighbours, of which only the best are chosen from.
  public struct Groups: Sendable, Hashable {
    /// How a group's experts make its score: the best choice, or the sum of the best two.
    public enum Score: Sendable, Hashable { case best, bestTwo }

    public var count: Int
    public var used: Int
    public var score: Score

    public init(count: Int, used: Int, score: Score) {
      self.count = count
      self.used = used
      self.score = score
    }
  }

  /// The most experts of a layer.
  public static let mostExperts = 1024

  public var numExperts: Int
  /// Experts that compute a row.
  public var numUsed: Int
  public var scoring: Scoring
  /// Whether the weights of the chosen are divided by their sum.
  public var normalizes: Bool
  /// Multiplies every weight.
  public var scale: Float
  /// nil: all experts are one group.
  public var groups: Groups?

  public init(numExperts: Int, numUsed: Int, scoring: Scoring = .softmax, normalizes: Bool, scale: Float = 1, groups: Groups? = nil) {
    self.numExperts = numExperts
    self.numUsed = numUsed
    self.scoring = scoring
    self.normalizes = normalizes
    self.scale = scale
    self.groups = groups
  }

  /// Why this cannot be computed, in words; nil where it can.
  public var problem: String? {
    if !(1...Self.mostExperts).contains(numExperts) { return "a layer has 1 to \(Self.mostExperts) experts, not \(numExperts)" }
    if !(1...numExperts).contains(numUsed) { return "of \(numExperts) experts \(numUsed) cannot be used" }
    guard let groups else { return nil }
    if groups.count < 1 || numExperts % groups.count != 0 { return "\(numExperts) experts do not divide into \(groups.count) groups" }
    if !(1...groups.count).contains(groups.used) { return "of \(groups.count) groups \(groups.used) cannot be used" }
    if groups.used * (numExperts / groups.count) < numUsed {
      return "\(groups.used) groups of \(numExperts / groups.count) experts have fewer than the \(numUsed) that are used"
    }
    return nil
  }
}

/// Who computes what in a layer with experts: the choice of each row, and the pairs of row and expert, called entries, sorted by expert and among those of one
/// expert by row.
public struct ExpertPlan: Sendable {
  /// int32 `[n, numUsed]`: the experts of each row, in the order of their choice.
  public let experts: Tensor
  /// float32 `[n, numUsed]`: what each counts.
  public let weights: Tensor
  /// int32 `[n, numUsed]`: the entry of each.
  public let places: Tensor
  /// int32 `[numExperts + 1]`: the entries of expert e are offsets[e] ..< offsets[e + 1].
  public let offsets: Tensor
  /// int32 `[n · numUsed]`: the row of each entry.
  public let rows: Tensor

  /// A plan of at most `maxRows` rows.
  public init(maxRows: Int, numExperts: Int, numUsed: Int, on device: any Device) throws {
    experts = try device.makeTensor(Shape(maxRows, numUsed), .i32)
    weights = try device.makeTensor(Shape(maxRows, numUsed), .f32)
    places = try device.makeTensor(Shape(maxRows, numUsed), .i32)
    offsets = try device.makeTensor(Shape(numExperts + 1), .i32)
    rows = try device.makeTensor(Shape(maxRows * numUsed), .i32)
  }

  private init(_ plan: ExpertPlan, rows n: Int) {
    experts = plan.experts.prefix(n)
    weights = plan.weights.prefix(n)
    places = plan.places.prefix(n)
    offsets = plan.offsets
    rows = plan.rows.prefix(n * plan.experts.shape[1])
  }

  /// The same memory for `n` rows.
  public func prefix(_ n: Int) -> ExpertPlan { ExpertPlan(self, rows: n) }
}
