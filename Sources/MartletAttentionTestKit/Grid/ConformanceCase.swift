// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletAttention
public import MartletCore

/// One cell of the conformance grid: what a backend is asked to do, as a value on each of a dozen axes.
public struct ConformanceCase: Sendable, Hashable {
  /// Query heads and key/value heads.
  public enum Heads: String, Sendable, Hashable, CaseIterable {
    case mha = "MHA"
    case gqa3 = "GQA 3"
    case gqa4 = "GQA 4"
    case gqa8 = "GQA 8"
    case mqa = "MQA"
    /// All heads read one latent, whose first dims are their values (latent attention); `headDim` is of the latent and the dims of positions.
    case mla16 = "MLA 16"
    case mla128 = "MLA 128"

    var isLatent: Bool { self == .mla16 || self == .mla128 }

    var counts: (query: Int, kv: Int) {
      switch self {
      case .mla16: (16, 1)
      case .mla128: (128, 1)
      case .mha: (3, 3)
      case .gqa3: (6, 2)
      case .gqa4: (8, 2)
      case .gqa8: (16, 2)
      case .mqa: (5, 1)
      }
    }
  }

  /// Tokens in a page.
  public enum Page: String, Sendable, Hashable, CaseIterable {
    case tokens16 = "16"
    case tokens32 = "32"
    case tokens64 = "64"
    /// One page as long as the longest sequence.
    case linear
  }

  /// What the batch does.
  public enum Phase: String, Sendable, Hashable, CaseIterable {
    case context
    /// Chunks of prompts over prefixes that are cached already.
    case chunk
    case generation
    /// Contexts, chunks, generations and drafts in one batch.
    case mixed
    /// Several tokens of a generation in one step.
    case drafts
    /// Keys and values of an encoder.
    case cross
    /// Keys and values of the step alone.
    case noCache = "no cache"
  }

  /// Which keys a query sees, and what else happens to a row of scores.
  public enum Mask: String, Sendable, Hashable, CaseIterable {
    case causal, full, custom, window
    case softCap = "soft cap"
    case sinks
    /// A window, a soft cap and sinks together.
    case all = "window, cap, sinks"
    /// A window on both sides of the query.
    case around = "window on both sides"

    var hasWindow: Bool { self == .window || self == .all || self == .around }
    var hasSoftCap: Bool { self == .softCap || self == .all }
    var hasSinks: Bool { self == .sinks || self == .all }
  }

  /// Rotary positions.
  public enum Rope: String, Sendable, Hashable, CaseIterable {
    case none
    case neoX = "NeoX"
    case gptJ = "GPT-J"
    case partial, linear, dynamic, llama3, yarn, longRope
    /// Keys are cached unrotated.
    case deferred
    /// Three positions a token, a section of pairs for each.
    case mrope
    case interleavedMRope = "interleaved mrope"

    var hasAxes: Bool { self == .mrope || self == .interleavedMRope }
  }

  /// How queries, keys and values are handed in.
  public enum Input: String, Sendable, Hashable, CaseIterable { case separate, fused }

  /// What is e4m3 beside the cache.
  public enum FP8: String, Sendable, Hashable, CaseIterable {
    case none, inputs, output, both

    var hasInputs: Bool { self == .inputs || self == .both }
    var hasOutput: Bool { self == .output || self == .both }
  }

  /// Whether query and key heads are normalised.
  public enum Norm: String, Sendable, Hashable, CaseIterable { case none, heads }

  /// Whether value heads are as wide as key heads.
  public enum Values: String, Sendable, Hashable, CaseIterable { case same, narrower }

  public static let kvTypes: [DataType] = [.f32, .f16, .bf16, .f8e4m3, .i8]
  public static let headDims = [64, 80, 96, 128, 256, 576]

