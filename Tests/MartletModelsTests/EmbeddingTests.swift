// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletAttention
import MartletCPU
import MartletCore
import MartletFormats
import MartletModels
import MartletTestSupport
import Testing

/// A model that answers with vectors, driven by hand: steps of whole texts.
final class EmbeddingHarness {
  let model: any EmbeddingModel
  private let metadata: AttentionMetadata
  private let device: CPUDevice
  private let queue: any DeviceQueue

  init(_ source: any ModelSource, pooling: Pooling? = nil, backend: String, threads: Int = 2) throws {
    device = try CPUDevice(threads: threads)
    queue = device.makeQueue()
    let context = AttentionContext(
      device: device, kvCache: nil, maxNumRequests: 8, maxNumTokens: 128, maxSequenceLength: 48, workerCount: 2)
    model = try ModelRegistry.builtIn.architecture(of: source).load(
      source, pooling: #require(try pooling ?? Pooling(source)),
      in: ModelContext(attention: context, attentionBackend: AttentionBackendRegistry.builtIn.backend(named: backend), maxLogitRows: 1))
    metadata = try model.attention[0].makeMetadata(
      AttentionMetadata.Setup(
        context: context, layers: model.attention.map(\.spec), kvCacheManager: nil, masks: [model.mask], queue: queue))
  }

  /// The vectors of texts that share a step.
  func vectors(_ texts: [[Int32]]) throws -> [[Float]] {
    metadata.removeAllRequests()
    for (id, text) in texts.enumerated() {
      metadata.addRequest(id, newTokens: text.count, cachedTokens: 0, promptLength: text.count, isContext: true)
    }
    try metadata.prepare()
    let all = texts.flatMap { $0 }
    let tokens = try device.makeTensor(Shape(all.count), .i32)
    for (index, token) in all.enumerated() { tokens.unsafeHostPointer(to: Int32.self)![index] = token }
    let output = try device.makeTensor(Shape(texts.count, model.embeddingSize), .f32)
    try model.embed(tokens: tokens, metadata: metadata, output: output, on: queue)
    queue.wait()
    let values = output.unsafeHostPointer(to: Float.self)!
    return texts.indices.map { Array(values[$0 * model.embeddingSize..<($0 + 1) * model.embeddingSize]) }
  }
}

/// What `newer/encoders.py` recorded of Transformers in float64.
struct TinyEmbedder {
  static let names = ["bert", "qwen3-embedding", "gemma3-embedding"]

  let path: String
  let prompts: [[Int32]]
  /// Texts whose tokens the prompts are; empty where there is no tokenizer.
  let texts: [String]
  let pooled: [[Float]]
  let embeddings: [[Float]]

  init(_ name: String) throws {
    path = TinyCheckpoint.file(name)
    let expected = try JSONValue(path: path + "/expected.json")
    let prompts = try #require(expected["prompts"]).elements.map { $0.elements.map { Int32($0.integer!) } }
    self.prompts = prompts
    texts = expected["texts"].map { $0.elements.map { $0.string! } } ?? []
    let file = try SafetensorsFile(path: path + "/expected.safetensors")
    pooled = try prompts.indices.map { try file.floats("pooled.\($0)") }
    embeddings = try prompts.indices.map { try file.floats("embedding.\($0)") }
  }

  func source(_ kind: String) throws -> any ModelSource {
    kind == "GGUF" ? try GGUFCheckpoint(path: path + "/model.gguf") : try ModelRegistry.builtIn.source(HuggingFaceDirectory(path: path))
  }
}

/// The greatest difference, in units of the greatest value.
func relativeDistance(_ a: [Float], _ b: [Float]) -> Float {
  #expect(a.count == b.count)
  let largest = b.reduce(0) { max($0, abs($1)) }
  return zip(a, b).reduce(0) { max($0, abs($1.0 - $1.1)) } / largest
}

@Suite("A model that answers with vectors")
struct EmbeddingTests {
  static let backends = ["VANILLA", "FLASHINFER", "TRTLLM"]

  private func source(_ path: String) throws -> any ModelSource { try ModelRegistry.builtIn.source(HuggingFaceDirectory(path: path)) }

  /// Both sides have the same weights, and Transformers computes in float64: over a few layers of sums of at most 80 terms, float32 differs by some 1e-6 of the
  /// greatest value.
  @Test("gives the vectors that Transformers gives", arguments: TinyEmbedder.names, backends)
  func truth(name: String, backend: String) throws {
    let embedder = try TinyEmbedder(name)
    for kind in ["directory", "GGUF"] {
      let harness = try EmbeddingHarness(embedder.source(kind), backend: backend)
      for (found, expected) in zip(try harness.vectors(embedder.prompts), embedder.embeddings) {
        let distance = relativeDistance(found, expected)
        #expect(distance < 1e-5, "\(kind): off by \(distance)")
      }
    }
  }

