// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// What a backend does itself, in one pass, on a device: only what is *fused*. What a backend cannot do at all is an obstacle; latent attention
/// and rotation by three axes are, for every backend that does not name them here.
public struct AttentionCapabilities: OptionSet, Sendable, Hashable, CustomStringConvertible {
  public let rawValue: UInt32

  public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// It takes queries, keys and values side by side in one input, as well as apart.
  public static let fusedQKV = AttentionCapabilities(rawValue: 1 << 0)
  /// It rotates queries and keys.
  public static let fusedRoPE = AttentionCapabilities(rawValue: 1 << 1)
  /// It normalises query and key heads.
  public static let fusedHeadNorm = AttentionCapabilities(rawValue: 1 << 2)
  /// It rounds its output to e4m3 itself.
  public static let fp8Output = AttentionCapabilities(rawValue: 1 << 3)

  /// It serves layers with ``AttentionLayerSpec/mla``.
  public static let latentAttention = AttentionCapabilities(rawValue: 1 << 4)
  /// It rotates by positions of three axes (``PositionalEmbeddingParams/mrope``) too, where it rotates itself.
  public static let mrope = AttentionCapabilities(rawValue: 1 << 5)

  public var description: String {
    let names: [(AttentionCapabilities, String)] = [
      (.fusedQKV, "fused QKV"), (.fusedRoPE, "RoPE"), (.fusedHeadNorm, "q/k norm"), (.fp8Output, "FP8 output"),
      (.latentAttention, "latent attention"), (.mrope, "RoPE of three axes"),
    ]
    return names.filter { contains($0.0) }.map(\.1).joined(separator: ", ")
  }
}