  /// The sizes of latent attention of a case; nil of other heads. Latents of 512 + 64 dims, as published models have them, and smaller ones.
  var mla: MLAParams? {
    guard heads.isLatent else { return nil }
    let rope = headDim == 576 ? 64 : 16
    // As many dims before absorption as after it, so that scores are as large as those of other heads.
    return MLAParams(kvLoraRank: headDim - rope, qkNopeHeadDim: headDim - rope, qkRopeHeadDim: rope, vHeadDim: 2 * rope)
  }

  public var backend: String
  public var kvType: DataType
  public var heads: Heads
  public var headDim: Int
  public var page: Page
  public var phase: Phase
  public var mask: Mask
  public var rope: Rope
  public var input: Input
  public var fp8: FP8
  public var norm: Norm
  public var values: Values
  /// Of lengths, inputs and everything else that is drawn.
  public var seed: UInt64

  public init(
    backend: String, kvType: DataType = .f32, heads: Heads = .gqa4, headDim: Int = 64, page: Page = .tokens16, phase: Phase = .mixed,
    mask: Mask = .causal, rope: Rope = .none, input: Input = .fused, fp8: FP8 = .none, norm: Norm = .none, values: Values = .same,
    seed: UInt64 = 1
  ) {
    self.backend = backend
    self.kvType = kvType
    self.heads = heads
    self.headDim = headDim
    self.page = page
    self.phase = phase
    self.mask = mask
    self.rope = rope
    self.input = input
    self.fp8 = fp8
    self.norm = norm
    self.values = values
    self.seed = seed
  }

  /// The axes with their values in words, the backend first.
  public var axes: [(name: String, value: String)] {
    [
      ("backend", backend), ("kv", kvType.rawValue), ("heads", heads.rawValue), ("dim", "\(headDim)"), ("page", page.rawValue),
      ("phase", phase.rawValue), ("mask", mask.rawValue), ("rope", rope.rawValue), ("input", input.rawValue), ("fp8", fp8.rawValue),
      ("norm", norm.rawValue), ("values", values.rawValue),
    ]
  }

  /// Whether the values go together at all: what does not is no test of anything.
  public var isMeaningful: Bool {
    // FP8 inputs are defined over e4m3 keys.
    if fp8.hasInputs && kvType != .f8e4m3 { return false }
    // Without a cache nothing is stored; the step's own keys are read in float32.
    if phase == .noCache && kvType != .f32 { return false }
    // Encoder keys have no order with the decoder's queries: no causal mask, no window.
    if phase == .cross && (mask == .causal || mask.hasWindow) { return false }
    // Latents are normalised before they come, have no values beside them, and are the decoder's own.
    if heads.isLatent && (norm != .none || values != .same || phase == .cross) { return false }
    return true
  }
}

extension ConformanceCase: CustomStringConvertible {
  public var description: String { axes.map { "\($0.name)=\($0.value)" }.joined(separator: " ") + " seed=\(seed)" }
}

// MARK: - As numbers

extension ConformanceCase {
  /// The axes of a covering array, without the backend's: how many values each has.
  static let axisSizes = [
    kvTypes.count, Heads.allCases.count, headDims.count, Page.allCases.count, Phase.allCases.count, Mask.allCases.count,
    Rope.allCases.count, Input.allCases.count, FP8.allCases.count, Norm.allCases.count, Values.allCases.count,
  ]

  /// The case of a row of a covering array.
  init(backend: String, row: [Int], seed: UInt64) {
    self.init(
      backend: backend, kvType: Self.kvTypes[row[0]], heads: Heads.allCases[row[1]], headDim: Self.headDims[row[2]],
      page: Page.allCases[row[3]], phase: Phase.allCases[row[4]], mask: Mask.allCases[row[5]], rope: Rope.allCases[row[6]],
      input: Input.allCases[row[7]], fp8: FP8.allCases[row[8]], norm: Norm.allCases[row[9]], values: Values.allCases[row[10]], seed: seed)
  }
}