  @Test("gives the states themselves, pooled, where its files ask for no length", arguments: ["bert", "qwen3-embedding"])
  func pooled(name: String) throws {
    let checkpoint = try EditedCheckpoint(name), embedder = try TinyEmbedder(name)
    var modules =
      try JSONSerialization.jsonObject(with: Data(contentsOf: URL(fileURLWithPath: checkpoint.path + "/modules.json"))) as! [Any]
    modules.removeLast()
    try checkpoint.write(JSONSerialization.data(withJSONObject: modules), to: "modules.json")
    let source = try source(checkpoint.path)
    #expect(try Pooling(source)?.normalizes == false)
    for (found, expected) in zip(try EmbeddingHarness(source, backend: "TRTLLM").vectors(embedder.prompts), embedder.pooled) {
      #expect(relativeDistance(found, expected) < 1e-5)
    }
  }

  @Test("gives a text the same bits whoever shares its step, and whatever the threads", arguments: TinyEmbedder.names, backends)
  func sameBits(name: String, backend: String) throws {
    let embedder = try TinyEmbedder(name)
    let source = try embedder.source("directory")
    let harness = try EmbeddingHarness(source, backend: backend), other = try EmbeddingHarness(source, backend: backend, threads: 1)
    let text = embedder.prompts[0]
    let alone = try harness.vectors([text])[0].map(\.bitPattern)
    let crowd = [embedder.prompts[1], Array(text.prefix(1)), text, Array(text.reversed()), text]
    for vectors in [try harness.vectors(crowd), try other.vectors(crowd)] {
      #expect(vectors[2].map(\.bitPattern) == alone && vectors[4].map(\.bitPattern) == alone)
      #expect(vectors[3].map(\.bitPattern) != alone)
    }
  }

