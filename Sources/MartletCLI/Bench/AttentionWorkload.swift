// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

package import MartletCore

/// What is timed: a shape of layer, and the requests of one or more steps.
///
/// As text, `32,8,128:1*512@2048,31*1@2047`: 32 query heads on 8 key/value heads of 128 dims; in one step one request with 512 new tokens
/// after 2048 cached ones and 31 with one after 2047. `32,8,128:8192@0/512` is a prompt of 8192 tokens in 16 steps. `128,mla,512+64:1@4095` is latent
/// attention: 128 heads against one latent of 512 dims, which are the values, and 64 that carry positions.
package struct AttentionWorkload: Sendable, Hashable, CustomStringConvertible {
  /// A request's part of a step.
  package struct Part: Sendable, Hashable {
    package var newTokens: Int
    package var cachedTokens: Int

    package init(newTokens: Int, cachedTokens: Int) {
      self.newTokens = newTokens
      self.cachedTokens = cachedTokens
    }

    /// Key and value tokens that the part reads.
    package var length: Int { newTokens + cachedTokens }
  }

  package let numHeads: Int
  package let numKVHeads: Int
  /// Dims of a query or key.
  package let headDim: Int
  /// Dims of a value that is the beginning of its key; nil where values are apart, and as wide as keys.
  package let latentDim: Int?
  /// The steps, one after another; request i is part i of each.
  package let steps: [[Part]]
  /// The requests as text.
  package let requests: String

  package var description: String { "\(shape):\(requests)" }
  private var shape: String {
    latentDim.map { "\(numHeads),mla,\($0)+\(headDim - $0)" } ?? "\(numHeads),\(numKVHeads),\(headDim)"
  }

  /// The most heads, dims, requests and tokens: no machine times more, and nothing overflows.
  private static let bounds = (shape: 1 << 16, count: 1 << 16, tokens: 1 << 31)

  /// Reads the text form; nil where it is none, or one that no machine times.
  package init?(_ text: String) {
    let halves = text.split(separator: ":", omittingEmptySubsequences: false)
    guard halves.count == 2 else { return nil }
    let words = halves[0].split(separator: ",", omittingEmptySubsequences: false)
    guard words.count == 3 else { return nil }
    let dims = words[2].split(separator: "+", omittingEmptySubsequences: false).map { Int($0) ?? 0 }
    let isLatent = words[1] == "mla"
    guard dims.count == (isLatent ? 2 : 1), dims.allSatisfy({ $0 > 0 && $0 <= Self.bounds.shape }), let heads = Int(words[0]),
      let kvHeads = isLatent ? 1 : Int(words[1]), heads > 0, kvHeads > 0, heads <= Self.bounds.shape, heads % kvHeads == 0
    else { return nil }
    var parts: [Part] = []
    var chunk: Int?
    for word in halves[1].split(separator: ",", omittingEmptySubsequences: false) {
      guard chunk == nil, let (count, part, cut) = Self.part(word) else { return nil }
      parts += Array(repeating: part, count: count)
      chunk = cut
    }
    if chunk != nil && parts.count != 1 { return nil }
    numHeads = heads
    numKVHeads = kvHeads
    headDim = dims.reduce(0, +)
    latentDim = isLatent ? dims[0] : nil
    requests = String(halves[1])
    if let chunk {
      let part = parts[0]
      steps = stride(from: 0, to: part.newTokens, by: chunk).map {
        [Part(newTokens: min(chunk, part.newTokens - $0), cachedTokens: part.cachedTokens + $0)]
      }
    } else {
      steps = [parts]
    }
  }

  /// `[count*]new@cached[/chunk]`.
  private static func part(_ word: Substring) -> (count: Int, Part, chunk: Int?)? {
    let times = word.split(separator: "*", omittingEmptySubsequences: false)
    let cut = times[times.count - 1].split(separator: "/", omittingEmptySubsequences: false)
    let tokens = cut[0].split(separator: "@", omittingEmptySubsequences: false)
    guard times.count <= 2, cut.count <= 2, tokens.count == 2, let new = Int(tokens[0]), let cached = Int(tokens[1]), new > 0, cached >= 0,
      max(new, cached) <= Self.bounds.tokens
    else { return nil }
    guard let count = times.count == 2 ? Int(times[0]) : 1, count > 0, count <= Self.bounds.count else {
      return nil
    }
    let chunk = cut.count == 2 ? Int(cut[1]) : nil
    if cut.count == 2 && (chunk ?? 0) < 1 { return nil }
    return (count, Part(newTokens: new, cachedTokens: cached), chunk)
  }

  /// Multiplications and additions under a causal mask: 2 · heads · dims of a key and of a value for each pair of a query and a key that it sees.
  package var operations: Double {
    var pairs = 0.0
    for part in steps.joined() {
      let new = Double(part.newTokens)
      pairs += new * Double(part.cachedTokens) + new * (new + 1) / 2
    }
    return 2 * Double(numHeads * (headDim + (latentDim ?? headDim))) * pairs
  }

  /// Bytes of keys and values, each read once a step.
  package func cacheByteCount(_ type: DataType) -> Double {
    let tokens = steps.joined().reduce(0) { $0 + $1.length }
    // int8 has a float32 scale for each token's key and value; a value that is part of its key is not read again.
    let perHead = (latentDim == nil ? 2 : 1) * (headDim * type.byteCount + (type == .i8 ? 4 : 0))
    return Double(tokens) * Double(numKVHeads * perHead)
  }

  /// The most tokens of a request.
  package var maxLength: Int { steps.joined().map(\.length).max() ?? 1 }
  /// The most new tokens of a step.
  package var maxNewTokens: Int { steps.map { $0.reduce(0) { $0 + $1.newTokens } }.max() ?? 1 }
}
