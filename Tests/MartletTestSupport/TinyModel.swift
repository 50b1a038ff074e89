// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

package import MartletFormats

/// A model of a few thousand weights with everything that a real file has: made from a seed, written as GGUF, computed in milliseconds.
///
/// Its tokenizer has the 256 bytes and a few control tokens; its text is noise.
package struct TinyModel: Sendable {
  package enum Architecture: String, Sendable, CaseIterable {
    case llama, gemma3, qwen2, qwen3

    /// A norm on every query and key head.
    package var hasHeadNorms: Bool { self == .gemma3 || self == .qwen3 }
    /// Biases on queries, keys and values.
    package var hasBiases: Bool { self == .qwen2 }
    /// Whether RoPE turns halves; Llama's files have it turn pairs.
    package var isNeoX: Bool { self != .llama }
  }

  package struct Matrix: Sendable {
    package var rows: Int
    package var columns: Int
    package var values: [Float]
  }

  package static let controlTokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
  package static let endToken = 256

  package var architecture: Architecture
  package var numLayers = 2
  package var hiddenSize = 64
  package var feedForwardSize = 96
  package var numHeads = 4
  package var numKVHeads = 2
  package var headDim = 32
  package var contextLength = 256
  package var vocabularySize = 256 + TinyModel.controlTokens.count
  package var normEpsilon: Float = 1e-5
  package var ropeTheta: Float = 10000
  /// Gemma's local layers.
  package var window = 8
  /// The output matrix is a tensor of its own.
  package var hasOutput = false
  /// Divisors of the frequencies (Llama 3.1).
  package var hasRopeFrequencies = false
  /// Metadata in place of what would be written, or besides; nil leaves a key out.
  package var overrides: [String: GGUFWriter.Value?] = [:]
  /// The names of further control tokens, from ``vocabularySize`` down.
  package var furtherControlTokens: [String] = []

  package var matrices: [String: Matrix] = [:]
  package private(set) var vectors: [String: [Float]] = [:]

  /// - Parameter adjust: changes sizes before weights are drawn.
  package init(_ architecture: Architecture, seed: UInt64, adjust: (inout TinyModel) -> Void = { _ in }) {
    self.architecture = architecture
    if architecture == .gemma3 {
      numLayers = 7  // the sixth is global
      numKVHeads = 1
    }
    adjust(&self)
    draw(seed)
  }

  private mutating func draw(_ seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    func matrix(_ rows: Int, _ columns: Int, scale: Float) -> Matrix {
      Matrix(rows: rows, columns: columns, values: (0..<rows * columns).map { _ in generator.normal() * scale })
    }
    func vector(_ count: Int) -> [Float] { (0..<count).map { _ in 1 + 0.2 * generator.normal() } }
    // Rows of length 1 on average keep activations near 1 through the layers.
    func weight(_ rows: Int, _ columns: Int) -> Matrix { matrix(rows, columns, scale: 1 / Float(columns).squareRoot()) }

    matrices["token_embd.weight"] = matrix(vocabularySize, hiddenSize, scale: architecture == .gemma3 ? 0.125 : 1)
    vectors["output_norm.weight"] = vector(hiddenSize)
    if hasOutput { matrices["output.weight"] = weight(vocabularySize, hiddenSize) }
    if hasRopeFrequencies { vectors["rope_freqs.weight"] = (0..<headDim / 2).map { _ in 1 + generator.normal().magnitude } }
    for layer in 0..<numLayers {
      let prefix = "blk.\(layer)"
      matrices["\(prefix).attn_q.weight"] = weight(numHeads * headDim, hiddenSize)
      matrices["\(prefix).attn_k.weight"] = weight(numKVHeads * headDim, hiddenSize)
      matrices["\(prefix).attn_v.weight"] = weight(numKVHeads * headDim, hiddenSize)
      matrices["\(prefix).attn_output.weight"] = weight(hiddenSize, numHeads * headDim)
      matrices["\(prefix).ffn_gate.weight"] = weight(feedForwardSize, hiddenSize)
      matrices["\(prefix).ffn_up.weight"] = weight(feedForwardSize, hiddenSize)
      matrices["\(prefix).ffn_down.weight"] = weight(hiddenSize, feedForwardSize)
      vectors["\(prefix).attn_norm.weight"] = vector(hiddenSize)
      vectors["\(prefix).ffn_norm.weight"] = vector(hiddenSize)
      if architecture == .gemma3 {
        vectors["\(prefix).post_attention_norm.weight"] = vector(hiddenSize)
        vectors["\(prefix).post_ffw_norm.weight"] = vector(hiddenSize)
      }
      if architecture.hasHeadNorms {
        vectors["\(prefix).attn_q_norm.weight"] = vector(headDim)
        vectors["\(prefix).attn_k_norm.weight"] = vector(headDim)
      }
      if architecture.hasBiases {
        vectors["\(prefix).attn_q.bias"] = (0..<numHeads * headDim).map { _ in 0.5 * generator.normal() }
        vectors["\(prefix).attn_k.bias"] = (0..<numKVHeads * headDim).map { _ in 0.5 * generator.normal() }
        vectors["\(prefix).attn_v.bias"] = (0..<numKVHeads * headDim).map { _ in 0.5 * generator.normal() }
      }
    }
  }

  /// A further tensor, which the formula does not know.
  package mutating func addVector(_ name: String, _ values: [Float]) { vectors[name] = values }

  package mutating func removeTensor(_ name: String) {
    matrices[name] = nil
    vectors[name] = nil
  }

  /// The model as a file in memory.
  package func file() throws -> GGUFFile { try GGUFFile(bytes: writer().bytes()) }

  /// The file, to be written.
  package func writer() -> GGUFWriter {
    var writer = GGUFWriter()
    for (key, value) in metadata() {
      if let override = overrides[key] {
        if let override { writer.add(key, override) }
      } else {
        writer.add(key, value)
      }
    }
    let written = Set(metadata().map(\.0))
    for (key, value) in overrides.sorted(by: { $0.key < $1.key }) where !written.contains(key) {
      if let value { writer.add(key, value) }
    }
    for (name, matrix) in matrices.sorted(by: { $0.key < $1.key }) {
      writer.addTensor(name, shape: [matrix.rows, matrix.columns], floats: matrix.values)
    }
    for (name, vector) in vectors.sorted(by: { $0.key < $1.key }) { writer.addTensor(name, shape: [vector.count], floats: vector) }
    return writer
  }

  private func metadata() -> [(String, GGUFWriter.Value)] {
    let name = architecture.rawValue
    func int(_ value: Int) -> GGUFWriter.Value { .uint32(UInt32(value)) }
    var pairs: [(String, GGUFWriter.Value)] = [
      ("general.architecture", .string(name)), ("general.name", .string("tiny \(name)")),
      ("\(name).block_count", int(numLayers)), ("\(name).context_length", int(contextLength)),
      ("\(name).embedding_length", int(hiddenSize)), ("\(name).feed_forward_length", int(feedForwardSize)),
      ("\(name).attention.head_count", int(numHeads)), ("\(name).attention.head_count_kv", int(numKVHeads)),
      ("\(name).attention.key_length", int(headDim)), ("\(name).attention.value_length", int(headDim)),
      ("\(name).attention.layer_norm_rms_epsilon", .float32(normEpsilon)), ("\(name).rope.freq_base", .float32(ropeTheta)),
    ]
    if architecture == .gemma3 { pairs.append(("gemma3.attention.sliding_window", int(window))) }
    let tokens = Self.byteTokens + Self.controlTokens
    var padding = (tokens.count..<vocabularySize).map { "<unused\($0)>" }
    padding.replaceSubrange((padding.count - furtherControlTokens.count)..., with: furtherControlTokens)
    pairs += [
      ("tokenizer.ggml.model", .string("gpt2")), ("tokenizer.ggml.pre", .string("smollm")),
      ("tokenizer.ggml.tokens", .array(.string, (tokens + padding).map { .string($0) })),
      ("tokenizer.ggml.token_type", .array(.int32, (0..<vocabularySize).map { .int32($0 < 256 ? 1 : 3) })),
      ("tokenizer.ggml.merges", .array(.string, [])),
      ("tokenizer.ggml.eos_token_id", int(Self.endToken)), ("tokenizer.ggml.bos_token_id", int(Self.endToken + 1)),
      ("tokenizer.ggml.add_bos_token", .bool(false)),
      (
        "tokenizer.chat_template",
        .string("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>'}}{% endfor %}")
      ),
    ]
    return pairs
  }

  /// The 256 bytes as GPT-2 spells them: printable ones as themselves, the others as the characters from U+0100 on.
  private static let byteTokens: [String] = {
    var next: UInt32 = 256
    return (0..<256).map { byte in
      let isPrintable = (33...126).contains(byte) || (161...172).contains(byte) || (174...255).contains(byte)
      if isPrintable { return String(UnicodeScalar(UInt8(byte))) }
      defer { next += 1 }
      return String(UnicodeScalar(next)!)
    }
  }()
}