  @Test("reads what its files say of pooling, and refuses what it does not compute")
  func poolings() throws {
    #expect(try Pooling(TinyEmbedder("bert").source("GGUF")) == Pooling(.mean))
    #expect(try Pooling(TinyEmbedder("qwen3-embedding").source("GGUF")) == Pooling(.last))
    #expect(try Pooling(TinyEmbedder("gemma3-embedding").source("directory")) == Pooling(.mean))
    #expect(try Pooling(source(TinyCheckpoint.file("llama"))) == nil)

    func message(_ name: String = "bert", _ change: (EditedCheckpoint) throws -> Void) throws -> String {
      let checkpoint = try EditedCheckpoint(name)
      try change(checkpoint)
      do {
        let pooling = try Pooling(source(checkpoint.path))
        return pooling.map { "\($0.method)" } ?? "none"
      } catch { return "\(error)" }
    }
    let settings = "1_Pooling/config.json"
    #expect(
      try message {
        try $0.edit(settings) {
          $0["pooling_mode_mean_tokens"] = false; $0["pooling_mode_cls_token"] = true
        }
      } == "first")
    #expect(try message { try $0.edit(settings) { $0 = ["pooling_mode": "lasttoken"] } } == "last")
    #expect(try message { try $0.edit(settings) { $0["pooling_mode_max_tokens"] = true } }.contains("max_tokens and mean_tokens"))
    #expect(try message { try $0.edit(settings) { $0 = ["pooling_mode": "max"] } }.contains("is max"))
    #expect(try message { try $0.edit(settings) { $0["include_prompt"] = false } }.contains("include_prompt"))
    #expect(try message { try $0.remove(settings) }.contains("1_Pooling/config.json"))
    #expect(try message { try $0.remove("modules.json") } == "none")
    func modules(_ text: String) throws -> String { try message { try $0.write(Data(text.utf8), to: "modules.json") } }
    #expect(
      try modules(#"[{"type":"a.Transformer","path":""},{"type":"a.Pooling","path":"../bert/1_Pooling"}]"#).contains(
        "not the name of a folder"))
    #expect(try modules(#"[{"type":"a.Transformer","path":""},{"type":"a.Pooling","path":".."}]"#).contains("not the name of a folder"))
    #expect(try modules(#"[{"type":"a.CLIPModel","path":""}]"#).contains("a.CLIPModel"))
    #expect(try modules(#"{"type":"a.Transformer"}"#).contains("not a list"))
    #expect(
      try modules(#"[{"type":"a.Transformer"},{"type":"a.Pooling","path":"1_Pooling"},{"type":"a.Dense","path":"2_Dense"}]"#)
        .contains("2_Dense/config.json"))
    #expect(
      try message("gemma3-embedding") {
        try $0.edit("2_Dense/config.json") { $0["activation_function"] = "torch.nn.modules.activation.GELU" }
      }
      .contains("computes Identity and Tanh"))
  }

  @Test("applies the tanh and the bias of a dense layer")
  func denseLayer() throws {
    let checkpoint = try EditedCheckpoint("gemma3-embedding"), embedder = try TinyEmbedder("gemma3-embedding")
    let modules =
      #"[{"type":"a.Transformer","path":""},{"type":"a.Pooling","path":"1_Pooling"},{"type":"a.Dense","path":"2_Dense"}]"#
    try checkpoint.write(Data(modules.utf8), to: "modules.json")
    try checkpoint.edit("2_Dense/config.json") { $0["activation_function"] = "torch.nn.modules.activation.Tanh" }
    let weight = try SafetensorsFile(path: checkpoint.path + "/2_Dense/model.safetensors").floats("linear.weight")
    let found = try EmbeddingHarness(source(checkpoint.path), backend: "TRTLLM").vectors(embedder.prompts)
    for (vector, pooled) in zip(found, embedder.pooled) {
      let expected = (0..<72).map { row in
        Float(tanh(zip(weight[row * 32..<row * 32 + 32], pooled).reduce(0.0) { $0 + Double($1.0) * Double($1.1) }))
      }
      #expect(relativeDistance(vector, expected) < 1e-5)
    }
  }

  @Test("that looks to both sides writes no text, and one that writes is pooled where somebody says how")
  func otherUse() throws {
    for name in ["bert", "gemma3-embedding"] {
      for kind in ["directory", "GGUF"] {
        #expect { _ = try ModelHarness(TinyEmbedder(name).source(kind), backend: "TRTLLM") } throws: {
          ($0 as? ModelError)?.code == .writesNoText
        }
      }
    }
    // A model of sentence embeddings that looks back only is a language model, too.
    #expect(try ModelHarness(TinyEmbedder("qwen3-embedding").source("GGUF"), backend: "TRTLLM").logits([1, 2, 3]).count == 3)
    // The mean of a language model's states, of an untied one: its output matrix stays in the file.
    let llama = try EmbeddingHarness(source(TinyCheckpoint.file("llama")), pooling: Pooling(.mean), backend: "TRTLLM")
    let vector = try llama.vectors([[1, 2, 3]])[0]
    #expect(vector.count == 64 && abs(vector.reduce(0) { $0 + $1 * $1 } - 1) < 1e-5)
  }

  @Test("has its tensors with the prefix of a model with a head, or without, and heads that nobody reads")
  func names() throws {
    let embedder = try TinyEmbedder("bert"), checkpoint = try EditedCheckpoint("bert")
    let expected = try EmbeddingHarness(embedder.source("directory"), backend: "TRTLLM").vectors(embedder.prompts)
    try checkpoint.editHeader("model.safetensors") { header in
      header = Dictionary(
        uniqueKeysWithValues: header.map { name, value in
          // As TensorFlow's files call a norm's.
          let old = name.replacingOccurrences(of: "LayerNorm.weight", with: "LayerNorm.gamma")
            .replacingOccurrences(of: "LayerNorm.bias", with: "LayerNorm.beta")
          return (name == "__metadata__" ? name : "bert." + old, value)
        })
    }
    #expect(try EmbeddingHarness(source(checkpoint.path), backend: "TRTLLM").vectors(embedder.prompts) == expected)
    try checkpoint.editHeader("model.safetensors") { header in
      header["bert.encoder.layer.0.output.dense.weights"] = header.removeValue(forKey: "bert.encoder.layer.0.output.dense.weight")
    }
    #expect { _ = try EmbeddingHarness(source(checkpoint.path), backend: "TRTLLM") } throws: {
      "\($0)".contains("\"bert.encoder.layer.0.output.dense.weight\"")
    }
  }

  @Test("of BERT's type takes for settings that are missing what Transformers' class takes, and refuses what would change the formula")
  func bertSettings() throws {
    let expected = try #require(try JSONValue(path: TinyCheckpoint.file("defaults.json"))["bert"])
    var checkpoint = try EditedCheckpoint("bert")
    try checkpoint.edit { $0 = ["model_type": "bert"] }
    let source = try source(checkpoint.path)
    for (name, key) in [
      ("hidden_size", "embedding_length"), ("intermediate_size", "feed_forward_length"), ("num_hidden_layers", "block_count"),
      ("num_attention_heads", "attention.head_count"), ("max_position_embeddings", "context_length"),
      ("type_vocab_size", "token_type_count"),
    ] {
      #expect(try source.integer(ifPresent: "bert.\(key)") == #require(expected[name]).integer, "\(name)")
    }
    #expect(try source.float(ifPresent: "bert.attention.layer_norm_epsilon") == Float(#require(expected["layer_norm_eps"]?.double)))
    for (name, value) in [
      ("hidden_act", "relu"), ("position_embedding_type", "relative_key"), ("is_decoder", true), ("max_position_embeddings", 49),
      ("type_vocab_size", 3),
    ] as [(String, any Sendable)] {
      checkpoint = try EditedCheckpoint("bert")
      try checkpoint.edit { $0[name] = value }
      #expect(throws: (any Error).self, "\(name)") { try EmbeddingHarness(self.source(checkpoint.path), backend: "TRTLLM") }
    }
  }
}
