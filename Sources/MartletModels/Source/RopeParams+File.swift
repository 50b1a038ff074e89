// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletLibc
import MartletAttention

extension RopeParams {
  /// Reads the `<architecture>.rope.…` keys.
  /// - Parameters:
  ///   - longRope: the lists of LongRoPE, where the file has them as tensors.
  ///   - truncatesYarn: whether YaRN's ramp begins and ends at whole pairs, where the file does not say.
  /// - Throws: ``ModelError`` naming the key.
  init(
    _ source: any ModelSource, _ configuration: ModelConfiguration, defaultTheta: Double,
    longRope: (short: [Double], long: [Double])? = nil,
    truncatesYarn: Bool = true
  ) throws {
    let prefix = "\(configuration.architecture).rope"
    let dim = try source.integer(ifPresent: "\(prefix).dimension_count") ?? configuration.headDim
    guard dim >= 2 && dim % 2 == 0 && dim <= configuration.headDim else {
      throw source.invalid(
        "\(prefix).dimension_count", dim, "it must be even and within 2…\(configuration.headDim), the dims of a head")
    }
    let theta = try source.float(ifPresent: "\(prefix).freq_base").map(Double.init) ?? defaultTheta
    self.init(dim: dim, theta: theta)
    if let problem { throw source.invalid("\(prefix).freq_base", theta, problem) }
    scaling = try Self.scaling(source, "\(prefix).scaling", old: "\(prefix).scale_linear", longRope, truncatesYarn, configuration)
    if let problem { throw source.invalid("\(prefix).scaling.type", "\(scaling)", problem) }
  }

  private static func scaling(
    _ source: any ModelSource, _ prefix: String, old: String, _ longRope: (short: [Double], long: [Double])?,
    _ truncatesYarn: Bool, _ configuration: ModelConfiguration
  ) throws -> Scaling {
    func number(_ key: String) throws -> Double? { try source.float(ifPresent: "\(prefix).\(key)").map(Double.init) }
    func needed(_ key: String) throws -> Double { Double(try source.float("\(prefix).\(key)")) }
    let originalLength = try source.integer(ifPresent: "\(prefix).original_context_length") ?? configuration.contextLength
    // Files from before `rope.scaling` say linear scaling under the old key.
    let factor = try number("factor") ?? source.float(ifPresent: old).map(Double.init)
    let type = try longRope == nil ? source.string(ifPresent: "\(prefix).type") ?? (factor ?? 1 == 1 ? "none" : "linear") : "longrope"
    // What GGUF files multiply cosines and sines by, besides what the kind of scaling does: two keys, which llama.cpp multiplies.
    var attnFactor = try number("attn_factor")
    let yarnAttnFactor = try number("yarn_attn_factor")
    if let yarnAttnFactor { attnFactor = (attnFactor ?? 1) * yarnAttnFactor }
    let attnKey = yarnAttnFactor == nil ? "\(prefix).attn_factor" : "\(prefix).yarn_attn_factor"
    if let attnFactor, attnFactor != 1, type != "yarn", type != "longrope" {
      throw source.invalid(attnKey, attnFactor, "this build multiplies by it with yarn and longrope only")
    }
    // How much of YaRN's blend counts, all by default; negative is the default.
    if let blend = try number("yarn_ext_factor"), blend >= 0, blend != (type == "yarn" ? 1 : 0) {
      throw source.invalid("\(prefix).yarn_ext_factor", blend, "this build computes \(type == "yarn" ? 1 : 0) only with \(type)")
    }
    // Of YaRN's two multipliers the second; the first is then 1.
    let logMultiplier = try number("yarn_log_multiplier") ?? 0
    if logMultiplier != 0, type != "yarn" {
      throw source.invalid("\(prefix).yarn_log_multiplier", logMultiplier, "this build computes it with yarn only")
    }
    switch type {
    case "none": return .none
    case "linear": return factor ?? 1 == 1 ? .none : .linear(factor: factor!)
    case "dynamic":
      if let alpha = try number("alpha") { return .dynamic(alpha: alpha) }
      // The form with a factor stretches as a sequence grows beyond the context length, where no sequence of this build goes.
      _ = try needed("factor")
      return .none
    case "llama3":
      return .llama3(
        factor: try needed("factor"), lowFreqFactor: try needed("low_freq_factor"), highFreqFactor: try needed("high_freq_factor"),
        originalMaxPositions: originalLength)
    case "yarn":
      let factor = factor ?? Double(configuration.contextLength) / Double(max(originalLength, 1))
      var mscale = 1.0, mscaleAllDim = 0.0
      if let magnitude = try number("attention_factor") {
        // What multiplies cosines and sines is 0.1 · mscale · ln(factor) + 1.
        guard factor > 1 || magnitude == 1 else {
          throw source.invalid("\(prefix).attention_factor", magnitude, "the factor \(factor) stretches nothing")
        }
        if factor > 1 { mscale = (magnitude - 1) / (0.1 * log(factor)) }
      } else if let attnFactor, attnFactor != 1 {
        guard factor > 1 else {
          throw source.invalid(attnKey, attnFactor, "the factor \(factor) stretches nothing")
        }
        mscale = (attnFactor * (0.1 * log(factor) + 1) - 1) / (0.1 * log(factor))
      } else if logMultiplier != 0 {
        mscaleAllDim = logMultiplier
      } else if let one = try number("mscale"), let all = try number("mscale_all_dim"), one != 0, all != 0 {
        (mscale, mscaleAllDim) = (one, all)
      }
      return .yarn(
        factor: factor, originalMaxPositions: originalLength, betaFast: try number("yarn_beta_fast") ?? 32,
        betaSlow: try number("yarn_beta_slow") ?? 1, mscale: mscale, mscaleAllDim: mscaleAllDim,
        truncates: try source.bool(ifPresent: "\(prefix).yarn_truncate") ?? truncatesYarn)
    case "longrope":
      func factors(_ key: String, _ known: [Double]?) throws -> [Double] {
        if let known { return known }
        guard let values = try source.floatList(ifPresent: "\(prefix).\(key)") else { throw source.missingKey("\(prefix).\(key)") }
        return values.map(Double.init)
      }
      guard originalLength > 1 else { throw source.invalid("\(prefix).original_context_length", originalLength, "it must be above 1") }
      let ratio = factor ?? Double(configuration.contextLength) / Double(originalLength)
      let usual = ratio <= 1 ? 1 : (1 + log(ratio) / log(Double(originalLength))).squareRoot()
      let magnitude = try number("attention_factor") ?? attnFactor ?? usual
      return .longRope(
        shortFactors: try factors("short_factor", longRope?.short), longFactors: try factors("long_factor", longRope?.long),
        originalMaxPositions: originalLength, maxPositions: configuration.contextLength, attentionFactor: magnitude)
    case let other:
      throw source.invalid("\(prefix).type", other, "this build knows none, linear, dynamic, llama3, yarn and longrope")
    }
  }
}
