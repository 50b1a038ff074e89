// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletAttention
import MartletFormats

extension RopeParams {
  /// Reads the `<architecture>.rope.…` keys.
  /// - Throws: ``ModelError`` naming the key.
  init(_ file: GGUFFile, _ configuration: ModelConfiguration, defaultTheta: Double) throws {
    let prefix = "\(configuration.architecture).rope"
    let dim = try file.integer(ifPresent: "\(prefix).dimension_count") ?? configuration.headDim
    guard dim >= 2 && dim % 2 == 0 && dim <= configuration.headDim else {
      throw ModelError.invalid(
        key: "\(prefix).dimension_count", value: "\(dim)",
        reason: "it must be even and within 2…\(configuration.headDim), the dims of a head")
    }
    let theta = try file.float(ifPresent: "\(prefix).freq_base").map(Double.init) ?? defaultTheta
    self.init(dim: dim, theta: theta, scaling: try Self.scaling(file, prefix, configuration))
    if let problem { throw ModelError.invalid(key: "\(prefix).freq_base", value: "\(theta)", reason: problem) }
  }

  private static func scaling(_ file: GGUFFile, _ prefix: String, _ configuration: ModelConfiguration) throws -> Scaling {
    // Files from before `rope.scaling` say linear scaling so.
    let old = try file.float(ifPresent: "\(prefix).scale_linear")
    let factor = try file.float(ifPresent: "\(prefix).scaling.factor") ?? old ?? 1
    let typeKey = "\(prefix).scaling.type"
    switch try file.string(ifPresent: typeKey) ?? (factor == 1 ? "none" : "linear") {
    case "none": return .none
    case "linear": return factor == 1 ? .none : .linear(factor: Double(factor))
    case "yarn":
      return .yarn(
        factor: Double(factor),
        originalMaxPositions: try file.integer(ifPresent: "\(prefix).scaling.original_context_length") ?? configuration.contextLength)
    case let other:
      throw ModelError.invalid(key: typeKey, value: other, reason: "this build knows none, linear and yarn")
    }
  }
}
