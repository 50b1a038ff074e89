// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// In which form latent attention (``MLAParams``) reads prompts: an arithmetic, chosen once for a model.
///
/// Generation is always absorbed: its one query a step meets every key once, and nothing would pay for expanding them.
public enum LatentPrompts: Sendable, Hashable, CustomStringConvertible {
  /// Prompts and generation alike attend to latents. The law of one arithmetic holds: what a token gets depends on nothing but its request, bit for bit.
  case absorbed
  /// A chunk of a prompt of at least `leastTokens` new tokens expands the latents of its context to keys and values of every head, and attends to those:
  /// fewer operations the longer the chunk. Chunks below that stay absorbed. nil is ``MLAParams/leastExpandedTokens``.
  ///
  /// This leaves the law of one arithmetic, because there now are two. What a token gets differs by rounding with the length of the chunk in which it is
  /// read, and so with chunk sizes, with what the cache holds of a prompt, with the step's other requests, and with whether a paused request reads its own
  /// answer again. Within each of the two forms the law holds, and a row that is generated has the bits of `absorbed` over the same cache.
  case expanded(leastTokens: Int? = nil)

  /// `absorbed`, `expanded`, or with a number `expanded:96`.
  public var description: String {
    switch self {
    case .absorbed: "absorbed"
    case .expanded(let tokens): tokens.map { "expanded:\($0)" } ?? "expanded"
    }
  }

  /// Reads the description; nil where it is none.
  public init?(_ text: String) {
    let words = text.split(separator: ":", omittingEmptySubsequences: false)
    switch (words[0], words.count) {
    case ("absorbed", 1): self = .absorbed
    case ("expanded", 1): self = .expanded()
    case ("expanded", 2):
      guard let tokens = Int(words[1]), tokens >= 1 else { return nil }
      self = .expanded(leastTokens: tokens)
    default: return nil
    }
  }

  /// From how many new tokens on a context is expanded at these sizes; nil = never.
  public func leastExpandedTokens(_ mla: MLAParams) -> Int? {
    switch self {
    case .absorbed: nil
    case .expanded(let tokens): tokens ?? mla.leastExpandedTokens
    }
  }
}
